/* config_yaml: the configuration file, of which config.c knows the keys.
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_CONFIG_YAML_H
#define PROMPTFS_FS_CONFIG_YAML_H

#include "fs/config.h"

/* Reads the file into *out, over what is there.  STATUS_CORRUPT with file and line. */
enum status config_yaml_read(const char *path, struct config *out);

/* What config.c offers to it: one value by the file's name of the key ("limits.queue"); relative paths start at `base`.
 * STATUS_INVALID; *known tells whether there is such a key. */
enum status config_set(struct config *c, const char *key, const char *value, const char *base, bool *known);

/* `value` as an absolute path; "~/" is the home directory. */
enum status config_path(const char *value, const char *base, char out[PATH_MAX]);

#endif

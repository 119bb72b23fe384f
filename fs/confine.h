/* confine: the sandbox of a whole daemon (mount --sandbox): what it and its workers may still do is what this mount
 * needs.
 *
 * Files: the store and the cache; to read the models and LoRAs, the folder of the configuration file, the system's
 * libraries, /proc and /sys; to run its own program.  Nothing else: no other file, program, mount or TCP connection.
 * What a reload names beyond that cannot be used until the next mount.
 */
#ifndef PROMPTFS_FS_CONFINE_H
#define PROMPTFS_FS_CONFINE_H

#include "fs/config.h"

/* Of the calling thread, the only one yet, after mounting.  A kernel that lacks the means gets a warning in the log. */
enum status confine_daemon(const struct config *config);

#endif

/* control: the commands of status/control, one a line.
 *
 *     cancel NAME    the picture being made ("a/b.png" or "a/b.txt"); its readers get ECANCELED
 *     retry NAME     forget that it failed
 *     warm MODEL     load the model now
 *     unload MODEL   let its memory go
 *     reload         read the configuration again
 *
 * A NAME goes to the end of its line; "\n", "\\" and "\x1b" in it stand for those characters, as in status/queue.
 */
#ifndef PROMPTFS_FS_CONTROL_H
#define PROMPTFS_FS_CONTROL_H

#include "fs/daemon.h"

/* Runs the lines; 0, or the errno of the first that failed (EINVAL: no such command or name), which ends it. */
int control_run(struct daemon *d, const char *text, size_t len);

/* Replaces the escapes in place; false when one is malformed. */
bool control_unescape(char *name);

#endif

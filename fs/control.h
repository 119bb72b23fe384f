/* control: the commands of status/control, one a line.  See control_lines.h for them. */
#ifndef PROMPTFS_FS_CONTROL_H
#define PROMPTFS_FS_CONTROL_H

#include "fs/daemon.h"

/* Runs the lines; 0, or the errno of the first that failed (EINVAL: no such command or name), which ends it. */
int control_run(struct daemon *d, const char *text, size_t len);
#endif

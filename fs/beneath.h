/* beneath: opening files below a folder without being led out of it by links or mounts, the daemon's own mount above
 * all (a look-up that comes back to the daemon could wait for itself). */
#ifndef PROMPTFS_FS_BENEATH_H
#define PROMPTFS_FS_BENEATH_H

#include <stdbool.h>

/* Opens `path` below dir_fd; no component may be a symbolic link.  -1 and errno. */
int beneath_open(int dir_fd, const char *path, int flags);

/* Does `target`, the text of a link in dir_fd, lead to a folder of the same file system? */
bool beneath_is_folder(int dir_fd, const char *target);

#endif

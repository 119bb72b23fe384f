/* mountpoint: the folder that a daemon is to be mounted on, or is mounted on. */
#ifndef PROMPTFS_FS_MOUNTPOINT_H
#define PROMPTFS_FS_MOUNTPOINT_H

#include <limits.h>
#include <stdbool.h>

#include "kernels/status.h"

/* Checks that something can be mounted there: an empty folder (any folder with `nonempty`) that is no promptfs yet.
 * What a killed daemon left mounted there is taken away first.  STATUS_IO with the reason. */
enum status mountpoint_prepare(const char *path, bool nonempty, char absolute[PATH_MAX]);

/* Takes away what is mounted there. lazy: even if it is in use; it goes when it is no longer.  The process that served
 * it is waited for.  STATUS_IO when it is none of ours, or busy. */
enum status mountpoint_release(const char *path, bool lazy);

/* Takes away what killed daemons left mounted there, if anything. */
enum status mountpoint_clear(const char *path);

/* The type of what is mounted at exactly this absolute path ("fuse.promptfs"); false: nothing is. */
bool mountpoint_type(const char *absolute, char *type, int size);

#endif

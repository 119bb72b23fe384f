/* statusfs: the tree status/: what goes on, as files.  Reading them never generates and never waits.
 *
 * A file's text is made when it is opened, and again for every stat, so that its length is right; it is read past the
 * page cache.  control is written to, a command a line (control.h).
 *
 * Threads: any; no locks of its own.
 */
#ifndef PROMPTFS_FS_STATUSFS_H
#define PROMPTFS_FS_STATUSFS_H

#include "fs/daemon.h"

extern const struct fuse_lowlevel_ops statusfs_ops;

/* Enters the files that are always there. */
enum status statusfs_open(struct daemon *d);

/* The inode of the tree's root. */
fuse_ino_t statusfs_root(const struct daemon *d);

#endif

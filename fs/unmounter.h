/* unmounter: a process that outlives the daemon and takes its mount away.
 *
 * A daemon in a sandbox can no longer unmount.  So this is started before; it waits for the daemon's word or its death
 * (kill -9 too) and detaches the mount if it is dead by then.  It holds the lock of the store meanwhile, so that no
 * other daemon of this store can have mounted in between.
 */
#ifndef PROMPTFS_FS_UNMOUNTER_H
#define PROMPTFS_FS_UNMOUNTER_H

#include "kernels/status.h"

struct unmounter {
	int socket; /* -1: none */
};

/* mountpoint: absolute.  lock_fd: kept open by the process.  The caller has one thread yet. */
enum status unmounter_start(const char *mountpoint, int lock_fd, struct unmounter *out);

/* The daemon let the mount die: returns when it is gone. */
void unmounter_finish(struct unmounter *u);

#endif

/* serve: the daemon's threads over the FUSE device.
 *
 * One thread at a time, the leader, asks the device for requests.  What may wait for a disk is answered after the lead
 * was handed to another thread; what is quick (looking up, opening a picture that is at hand) the leader answers
 * itself. After a request the leader goes on asking for SPIN_US before it sleeps: a caller's next request then finds it
 * awake. On an idle virtual machine, where waking a thread takes tens of microseconds, this halves the cost of a cached
 * picture.
 */
#ifndef PROMPTFS_FS_SERVE_H
#define PROMPTFS_FS_SERVE_H

#include <fuse_lowlevel.h>

#include "kernels/status.h"

/* Returns when the session is ended by a signal or by unmounting.  The signal handlers are set, signals are not
 * blocked. */
enum status serve_session(struct fuse_session *session);

#endif

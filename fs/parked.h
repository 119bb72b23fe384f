/* parked: opens that wait for their picture, and the signals that may end the wait.
 *
 *     struct parked_open *o = parked_enter(p, req);          // before jobs_submit; the result of the job may come at
 * once parked_submitted(p, o, jobs_submit(...));
 *     ...
 *     parked_leave(p, o), fuse_reply_open(req, ...);         // in the job's callback
 *
 * Whoever takes an open out of the list (the job's callback, or an interrupt after jobs_leave succeeded) answers it,
 * once. The kernel sends one INTERRUPT a request, so that a request once interrupted by a harmless signal is looked at
 * every 50 ms, by one thread, which does nothing else.
 *
 * Threads: any.  Lock order: parked.mu before libfuse's session lock; neither jobs nor replies are called under it.
 */
#ifndef PROMPTFS_FS_PARKED_H
#define PROMPTFS_FS_PARKED_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

#include "fs/jobs.h"

struct parked;
struct parked_open;

/* interrupted: called (by the thread of parked) with the context of an open that was interrupted for good, after it was
 * taken out; it answers the request. */
enum status parked_open_list(struct jobs *jobs, void (*interrupted)(void *context), struct parked **out);
void parked_stop(struct parked *p);       /* before jobs_close: interrupts end no wait any more; NULL is allowed */
void parked_close_list(struct parked *p); /* after jobs_close: nothing waits any more; NULL is allowed */

/* NULL: no memory. */
struct parked_open *parked_enter(struct parked *p, fuse_req_t req, void *context);
void parked_submitted(struct parked *p, struct parked_open *o, struct job_waiter *waiter);
void parked_leave(struct parked *p, struct parked_open *o);
size_t parked_count(struct parked *p);

#endif

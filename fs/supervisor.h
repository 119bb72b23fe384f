/* supervisor: a worker process, from its start to the word on how it ended.
 *
 * A worker is this program run as "promptfs worker --fd 3", with one end of a socket pair as descriptor 3 and no other
 * descriptor of the daemon's but stderr.  It dies with the thread that started it (PR_SET_PDEATHSIG looks at threads).
 *
 *     TRY(worker_start("/proc/self/exe", &w));
 *     TRY(wire_send(worker_wire(w), hello, -1));
 *     ...
 *     worker_end(w, 2000, why, sizeof why);
 *
 * Threads: a worker belongs to the thread that started it; worker_memory may be asked by any.
 */
#ifndef PROMPTFS_FS_SUPERVISOR_H
#define PROMPTFS_FS_SUPERVISOR_H

#include "fs/wire.h"

struct worker;

enum status worker_start(const char *executable, struct worker **out); /* STATUS_IO */
struct wire *worker_wire(struct worker *w);
pid_t worker_pid(const struct worker *w);

/* Ends the connection, which tells a worker to quit, waits up to patience_ms for the process to exit, kills it
 * otherwise, and frees w.  why (or NULL): how it ended: "was killed by signal 11 (Segmentation fault)", "had to be
 * killed" (here). */
void worker_end(struct worker *w, int patience_ms, char *why, size_t why_size);

/* Processor time used so far, in clock ticks; 0 when it cannot be read. */
uint64_t worker_ticks(const struct worker *w);

/* Resident bytes of a process; 0 when it is gone. */
uint64_t worker_memory(pid_t pid);

#endif

/* interrupts: does a signal that interrupted a waiting open() really end the wait?
 *
 * The kernel sends FUSE_INTERRUPT for any signal, a harmless one too (a shell's SIGCHLD, an editor's SIGWINCH, Ctrl-Z).
 * Answering EINTR to those makes open() fail in programs that asked for SA_RESTART.  So the caller's pending signals
 * are looked at: only those that end a program, or that a program catches to stop what it does, count.
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_INTERRUPTS_H
#define PROMPTFS_FS_INTERRUPTS_H

#include <stdbool.h>
#include <sys/types.h>

/* True when the thread is dying or has a signal pending that is meant to stop it.  A thread that is gone, or that we
 * cannot see (0: another pid namespace), counts as dying. */
bool interrupt_is_final(pid_t thread);

/* The same from the text of /proc/THREAD/status. */
bool interrupt_status_final(const char *text);

#endif

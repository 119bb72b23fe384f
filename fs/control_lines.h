/* control_lines: the commands of status/control taken apart, one a line.
 *
 *     cancel NAME    the picture being made ("a/b.png" or "a/b.txt"); its readers get ECANCELED
 *     retry NAME     forget that it failed
 *     warm MODEL     load the model now
 *     unload MODEL   let its memory go
 *     reload         read the configuration again
 *
 * A NAME goes to the end of its line and is escaped as in status/queue (escape.h).
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_CONTROL_LINES_H
#define PROMPTFS_FS_CONTROL_LINES_H

#include <stddef.h>

enum control_verb { CONTROL_CANCEL, CONTROL_RETRY, CONTROL_WARM, CONTROL_UNLOAD, CONTROL_RELOAD, CONTROL_VERBS };

/* argument: of cancel and retry the picture's name ("a/b.png"), of reload ""; never empty otherwise.  Returns an errno.
 */
typedef int control_runner(void *context, enum control_verb verb, const char *argument);

/* Runs the lines; 0, or the errno of the first that failed (EINVAL: no such command, a bad argument), which ends it and
 * begins at *failed. */
int control_lines(const char *text, size_t len, control_runner *run, void *context, size_t *failed);

#endif

/* progress: the bar of one generation on a terminal: "step 3/8 ▓▓▓▓░░░░ 37 % eta 2 s".  Elsewhere it says nothing.
 *
 *     struct progress bar = progress_on(stderr);
 *     progress_show(&bar, &p);      // again and again
 *     progress_clear(&bar);         // before anything else is printed
 */
#ifndef PROMPTFS_FS_PROGRESS_H
#define PROMPTFS_FS_PROGRESS_H

#include <stdio.h>

#include "engine/engine.h"

struct progress {
	FILE *file; /* NULL: quiet */
};

struct progress progress_on(FILE *file); /* quiet unless it is a terminal */
void progress_show(struct progress *bar, const struct engine_progress *p);
void progress_say(struct progress *bar, const char *text); /* in the bar's place, until it is shown again */
void progress_clear(struct progress *bar);

/* The text alone, for tests: at most PROGRESS_LEN bytes with the NUL. */
enum { PROGRESS_LEN = 160 };
void progress_print(const struct engine_progress *p, char out[PROGRESS_LEN]);

#endif

/* outcomes: how the last attempt to make each picture ended, for status/info and status/errors.
 *
 * Known by the picture's name and revision, so that an edit makes an old failure disappear.  The oldest are forgotten
 * when there are too many.
 *
 * Threads: any.  Lock order: outcomes.mu is a leaf.
 */
#ifndef PROMPTFS_FS_OUTCOMES_H
#define PROMPTFS_FS_OUTCOMES_H

#include <stdbool.h>

#include "fs/jobs.h"
#include "fs/resolve.h"

struct outcome {
	int error;  /* 0: made */
	char *text; /* why not; NULL: made */
	char key[RECIPE_KEY_LEN + 1];
	bool from_cache;
	double seconds[STAGE_COUNT];
	struct engine_loras loras;
	int64_t when; /* seconds since the epoch */
};

struct outcomes;

struct outcomes *outcomes_new(void);    /* NULL: no memory */
void outcomes_free(struct outcomes *o); /* NULL is allowed */

/* name: "a/b.png".  Without memory nothing is noted. */
void outcomes_note(
	struct outcomes *o, const char *name, struct resolve_revision revision, const struct job_result *result);
/* False: never tried.  outcome_fini what it found. */
bool outcomes_find(struct outcomes *o, const char *name, struct resolve_revision revision, struct outcome *out);
void outcomes_forget(struct outcomes *o, const char *name); /* all revisions of it */
void outcome_fini(struct outcome *o);

#endif

/* poison: recipes that killed their worker twice, until somebody says to try again.
 *
 * A recipe is known by a text of its own (its id) and by every name that asked for it.  What was noted first is
 * forgotten first when there are too many.
 *
 * Threads: none of its own; jobs guards it with jobs.mu.
 */
#ifndef PROMPTFS_FS_POISON_H
#define PROMPTFS_FS_POISON_H

#include <stddef.h>

struct poison_note;

struct poison {
	struct poison_note *first; /* the newest */
	int count;
};

/* Notes that `name` asked for the recipe `id`, which died of `reason`.  Without memory nothing is noted. */
void poison_add(struct poison *p, const char *id, const char *name, const char *reason);
const char *poison_find(const struct poison *p, const char *id); /* the reason, borrowed; NULL: not poisoned */
void poison_forgive(struct poison *p, const char *name);         /* every recipe that `name` asked for; NULL: all */

#endif

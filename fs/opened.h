/* opened: what open files and folders hold in memory, so that it is freed at the end too: of what is open when the
 * mount goes, the kernel sends no release.
 *
 *     struct text {
 *             struct opened opened;
 *             struct bytes bytes;
 *     };
 *     opened_add(&d->opened, &text->opened, text_free);  before the reply, which the release may overtake
 *     opened_remove(&text->opened);                      then free it
 *
 * Threads: any.  The list's lock is a leaf.
 */
#ifndef PROMPTFS_FS_OPENED_H
#define PROMPTFS_FS_OPENED_H

#include <pthread.h>

struct opened_list;

struct opened {
	struct opened_list *list; /* NULL: in none */
	struct opened *next, **link;
	void (*free)(struct opened *);
};

struct opened_list {
	pthread_mutex_t mu;
	struct opened *first; /* guarded by mu, as the links */
};

void opened_init(struct opened_list *list);
void opened_fini(struct opened_list *list); /* frees what is left, when no other thread is */

void opened_add(struct opened_list *list, struct opened *o, void (*free_it)(struct opened *));
void opened_remove(struct opened *o); /* nothing to do for what is in no list */

#endif

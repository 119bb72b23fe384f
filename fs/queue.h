/* queue: who is next.  Callers take turns: users first (uid), then the processes of a user, each with its own line.
 *
 *     struct job { struct queue_entry entry; ... };
 *     TRY(queue_add(&q, &job->entry));
 *     struct queue_entry *next = queue_take(&q);
 *
 * A user or process that comes anew waits for all that wait already to have had one turn; one whose line ran empty is
 * forgotten.  Zero-initialise a queue; it owns its lines, not its entries, and is empty again when its entries are
 * gone.
 *
 * Threads: none of its own; jobs guards it with jobs.mu.
 */
#ifndef PROMPTFS_FS_QUEUE_H
#define PROMPTFS_FS_QUEUE_H

#include <stdbool.h>
#include <sys/types.h>

#include "kernels/status.h"

struct queue_entry {
	struct queue_entry *next; /* behind it in its process's line */
	uid_t uid;
	pid_t pid;
};

struct queue_line;

/* A ring of lines; the head has the next turn. */
struct queue {
	struct queue_line *head, *tail;
	int count; /* entries */
};

enum status queue_add(struct queue *q, struct queue_entry *e); /* uid and pid are set; STATUS_NO_MEMORY */
struct queue_entry *queue_take(struct queue *q);               /* NULL when empty */
bool queue_remove(struct queue *q, struct queue_entry *e);     /* false when it was not in the queue */

#endif

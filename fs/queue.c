/* queue: a ring of users, each with a ring of processes, each with a line of entries.
 *
 *     users:  [1000] -> [1001]                the head's turn; after it, it goes to the end
 *                |         |
 *     pids:   [70]->[71]  [90]
 *               |     |     |
 *     entries  a b    c     d                 taken: a d c b
 *
 * Lines are looked up by walking: there are as many as callers that wait, hundreds at most.
 */
#include "fs/queue.h"

#include <stdint.h>
#include <stdlib.h>

struct queue_line {
	struct queue_line *next;
	int64_t id;                       /* a uid or a pid */
	struct queue processes;           /* a user's lines */
	struct queue_entry *first, *last; /* a process's entries */
};

static struct queue_line *find_line(const struct queue *q, int64_t id)
{
	struct queue_line *line = q->head;

	while (line && line->id != id)
		line = line->next;
	return line;
}

static void append_line(struct queue *q, struct queue_line *line)
{
	line->next = NULL;
	if (q->tail)
		q->tail->next = line;
	else
		q->head = line;
	q->tail = line;
}

static void unlink_line(struct queue *q, struct queue_line *line)
{
	struct queue_line **link = &q->head, *before = NULL;

	while (*link != line) {
		before = *link;
		link = &before->next;
	}
	*link = line->next;
	if (q->tail == line)
		q->tail = before;
}

static struct queue_line *need_line(struct queue *q, int64_t id)
{
	struct queue_line *line = find_line(q, id);

	if (line)
		return line;
	line = calloc(1, sizeof *line);
	if (!line)
		return NULL;
	line->id = id;
	append_line(q, line);
	return line;
}

/* Ends a turn: the line goes to the end of its ring, or away when nothing waits in it. */
static void end_turn(struct queue *q, struct queue_line *line, bool empty)
{
	unlink_line(q, line);
	if (empty)
		free(line);
	else
		append_line(q, line);
}

enum status queue_add(struct queue *q, struct queue_entry *e)
{
	struct queue_line *user = need_line(q, e->uid), *process;

	if (!user)
		return status_fail(STATUS_NO_MEMORY, "no memory for the queue");
	process = need_line(&user->processes, e->pid);
	if (!process) {
		if (!user->processes.head)
			end_turn(q, user, true);
		return status_fail(STATUS_NO_MEMORY, "no memory for the queue");
	}
	e->next = NULL;
	if (process->last)
		process->last->next = e;
	else
		process->first = e;
	process->last = e;
	q->count++;
	return STATUS_OK;
}

struct queue_entry *queue_take(struct queue *q)
{
	struct queue_line *user = q->head, *process;
	struct queue_entry *e;

	if (!user)
		return NULL;
	process = user->processes.head;
	e = process->first;
	process->first = e->next;
	if (!process->first)
		process->last = NULL;
	end_turn(&user->processes, process, !process->first);
	end_turn(q, user, !user->processes.head);
	q->count--;
	return e;
}

static bool unlink_entry(struct queue_line *process, struct queue_entry *e)
{
	struct queue_entry **link = &process->first, *before = NULL;

	while (*link && *link != e) {
		before = *link;
		link = &before->next;
	}
	if (!*link)
		return false;
	*link = e->next;
	if (process->last == e)
		process->last = before;
	return true;
}

/* Lines that stay keep their turn. */
bool queue_remove(struct queue *q, struct queue_entry *e)
{
	struct queue_line *user = find_line(q, e->uid);
	struct queue_line *process = user ? find_line(&user->processes, e->pid) : NULL;

	if (!process || !unlink_entry(process, e))
		return false;
	if (!process->first)
		end_turn(&user->processes, process, true);
	if (!user->processes.head)
		end_turn(q, user, true);
	q->count--;
	return true;
}

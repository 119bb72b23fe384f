/* parked: see parked.h. */
#include "fs/parked.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "fs/interrupts.h"

enum { POLL_MS = 50 };

struct parked_open {
	struct parked_open *next, *prev; /* guarded by parked.mu, as the rest */
	fuse_req_t req;
	pid_t thread;
	void *context;
	struct job_waiter *waiter;
	bool listed, submitted, interrupted;
	int refs; /* of the list (or whoever took it out), of the submitter, of the look at interrupts */
};

struct parked {
	struct jobs *jobs;
	void (*interrupted)(void *context);
	pthread_t thread;
	pthread_mutex_t mu;
	pthread_cond_t wake;
	struct parked_open *first; /* guarded by mu, as the rest */
	size_t count;
	bool woken, closing;
};

static void unref_locked(struct parked_open *o)
{
	if (--o->refs == 0)
		free(o);
}

static void remove_locked(struct parked *p, struct parked_open *o)
{
	if (!o->listed)
		return;
	*(o->prev ? &o->prev->next : &p->first) = o->next;
	if (o->next)
		o->next->prev = o->prev;
	o->listed = false;
	p->count--;
	unref_locked(o);
}

static void wake_locked(struct parked *p)
{
	p->woken = true;
	pthread_cond_signal(&p->wake);
}

/* libfuse calls this with the request's lock held.  The request is looked for in our own list: what `data` could point
 * to may be gone already. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct parked *p = data;

	pthread_mutex_lock(&p->mu);
	for (struct parked_open *o = p->first; o; o = o->next) {
		if (o->req == req) {
			o->interrupted = true;
			wake_locked(p);
		}
	}
	pthread_mutex_unlock(&p->mu);
}

struct parked_open *parked_enter(struct parked *p, fuse_req_t req, void *context)
{
	struct parked_open *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->req = req;
	o->thread = fuse_req_ctx(req)->pid;
	o->context = context;
	o->refs = 2;
	/* first the callback, without a lock of ours; then the question whether it came too late */
	fuse_req_interrupt_func(req, on_interrupt, p);
	pthread_mutex_lock(&p->mu);
	o->interrupted = fuse_req_interrupted(req);
	o->listed = true;
	o->next = p->first;
	if (o->next)
		o->next->prev = o;
	p->first = o;
	p->count++;
	pthread_mutex_unlock(&p->mu);
	return o;
}

void parked_submitted(struct parked *p, struct parked_open *o, struct job_waiter *waiter)
{
	pthread_mutex_lock(&p->mu);
	o->waiter = waiter;
	o->submitted = waiter != NULL;
	if (o->listed && o->interrupted)
		wake_locked(p);
	unref_locked(o);
	pthread_mutex_unlock(&p->mu);
}

void parked_leave(struct parked *p, struct parked_open *o)
{
	pthread_mutex_lock(&p->mu);
	remove_locked(p, o);
	pthread_mutex_unlock(&p->mu);
}

size_t parked_count(struct parked *p)
{
	size_t count;

	pthread_mutex_lock(&p->mu);
	count = p->count;
	pthread_mutex_unlock(&p->mu);
	return count;
}

/* Ends the wait of one open whose caller is dying; false when its picture came first.  Called and returns with the
 * lock. */
static bool end_locked(struct parked *p, struct parked_open *o)
{
	struct job_waiter *waiter = o->waiter;
	void *context = o->context;
	pid_t thread = o->thread;
	bool ended;

	o->refs++;
	pthread_mutex_unlock(&p->mu);
	ended = interrupt_is_final(thread) && jobs_leave(p->jobs, waiter);
	if (ended) {
		parked_leave(p, o);
		p->interrupted(context);
	}
	pthread_mutex_lock(&p->mu);
	unref_locked(o);
	return ended;
}

/* One look at every interrupted open; true when some of them still wait.  The list may change whenever the lock is let
 * go, so after each look it is walked from the start, past those looked at in this round. */
static bool look_locked(struct parked *p)
{
	size_t n_looked = 0, limit = p->count;
	bool some = false;

	while (n_looked < limit) {
		struct parked_open *o = p->first;
		size_t index = 0;

		for (; o; o = o->next) {
			if (!o->interrupted || !o->submitted)
				continue;
			if (index++ == n_looked)
				break;
		}
		if (!o)
			break;
		if (!end_locked(p, o)) {
			n_looked++;
			some = true;
		} else if (limit > 0) {
			limit--;
		}
	}
	return some;
}

static void wait_locked(struct parked *p, bool poll)
{
	struct timespec until;

	if (!poll) {
		pthread_cond_wait(&p->wake, &p->mu);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += POLL_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&p->wake, &p->mu, &until);
}

static void *watch(void *data)
{
	struct parked *p = data;
	bool poll = false;

	pthread_mutex_lock(&p->mu);
	while (!p->closing) {
		if (!p->woken)
			wait_locked(p, poll);
		p->woken = false;
		poll = look_locked(p);
	}
	pthread_mutex_unlock(&p->mu);
	return NULL;
}

enum status parked_open_list(struct jobs *jobs, void (*interrupted)(void *context), struct parked **out)
{
	struct parked *p = calloc(1, sizeof(*p));
	pthread_condattr_t attributes;

	if (!p)
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	p->jobs = jobs;
	p->interrupted = interrupted;
	pthread_mutex_init(&p->mu, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	if (pthread_create(&p->thread, NULL, watch, p) != 0) {
		free(p);
		return status_fail(STATUS_NO_MEMORY, "cannot start a thread");
	}
	*out = p;
	return STATUS_OK;
}

void parked_stop(struct parked *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->mu);
	p->closing = true;
	wake_locked(p);
	pthread_mutex_unlock(&p->mu);
	pthread_join(p->thread, NULL);
}

void parked_close_list(struct parked *p)
{
	if (!p)
		return;
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->mu);
	free(p);
}

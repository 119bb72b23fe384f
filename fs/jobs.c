/* jobs: who waits for which picture.  The devices and keys are jobs_pools.c, the figures jobs_counts.c, the workers'
 * side is instance.c.
 *
 * jobs.mu guards everything marked so in jobs_private.h.  It is never held over I/O, a callback or a message to a
 * worker; a write to an eventfd is allowed.  Whoever ends a job takes its waiters out under jobs.mu and answers them
 * after it.
 */
#include "fs/jobs_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/contents.h"
#include "fs/errnos.h"

enum { PATIENCE_S = 300, CLOSE_PATIENCE_S = 2 };

double jobs_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- waiters */

static void free_waiter(struct waiter *w)
{
	if (!w)
		return;
	free(w->name);
	free(w);
}

static struct waiter *new_waiter(const struct job_request *r)
{
	struct waiter *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->name = strdup(r->name);
	w->uid = r->uid;
	w->done = r->done;
	w->context = r->context;
	if (w->name)
		return w;
	free_waiter(w);
	return NULL;
}

/* Not under jobs.mu. */
static void answer_waiters(struct waiter *w, const struct job_result *result)
{
	struct waiter *next;

	for (; w; w = next) {
		next = w->next;
		w->done(w->context, result);
		free_waiter(w);
	}
}

static void answer_cancelled(struct waiter *w)
{
	answer_waiters(w, &(struct job_result){ .status = STATUS_CANCELLED, .error = ECANCELED, .text = "cancelled" });
}

/* Takes the waiters of this name (NULL: all) out of the job.  Under jobs.mu. */
static struct waiter *take_waiters(struct job *job, const char *name)
{
	struct waiter **link = &job->waiters, *taken = NULL, *w;

	while ((w = *link)) {
		if (name && strcmp(w->name, name) != 0) {
			link = &w->next;
			continue;
		}
		*link = w->next;
		w->next = taken;
		taken = w;
	}
	return taken;
}

/* ---- jobs */

static void free_job(struct job *job)
{
	if (!job)
		return;
	recipe_free(&job->recipe);
	free(job->name);
	free(job);
}

static enum status fill_recipe(struct job *job, const struct recipe *recipe)
{
	json_t *json;
	enum status status;

	TRY(recipe_to_json(recipe, &json));
	status = recipe_from_json(json, &job->recipe);
	json_decref(json);
	contents_copy(recipe, &job->recipe);
	return status;
}

static enum status new_job(
	struct pool *p, const struct model *model, const char *name, uid_t uid, pid_t pid, struct job **out)
{
	struct job *job = calloc(1, sizeof *job);

	if (job)
		job->name = strdup(name);
	if (!job || !job->name) {
		free(job);
		return status_fail(STATUS_NO_MEMORY, "no memory for a job");
	}
	job->entry.uid = uid;
	job->entry.pid = pid;
	job->pool = p;
	job->model = model;
	job->phase = "start";
	*out = job;
	return STATUS_OK;
}

/* Puts a job into its pool's queue.  Under jobs.mu. */
static enum status enqueue(struct jobs *j, struct job *job)
{
	struct job **link = &j->all;

	TRY(queue_add(&job->pool->queue, &job->entry));
	while (*link)
		link = &(*link)->next;
	*link = job;
	j->n_queued++;
	pool_wake_idle(job->pool);
	return STATUS_OK;
}

static void unlink_job(struct jobs *j, struct job *job)
{
	struct job **link = &j->all;

	while (*link != job)
		link = &(*link)->next;
	*link = job->next;
}

struct job *jobs_take(struct instance *in)
{
	struct jobs *j = in->pool->jobs;
	struct job *job;

	pthread_mutex_lock(&j->mu);
	job = j->closing ? NULL : (struct job *)queue_take(&in->pool->queue);
	if (job) {
		j->n_queued--;
		job->instance = in;
	}
	in->idle = !job;
	pthread_mutex_unlock(&j->mu);
	return job;
}

static enum job_end end_of(const struct job_result *r)
{
	if (r->status == STATUS_OK)
		return r->from_cache ? END_CACHED : END_GENERATED;
	return r->status == STATUS_CANCELLED ? END_CANCELLED : END_FAILED;
}

void jobs_finish(struct jobs *j, struct job *job, const struct answer *a)
{
	struct waiter *waiters;

	pthread_mutex_lock(&j->mu);
	unlink_job(j, job);
	waiters = take_waiters(job, NULL);
	if (!job->warm)
		jobs_count_end(j, job->model, end_of(&a->result));
	if (a->result.status == STATUS_OK && !a->result.from_cache && !job->warm)
		jobs_count_seconds(&j->counters, a->result.seconds);
	if (a->killed_twice)
		for (struct waiter *w = waiters; w; w = w->next)
			poison_add(&j->poison, job->id, w->name, a->result.text);
	pthread_mutex_unlock(&j->mu);
	answer_waiters(waiters, &a->result);
	free_job(job);
}

/* Ends a job that nobody waits for: one in the queue is returned for the caller to free (outside of jobs.mu), one that
 * runs is told.  Under jobs.mu. */
static struct job *abandon(struct jobs *j, struct job *job)
{
	if (job->waiters)
		return NULL;
	job->cancelled = true;
	if (job->instance) {
		instance_wake(job->instance);
		return NULL;
	}
	queue_remove(&job->pool->queue, &job->entry);
	unlink_job(j, job);
	j->n_queued--;
	if (!job->warm)
		jobs_count_end(j, job->model, END_CANCELLED);
	return job;
}

/* ---- submit */

static struct job_waiter *refuse(const struct job_request *r, enum status status, int error, const char *text)
{
	char copy[JOBS_TEXT_LEN];

	jobs_copy_text(copy, sizeof copy, text);
	r->done(r->context, &(struct job_result){ .status = status, .error = error, .text = copy });
	return NULL;
}

/* The singleflight name: the recipe, the model's files and the precision, all known without reading weights. */
static enum status make_id(const struct job_request *r, const struct pool *p, char id[RECIPE_KEY_LEN + 1])
{
	struct bytes text = { 0 };
	enum status status = recipe_canonical(r->recipe, r->model->identity, p->dtype, RECIPE_BY_IDENTITY, &text);

	if (status == STATUS_OK)
		status = bytes_print(&text, "device: %s\n", p->device);
	if (status == STATUS_OK)
		recipe_key(text.data, text.len, id);
	bytes_free(&text);
	return status;
}

/* Answers from the cache when the key is known and the picture there. */
static bool answer_cached(struct jobs *j, const struct job_request *r)
{
	struct answer a = { 0 };
	char key[RECIPE_KEY_LEN + 1];

	if (!jobs_find_key(j, r->model, r->where, r->recipe, key) || !jobs_find_cached(j, key, &a))
		return false;
	pthread_mutex_lock(&j->mu);
	jobs_count_end(j, r->model, END_CACHED);
	pthread_mutex_unlock(&j->mu);
	r->done(r->context, &a.result);
	cache_release(&a.object);
	return true;
}

/* A job of this recipe that is still wanted.  Under jobs.mu. */
static struct job *find_job(struct jobs *j, const char *id)
{
	struct job *job = j->all;

	while (job && (job->warm || job->cancelled || strcmp(job->id, id) != 0))
		job = job->next;
	return job;
}

static int count_queued_of(const struct jobs *j, uid_t uid)
{
	int n = 0;

	for (const struct job *job = j->all; job; job = job->next)
		n += !job->instance && job->entry.uid == uid;
	return n;
}

/* Of one user; without a limit in the configuration, half of the queue for all but the mount's owner. 0: none. */
static int user_limit(const struct jobs *j, uid_t uid)
{
	if (j->config->queue_user_limit > 0)
		return j->config->queue_user_limit;
	return uid == geteuid() ? 0 : (j->config->queue_limit + 1) / 2;
}

/* *error: EBUSY. */
static enum status check_room(const struct jobs *j, uid_t uid, int *error)
{
	int limit = user_limit(j, uid);

	*error = EBUSY;
	if (j->config->queue_limit > 0 && j->n_queued >= j->config->queue_limit)
		return status_fail(STATUS_NO_MEMORY,
			"the queue is full (%d jobs wait; queue_limit in the configuration): try again later",
			j->n_queued);
	if (limit > 0 && count_queued_of(j, uid) >= limit)
		return status_fail(STATUS_NO_MEMORY,
			"your share of the queue is full (%d jobs of yours wait; limits: queue_user in the "
			"configuration): try again later",
			limit);
	*error = 0;
	return STATUS_OK;
}

/* *error: EBUSY, or 0 for the status's own. */
static enum status start_job(
	struct jobs *j, struct pool *p, const struct job_request *r, const char *id, struct job **out, int *error)
{
	enum status status;

	TRY(check_room(j, r->uid, error));
	TRY(pool_need_instances(p, r->where));
	TRY(new_job(p, r->model, r->name, r->uid, r->pid, out));
	memcpy((*out)->id, id, sizeof(*out)->id);
	status = fill_recipe(*out, r->recipe);
	if (status == STATUS_OK)
		status = enqueue(j, *out);
	if (status != STATUS_OK)
		free_job(*out);
	return status;
}

/* Adds the waiter to a job, new or running.  Under jobs.mu. */
static enum status join_or_start(
	struct jobs *j, struct pool *p, const struct job_request *r, const char *id, struct waiter *w, int *error)
{
	const char *reason = poison_find(&j->poison, id);
	struct job *job;

	if (j->closing) {
		*error = ECANCELED;
		return status_fail(STATUS_CANCELLED, "the file system is being unmounted");
	}
	if (reason) {
		*error = EIO;
		status_fail(STATUS_INTERNAL,
			"%s; not tried again until the prompt is edited or \"retry\" is written to status/control",
			reason);
		poison_add(&j->poison, id, r->name, reason);
		return STATUS_INTERNAL;
	}
	job = find_job(j, id);
	if (job)
		j->counters.joined++;
	else
		TRY(start_job(j, p, r, id, &job, error));
	w->serial = ++j->serial;
	w->next = job->waiters;
	job->waiters = w;
	return STATUS_OK;
}

struct job_waiter *jobs_submit(struct jobs *j, const struct job_request *r)
{
	char id[RECIPE_KEY_LEN + 1];
	struct pool *p;
	struct waiter *w;
	enum status status;
	uintptr_t serial = 0;
	int error = 0;

	pthread_mutex_lock(&j->mu);
	p = pool_need(j, r->where);
	pthread_mutex_unlock(&j->mu);
	w = p ? new_waiter(r) : NULL;
	if (!w)
		return refuse(r, STATUS_NO_MEMORY, ENOMEM, "no memory for a job");
	status = make_id(r, p, id);
	if (status == STATUS_OK && answer_cached(j, r)) {
		free_waiter(w);
		return NULL;
	}
	if (status == STATUS_OK) {
		pthread_mutex_lock(&j->mu);
		status = join_or_start(j, p, r, id, w, &error);
		serial = (uintptr_t)w->serial; /* w is the job's from here on */
		pthread_mutex_unlock(&j->mu);
	}
	if (status == STATUS_OK)
		return (struct job_waiter *)serial;
	free_waiter(w);
	return refuse(r, status, error ? error : errno_of_status(status), status_text());
}

/* ---- leave, cancel, forgive */

static struct waiter *unlink_waiter(struct job *job, uint64_t serial)
{
	struct waiter **link = &job->waiters, *w;

	while (*link && (*link)->serial != serial)
		link = &(*link)->next;
	w = *link;
	if (w)
		*link = w->next;
	return w;
}

/* The handle is a number and not an address: an address could have been given to a newer waiter meanwhile. */
bool jobs_leave(struct jobs *j, struct job_waiter *waiter)
{
	struct job *dropped = NULL;
	struct waiter *w = NULL;

	pthread_mutex_lock(&j->mu);
	for (struct job *job = j->all; job && !w; job = job->next) {
		w = unlink_waiter(job, (uintptr_t)waiter);
		if (w) {
			dropped = abandon(j, job);
			break;
		}
	}
	pthread_mutex_unlock(&j->mu);
	free_job(dropped);
	free_waiter(w);
	return w != NULL;
}

/* Takes the waiters of one name, of the first job that has any.  Under jobs.mu. */
static struct waiter *cancel_name(struct jobs *j, const char *name, struct job **dropped)
{
	struct waiter *taken;

	for (struct job *job = j->all; job; job = job->next) {
		taken = take_waiters(job, name);
		if (taken) {
			*dropped = abandon(j, job);
			return taken;
		}
	}
	return NULL;
}

int jobs_cancel(struct jobs *j, const char *name)
{
	struct job *dropped = NULL;
	struct waiter *taken;
	int error = ENOENT;

	do {
		pthread_mutex_lock(&j->mu);
		taken = cancel_name(j, name, &dropped);
		pthread_mutex_unlock(&j->mu);
		if (taken)
			error = 0;
		answer_cancelled(taken);
		free_job(dropped);
		dropped = NULL;
	} while (taken);
	return error;
}

void jobs_forgive(struct jobs *j, const char *name)
{
	pthread_mutex_lock(&j->mu);
	poison_forgive(&j->poison, name);
	pthread_mutex_unlock(&j->mu);
}

/* ---- models */

static bool is_warming(const struct jobs *j, const struct model *model)
{
	for (const struct job *job = j->all; job; job = job->next)
		if (job->warm && strcmp(job->model->identity, model->identity) == 0)
			return true;
	return false;
}

static enum status start_warming(struct jobs *j, const struct model *model, const struct config_model *where)
{
	struct pool *p = pool_need(j, where);
	struct job *job = NULL;
	enum status status;

	if (!p)
		return status_fail(STATUS_NO_MEMORY, "no memory for a job");
	TRY(pool_need_instances(p, where));
	TRY(new_job(p, model, model->name, getuid(), 0, &job));
	job->warm = true;
	status = enqueue(j, job);
	if (status != STATUS_OK)
		free_job(job);
	return status;
}

enum status jobs_warm(struct jobs *j, const struct model *model, const struct config_model *where)
{
	enum status status = STATUS_OK;

	pthread_mutex_lock(&j->mu);
	if (!j->closing && !is_warming(j, model))
		status = start_warming(j, model, where);
	pthread_mutex_unlock(&j->mu);
	return status;
}

void jobs_set_patience(struct jobs *j, double seconds)
{
	pthread_mutex_lock(&j->mu);
	j->patience = seconds;
	pthread_mutex_unlock(&j->mu);
}

/* ---- open and close */

enum status jobs_open(const struct config *config, struct cache *cache, const char *executable, struct jobs **out)
{
	struct jobs *j = calloc(1, sizeof *j);

	if (!j)
		return status_fail(STATUS_NO_MEMORY, "no memory for the jobs");
	j->executable = strdup(executable);
	if (!j->executable) {
		free(j);
		return status_fail(STATUS_NO_MEMORY, "no memory for the jobs");
	}
	j->config = config;
	j->cache = cache;
	j->patience = PATIENCE_S;
	pthread_mutex_init(&j->mu, NULL);
	*out = j;
	return STATUS_OK;
}

static void wake_all(struct jobs *j)
{
	for (struct pool *p = j->pools; p; p = p->next)
		for (struct instance *in = p->instances; in; in = in->next)
			instance_wake(in);
}

/* Takes what is queued out of jobs.all, and the waiters of every job.  Under jobs.mu. */
static struct waiter *abandon_all(struct jobs *j, struct job **dropped)
{
	struct waiter *waiters = NULL, *taken, *last;
	struct job *next, *d;

	for (struct job *job = j->all; job; job = next) {
		next = job->next;
		taken = take_waiters(job, NULL);
		for (last = taken; last && last->next; last = last->next)
			;
		if (last) {
			last->next = waiters;
			waiters = taken;
		}
		d = abandon(j, job);
		if (d) {
			d->next = *dropped;
			*dropped = d;
		}
	}
	return waiters;
}

static void free_pools(struct jobs *j)
{
	double deadline = jobs_now() + CLOSE_PATIENCE_S;
	struct instance *in;
	struct pool *p;

	while ((p = j->pools)) {
		while ((in = p->instances)) {
			p->instances = in->next;
			instance_end(in, deadline);
		}
		j->pools = p->next;
		free(p);
	}
}

void jobs_close(struct jobs *j)
{
	struct job *dropped = NULL, *next;
	struct model_count *m;
	struct hash_memo *h;
	struct waiter *waiters;

	if (!j)
		return;
	pthread_mutex_lock(&j->mu);
	j->closing = true;
	waiters = abandon_all(j, &dropped);
	wake_all(j);
	pthread_mutex_unlock(&j->mu);
	answer_cancelled(waiters);
	for (; dropped; dropped = next) {
		next = dropped->next;
		free_job(dropped);
	}
	free_pools(j);
	while ((m = j->models)) {
		j->models = m->next;
		free(m);
	}
	while ((h = j->hashes)) {
		j->hashes = h->next;
		free(h);
	}
	poison_forgive(&j->poison, NULL);
	pthread_mutex_destroy(&j->mu);
	free(j->executable);
	free(j);
}

/* jobs: who waits for which picture.  The workers' side is instance.c.
 *
 * jobs.mu guards everything marked so in jobs_private.h.  It is never held over I/O, a callback or a message to a worker;
 * a write to an eventfd is allowed.  Whoever ends a job takes its waiters out under jobs.mu and answers them after it.
 */
#include "fs/jobs_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/errnos.h"

enum { PATIENCE_S = 300, CLOSE_PATIENCE_S = 2 };

const double jobs_bucket_bounds[15] = { 0.01, 0.03, 0.1, 0.3, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600 };

double jobs_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- keys and the cache */

enum status jobs_make_key(struct jobs *j, const struct recipe *recipe, const char *hash, const char *dtype,
	struct bytes *text, char key[RECIPE_KEY_LEN + 1])
{
	TRY(recipe_canonical(recipe, hash, dtype, text));
	recipe_key(text->data, text->len, key);
	return STATUS_OK;
}

bool jobs_find_hash(struct jobs *j, const struct model *model, char hash[MODEL_HASH_LEN + 1])
{
	return false;
}

bool jobs_find_cached(struct jobs *j, const char *key, struct answer *a)
{
	if (cache_get(j->cache, key, &a->object) != 0)
		return false;
	memcpy(a->result.key, key, sizeof a->result.key);
	a->result.status = STATUS_OK;
	a->result.error = 0;
	a->result.text = "";
	a->result.png = a->object.data;
	a->result.png_len = a->object.len;
	a->result.from_cache = true;
	return true;
}

/* ---- pools */

static bool is_empty(const char *text)
{
	return !text || !*text;
}

static void copy_text(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
}

static struct pool *find_pool(struct jobs *j, const char *device, const char *dtype)
{
	struct pool *p = j->pools;

	while (p && (strcmp(p->device, device) != 0 || strcmp(p->dtype, dtype) != 0))
		p = p->next;
	return p;
}

/* The pool where a model runs, made when first asked for; NULL without memory.  Under jobs.mu. */
static struct pool *need_pool(struct jobs *j, const struct config_model *where)
{
	const char *device = !is_empty(where->device) ? where->device : j->config->device;
	const char *dtype = !is_empty(where->dtype) ? where->dtype : j->config->dtype;
	struct pool *p;

	if (is_empty(device))
		device = "auto";
	p = find_pool(j, device, dtype);
	if (p)
		return p;
	p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->jobs = j;
	copy_text(p->device, sizeof p->device, device);
	copy_text(p->dtype, sizeof p->dtype, dtype);
	p->next = j->pools;
	j->pools = p;
	return p;
}

/* As many threads as the model's configuration wants; fails when there is none at all.  Under jobs.mu. */
static enum status need_instances(struct pool *p, const struct config_model *where)
{
	int wanted = where->instances > 1 ? where->instances : 1;

	while (p->n_instances < wanted) {
		struct instance *in;
		enum status status = instance_start(p, &in);

		if (status != STATUS_OK)
			return p->n_instances ? STATUS_OK : status;
		in->next = p->instances;
		p->instances = in;
		p->n_instances++;
	}
	return STATUS_OK;
}

static void wake_idle(struct pool *p)
{
	for (struct instance *in = p->instances; in; in = in->next)
		if (in->idle)
			instance_wake(in);
}

/* "" while the device's own choice is not known yet.  Under jobs.mu. */
static const char *pool_dtype(const struct pool *p)
{
	return *p->dtype_found ? p->dtype_found : p->dtype;
}

bool jobs_find_key(struct jobs *j, const struct model *model, const struct config_model *where,
	const struct recipe *recipe, char key[RECIPE_KEY_LEN + 1])
{
	char dtype[DTYPE_LEN] = "", hash[MODEL_HASH_LEN + 1];
	struct bytes text = { 0 };
	struct pool *p;
	bool found;

	pthread_mutex_lock(&j->mu);
	p = need_pool(j, where);
	if (p)
		copy_text(dtype, sizeof dtype, pool_dtype(p));
	pthread_mutex_unlock(&j->mu);
	found = *dtype && jobs_find_hash(j, model, hash) &&
		jobs_make_key(j, recipe, hash, dtype, &text, key) == STATUS_OK;
	bytes_free(&text);
	return found;
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
	json_decref(job->recipe_json);
	free(job);
}

static enum status fill_recipe(struct job *job, const struct recipe *recipe)
{
	TRY(recipe_to_json(recipe, &job->recipe_json));
	return recipe_from_json(job->recipe_json, &job->recipe);
}

static enum status new_job(struct pool *p, const struct model *model, uid_t uid, pid_t pid, struct job **out)
{
	struct job *job = calloc(1, sizeof *job);

	if (!job)
		return status_fail(STATUS_NO_MEMORY, "no memory for a job");
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
	wake_idle(job->pool);
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

/* The counts of a model; NULL without memory.  Under jobs.mu. */
static struct jobs_model_count *need_count(struct jobs *j, const struct model *model)
{
	struct model_count *m = j->models;

	while (m && strcmp(m->count.model, model->name) != 0)
		m = m->next;
	if (m)
		return &m->count;
	m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	copy_text(m->count.model, sizeof m->count.model, model->name);
	m->next = j->models;
	j->models = m;
	return &m->count;
}

enum end { END_GENERATED, END_FAILED, END_CANCELLED, END_CACHED };

/* Under jobs.mu. */
static void count_end(struct jobs *j, const struct model *model, enum end end)
{
	struct jobs_model_count *m = need_count(j, model);

	j->counters.generated += end == END_GENERATED;
	j->counters.failed += end == END_FAILED;
	j->counters.cancelled += end == END_CANCELLED;
	j->counters.cache_hits += end == END_CACHED;
	if (!m)
		return;
	m->generated += end == END_GENERATED;
	m->failed += end == END_FAILED;
	m->cancelled += end == END_CANCELLED;
	m->cache_hits += end == END_CACHED;
}

static void count_seconds(struct jobs_counters *c, const double seconds[STAGE_COUNT])
{
	for (int s = 0; s < STAGE_COUNT; s++) {
		int bucket = 0;

		while (bucket < 15 && seconds[s] > jobs_bucket_bounds[bucket])
			bucket++;
		c->buckets[s][bucket]++;
		c->sums[s] += seconds[s];
	}
}

static enum end end_of(const struct job_result *r)
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
		count_end(j, job->model, end_of(&a->result));
	if (a->result.status == STATUS_OK && !a->result.from_cache && !job->warm)
		count_seconds(&j->counters, a->result.seconds);
	if (a->killed_twice)
		for (struct waiter *w = waiters; w; w = w->next)
			poison_add(&j->poison, job->id, w->name, a->result.text);
	pthread_mutex_unlock(&j->mu);
	answer_waiters(waiters, &a->result);
	free_job(job);
}

/* Ends a job that nobody waits for: one in the queue is returned for the caller to free (outside of jobs.mu), one that runs
 * is told.  Under jobs.mu. */
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
		count_end(j, job->model, END_CANCELLED);
	return job;
}

/* ---- submit */

static struct job_waiter *refuse(const struct job_request *r, enum status status, int error, const char *text)
{
	char copy[JOBS_TEXT_LEN];

	copy_text(copy, sizeof copy, text);
	r->done(r->context, &(struct job_result){ .status = status, .error = error, .text = copy });
	return NULL;
}

/* The singleflight name: the recipe, the model's files and the precision, all known without reading weights. */
static enum status make_id(const struct job_request *r, const struct pool *p, char id[RECIPE_KEY_LEN + 1])
{
	struct bytes text = { 0 };
	enum status status = recipe_canonical(r->recipe, r->model->identity, p->dtype, &text);

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
	count_end(j, r->model, END_CACHED);
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

/* *error: EBUSY, or 0 for the status's own. */
static enum status start_job(struct jobs *j, struct pool *p, const struct job_request *r, const char *id,
	struct job **out, int *error)
{
	enum status status;

	if (j->config->queue_limit > 0 && j->n_queued >= j->config->queue_limit) {
		*error = EBUSY;
		return status_fail(STATUS_NO_MEMORY,
			"the queue is full (%d jobs wait; queue_limit in the configuration): try again later",
			j->n_queued);
	}
	TRY(need_instances(p, r->where));
	TRY(new_job(p, r->model, r->uid, r->pid, out));
	memcpy((*out)->id, id, sizeof (*out)->id);
	status = fill_recipe(*out, r->recipe);
	if (status == STATUS_OK)
		status = enqueue(j, *out);
	if (status != STATUS_OK)
		free_job(*out);
	return status;
}

/* Adds the waiter to a job, new or running.  Under jobs.mu. */
static enum status join_or_start(struct jobs *j, struct pool *p, const struct job_request *r, const char *id,
	struct waiter *w, int *error)
{
	const char *reason = poison_find(&j->poison, id);
	struct job *job;

	if (j->closing) {
		*error = ECANCELED;
		return status_fail(STATUS_CANCELLED, "the file system is being unmounted");
	}
	if (reason) {
		*error = EIO;
		status_fail(STATUS_INTERNAL, "%s; not tried again until the prompt is edited or \"retry\" is written to "
					     "status/control",
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
	p = need_pool(j, r->where);
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
		if (job->warm && job->model == model)
			return true;
	return false;
}

static enum status start_warming(struct jobs *j, const struct model *model, const struct config_model *where)
{
	struct pool *p = need_pool(j, where);
	struct job *job = NULL;
	enum status status;

	if (!p)
		return status_fail(STATUS_NO_MEMORY, "no memory for a job");
	TRY(need_instances(p, where));
	TRY(new_job(p, model, getuid(), 0, &job));
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

enum status jobs_unload(struct jobs *j, const struct model *model)
{
	pthread_mutex_lock(&j->mu);
	for (struct pool *p = j->pools; p; p = p->next) {
		for (struct instance *in = p->instances; in; in = in->next) {
			if (in->loaded != model)
				continue;
			in->unload = true;
			instance_wake(in);
		}
	}
	pthread_mutex_unlock(&j->mu);
	return STATUS_OK;
}

static const struct instance *find_loaded(const struct jobs *j, const struct model *model)
{
	for (const struct pool *p = j->pools; p; p = p->next)
		for (const struct instance *in = p->instances; in; in = in->next)
			if (in->loaded == model)
				return in;
	return NULL;
}

bool jobs_find_loaded(struct jobs *j, const struct model *model, struct jobs_loaded *out)
{
	const struct instance *in;

	pthread_mutex_lock(&j->mu);
	in = find_loaded(j, model);
	if (in) {
		copy_text(out->device, sizeof out->device, in->pool->device_found);
		copy_text(out->dtype, sizeof out->dtype, in->pool->dtype_found);
		out->memory = in->memory;
	}
	pthread_mutex_unlock(&j->mu);
	return in != NULL;
}

void jobs_set_patience(struct jobs *j, double seconds)
{
	pthread_mutex_lock(&j->mu);
	j->patience = seconds;
	pthread_mutex_unlock(&j->mu);
}

/* ---- listing and counting */

/* From the mean step so far; the decoding that follows is not known.  < 0 before the first step ended. */
static double guess_eta(const struct job *job)
{
	const struct engine_progress *p = &job->progress;
	double eta;

	if (!job->instance || p->stage != STAGE_STEP || p->step < 1)
		return -1;
	eta = p->seconds[STAGE_STEP] / p->step * (p->steps - p->step) - (jobs_now() - job->heard);
	return eta > 0 ? eta : 0;
}

static void fill_info(const struct job *job, const struct waiter *w, struct job_info *out)
{
	*out = (struct job_info){ .step = job->progress.step,
		.steps = job->progress.steps,
		.waiters = 1,
		.eta = guess_eta(job),
		.uid = w ? w->uid : job->entry.uid };
	copy_text(out->name, sizeof out->name, w ? w->name : job->model->name);
	copy_text(out->state, sizeof out->state, job->instance ? "running" : "queued");
	copy_text(out->stage, sizeof out->stage, job->instance ? job->phase : "");
	if (!w)
		out->waiters = 0;
}

/* Adds the lines of one job; waiters of one name and user share a line. */
static size_t list_job(const struct job *job, struct job_info *out)
{
	size_t count = 0, k;

	for (const struct waiter *w = job->waiters; w; w = w->next) {
		struct job_info info;

		fill_info(job, w, &info);
		for (k = 0; k < count && (out[k].uid != info.uid || strcmp(out[k].name, info.name) != 0); k++)
			;
		if (k < count)
			out[k].waiters++;
		else
			out[count++] = info;
	}
	if (job->warm)
		fill_info(job, NULL, &out[count++]);
	return count;
}

static size_t count_lines(const struct jobs *j)
{
	size_t lines = 0;

	for (const struct job *job = j->all; job; job = job->next) {
		lines += job->warm;
		for (const struct waiter *w = job->waiters; w; w = w->next)
			lines++;
	}
	return lines;
}

int jobs_list(struct jobs *j, struct job_info **out, size_t *count)
{
	struct job_info *list;
	size_t n = 0;

	pthread_mutex_lock(&j->mu);
	list = calloc(count_lines(j) + 1, sizeof *list);
	for (int running = 1; list && running >= 0; running--) /* what runs comes first */
		for (const struct job *job = j->all; job; job = job->next)
			if (!!job->instance == running)
				n += list_job(job, list + n);
	pthread_mutex_unlock(&j->mu);
	if (!list)
		return ENOMEM;
	*out = list;
	*count = n;
	return 0;
}

enum { PIDS_MAX = 64 };

static int list_pids(const struct jobs *j, pid_t pids[PIDS_MAX])
{
	int count = 0;

	for (const struct pool *p = j->pools; p; p = p->next)
		for (const struct instance *in = p->instances; in; in = in->next)
			if (in->pid && count < PIDS_MAX)
				pids[count++] = in->pid;
	return count;
}

void jobs_count(struct jobs *j, struct jobs_counters *out)
{
	pid_t pids[PIDS_MAX];
	int n_pids;

	pthread_mutex_lock(&j->mu);
	*out = j->counters;
	out->queued = (uint64_t)j->n_queued;
	out->running = 0;
	for (const struct job *job = j->all; job; job = job->next)
		out->running += job->instance != NULL;
	n_pids = list_pids(j, pids);
	pthread_mutex_unlock(&j->mu);
	out->worker_memory = 0;
	for (int i = 0; i < n_pids; i++)
		out->worker_memory += worker_memory(pids[i]);
}

int jobs_count_models(struct jobs *j, struct jobs_model_count **out, size_t *count)
{
	struct jobs_model_count *list;
	size_t n = 0;

	pthread_mutex_lock(&j->mu);
	for (const struct model_count *m = j->models; m; m = m->next)
		n++;
	list = calloc(n + 1, sizeof *list);
	n = 0;
	for (const struct model_count *m = j->models; list && m; m = m->next)
		list[n++] = m->count;
	pthread_mutex_unlock(&j->mu);
	if (!list)
		return ENOMEM;
	*out = list;
	*count = n;
	return 0;
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
	poison_forgive(&j->poison, NULL);
	pthread_mutex_destroy(&j->mu);
	free(j->executable);
	free(j);
}

/* The jobs in figures: what status/queue and status/metrics show. */
#include "fs/jobs_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const double jobs_bucket_bounds[15] = { 0.01, 0.03, 0.1, 0.3, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600 };

/* ---- counting */

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
	jobs_copy_text(m->count.model, sizeof m->count.model, model->name);
	m->next = j->models;
	j->models = m;
	return &m->count;
}

void jobs_count_end(struct jobs *j, const struct model *model, enum job_end end)
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

void jobs_count_seconds(struct jobs_counters *c, const double seconds[STAGE_COUNT])
{
	for (int s = 0; s < STAGE_COUNT; s++) {
		int bucket = 0;

		while (bucket < 15 && seconds[s] > jobs_bucket_bounds[bucket])
			bucket++;
		c->buckets[s][bucket]++;
		c->sums[s] += seconds[s];
	}
}

/* ---- listing */

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
	jobs_copy_text(out->name, sizeof out->name, w ? w->name : job->model->name);
	jobs_copy_text(out->state, sizeof out->state, job->instance ? "running" : "queued");
	jobs_copy_text(out->stage, sizeof out->stage, job->instance ? job->phase : "");
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

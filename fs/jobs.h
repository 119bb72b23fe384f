/* jobs: pictures being made.  One job per recipe (singleflight): later readers join the running job; when the last one
 * leaves, the job is cancelled.  Jobs run in worker processes, one per device instance, started when first needed and
 * started again when they die; the daemon itself holds no tensors.
 *
 *     waiter = jobs_submit(jobs, &(struct job_request){ ... .done = answer, .context = open_request });
 *     ...                                   // answer(open_request, &result) is called once, from a thread of jobs
 *     if (jobs_leave(jobs, waiter)) ...     // interrupted first: answer will not be called
 *
 * The cache is asked before a job is queued (when the model's hash is known) and again when the hash became known.
 *
 * Threads: all functions may be called from any thread; callbacks come without any lock of jobs held and may call jobs.
 * Lock order: jobs.mu is a leaf: nothing else is taken while it is held.
 */
#ifndef PROMPTFS_FS_JOBS_H
#define PROMPTFS_FS_JOBS_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "engine/engine.h"
#include "fs/config.h"

struct jobs;
struct job_waiter;

struct job_result {
	enum status status; /* STATUS_OK: picture holds the bare PNG */
	int error;          /* errno for open(): 0, EIO, EINVAL, ENODEV, ENOMEM, EBUSY, ECANCELED; a full queue is
			     * STATUS_NO_MEMORY with EBUSY */
	const char *text;   /* why it failed, for status/errors; borrowed for the call */
	char key[RECIPE_KEY_LEN + 1];
	const void *png; /* the bare picture; borrowed for the call */
	size_t png_len;
	bool from_cache;
	double seconds[STAGE_COUNT]; /* of the generation; zeros when from the cache */
	struct engine_loras loras;   /* likewise */
};

struct job_request {
	const char *name;                 /* "a/b.png", for the queue listing; copied */
	const struct model *model;        /* outlives jobs */
	const struct config_model *where; /* device, dtype, instances; outlives jobs */
	const struct recipe *recipe;      /* copied */
	uid_t uid;
	pid_t pid;
	void (*done)(void *context, const struct job_result *result);
	void *context;
};

/* One line of status/queue. */
struct job_info {
	char name[PATH_MAX];
	char state[16]; /* "queued", "running" */
	char stage[16];
	int step, steps, waiters;
	double eta; /* seconds; < 0: unknown */
	uid_t uid;
};

struct jobs_counters {
	uint64_t generated, failed, cancelled, cache_hits, joined, worker_restarts;
	uint64_t queued, running;
	uint64_t worker_memory;            /* bytes, resident, all workers */
	uint64_t buckets[STAGE_COUNT][16]; /* histogram of seconds by stage; bounds in jobs_bucket_bounds */
	double sums[STAGE_COUNT];
};
extern const double jobs_bucket_bounds[15]; /* the 16th bucket is +Inf */

/* The ends of all submits, by model. */
struct jobs_model_count {
	char model[64];
	uint64_t generated, failed, cancelled, cache_hits;
};

/* Where a model is loaded. */
struct jobs_loaded {
	char device[32], dtype[16]; /* as the worker said: "cpu", "bf16" */
	uint64_t memory;            /* bytes the engine holds, for all models loaded there */
};

/* executable: this program, to be run as "promptfs worker". */
enum status jobs_open(const struct config *config, struct cache *cache, const char *executable, struct jobs **out);
void jobs_close(struct jobs *j); /* cancels all, answers every waiter with ECANCELED, ends the workers */

/* Never blocks on a generation.  done may be called before it returns (a cache hit, a full queue); then NULL is
 * returned. */
struct job_waiter *jobs_submit(struct jobs *j, const struct job_request *request);

/* True when the waiter was removed before its callback was called; then it is never called. waiter is dead either way;
 * one that was answered already is recognised, however long ago that was. */
bool jobs_leave(struct jobs *j, struct job_waiter *waiter);

int jobs_cancel(struct jobs *j, const char *name);   /* ENOENT when no such job; waiters get ECANCELED */
void jobs_forgive(struct jobs *j, const char *name); /* forgets that a recipe killed its worker (NULL: all) */

/* Both return at once; a failed warm-up is logged. */
enum status jobs_warm(struct jobs *j, const struct model *model, const struct config_model *where);
enum status jobs_unload(struct jobs *j, const struct model *model);

/* False when no worker has the model loaded. */
bool jobs_find_loaded(struct jobs *j, const struct model *model, struct jobs_loaded *out);

/* The memory of the engines of the i-th pool of workers (one for a device and precision); false past the last. */
bool jobs_pool_memory(struct jobs *j, int i, struct jobs_loaded *out);

/* The key of a recipe; false while it is not known (the model's hash or the device's dtype come from the first job). */
bool jobs_find_key(struct jobs *j, const struct model *model, const struct config_model *where,
	const struct recipe *recipe, char key[RECIPE_KEY_LEN + 1]);

/* Seconds in which a worker with a job may neither use the processor nor say anything before it counts as hung and is
 * killed; 300 at first. */
void jobs_set_patience(struct jobs *j, double seconds);

/* A line for each job and each name that waits for it. */
int jobs_list(struct jobs *j, struct job_info **out, size_t *count); /* free() it */
void jobs_count(struct jobs *j, struct jobs_counters *out);
int jobs_count_models(struct jobs *j, struct jobs_model_count **out, size_t *count); /* free() it */

#endif

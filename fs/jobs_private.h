/* What jobs.c (who waits for what) and instance.c (the thread of a worker) share.
 *
 *     jobs -- pools (device and dtype as configured) -- instances (a thread and its worker process)
 *        \-- jobs (queued in their pool, or run by an instance) -- waiters
 *
 * A job lives from jobs_submit to jobs_finish, which its instance calls, or to the moment its last waiter leaves while
 * it is still queued.  A cancelled job that runs is nobody's any more: a later submit of its recipe makes another job.
 */
#ifndef PROMPTFS_FS_JOBS_PRIVATE_H
#define PROMPTFS_FS_JOBS_PRIVATE_H

#include <pthread.h>
#include <stdio.h>

#include "fs/jobs.h"
#include "fs/log.h"
#include "fs/poison.h"
#include "fs/queue.h"
#include "fs/supervisor.h"

enum { DEVICE_LEN = 32, DTYPE_LEN = 16, JOBS_TEXT_LEN = 1200 };

struct pool;
struct instance;

struct waiter {
	struct waiter *next;
	uint64_t serial; /* what struct job_waiter * stands for; never used twice */
	char *name;
	uid_t uid;
	void (*done)(void *context, const struct job_result *result);
	void *context;
};

struct job {
	struct queue_entry entry; /* first; in the turn of whoever submitted it first */
	struct job *next;         /* jobs.all */
	struct pool *pool;
	const struct model *model;
	char *name; /* of who asked first, for the log */
	bool warm;  /* no picture is wanted, only a loaded model; then no recipe, no waiters */
	struct recipe recipe;
	char id[RECIPE_KEY_LEN + 1]; /* of the recipe and the model's identity */
	/* guarded by jobs.mu */
	struct waiter *waiters;
	struct instance *instance; /* that runs it; NULL: queued */
	bool cancelled;
	const char *phase; /* "start", "hash", or a stage's name */
	struct engine_progress progress;
	double heard; /* when progress came, jobs_now() */
};

/* One worker process and the thread that drives it. */
struct instance {
	struct instance *next;
	struct pool *pool;
	pthread_t thread;
	int wake; /* an eventfd: something for this thread changed */
	/* the thread's own */
	struct worker *worker; /* NULL: no process */
	enum dtype dtype;      /* that its worker computes in */
	uint64_t last_id;      /* of the last request */
	int deaths;            /* of its workers since a job was finished */
	double not_before;     /* when the next worker may start, jobs_now() */
	bool finishing;        /* the job before is ended by `finisher`; to be joined */
	pthread_t finisher;
	bool started;         /* a worker was */
	bool generating;      /* a request that runs a recipe is under way */
	bool crashed, blamed; /* in this attempt: the worker ended; while it ran the recipe */
	/* guarded by jobs.mu */
	pid_t pid; /* 0: no process */
	int n_loaded;
	char loaded[ENGINE_MODELS_MAX][MODEL_HASH_LEN + 1]; /* identities of models, as the worker said last */
	uint64_t memory;                                    /* held by the engine, as it said last */
	char unload[MODEL_HASH_LEN + 1];                    /* asked for by jobs_unload; "": nothing is */
	bool idle;
};

/* The workers of one device, as configured. */
struct pool {
	struct pool *next;
	struct jobs *jobs;
	char device[DEVICE_LEN], dtype[DTYPE_LEN]; /* as configured: "auto", "" */
	/* guarded by jobs.mu */
	char device_found[DEVICE_LEN]; /* as a worker said; "" before */
	char about[192];               /* and the device in words */
	enum dtype dtype_found;        /* as configured or as a worker said; DTYPE_OTHER: not known yet */
	struct queue queue;
	struct instance *instances;
	int n_instances;
};

struct model_count {
	struct model_count *next;
	struct jobs_model_count count;
};

/* A content hash, so that not every submit reads the file of hashes. */
struct hash_memo {
	struct hash_memo *next;
	char identity[MODEL_HASH_LEN + 1], hash[MODEL_HASH_LEN + 1];
};

struct jobs {
	const struct config *config;
	struct cache *cache;
	char *executable;
	pthread_mutex_t mu;
	/* guarded by mu */
	bool closing;
	double patience;
	uint64_t serial;
	struct pool *pools;
	struct job *all; /* queued and running, oldest first */
	int n_queued;
	struct hash_memo *hashes;
	struct poison poison;
	struct jobs_counters counters;
	struct model_count *models;
};

/* How a job ended, with what the result points to. */
struct answer {
	struct job_result result;
	char text[JOBS_TEXT_LEN];
	struct cache_object object; /* the picture, when it came from the cache */
	void *map;                  /* or when a worker made it, of map_len bytes; pixels: no PNG yet */
	size_t map_len;
	bool pixels;
	bool killed_twice;
};

double jobs_now(void); /* monotonic seconds */

static inline void jobs_copy_text(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
}

/* The next job of the pool, now running on `in`; NULL: none. */
struct job *jobs_take(struct instance *in);

/* Answers all waiters and frees the job; the answer's picture stays the caller's. */
void jobs_finish(struct jobs *j, struct job *job, const struct answer *a);

/* The content hash of files of this identity, when it is known already.  what: for the log. */
bool jobs_find_hash(struct jobs *j, const char *identity, char hash[MODEL_HASH_LEN + 1]);
void jobs_remember_hash(struct jobs *j, const char *what, const char *identity, const char *hash);

/* Fills the answer from the cache; false when it is not there.  Not under jobs.mu. */
bool jobs_find_cached(struct jobs *j, const char *key, struct answer *a);

/* jobs_pools.c, all under jobs.mu: the pool where a model runs, made when first asked for (NULL without memory); as
 * many threads as the model's configuration wants (fails when there is none at all); the word that a job came. */
struct pool *pool_need(struct jobs *j, const struct config_model *where);
enum status pool_need_instances(struct pool *p, const struct config_model *where);
void pool_wake_idle(struct pool *p);

/* jobs_counts.c, both under jobs.mu */
enum job_end { END_GENERATED, END_FAILED, END_CANCELLED, END_CACHED };
void jobs_count_end(struct jobs *j, const struct model *model, enum job_end end);
void jobs_count_seconds(struct jobs_counters *c, const double seconds[STAGE_COUNT]);

/* instance.c */
enum status instance_start(struct pool *p, struct instance **out); /* a thread; the process comes with the first job */
void instance_wake(struct instance *in);                           /* under jobs.mu or not */
/* Ends thread and process, with force from `deadline` (jobs_now()) on, and frees.  After jobs.closing was set. */
void instance_end(struct instance *in, double deadline);

#endif

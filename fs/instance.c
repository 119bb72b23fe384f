/* instance: the thread that drives one worker process: starts it when a job comes, hands it one job at a time, and
 * starts another when it dies.
 *
 * Everything a worker can do costs at most its job: a crash, a kill, a hang and garbage on the wire all end the process
 * ("bury") and the job is tried once more on a fresh one.  Fresh workers wait longer the more of them died in a row.
 *
 * Between the steps of one picture and those of the next a GPU would wait for the PNG, the disk and the readers.  So
 * its worker hands over pixels, and what is left to do for them is done on a thread of its own beside the next job
 * ("finisher"), one picture at a time: pictures end in their order, and what a worker that dies meanwhile costs is the
 * next job alone.  On the cpu the next job would have to share the processor with it, and would gain nothing.
 *
 * A hang is told by silence: no message and no processor time used for jobs.patience seconds.  A worker that runs in
 * circles uses the processor and is not told from one that works; a cancel ends it after CANCEL_GRACE_S.
 */
#include "fs/jobs_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/png.h"
#include "fs/contents.h"
#include "fs/errnos.h"
#include "fs/key.h"
#include "fs/picture.h"

enum { ATTEMPTS = 2, CANCEL_GRACE_S = 60, EXIT_PATIENCE_MS = 2000, TICK_MS = 1000, PAUSE_MAX_S = 60 };

enum ask { ASK_GO_ON, ASK_CANCEL, ASK_STOP };

/* ---- being told */

void instance_wake(struct instance *in)
{
	uint64_t one = 1;

	while (write(in->wake, &one, sizeof one) < 0 && errno == EINTR)
		;
}

/* Waits for the worker, a wake-up or the time to pass (-1: forever). */
static void wait_events(struct instance *in, int timeout_ms)
{
	struct pollfd events[2] = { { .fd = in->wake, .events = POLLIN },
		{ .fd = in->worker ? wire_fd(worker_wire(in->worker)) : -1, .events = POLLIN } };
	uint64_t count;

	poll(events, 2, timeout_ms);
	while (read(in->wake, &count, sizeof count) < 0 && errno == EINTR)
		;
}

/* job NULL: only whether to stop. */
static enum ask find_ask(struct instance *in, const struct job *job)
{
	struct jobs *j = in->pool->jobs;
	enum ask ask = ASK_GO_ON;

	pthread_mutex_lock(&j->mu);
	if (j->closing)
		ask = ASK_STOP;
	else if (job && job->cancelled)
		ask = ASK_CANCEL;
	pthread_mutex_unlock(&j->mu);
	return ask;
}

static enum status cancelled(void)
{
	return status_fail(STATUS_CANCELLED, "cancelled");
}

/* ---- the process */

static void forget_process(struct instance *in)
{
	pthread_mutex_lock(&in->pool->jobs->mu);
	in->pid = 0;
	in->n_loaded = 0;
	in->memory = 0;
	in->unload[0] = 0;
	pthread_mutex_unlock(&in->pool->jobs->mu);
}

/* 0, 1, 2, 4 ... 60 seconds after one, two, three ... deaths in a row. */
static double restart_pause(int deaths)
{
	int pause = deaths < 2 ? 0 : deaths > 8 ? PAUSE_MAX_S : 1 << (deaths - 2);

	return pause < PAUSE_MAX_S ? pause : PAUSE_MAX_S;
}

/* Ends a worker that failed us.  fault: what it did ("sent garbage"); NULL: it went by itself. */
static enum status bury(struct instance *in, const char *fault)
{
	struct worker *w = in->worker;
	char why[256], reason[1024];

	in->worker = NULL;
	forget_process(in);
	worker_end(w, fault ? 0 : EXIT_PATIENCE_MS, why, sizeof why);
	in->deaths++;
	in->not_before = jobs_now() + restart_pause(in->deaths);
	in->crashed = true;
	in->blamed = in->generating;
	snprintf(reason, sizeof reason, "%s", fault ? fault : why);
	return status_fail(STATUS_INTERNAL, "the worker %s", reason);
}

/* Ends a worker that did nothing wrong. */
static void retire(struct instance *in)
{
	struct worker *w = in->worker;

	if (!w)
		return;
	in->worker = NULL;
	forget_process(in);
	worker_end(w, EXIT_PATIENCE_MS, NULL, 0);
}

/* After a failure on the wire: the process is gone or not to be trusted. */
static enum status bury_for(struct instance *in, enum status status)
{
	char fault[1024];

	if (status == STATUS_IO)
		return bury(in, NULL);
	snprintf(fault, sizeof fault, "sent garbage: %s", status_text());
	return bury(in, fault);
}

/* ---- talking */

/* One exchange: a request under way. */
struct talk {
	uint64_t id;
	struct job *job;     /* takes the progress, may be cancelled; NULL: neither */
	double alive;        /* when the worker last showed life */
	uint64_t ticks;      /* its processor time then */
	double cancelled_at; /* 0: not */
};

static void note_progress(struct instance *in, struct job *job, const struct engine_progress *progress)
{
	pthread_mutex_lock(&in->pool->jobs->mu);
	job->progress = *progress;
	job->phase = stage_name(progress->stage);
	job->heard = jobs_now();
	pthread_mutex_unlock(&in->pool->jobs->mu);
}

/* A second attempt starts from nothing. */
static void note_start(struct instance *in, struct job *job)
{
	pthread_mutex_lock(&in->pool->jobs->mu);
	job->progress = (struct engine_progress){ 0 };
	job->phase = "start";
	pthread_mutex_unlock(&in->pool->jobs->mu);
}

static void note_phase(struct instance *in, struct job *job, const char *phase)
{
	pthread_mutex_lock(&in->pool->jobs->mu);
	job->phase = phase;
	pthread_mutex_unlock(&in->pool->jobs->mu);
}

/* Takes one message; *got when it is the answer to the request. */
static enum status hear(
	struct talk *t, struct instance *in, struct wire_message *m, struct wire_reply *reply, bool *got)
{
	struct wire_reply heard;
	enum status status = wire_read_reply(m->body, &heard);

	if (status != STATUS_OK)
		return bury_for(in, status);
	if (heard.id != t->id)
		return bury(in, "sent garbage: an answer to nothing");
	t->alive = jobs_now();
	*got = heard.kind != WIRE_PROGRESS;
	if (*got)
		*reply = heard;
	else if (t->job)
		note_progress(in, t->job, &heard.progress);
	return STATUS_OK;
}

/* Takes what has arrived, up to the answer; *fd gets the answer's descriptor or -1. */
static enum status listen_worker(struct talk *t, struct instance *in, struct wire_reply *reply, int *fd, bool *got)
{
	struct wire_message m;
	enum status status;

	*got = false;
	while (!*got) {
		status = wire_receive(worker_wire(in->worker), 0, &m);
		if (status != STATUS_OK)
			return bury_for(in, status);
		if (!m.body)
			return STATUS_OK;
		status = hear(t, in, &m, reply, got);
		if (status == STATUS_OK && *got) {
			*fd = m.fd;
			m.fd = -1;
		}
		wire_message_fini(&m);
		TRY(status);
	}
	return STATUS_OK;
}

static enum status send_request(struct instance *in, const json_t *body)
{
	enum status status = wire_send(worker_wire(in->worker), body, -1);

	return status == STATUS_IO ? bury(in, NULL) : status;
}

static enum status send_cancel(struct talk *t, struct instance *in)
{
	json_t *body = json_pack("{s:s, s:I}", "kind", "cancel", "id", (json_int_t)t->id);
	enum status status;

	if (!body)
		return status_fail(STATUS_NO_MEMORY, "no memory for a message");
	t->cancelled_at = jobs_now();
	status = send_request(in, body);
	json_decref(body);
	return status;
}

static enum status check_life(struct talk *t, struct instance *in)
{
	uint64_t ticks = worker_ticks(in->worker);
	double now = jobs_now(), patience;
	char fault[128];

	pthread_mutex_lock(&in->pool->jobs->mu);
	patience = in->pool->jobs->patience;
	pthread_mutex_unlock(&in->pool->jobs->mu);
	if (ticks != t->ticks) {
		t->ticks = ticks;
		t->alive = now;
	}
	if (t->cancelled_at && now - t->cancelled_at > CANCEL_GRACE_S)
		return bury(in, "did not stop when it was told to");
	if (now - t->alive <= patience)
		return STATUS_OK;
	snprintf(fault, sizeof fault, "hung (no sign of life for %.0f s)", now - t->alive);
	return bury(in, fault);
}

static enum status converse(struct talk *t, struct instance *in, struct wire_reply *reply, int *fd)
{
	enum ask ask;
	bool got;

	for (;;) {
		TRY(listen_worker(t, in, reply, fd, &got));
		if (got)
			return STATUS_OK;
		ask = find_ask(in, t->job);
		if (ask == ASK_STOP) {
			retire(in);
			return cancelled();
		}
		if (ask == ASK_CANCEL && !t->cancelled_at)
			TRY(send_cancel(t, in));
		TRY(check_life(t, in));
		wait_events(in, TICK_MS);
	}
}

/* Sends body (taken; NULL: there was no memory for it) and waits for an answer of the wanted kind.  fd: gets the
 * descriptor that came with it, or -1; may be NULL.  A failure that the worker reports is forwarded. */
static enum status request(
	struct instance *in, json_t *body, struct job *job, enum wire_kind wanted, struct wire_reply *reply, int *fd)
{
	struct talk t = { .id = ++in->last_id, .job = job, .alive = jobs_now() };
	enum status status = status_fail(STATUS_NO_MEMORY, "no memory for a message");
	int got = -1;

	if (body && json_object_set_new(body, "id", json_integer((json_int_t)t.id)) == 0)
		status = send_request(in, body);
	json_decref(body);
	TRY(status);
	TRY(converse(&t, in, reply, &got));
	if (fd)
		*fd = got;
	else if (got >= 0)
		close(got);
	if (reply->kind == WIRE_FAILED)
		status = status_fail(reply->status, "%s", reply->text);
	else if (reply->kind != wanted)
		status = bury(in, "sent garbage: an answer of the wrong kind");
	if (status != STATUS_OK && fd && got >= 0) {
		close(got);
		*fd = -1;
	}
	return status;
}

/* ---- starting */

/* Until the next worker may start. */
static enum status wait_pause(struct instance *in, const struct job *job)
{
	double left;

	while ((left = in->not_before - jobs_now()) > 0) {
		if (find_ask(in, job) != ASK_GO_ON)
			return cancelled();
		wait_events(in, (int)(left * 1000) + 1);
	}
	return STATUS_OK;
}

static void note_started(struct instance *in)
{
	struct jobs *j = in->pool->jobs;

	pthread_mutex_lock(&j->mu);
	in->pid = worker_pid(in->worker);
	j->counters.worker_restarts += in->started;
	pthread_mutex_unlock(&j->mu);
	in->started = true;
}

static void note_ready(struct instance *in, const struct wire_reply *reply)
{
	struct pool *p = in->pool;

	in->dtype = reply->dtype;
	pthread_mutex_lock(&p->jobs->mu);
	if (*reply->about && strcmp(p->about, reply->about) != 0)
		log_info("device %s: %s", reply->device, reply->about);
	memcpy(p->about, reply->about, sizeof p->about);
	memcpy(p->device_found, reply->device, sizeof p->device_found);
	p->dtype_found = reply->dtype;
	pthread_mutex_unlock(&p->jobs->mu);
}

static enum status start_worker(struct instance *in, struct job *job)
{
	const struct config *c = in->pool->jobs->config;
	struct wire_reply reply;
	char packed[PATH_MAX + 8];
	enum status status;

	config_packed(c, packed);
	TRY(wait_pause(in, job));
	TRY(worker_start(in->pool->jobs->executable, &in->worker));
	note_started(in);
	status = request(in,
		json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:I, s:I, s:i}", "kind", "hello", "device", in->pool->device,
			"dtype", in->pool->dtype, "threads", c->threads, "nice", c->nice, "packed", packed,
			"packed_limit", (json_int_t)c->packed_limit, "memory_limit", (json_int_t)c->memory_limit,
			"numerics", RECIPE_NUMERICS),
		NULL, WIRE_READY, &reply, NULL);
	if (status != STATUS_OK)
		retire(in);
	else
		note_ready(in, &reply);
	return status;
}

/* ---- jobs */

static json_t *model_request(const char *kind, const struct model *m)
{
	return json_pack(
		"{s:s, s:s, s:s, s:s}", "kind", kind, "path", m->path, "name", m->name, "identity", m->identity);
}

/* Reads every file of it, once; nothing interrupts that, since the next job needs it as well.  request is taken; what:
 * for the log. */
static enum status learn_hash(struct instance *in, struct job *job, json_t *body, const char *what,
	const char *identity, char hash[MODEL_HASH_LEN + 1])
{
	struct jobs *j = in->pool->jobs;
	struct wire_reply reply;

	if (jobs_find_hash(j, identity, hash)) {
		json_decref(body);
		return STATUS_OK;
	}
	note_phase(in, job, "hash");
	TRY(request(in, body, NULL, WIRE_HASHED, &reply, NULL));
	memcpy(hash, reply.hash, sizeof reply.hash);
	jobs_remember_hash(j, what, identity, hash);
	return STATUS_OK;
}

static enum status learn_model(struct instance *in, struct job *job, char hash[MODEL_HASH_LEN + 1])
{
	const struct model *m = job->model;

	return learn_hash(in, job, model_request("hash", m), m->name, m->identity, hash);
}

static enum status learn_contents(struct instance *in, struct job *job)
{
	struct content c;

	for (int i = 0; contents_at(&job->recipe, i, &c); i++) {
		if (*c.hash || !*c.identity)
			continue;
		TRY(learn_hash(in, job,
			json_pack("{s:s, s:s, s:s}", "kind", "hash", "path", c.path, "identity", c.identity), c.path,
			c.identity, c.hash));
	}
	return STATUS_OK;
}

static void note_loaded(struct instance *in, const struct wire_reply *reply)
{
	pthread_mutex_lock(&in->pool->jobs->mu);
	in->n_loaded = reply->n_loaded;
	memcpy(in->loaded, reply->loaded, sizeof in->loaded);
	in->memory = reply->memory;
	pthread_mutex_unlock(&in->pool->jobs->mu);
}

static enum status warm(struct instance *in, struct job *job)
{
	struct wire_reply reply;

	TRY(request(in, model_request("warm", job->model), job, WIRE_DONE, &reply, NULL));
	note_loaded(in, &reply);
	in->deaths = 0;
	return STATUS_OK;
}

/* A job and what came of it so far. */
struct work {
	struct instance *in;
	struct job *job;
	struct answer a;
	struct bytes text; /* that the key was made of */
	struct bytes png;  /* made here, of pixels */
	double start;
};

/* Whether the worker hands over pixels. */
static bool overlaps(const struct instance *in)
{
	bool cpu;

	pthread_mutex_lock(&in->pool->jobs->mu);
	cpu = strcmp(in->pool->device_found, "cpu") == 0;
	pthread_mutex_unlock(&in->pool->jobs->mu);
	return !cpu;
}

static enum status take_picture(struct instance *in, const struct job *job, int fd, struct answer *a)
{
	const struct recipe *r = &job->recipe;
	enum status status =
		fd < 0 ? status_fail(STATUS_CORRUPT, "no picture")
		       : (a->pixels ? picture_map_pixels : picture_map)(fd, r->width, r->height, &a->map, &a->map_len);

	if (fd >= 0)
		close(fd);
	if (status == STATUS_CORRUPT)
		return bury_for(in, status);
	TRY(status);
	if (!a->pixels) {
		a->result.png = a->map;
		a->result.png_len = a->map_len;
	}
	return STATUS_OK;
}

static enum status generate(struct instance *in, struct job *job, struct answer *a)
{
	json_t *body = model_request("generate", job->model), *recipe;
	struct wire_reply reply;
	enum status status;
	int fd = -1;

	a->pixels = overlaps(in);
	if (body && recipe_to_json(&job->recipe, &recipe) == STATUS_OK)
		json_object_set_new(body, "recipe", recipe);
	if (body)
		json_object_set_new(body, "pixels", json_boolean(a->pixels));
	in->generating = true;
	status = request(in, body, job, WIRE_DONE, &reply, &fd);
	if (status == STATUS_OK)
		status = take_picture(in, job, fd, a);
	in->generating = false;
	TRY(status);
	memcpy(a->result.seconds, reply.progress.seconds, sizeof a->result.seconds);
	a->result.loras = reply.progress.loras;
	note_loaded(in, &reply);
	in->deaths = 0;
	return STATUS_OK;
}

/* By its key: from the cache, or made. */
static enum status make_keyed(struct instance *in, struct work *w, const char *hash)
{
	TRY(key_make(&w->job->recipe, hash, in->dtype, &w->text, w->a.result.key));
	if (jobs_find_cached(in->pool->jobs, w->a.result.key, &w->a))
		return STATUS_OK;
	return generate(in, w->job, &w->a);
}

static enum status attempt(struct instance *in, struct work *w)
{
	char hash[MODEL_HASH_LEN + 1];
	struct job *job = w->job;

	w->text.len = 0;
	note_start(in, job);
	if (!in->worker)
		TRY(start_worker(in, job));
	TRY(learn_model(in, job, hash));
	TRY(learn_contents(in, job));
	if (find_ask(in, job) != ASK_GO_ON)
		return cancelled();
	return job->warm ? warm(in, job) : make_keyed(in, w, hash);
}

/* ---- the end of a job */

/* The PNG of the pixels that the worker made. */
static enum status encode(struct work *w)
{
	const struct recipe *r = &w->job->recipe;
	const double start = jobs_now();

	note_phase(w->in, w->job, stage_name(STAGE_PNG));
	TRY(png_encode(w->a.map, r->width, r->height, &w->png));
	w->a.result.png = w->png.data;
	w->a.result.png_len = w->png.len;
	w->a.result.seconds[STAGE_PNG] += jobs_now() - start;
	return STATUS_OK;
}

/* A picture that cannot be kept is still handed out. */
static void store(const struct work *w)
{
	const struct job_result *r = &w->a.result;
	int error = cache_put(
		w->in->pool->jobs->cache, r->key, r->png, r->png_len, (const char *)w->text.data, w->text.len);

	if (error)
		log_warn("the picture %s is not kept: %s", r->key, cache_text());
}

/* How it failed, in the answer.  crashed: its worker did. */
static void fail_answer(struct work *w, enum status status, bool crashed, int kills)
{
	const struct job *job = w->job;
	struct answer *a = &w->a;
	bool unwanted = find_ask(w->in, job) != ASK_GO_ON || status == STATUS_CANCELLED;

	a->killed_twice = kills >= ATTEMPTS && !unwanted;
	snprintf(a->text, sizeof a->text, "%s%s", unwanted ? "cancelled" : status_text(),
		a->killed_twice ? ", twice" : "");
	a->result.status = unwanted ? STATUS_CANCELLED : status;
	a->result.error = unwanted ? ECANCELED : crashed ? EIO : errno_of_status(status);
	a->result.text = a->text;
	if (!unwanted)
		log_warn("%s (%s): %s", job->name, job->model->name, a->text);
}

/* Tells whoever waits, and frees the work.  In the instance's thread or its finisher. */
static void end_work(struct work *w)
{
	jobs_finish(w->in->pool->jobs, w->job, &w->a);
	if (w->a.result.from_cache)
		cache_release(&w->a.object);
	picture_unmap(w->a.map, w->a.map_len);
	bytes_free(&w->text);
	bytes_free(&w->png);
	free(w);
}

/* From a picture to its readers. */
static void *finish(void *argument)
{
	struct work *w = argument;
	const struct job *job = w->job;
	enum status status = w->a.pixels ? encode(w) : STATUS_OK;

	if (status != STATUS_OK) {
		fail_answer(w, status, false, 0);
	} else if (!w->a.result.from_cache) {
		if (!job->warm)
			store(w);
		log_info("%s (%s): %s in %.2f s", job->name, job->model->name, job->warm ? "loaded" : "painted",
			jobs_now() - w->start);
	}
	end_work(w);
	return NULL;
}

static void wait_finisher(struct instance *in)
{
	if (in->finishing)
		pthread_join(in->finisher, NULL);
	in->finishing = false;
}

/* Beside the next job, or here where there is no thread for it. */
static void finish_aside(struct instance *in, struct work *w)
{
	wait_finisher(in);
	if (pthread_create(&in->finisher, NULL, finish, w) == 0)
		in->finishing = true;
	else
		finish(w);
}

static void run_job(struct instance *in, struct job *job, struct work *w)
{
	enum status status = STATUS_OK;
	int kills = 0;

	*w = (struct work){ .in = in, .job = job, .a = { .result.text = "" }, .start = jobs_now() };
	for (int i = 0; i < ATTEMPTS; i++) {
		in->crashed = in->blamed = false;
		status = attempt(in, w);
		kills += in->blamed;
		if (!in->crashed || find_ask(in, job) != ASK_GO_ON)
			break;
		if (i + 1 < ATTEMPTS)
			log_warn("%s (%s): %s; trying once more", job->name, job->model->name, status_text());
	}
	if (status != STATUS_OK) {
		fail_answer(w, status, in->crashed, kills);
		end_work(w);
	} else if (w->a.pixels) {
		finish_aside(in, w);
	} else {
		finish(w);
	}
}

/* ---- between jobs */

static bool take_unload(struct instance *in, char identity[MODEL_HASH_LEN + 1])
{
	pthread_mutex_lock(&in->pool->jobs->mu);
	memcpy(identity, in->unload, sizeof in->unload);
	in->unload[0] = 0;
	pthread_mutex_unlock(&in->pool->jobs->mu);
	return identity[0] && in->worker;
}

static void unload(struct instance *in, const char *identity)
{
	struct wire_reply reply;
	json_t *body = json_pack("{s:s, s:s}", "kind", "unload", "model", identity);

	if (request(in, body, NULL, WIRE_DONE, &reply, NULL) != STATUS_OK)
		log_warn("unload: %s", status_text());
	else
		note_loaded(in, &reply);
}

/* Waits for something to do; a worker has nothing to say meanwhile. */
static void rest(struct instance *in)
{
	struct wire_message m = { .fd = -1 };
	enum status status;

	wait_events(in, -1);
	if (!in->worker)
		return;
	status = wire_receive(worker_wire(in->worker), 0, &m);
	if (status == STATUS_OK && !m.body)
		return;
	wire_message_fini(&m);
	if (status == STATUS_OK)
		bury(in, "sent garbage: a message without a request");
	else
		bury_for(in, status);
	log_warn("%s, while idle", status_text());
}

static void *instance_main(void *argument)
{
	char identity[MODEL_HASH_LEN + 1];
	struct instance *in = argument;
	struct work *w = NULL;
	struct job *job;

	while (find_ask(in, NULL) != ASK_STOP) {
		if (take_unload(in, identity)) {
			unload(in, identity);
		} else if (!w && !(w = malloc(sizeof *w))) {
			wait_events(in, TICK_MS); /* no memory: later */
		} else if ((job = jobs_take(in))) {
			run_job(in, job, w);
			w = NULL;
		} else {
			rest(in);
		}
	}
	free(w);
	retire(in);
	wait_finisher(in);
	return NULL;
}

/* ---- the thread */

/* All signals stay with the daemon's own threads. */
static int start_thread(struct instance *in)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&in->thread, NULL, instance_main, in);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error;
}

enum status instance_start(struct pool *p, struct instance **out)
{
	struct instance *in = calloc(1, sizeof *in);
	int error;

	if (!in)
		return status_fail(STATUS_NO_MEMORY, "no memory for a worker's thread");
	in->pool = p;
	in->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = in->wake < 0 ? errno : start_thread(in);
	if (!error) {
		*out = in;
		return STATUS_OK;
	}
	if (in->wake >= 0)
		close(in->wake);
	free(in);
	return status_fail(STATUS_IO, "cannot start a worker's thread: %s", strerror(error));
}

static bool ends_before(struct instance *in, double deadline)
{
	double left = deadline - jobs_now();
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	left += (double)end.tv_sec + (double)end.tv_nsec * 1e-9;
	end.tv_sec = (time_t)left;
	end.tv_nsec = (long)((left - (double)end.tv_sec) * 1e9);
	return pthread_timedjoin_np(in->thread, NULL, &end) == 0;
}

/* The thread may be stuck in sending to a worker that does not read: killing that worker frees it.  in->pid is 0 before
 * the thread reaps the process, so this never hits another one. */
void instance_end(struct instance *in, double deadline)
{
	instance_wake(in);
	if (!ends_before(in, deadline)) {
		pthread_mutex_lock(&in->pool->jobs->mu);
		if (in->pid)
			kill(in->pid, SIGKILL);
		pthread_mutex_unlock(&in->pool->jobs->mu);
		pthread_join(in->thread, NULL);
	}
	close(in->wake);
	free(in);
}

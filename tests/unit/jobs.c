/* Jobs against real worker processes and the test card: singleflight, leaving, cancelling, deaths, limits, the end. */
#include "fs/jobs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/png.h"
#include "fs/log.h"
#include "fs/supervisor.h"
#include "tests/unit/check.h"

static char root[64]; /* of everything this test writes */
static const char *binary;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		perror(path);
		exit(2);
	}
	close(fd);
}

/* ---- a bench: a cache, a model, jobs */

struct bench {
	char dir[128], executable[PATH_MAX];
	struct config config;
	struct config_model where;
	struct model model;
	struct cache *cache;
	struct jobs *jobs;
};

static void open_model(struct bench *b, const char *card)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/card", b->dir);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/card/model_index.json", b->dir);
	write_file(path, card, 0644);
	snprintf(path, sizeof path, "%s/card", b->dir);
	if (model_open(path, "card", &b->model) != STATUS_OK) {
		fprintf(stderr, "model_open: %s\n", status_text());
		exit(2);
	}
}

static void open_jobs(struct bench *b)
{
	if (jobs_open(&b->config, b->cache, b->executable, &b->jobs) != STATUS_OK)
		exit(2);
}

/* card: the fields of model_index.json after its class. */
static void open_bench(struct bench *b, const char *name, const char *card)
{
	char index[512];

	*b = (struct bench){ .config = { .device = "ref", .dtype = "f32", .threads = 1, .queue_limit = 1000 } };
	snprintf(b->dir, sizeof b->dir, "%s/%s", root, name);
	mkdir(b->dir, 0755);
	snprintf(b->config.cache, sizeof b->config.cache, "%s/cache", b->dir);
	snprintf(b->executable, sizeof b->executable, "%s", binary);
	if (cache_open(b->config.cache, 0, &b->cache) != 0)
		exit(2);
	snprintf(index, sizeof index, "{\"_class_name\": \"PromptfsTestCard\", \"size\": 32, %s}", card);
	open_model(b, index);
	open_jobs(b);
}

static void close_bench(struct bench *b)
{
	jobs_close(b->jobs);
	cache_close(b->cache);
}

/* ---- ears: waiters of the test */

static pthread_mutex_t ears_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ears_changed = PTHREAD_COND_INITIALIZER;
static int ears_order;

struct ear {
	char name[32];
	struct job_waiter *waiter;
	/* guarded by ears_mu */
	int calls, order, error;
	enum status status;
	char text[1300], key[RECIPE_KEY_LEN + 1];
	bool from_cache, is_picture;
};

static void hear(void *context, const struct job_result *r)
{
	struct ear *e = context;
	int width = 0, height = 0;
	bool is_picture = r->status == STATUS_OK && png_check(r->png, r->png_len, &width, &height) == STATUS_OK;

	pthread_mutex_lock(&ears_mu);
	e->calls++;
	e->order = ++ears_order;
	e->error = r->error;
	e->status = r->status;
	snprintf(e->text, sizeof e->text, "%s", r->text);
	memcpy(e->key, r->key, sizeof e->key);
	e->from_cache = r->from_cache;
	e->is_picture = is_picture && width == 32 && height == 32;
	pthread_cond_broadcast(&ears_changed);
	pthread_mutex_unlock(&ears_mu);
}

static bool answered_within(struct ear *e, double seconds)
{
	struct timespec end;
	bool answered;
	int error = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	seconds += (double)end.tv_nsec * 1e-9;
	end.tv_sec += (time_t)seconds;
	end.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9);
	pthread_mutex_lock(&ears_mu);
	while (!e->calls && !error)
		error = pthread_cond_timedwait(&ears_changed, &ears_mu, &end);
	answered = e->calls == 1;
	pthread_mutex_unlock(&ears_mu);
	return answered;
}

static bool painted(struct ear *e)
{
	bool good = answered_within(e, 15) && e->status == STATUS_OK && e->error == 0 && e->is_picture;

	if (!good)
		printf("# %s: %d calls, status %s, error %d: %s\n", e->name, e->calls, status_name(e->status), e->error,
			e->text);
	return good;
}

static bool failed_with(struct ear *e, int error, const char *part)
{
	bool good = answered_within(e, 15) && e->status != STATUS_OK && e->error == error && strstr(e->text, part);

	if (!good)
		printf("# %s: %d calls, status %s, error %d: %s\n", e->name, e->calls, status_name(e->status), e->error,
			e->text);
	return good;
}

/* Submits the recipe of `prompt` under the ear's name. */
static void submit_as(struct bench *b, struct ear *e, const char *prompt, uid_t uid, pid_t pid)
{
	struct recipe_fields fields = { .prompt = (char *)prompt };
	struct recipe recipe = { 0 };

	if (recipe_resolve(&fields, &b->model, &recipe) != STATUS_OK) {
		fprintf(stderr, "recipe_resolve: %s\n", status_text());
		exit(2);
	}
	e->waiter = jobs_submit(b->jobs, &(struct job_request){ .name = e->name,
						 .model = &b->model,
						 .where = &b->where,
						 .recipe = &recipe,
						 .uid = uid,
						 .pid = pid,
						 .done = hear,
						 .context = e });
	recipe_free(&recipe);
}

static void submit(struct bench *b, struct ear *e, const char *name, const char *prompt)
{
	*e = (struct ear){ 0 };
	snprintf(e->name, sizeof e->name, "%s", name);
	submit_as(b, e, prompt, 1000, 50);
}

/* ---- workers seen from outside */

static pid_t parent_of(pid_t pid)
{
	char path[64], text[512] = "", *end;
	int parent = 0, fd;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		parent = -1;
	if (fd >= 0)
		close(fd);
	end = strrchr(text, ')');
	if (!end || sscanf(end, ") %*c %d", &parent) != 1)
		return -1;
	return parent;
}

/* Gone, or dead and only waited for by whoever inherited it. */
static bool is_dead(pid_t pid)
{
	char path[64], text[512] = "", *end;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	if (read(fd, text, sizeof text - 1) < 0)
		text[0] = 0;
	close(fd);
	end = strrchr(text, ')');
	return !end || end[2] == 'Z';
}

/* A child of this process, other than `except`; 0: none. */
static pid_t find_worker(pid_t except)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0, pid;

	while (!found && (entry = readdir(dir))) {
		pid = (pid_t)atoi(entry->d_name);
		if (pid > 0 && pid != except && parent_of(pid) == getpid())
			found = pid;
	}
	closedir(dir);
	return found;
}

/* The first line of the list. */
static bool find_info(struct bench *b, struct job_info *out)
{
	struct job_info *list = NULL;
	size_t count = 0;
	bool found;

	if (jobs_list(b->jobs, &list, &count) != 0)
		return false;
	found = count > 0;
	if (found)
		*out = list[0];
	free(list);
	return found;
}

/* Until the first job is in its steps. */
static bool wait_steps(struct bench *b)
{
	double end = now() + 10;
	struct job_info info = { 0 };

	while (now() < end) {
		if (find_info(b, &info) && strcmp(info.stage, "step") == 0)
			return true;
		pause_ms(5);
	}
	return false;
}

static bool wait_nothing_runs(struct bench *b)
{
	double end = now() + 10;
	struct jobs_counters c = { .running = 1 };

	while (c.running && now() < end) {
		jobs_count(b->jobs, &c);
		pause_ms(5);
	}
	return !c.running;
}

static struct jobs_counters counted(struct bench *b)
{
	struct jobs_counters c;

	jobs_count(b->jobs, &c);
	return c;
}

/* ---- one picture */

static void test_picture(void)
{
	struct jobs_model_count *models = NULL;
	struct jobs_counters c;
	struct bench b;
	struct ear e, again;
	size_t count = 0;
	uint64_t observed = 0;

	open_bench(&b, "picture", "\"delay_ms\": 5");
	submit(&b, &e, "a.png", "a cat");
	CHECK("a picture is painted", painted(&e) && !e.from_cache && cache_has(b.cache, e.key));
	submit(&b, &again, "b.png", "a cat");
	CHECK("the same recipe comes from the cache at once",
		!again.waiter && again.calls == 1 && again.from_cache && strcmp(again.key, e.key) == 0);
	c = counted(&b);
	for (int i = 0; i < 16; i++)
		observed += c.buckets[STAGE_STEP][i];
	CHECK("both are counted", c.generated == 1 && c.cache_hits == 1 && c.failed == 0 && observed == 1 &&
					  c.sums[STAGE_STEP] > 0.01 && c.worker_memory > 1 << 20);
	CHECK("also by model", jobs_count_models(b.jobs, &models, &count) == 0 && count == 1 &&
				       strcmp(models[0].model, "card") == 0 && models[0].generated == 1 &&
				       models[0].cache_hits == 1);
	free(models);
	close_bench(&b);
}

/* A cache written by earlier jobs answers before any worker exists: there is no program to start one from. */
static void test_cached(void)
{
	struct bench b;
	struct ear e, again;

	open_bench(&b, "cached", "\"delay_ms\": 0");
	submit(&b, &e, "a.png", "a cat");
	painted(&e);
	jobs_close(b.jobs);
	strcpy(b.executable, "/nonexistent");
	open_jobs(&b);
	submit(&b, &again, "a.png", "a cat");
	CHECK("a cached picture needs no worker", !again.waiter && painted(&again) && again.from_cache);
	submit(&b, &again, "a.png", "a dog");
	CHECK("another one fails with the program's name", failed_with(&again, EIO, "/nonexistent"));
	close_bench(&b);
}

/* Without a configured dtype the key is known after the first worker's hello; the cache still spares the painting. */
static void test_cached_late(void)
{
	struct bench b;
	struct ear e, again;

	open_bench(&b, "late", "\"delay_ms\": 0");
	b.config.dtype[0] = 0;
	submit(&b, &e, "a.png", "a cat");
	painted(&e);
	jobs_close(b.jobs);
	open_jobs(&b);
	submit(&b, &again, "a.png", "a cat");
	CHECK("the cache is asked again when the key is known", painted(&again) && again.from_cache);
	close_bench(&b);
}

/* ---- singleflight */

enum { CROWD = 200, CROWD_THREADS = 8 };

struct crowd {
	struct bench *bench;
	struct ear *ears;
};

static void *submit_crowd(void *argument)
{
	struct crowd *crowd = argument;

	for (int i = 0; i < CROWD / CROWD_THREADS; i++)
		submit(crowd->bench, &crowd->ears[i], "crowd.png", "a crowd");
	return NULL;
}

static void test_singleflight(void)
{
	static struct ear ears[CROWD];
	struct crowd crowds[CROWD_THREADS];
	pthread_t threads[CROWD_THREADS];
	struct jobs_counters c;
	struct bench b;
	int good = 0;

	open_bench(&b, "crowd", "\"delay_ms\": 20");
	for (int i = 0; i < CROWD_THREADS; i++) {
		crowds[i] = (struct crowd){ &b, ears + i * (CROWD / CROWD_THREADS) };
		if (pthread_create(&threads[i], NULL, submit_crowd, &crowds[i]))
			exit(2);
	}
	for (int i = 0; i < CROWD_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < CROWD; i++)
		good += painted(&ears[i]);
	c = counted(&b);
	CHECK("200 submits at once all get the picture", good == CROWD);
	CHECK("it is painted once", c.generated == 1 && c.joined + c.cache_hits == CROWD - 1);
	close_bench(&b);
}

static void test_leaving(void)
{
	struct bench b;
	struct ear first, second;

	open_bench(&b, "leaving", "\"delay_ms\": 50");
	submit(&b, &first, "a.png", "a cat");
	submit(&b, &second, "b.png", "a cat");
	wait_steps(&b);
	CHECK("a waiter leaves", jobs_leave(b.jobs, first.waiter));
	CHECK("the other gets the picture", painted(&second));
	CHECK("who left is not called", first.calls == 0);
	CHECK("leaving twice is told", !jobs_leave(b.jobs, first.waiter));
	CHECK("leaving after the answer is told", !jobs_leave(b.jobs, second.waiter));
	close_bench(&b);
}

static void test_last_leaving(void)
{
	struct bench b;
	struct ear first, second;
	double start;

	open_bench(&b, "last", "\"delay_ms\": 100, \"steps\": 20");
	submit(&b, &first, "a.png", "a cat");
	wait_steps(&b);
	start = now();
	CHECK("the last waiter leaves", jobs_leave(b.jobs, first.waiter));
	CHECK("the job ends within a step or two", wait_nothing_runs(&b) && now() - start < 1.5);
	CHECK("it is counted as cancelled", counted(&b).cancelled == 1 && counted(&b).generated == 0);
	submit(&b, &first, "a.png", "a cat");
	wait_steps(&b);
	jobs_leave(b.jobs, first.waiter);
	submit(&b, &second, "a.png", "a cat");
	CHECK("a reader who comes while it ends gets a job of his own", painted(&second));
	CHECK("the worker lived on", counted(&b).worker_restarts == 0);
	CHECK("who left was never called", first.calls == 0);
	close_bench(&b);
}

static void test_leaving_queue(void)
{
	struct bench b;
	struct ear first, second, third;

	open_bench(&b, "queued", "\"delay_ms\": 50");
	submit(&b, &first, "a.png", "a cat");
	wait_steps(&b);
	submit(&b, &second, "b.png", "a dog");
	submit(&b, &third, "c.png", "a cow");
	CHECK("a waiter leaves the queue", jobs_leave(b.jobs, second.waiter));
	CHECK("the others are painted", painted(&first) && painted(&third));
	CHECK("what nobody waits for is not", counted(&b).generated == 2 && second.calls == 0);
	close_bench(&b);
}

static void test_cancel(void)
{
	struct bench b;
	struct ear first, second, third;

	open_bench(&b, "cancel", "\"delay_ms\": 50");
	submit(&b, &first, "a.png", "a cat");
	submit(&b, &second, "b.png", "a cat");
	submit(&b, &third, "c.png", "a dog");
	CHECK("nothing of this name: ENOENT", jobs_cancel(b.jobs, "x.png") == ENOENT);
	CHECK("a name is cancelled", jobs_cancel(b.jobs, "a.png") == 0 && failed_with(&first, ECANCELED, "cancelled"));
	CHECK("a queued one as well", jobs_cancel(b.jobs, "c.png") == 0 && failed_with(&third, ECANCELED, "cancelled"));
	CHECK("another name of the same job is painted", painted(&second));
	close_bench(&b);
}

/* ---- workers that die */

static void test_killed_once(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "once", "\"delay_ms\": 50");
	submit(&b, &e, "a.png", "a cat");
	wait_steps(&b);
	kill(find_worker(0), SIGKILL);
	CHECK("a worker killed in a job: the job is done by another", painted(&e));
	CHECK("one restart is counted", counted(&b).worker_restarts == 1);
	close_bench(&b);
}

static void test_killed_idle(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "idle", "\"delay_ms\": 0");
	submit(&b, &e, "a.png", "a cat");
	painted(&e);
	kill(find_worker(0), SIGKILL);
	for (int i = 0; i < 1000 && find_worker(0); i++)
		pause_ms(5);
	CHECK("a worker killed while idle is reaped", find_worker(0) == 0);
	submit(&b, &e, "b.png", "a dog");
	CHECK("the next job starts another", painted(&e));
	close_bench(&b);
}

static void test_killed_twice(void)
{
	struct bench b;
	struct ear e, other, again;
	pid_t first, second = 0;

	open_bench(&b, "twice", "\"delay_ms\": 100");
	submit(&b, &e, "a.png", "a cat");
	wait_steps(&b);
	first = find_worker(0);
	kill(first, SIGKILL);
	for (int i = 0; i < 2000 && (!second || second == first); i++) {
		second = find_worker(first);
		pause_ms(2);
	}
	wait_steps(&b);
	kill(second, SIGKILL);
	CHECK("a job that lost two workers fails with the reason", failed_with(&e, EIO, "killed by signal 9"));
	submit(&b, &again, "b.png", "a cat");
	CHECK("its recipe fails at once", !again.waiter && failed_with(&again, EIO, "killed by signal 9"));
	submit(&b, &other, "c.png", "a dog");
	CHECK("others are painted, after a pause", painted(&other));
	jobs_forgive(b.jobs, "c.png");
	submit(&b, &again, "a.png", "a cat");
	CHECK("forgiving another name changes nothing", failed_with(&again, EIO, "killed by signal 9"));
	jobs_forgive(b.jobs, "b.png");
	submit(&b, &again, "a.png", "a cat");
	CHECK("forgiven by any name that asked for it, it is painted", painted(&again));
	close_bench(&b);
}

static void test_crash(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "crash", "\"crash\": \"step\"");
	submit(&b, &e, "a.png", "a cat");
	CHECK("a crash is told by its signal", failed_with(&e, EIO, "signal 11 (Segmentation fault), twice"));
	CHECK("it was tried twice", counted(&b).worker_restarts == 1 && counted(&b).failed == 1);
	submit(&b, &e, "a.png", "a cat");
	CHECK("and is not tried again", failed_with(&e, EIO, "signal 11") && counted(&b).worker_restarts == 1);
	close_bench(&b);
}

static void test_failure(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "failure", "\"crash\": \"fail\"");
	submit(&b, &e, "a.png", "a cat");
	CHECK("a failure comes with the engine's text", failed_with(&e, EIO, "told to fail"));
	CHECK("it costs no worker and is not tried twice", counted(&b).worker_restarts == 0 && counted(&b).failed == 1);
	submit(&b, &e, "a.png", "a cat");
	CHECK("the next open tries again", failed_with(&e, EIO, "told to fail") && counted(&b).failed == 2);
	close_bench(&b);
}

static void test_hang(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "hang", "\"delay_ms\": 50");
	jobs_set_patience(b.jobs, 1);
	submit(&b, &e, "a.png", "a cat");
	wait_steps(&b);
	kill(find_worker(0), SIGSTOP);
	CHECK("a worker that hangs is replaced", painted(&e) && counted(&b).worker_restarts == 1);
	close_bench(&b);
}

static void test_changed_model(void)
{
	char path[PATH_MAX];
	struct bench b;
	struct ear e;

	open_bench(&b, "changed", "\"delay_ms\": 0");
	snprintf(path, sizeof path, "%s/card/model_index.json", b.dir);
	write_file(path, "{\"_class_name\": \"PromptfsTestCard\", \"size\": 32, \"steps\": 3}", 0644);
	submit(&b, &e, "a.png", "a cat");
	CHECK("a model that changed on disk is not used under its old hash", failed_with(&e, ENODEV, "have changed"));
	close_bench(&b);
}

static void test_wrong_device(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "device", "\"delay_ms\": 0");
	strcpy(b.where.device, "cuda:9");
	submit(&b, &e, "a.png", "a cat");
	CHECK("a device that is not there fails with its name",
		answered_within(&e, 15) && e.error && strstr(e.text, "cuda"));
	close_bench(&b);
}

/* ---- what is no worker of ours */

static void fail_with_script(const char *name, const char *script, const char *part)
{
	struct bench b;
	struct ear e;
	double start = now();

	open_bench(&b, name, "\"delay_ms\": 0");
	snprintf(b.executable, sizeof b.executable, "%s/script", b.dir);
	write_file(b.executable, script, 0755);
	jobs_close(b.jobs);
	open_jobs(&b);
	submit(&b, &e, "a.png", "a cat");
	check_case(failed_with(&e, EIO, part), NULL, "a worker that %s", part);
	check_case(now() - start < 5, NULL, "told soon: a worker that %s", part);
	close_bench(&b);
}

static void test_impostors(void)
{
	fail_with_script("exits", "#!/bin/sh\nexit 7\n", "exited with status 7");
	fail_with_script("babbles", "#!/bin/sh\necho nonsense, nonsense >&3\nsleep 5\n", "sent garbage");
	fail_with_script("answers", "#!/bin/sh\nprintf '\\002\\0\\0\\0\\0\\0\\0\\0{}' >&3\nsleep 5\n", "sent garbage");
	fail_with_script("lists",
		"#!/bin/sh\nprintf '\\070\\0\\0\\0\\0\\0\\0\\0"
		"{\"kind\":\"ready\",\"id\":99,\"device\":\"cpu\",\"dtype\":\"f32\"}     ' >&3\nsleep 5\n",
		"sent garbage");
}

/* ---- limits and order */

static void test_queue_limit(void)
{
	struct ear running, waiting[3], refused, joined;
	struct bench b;
	bool good = true;

	open_bench(&b, "limit", "\"delay_ms\": 50");
	b.config.queue_limit = b.config.queue_user_limit = 3;
	submit(&b, &running, "r.png", "0");
	wait_steps(&b);
	submit(&b, &waiting[0], "0.png", "1");
	submit(&b, &waiting[1], "1.png", "2");
	submit(&b, &waiting[2], "2.png", "3");
	submit(&b, &refused, "x.png", "4");
	CHECK("a full queue refuses", !refused.waiter && failed_with(&refused, EBUSY, "queue is full"));
	submit(&b, &joined, "j.png", "3");
	CHECK("joining needs no place", joined.waiter && painted(&joined));
	for (int i = 0; i < 3; i++)
		good = good && painted(&waiting[i]);
	CHECK("what waited is painted", good && painted(&running));
	close_bench(&b);
}

static void test_user_limit(void)
{
	struct ear blocker, first = { .name = "1.png" }, refused = { .name = "2.png" }, other = { .name = "3.png" };
	struct bench b;

	open_bench(&b, "user limit", "\"delay_ms\": 50");
	b.config.queue_limit = 4;
	b.config.queue_user_limit = 1;
	submit(&b, &blocker, "b.png", "blocker");
	wait_steps(&b);
	submit_as(&b, &first, "1", 1001, 10);
	submit_as(&b, &refused, "2", 1001, 11);
	submit_as(&b, &other, "3", 1002, 12);
	CHECK("a user's share is full", !refused.waiter && failed_with(&refused, EBUSY, "your share"));
	CHECK("another's is not", first.waiter && other.waiter && painted(&first) && painted(&other));
	CHECK("the running one was none of it", painted(&blocker));
	close_bench(&b);
}

static void test_fairness(void)
{
	static const struct {
		uid_t uid;
		pid_t pid;
		int turn;
	} cases[] = { { 1, 10, 1 }, { 1, 10, 5 }, { 1, 10, 6 }, { 1, 11, 3 }, { 2, 20, 2 }, { 2, 20, 4 } };
	struct ear blocker, ears[6] = { 0 };
	struct bench b;
	char prompt[16];

	open_bench(&b, "fair", "\"delay_ms\": 20");
	submit(&b, &blocker, "b.png", "blocker");
	wait_steps(&b);
	for (int i = 0; i < 6; i++) {
		snprintf(prompt, sizeof prompt, "%d", i);
		snprintf(ears[i].name, sizeof ears[i].name, "%d.png", i);
		submit_as(&b, &ears[i], prompt, cases[i].uid, cases[i].pid);
	}
	painted(&blocker);
	for (int i = 0; i < 6; i++)
		check_case(painted(&ears[i]) && ears[i].order - blocker.order == cases[i].turn, NULL,
			"job %d of user %d, process %d has turn %d", i, (int)cases[i].uid, (int)cases[i].pid,
			cases[i].turn);
	close_bench(&b);
}

static void test_list(void)
{
	struct ear first, second, third;
	struct job_info *list = NULL;
	size_t count = 0;
	struct bench b;

	open_bench(&b, "list", "\"delay_ms\": 100");
	submit(&b, &first, "a.png", "a cat");
	wait_steps(&b);
	submit(&b, &second, "a.png", "a cat");
	submit(&b, &third, "c.png", "a dog");
	CHECK("the list has a line for each name", jobs_list(b.jobs, &list, &count) == 0 && count == 2);
	CHECK("the running job comes first", count == 2 && strcmp(list[0].name, "a.png") == 0 &&
						     strcmp(list[0].state, "running") == 0 &&
						     strcmp(list[0].stage, "step") == 0 && list[0].steps == 4 &&
						     list[0].waiters == 2 && list[0].uid == 1000);
	CHECK("then the queue", count == 2 && strcmp(list[1].name, "c.png") == 0 &&
					strcmp(list[1].state, "queued") == 0 && list[1].waiters == 1 &&
					list[1].eta < 0);
	free(list);
	CHECK("all are painted", painted(&first) && painted(&second) && painted(&third));
	close_bench(&b);
}

static bool wait_loaded(struct bench *b, bool loaded)
{
	struct jobs_loaded where = { .memory = 0 };
	double end = now() + 10;

	while (jobs_find_loaded(b->jobs, &b->model, &where) != loaded && now() < end)
		pause_ms(5);
	return now() < end && (!loaded || (strcmp(where.device, "ref") == 0 && strcmp(where.dtype, "f32") == 0));
}

static void test_warm(void)
{
	struct bench b;
	struct ear e;

	open_bench(&b, "warm", "\"delay_ms\": 0");
	CHECK("a model is warmed", jobs_warm(b.jobs, &b.model, &b.where) == STATUS_OK && wait_loaded(&b, true));
	CHECK("which counts as no generation", counted(&b).generated == 0);
	CHECK("and unloaded", jobs_unload(b.jobs, &b.model) == STATUS_OK && wait_loaded(&b, false));
	submit(&b, &e, "a.png", "a cat");
	CHECK("a picture loads it again", painted(&e) && wait_loaded(&b, true));
	close_bench(&b);
}

/* Several workers of one model. */
static void test_instances(void)
{
	struct ear ears[4];
	struct bench b;
	double end = now() + 10;
	bool together = false, good = true;
	char prompt[16];

	open_bench(&b, "instances", "\"delay_ms\": 100, \"steps\": 8");
	b.where.instances = 4;
	for (int i = 0; i < 4; i++) {
		snprintf(prompt, sizeof prompt, "%d", i);
		submit(&b, &ears[i], prompt, prompt);
	}
	while (!together && now() < end) {
		together = counted(&b).running == 4;
		pause_ms(2);
	}
	for (int i = 0; i < 4; i++)
		good = good && painted(&ears[i]);
	CHECK("four instances paint at the same time", together && good);
	close_bench(&b);
}

/* ---- disk and end */

/* The cache can store nothing: its folder for temporary files is a file. */
static void test_full_disk(void)
{
	char path[PATH_MAX + 8];
	struct bench b;
	struct ear e;

	open_bench(&b, "full", "\"delay_ms\": 0");
	snprintf(path, sizeof path, "%s/tmp", b.config.cache);
	rmdir(path);
	write_file(path, "", 0644);
	submit(&b, &e, "a.png", "a cat");
	CHECK("a picture that cannot be kept is still delivered", painted(&e) && !cache_has(b.cache, e.key));
	submit(&b, &e, "a.png", "a cat");
	CHECK("and made again", painted(&e) && !e.from_cache && counted(&b).generated == 2);
	close_bench(&b);
}

static void test_close(void)
{
	struct ear ears[6];
	struct bench b;
	char prompt[16];
	int good = 0;
	double start;

	open_bench(&b, "close", "\"delay_ms\": 300, \"steps\": 100");
	for (int i = 0; i < 6; i++) {
		snprintf(prompt, sizeof prompt, "%d", i);
		submit(&b, &ears[i], prompt, prompt);
	}
	wait_steps(&b);
	start = now();
	close_bench(&b);
	for (int i = 0; i < 6; i++)
		good += ears[i].calls == 1 && ears[i].error == ECANCELED;
	CHECK("closing answers everyone", good == 6);
	CHECK("closing is quick and leaves no process", now() - start < 3 && find_worker(0) == 0);
}

/* A worker that does not even look at its socket. */
static void test_close_stopped(void)
{
	struct bench b;
	struct ear e;
	double start;

	open_bench(&b, "stopped", "\"delay_ms\": 50");
	submit(&b, &e, "a.png", "a cat");
	wait_steps(&b);
	kill(find_worker(0), SIGSTOP);
	start = now();
	close_bench(&b);
	CHECK("a stopped worker is killed at the end",
		now() - start < 3.5 && find_worker(0) == 0 && e.error == ECANCELED);
}

/* A request longer than the socket takes, to a worker that does not read. */
static void test_close_sending(void)
{
	char *prompt = malloc(1000001);
	struct bench b;
	struct ear e;
	pid_t worker;
	double start;

	memset(prompt, 'x', 1000000);
	prompt[1000000] = 0;
	open_bench(&b, "sending", "\"delay_ms\": 0");
	submit(&b, &e, "a.png", "a cat");
	painted(&e);
	worker = find_worker(0);
	kill(worker, SIGSTOP);
	submit(&b, &e, "a.png", prompt);
	pause_ms(100); /* into the sending; earlier, the test shows less */
	start = now();
	close_bench(&b);
	CHECK("a worker that does not read does not stop the end",
		now() - start < 3.5 && is_dead(worker) && e.error == ECANCELED);
	free(prompt);
}

/* ---- everything at once */

enum { STORM_THREADS = 4, STORM_EARS = 150 };

struct storm {
	struct bench *bench;
	unsigned seed;
	struct ear ears[STORM_EARS];
	bool left[STORM_EARS];
};

static void rummage(struct bench *b, struct ear *e, unsigned what)
{
	struct job_info info;

	if (what == 0)
		jobs_cancel(b->jobs, e->name);
	else if (what == 1)
		jobs_forgive(b->jobs, NULL);
	else if (what == 2)
		find_info(b, &info);
	else if (what == 3)
		jobs_unload(b->jobs, &b->model);
	else if (what == 4)
		jobs_warm(b->jobs, &b->model, &b->where);
}

static void *run_storm(void *argument)
{
	struct storm *s = argument;
	char prompt[16], name[16];

	for (int i = 0; i < STORM_EARS; i++) {
		snprintf(prompt, sizeof prompt, "%d", rand_r(&s->seed) % 400);
		snprintf(name, sizeof name, "%d.png", rand_r(&s->seed) % 50);
		submit(s->bench, &s->ears[i], name, prompt);
		pause_ms(rand_r(&s->seed) % 8);
		rummage(s->bench, &s->ears[i], (unsigned)rand_r(&s->seed) % 20);
		if (rand_r(&s->seed) % 3 == 0)
			s->left[i] = jobs_leave(s->bench->jobs, s->ears[i].waiter);
	}
	return NULL;
}

/* Every waiter must be answered once or have left, whatever happens to the workers. */
static void test_storm(void)
{
	static struct storm storms[STORM_THREADS];
	pthread_t threads[STORM_THREADS];
	int lost = 0, twice = 0, pictures = 0;
	struct bench b;

	open_bench(&b, "storm", "\"delay_ms\": 2");
	b.where.instances = 2;
	for (unsigned i = 0; i < STORM_THREADS; i++) {
		storms[i].bench = &b;
		storms[i].seed = i + 1;
		if (pthread_create(&threads[i], NULL, run_storm, &storms[i]))
			exit(2);
	}
	for (int i = 0; i < 6; i++) {
		pid_t worker = find_worker(0);

		pause_ms(100);
		if (worker && parent_of(worker) == getpid())
			kill(worker, SIGKILL);
	}
	for (int i = 0; i < STORM_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < STORM_THREADS; i++) {
		for (int k = 0; k < STORM_EARS; k++) {
			struct ear *e = &storms[i].ears[k];

			lost += !storms[i].left[k] && !answered_within(e, 15);
			twice += e->calls > !storms[i].left[k];
			pictures += e->is_picture;
		}
	}
	check_case(lost == 0 && twice == 0, NULL, "600 waiters in a storm are answered once each or have left");
	check_case(pictures > 100, "too few pictures", "most of them get their picture");
	CHECK("nothing runs on", wait_nothing_runs(&b) && counted(&b).queued == 0);
	close_bench(&b);
}

/* ---- the process itself */

/* A worker without jobs around it. */
static struct worker *start_bare(void)
{
	struct worker *w;

	if (worker_start(binary, &w) != STATUS_OK)
		exit(2);
	return w;
}

static bool ends_after(const char *body, size_t len)
{
	struct worker *w = start_bare();
	uint32_t header[2] = { (uint32_t)len, 0 };
	char why[256] = "";
	int fd = wire_fd(worker_wire(w));
	struct wire_message m = { .fd = -1 };
	bool said_nothing;

	if (write(fd, header, sizeof header) < 0 || write(fd, body, strlen(body)) < 0)
		exit(2);
	said_nothing = wire_receive(worker_wire(w), 5000, &m) == STATUS_IO;
	worker_end(w, 5000, why, sizeof why);
	wire_message_fini(&m);
	return said_nothing && strcmp(why, "exited with status 0") == 0;
}

static void test_requests(void)
{
	char why[256] = "";

	CHECK("a worker ends at a request that is no JSON", ends_after("nonsense", 8));
	CHECK("at a length above the limit", ends_after("{}", WIRE_REQUEST_MAX + 1));
	CHECK("at an unknown request", ends_after("{\"kind\":\"dance\",\"id\":1}", 23));
	CHECK("at a job before hello", ends_after("{\"kind\":\"unload\",\"id\":1}", 24));
	worker_end(start_bare(), 5000, why, sizeof why);
	CHECK("and when the connection ends", strcmp(why, "exited with status 0") == 0);
}

static int count_files(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	int count = 0;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return count;
}

static int oom_score(pid_t pid)
{
	char path[64], text[16] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		return -1;
	close(fd);
	return atoi(text);
}

static void test_process(void)
{
	int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as a library might */
	struct bench b;
	struct ear e;
	pid_t worker;

	open_bench(&b, "process", "\"delay_ms\": 50");
	submit(&b, &e, "a.png", "a cat");
	wait_steps(&b);
	worker = find_worker(0);
	CHECK("a worker has stdio and its socket, nothing of ours", count_files(worker) == 4);
	CHECK("it goes first when memory runs out", oom_score(worker) == 500);
	CHECK("Ctrl-C for us is not for it", getpgid(worker) == worker);
	painted(&e);
	close_bench(&b);
	close(leak);
}

/* The process of a test that is killed: it tells its worker's pid and waits. */
static void hold_worker(int tell)
{
	struct bench b;
	struct ear e;
	pid_t worker;

	open_bench(&b, "orphan", "\"delay_ms\": 60000");
	submit(&b, &e, "a.png", "a cat");
	worker = wait_steps(&b) ? find_worker(0) : 0;
	if (write(tell, &worker, sizeof worker) < 0)
		_exit(1);
	for (;;)
		pause();
}

static void test_orphan(void)
{
	pid_t holder, worker = 0;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		exit(2);
	holder = fork();
	if (holder == 0)
		hold_worker(ends[1]);
	close(ends[1]);
	if (read(ends[0], &worker, sizeof worker) < 0)
		worker = 0;
	close(ends[0]);
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
	for (int i = 0; i < 400 && worker && !is_dead(worker); i++)
		pause_ms(5);
	CHECK("a worker in a job dies with its daemon", worker && is_dead(worker));
}

/* ---- the program */

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (dir && readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "picture", test_picture },
	{ "cached", test_cached },
	{ "cached late", test_cached_late },
	{ "singleflight", test_singleflight },
	{ "leaving", test_leaving },
	{ "last leaving", test_last_leaving },
	{ "leaving the queue", test_leaving_queue },
	{ "cancel", test_cancel },
	{ "killed once", test_killed_once },
	{ "killed while idle", test_killed_idle },
	{ "killed twice", test_killed_twice },
	{ "crash", test_crash },
	{ "failure", test_failure },
	{ "hang", test_hang },
	{ "changed model", test_changed_model },
	{ "wrong device", test_wrong_device },
	{ "impostors", test_impostors },
	{ "queue limit", test_queue_limit },
	{ "user limit", test_user_limit },
	{ "fairness", test_fairness },
	{ "list", test_list },
	{ "warm", test_warm },
	{ "instances", test_instances },
	{ "full disk", test_full_disk },
	{ "storm", test_storm },
	{ "requests", test_requests },
	{ "process", test_process },
	{ "orphan", test_orphan },
	{ "close", test_close },
	{ "close with a stopped worker", test_close_stopped },
	{ "close while sending", test_close_sending },
};

/* A worker built with AddressSanitizer must crash as others do, and not explain itself. */
static void let_crash(void)
{
	const char *options = getenv("ASAN_OPTIONS");
	char all[1024];

	snprintf(all, sizeof all, "%s:handle_segv=0", options ? options : "");
	setenv("ASAN_OPTIONS", all, 1);
}

/* arguments: the names of tests to run; none: all */
static bool is_wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

int main(int argc, char **argv)
{
	char log_file[128];
	int before;

	setvbuf(stdout, NULL, _IOLBF, 0);
	binary = getenv("PROMPTFS_BINARY");
	if (!binary || !*binary)
		binary = "build/release/promptfs";
	snprintf(root, sizeof root, "/tmp/promptfs-jobs-XXXXXX");
	if (!mkdtemp(root))
		return 2;
	snprintf(log_file, sizeof log_file, "%s/log", root);
	if (log_open("info", log_file, LOG_SINK_STDERR) != STATUS_OK)
		return 2;
	let_crash();
	before = count_fds();
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		double start = now();

		if (!is_wanted(tests[i].name, argc, argv))
			continue;
		if (access(binary, X_OK) != 0) {
			printf("skip - jobs: %s: %s is not built\n", tests[i].name, binary);
			continue;
		}
		tests[i].run();
		printf("# %s: %.2f s\n", tests[i].name, now() - start);
	}
	CHECK("no descriptor is left open", count_fds() == before);
	CHECK("no process is left", waitpid(-1, NULL, WNOHANG) < 0);
	log_close();
	if (!getenv("PROMPTFS_KEEP"))
		nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return check_result();
}

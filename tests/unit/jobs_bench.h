/* jobs_bench: what the tests of jobs share: a cache, a model and jobs with real worker processes and the test card, and
 * waiters that note what they were told.
 *
 *     struct bench b;
 *     open_bench(&b, "name", NULL);
 *     submit(&b, &ear, "a.png", "a prompt");
 *     CHECK("...", painted(&ear));
 *     close_bench(&b);
 */
#ifndef PROMPTFS_TESTS_JOBS_BENCH_H
#define PROMPTFS_TESTS_JOBS_BENCH_H

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

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static inline void write_file(const char *path, const char *text, mode_t mode)
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

static inline void open_model(struct bench *b, const char *card)
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

static inline void open_jobs(struct bench *b)
{
	if (jobs_open(&b->config, b->cache, b->executable, &b->jobs) != STATUS_OK)
		exit(2);
}

/* card: the fields of model_index.json after its class. */
static inline void open_bench(struct bench *b, const char *name, const char *card)
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

static inline void close_bench(struct bench *b)
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

static inline void hear(void *context, const struct job_result *r)
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

static inline bool answered_within(struct ear *e, double seconds)
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

static inline bool painted(struct ear *e)
{
	bool good = answered_within(e, 15) && e->status == STATUS_OK && e->error == 0 && e->is_picture;

	if (!good)
		printf("# %s: %d calls, status %s, error %d: %s\n", e->name, e->calls, status_name(e->status), e->error,
			e->text);
	return good;
}

static inline bool failed_with(struct ear *e, int error, const char *part)
{
	bool good = answered_within(e, 15) && e->status != STATUS_OK && e->error == error && strstr(e->text, part);

	if (!good)
		printf("# %s: %d calls, status %s, error %d: %s\n", e->name, e->calls, status_name(e->status), e->error,
			e->text);
	return good;
}

/* Submits the recipe of `prompt` under the ear's name. */
static inline void submit_as(struct bench *b, struct ear *e, const char *prompt, uid_t uid, pid_t pid)
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

static inline void submit(struct bench *b, struct ear *e, const char *name, const char *prompt)
{
	*e = (struct ear){ 0 };
	snprintf(e->name, sizeof e->name, "%s", name);
	submit_as(b, e, prompt, 1000, 50);
}

/* ---- workers seen from outside */

static inline pid_t parent_of(pid_t pid)
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
static inline bool is_dead(pid_t pid)
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
static inline pid_t find_worker(pid_t except)
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
static inline bool find_info(struct bench *b, struct job_info *out)
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
static inline bool wait_steps(struct bench *b)
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

static inline bool wait_nothing_runs(struct bench *b)
{
	double end = now() + 10;
	struct jobs_counters c = { .running = 1 };

	while (c.running && now() < end) {
		jobs_count(b->jobs, &c);
		pause_ms(5);
	}
	return !c.running;
}

static inline struct jobs_counters counted(struct bench *b)
{
	struct jobs_counters c;

	jobs_count(b->jobs, &c);
	return c;
}

/* ---- the program */

static inline int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (dir && readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

struct bench_test {
	const char *name;
	void (*run)(void);
};

/* A worker built with AddressSanitizer must crash as others do, and not explain itself. */
static inline void let_crash(void)
{
	const char *options = getenv("ASAN_OPTIONS");
	char all[1024];

	snprintf(all, sizeof all, "%s:handle_segv=0", options ? options : "");
	setenv("ASAN_OPTIONS", all, 1);
}

/* arguments: the names of tests to run; none: all */
static inline bool is_wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

/* Runs the named tests (arguments), or all; what main returns. */
static inline int bench_run(const struct bench_test *tests, size_t n, int argc, char **argv)
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
	for (size_t i = 0; i < n; i++) {
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

#endif

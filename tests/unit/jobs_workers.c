/* Jobs whose workers die, hang, or are none, and the worker process itself. */
#include "tests/unit/jobs_bench.h"

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

int main(int argc, char **argv)
{
	static const struct bench_test tests[] = {
		{ "killed once", test_killed_once },
		{ "killed while idle", test_killed_idle },
		{ "killed twice", test_killed_twice },
		{ "crash", test_crash },
		{ "failure", test_failure },
		{ "hang", test_hang },
		{ "changed model", test_changed_model },
		{ "wrong device", test_wrong_device },
		{ "impostors", test_impostors },
		{ "requests", test_requests },
		{ "process", test_process },
		{ "orphan", test_orphan },
	};

	return bench_run(tests, sizeof tests / sizeof *tests, argc, argv);
}

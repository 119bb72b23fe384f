/* Jobs: a full disk, a storm of readers, and the end of a mount. */
#include "tests/unit/jobs_bench.h"

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

int main(int argc, char **argv)
{
	static const struct bench_test tests[] = {
		{ "full disk", test_full_disk },
		{ "storm", test_storm },
		{ "close", test_close },
		{ "close with a stopped worker", test_close_stopped },
		{ "close while sending", test_close_sending },
	};

	return bench_run(tests, sizeof tests / sizeof *tests, argc, argv);
}

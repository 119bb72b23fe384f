/* Jobs: one picture, singleflight, leaving and cancelling, limits and turns. */
#include "tests/unit/jobs_bench.h"

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

int main(int argc, char **argv)
{
	static const struct bench_test tests[] = {
		{ "picture", test_picture },
		{ "cached", test_cached },
		{ "cached late", test_cached_late },
		{ "singleflight", test_singleflight },
		{ "leaving", test_leaving },
		{ "last leaving", test_last_leaving },
		{ "leaving the queue", test_leaving_queue },
		{ "cancel", test_cancel },
		{ "queue limit", test_queue_limit },
		{ "user limit", test_user_limit },
		{ "fairness", test_fairness },
		{ "list", test_list },
		{ "warm", test_warm },
		{ "instances", test_instances },
	};

	return bench_run(tests, sizeof tests / sizeof *tests, argc, argv);
}

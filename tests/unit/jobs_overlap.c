/* On devices other than the cpu a picture's PNG is made beside the next job: what starts when, and what a cancel, a
 * dead worker and the end of it all cost then.  The test card runs on "ref". */
#include "tests/unit/jobs_bench.h"

enum { LARGE = 1536, SMALL = 32 };

/* As submit, of a size. */
static void submit_sized(struct bench *b, struct ear *e, const char *name, const char *prompt, int side)
{
	struct recipe_fields fields = { .prompt = (char *)prompt, .has_size = true, .width = side, .height = side };
	struct recipe recipe = { 0 };

	*e = (struct ear){ 0 };
	snprintf(e->name, sizeof e->name, "%s", name);
	if (recipe_resolve(&fields, &b->model, &recipe) != STATUS_OK)
		exit(2);
	e->waiter = jobs_submit(b->jobs, &(struct job_request){ .name = e->name,
						 .model = &b->model,
						 .where = &b->where,
						 .recipe = &recipe,
						 .uid = 1000,
						 .pid = 50,
						 .done = hear,
						 .context = e });
	recipe_free(&recipe);
}

/* Whatever the size. */
static bool is_done(struct ear *e)
{
	return answered_within(e, 60) && e->status == STATUS_OK;
}

static bool is_answered(struct ear *e)
{
	bool answered;

	pthread_mutex_lock(&ears_mu);
	answered = e->calls > 0;
	pthread_mutex_unlock(&ears_mu);
	return answered;
}

/* What the list says of a name; "": nothing. */
static void find_state(struct bench *b, const char *name, struct job_info *out)
{
	struct job_info *list = NULL;
	size_t count = 0;

	*out = (struct job_info){ 0 };
	if (jobs_list(b->jobs, &list, &count) != 0)
		return;
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].name, name) == 0)
			*out = list[i];
	free(list);
}

/* Looks on until the PNG of a.png is made while b.png runs, or a.png is answered. */
static bool wait_overlap(struct bench *b, struct ear *a)
{
	struct job_info first, second;

	while (!is_answered(a)) {
		find_state(b, "b.png", &second);
		find_state(b, "a.png", &first); /* later: that it is not over yet held for the second as well */
		if (strcmp(first.stage, "png") == 0 && strcmp(second.state, "running") == 0)
			return true;
	}
	return false;
}

/* Two jobs in a row, the first of a large picture; true once they overlap. */
static bool start_two(struct bench *b, const char *name, struct ear *first, struct ear *second)
{
	open_bench(b, name, "\"delay_ms\": 20");
	submit_sized(b, first, "a.png", "a cat", LARGE);
	submit_sized(b, second, "b.png", "a dog", SMALL);
	return wait_overlap(b, first);
}

static void test_overlap(void)
{
	struct ear first, second, again;
	struct bench b;

	CHECK("the next job runs while a picture's PNG is made", start_two(&b, "overlap", &first, &second));
	CHECK("both are painted", is_done(&first) && is_done(&second));
	submit_sized(&b, &again, "c.png", "a cat", LARGE);
	CHECK("and kept", is_done(&again) && again.from_cache && strcmp(again.key, first.key) == 0);
	CHECK("counted once each", counted(&b).generated == 2);
	close_bench(&b);
}

static void test_order(void)
{
	struct ear ears[6];
	bool all = true, ordered = true;
	struct bench b;

	open_bench(&b, "order", "\"delay_ms\": 0");
	for (int i = 0; i < 6; i++) {
		char name[16];

		snprintf(name, sizeof name, "%d.png", i);
		submit_sized(&b, &ears[i], name, name, i % 2 ? SMALL : LARGE / 2);
	}
	for (int i = 0; i < 6; i++) {
		all &= is_done(&ears[i]);
		ordered &= i == 0 || ears[i].order > ears[i - 1].order;
	}
	CHECK("small pictures behind large ones: all are painted", all);
	CHECK("and answered in their order", ordered);
	close_bench(&b);
}

static void test_crash(void)
{
	struct ear first, second;
	struct bench b;
	bool overlap = start_two(&b, "crash", &first, &second);

	kill(find_worker(0), SIGKILL);
	CHECK("the worker dies while a PNG is made: that picture is painted", overlap && is_done(&first));
	CHECK("and the next, by another worker", is_done(&second) && counted(&b).worker_restarts == 1);
	close_bench(&b);
}

static void test_leave(void)
{
	struct ear first, second, again;
	struct bench b;
	bool left = start_two(&b, "leave", &first, &second) && jobs_leave(b.jobs, first.waiter);

	CHECK("the last reader leaves while the PNG is made", left);
	CHECK("the next job is not stopped by that", is_done(&second));
	submit_sized(&b, &again, "a.png", "a cat", LARGE);
	CHECK("who asks again gets the picture", is_done(&again));
	CHECK("who left is not answered", !is_answered(&first));
	close_bench(&b);
}

static void test_cancel_next(void)
{
	struct ear first, second;
	struct bench b;
	bool overlap = start_two(&b, "cancel", &first, &second);

	CHECK("the next job is cancelled while the PNG is made", overlap && jobs_cancel(b.jobs, "b.png") == 0);
	CHECK("it says so", failed_with(&second, ECANCELED, "cancelled"));
	CHECK("the picture comes", is_done(&first));
	close_bench(&b);
}

static void test_close(void)
{
	struct ear first, second;
	struct bench b;
	bool overlap = start_two(&b, "close", &first, &second);

	close_bench(&b);
	CHECK("all is closed while a PNG is made: nobody waits for ever",
		overlap && is_answered(&first) && failed_with(&second, ECANCELED, "cancelled"));
}

int main(int argc, char **argv)
{
	static const struct bench_test tests[] = {
		{ "overlap", test_overlap },
		{ "order", test_order },
		{ "crash", test_crash },
		{ "leave", test_leave },
		{ "cancel the next", test_cancel_next },
		{ "close", test_close },
	};

	return bench_run(tests, sizeof tests / sizeof *tests, argc, argv);
}

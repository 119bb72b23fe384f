/* bench: see bench.h; medians, the processors' use by others, the limit, and the runs of one size. */
#include "fs/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/family.h"

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *values, int n)
{
	if (n == 0)
		return 0;
	qsort(values, (size_t)n, sizeof *values, by_value);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- other processes --------------------------------------------------------------------------------------------- */

/* Seconds that all processors together were busy; 0 where /proc does not say. */
static double busy_seconds(void)
{
	unsigned long long user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, softirq = 0, steal = 0;
	FILE *f = fopen("/proc/stat", "re");

	if (f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq,
			 &softirq, &steal) < 3)
		user = nice = system = 0;
	if (f)
		fclose(f);
	return (double)(user + nice + system + irq + softirq + steal) / (double)sysconf(_SC_CLK_TCK);
}

static double used_by(int who)
{
	struct rusage u;

	if (getrusage(who, &u) != 0)
		return 0;
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void bench_watch_start(struct bench_watch *w)
{
	w->at = run_clock();
	w->busy = busy_seconds();
	w->own = used_by(RUSAGE_SELF) + used_by(RUSAGE_CHILDREN);
}

double bench_watch_others(const struct bench_watch *w)
{
	double own = used_by(RUSAGE_SELF) + used_by(RUSAGE_CHILDREN) - w->own;
	double all = (run_clock() - w->at) * (double)sysconf(_SC_NPROCESSORS_ONLN);
	double share = all > 0 ? (busy_seconds() - w->busy - own) / all : 0;

	return share < 0 ? 0 : share > 1 ? 1 : share;
}

/* ---- the limit --------------------------------------------------------------------------------------------------- */

/* A product [rows, side] x [side, side]. */
struct product {
	struct kernels *k;
	struct arena *arena;
	struct weight *w;
	struct linear op;
};

static void product_close(struct product *p)
{
	weight_free(p->k, p->w);
	arena_close(p->arena);
}

static enum status product_fill(struct product *p, int64_t rows, int64_t side, float *values)
{
	struct tensor host;

	for (int64_t i = 0; i < side * side; i++)
		values[i] = (float)(i * 7919 % 2003) / 1001.5f - 1;
	host = tensor_view(values, DTYPE_F32, 2, (int64_t[]){ side, side });
	TRY(kernels_pack_block(p->k, 1, &host, &p->w)); /* in 8 bits where weights are */
	TRY(arena_open(p->k, (size_t)(rows * side) * 8 + 4096, &p->arena));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, (int64_t[]){ rows, side }, &p->op.x));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, (int64_t[]){ rows, side }, &p->op.y));
	host = tensor_view(values, DTYPE_F32, 2, (int64_t[]){ rows, side });
	p->op.w = p->w;
	return kernels_upload(p->k, &host, p->op.x);
}

/* Runs it and waits for the result: a device may work on by itself until something is read. */
static enum status product_run(struct product *p, double *seconds)
{
	float value;
	struct tensor host = tensor_view(&value, DTYPE_F32, 2, (int64_t[]){ 1, 1 });
	double start = run_clock();

	TRY(kernels_linear(p->k, &p->op));
	TRY(kernels_download(p->k, tensor_slice(tensor_slice(p->op.y, 0, 0, 1), 1, 0, 1), &host));
	*seconds = run_clock() - start;
	return STATUS_OK;
}

/* The best of ten, or of what half a second holds. */
static enum status product_time(struct kernels *k, int64_t rows, int64_t side, double *best)
{
	struct product p = { .k = k };
	float *values = malloc((size_t)(side * side) * sizeof *values);
	double seconds = 0, total = 0;
	enum status s =
		values ? product_fill(&p, rows, side, values)
		       : status_fail(STATUS_NO_MEMORY, "no memory for a product of %lld columns", (long long)side);

	*best = 0;
	for (int i = 0; i < 10 && total < 0.5 && s == STATUS_OK; i++) {
		s = product_run(&p, &seconds);
		total += seconds;
		/* the first makes primitives and touches pages */
		if (s == STATUS_OK && (i == 0 || seconds < *best))
			*best = seconds;
	}
	product_close(&p);
	free(values);
	return s;
}

enum status bench_limit(const struct engine_options *options, double *flops)
{
	struct kernels *k;
	double seconds = 0;
	enum status s;

	*flops = 0;
	TRY(kernels_open(options->device, options->dtype, options->threads, &k));
	s = STATUS_OK;
	/* larger ones while they are quick: a slow device shows its limit early, a fast one needs much to do */
	for (int64_t side = 512; side <= 8192 && seconds < 0.05 && s == STATUS_OK; side *= 2) {
		s = product_time(k, side / 2, side, &seconds);
		if (s == STATUS_OK && (double)side * (double)side * (double)side / seconds > *flops)
			*flops = (double)side * (double)side * (double)side / seconds;
	}
	kernels_close(k);
	return s;
}

/* ---- runs of one size -------------------------------------------------------------------------------------------- */

/* What one run took. */
struct sample {
	struct engine_progress last;
	int calls; /* of the network */
	double seconds, others;
};

static void on_progress(void *context, const struct engine_progress *p)
{
	struct sample *s = context;

	if (p->steps)
		s->calls = p->steps;
	s->last = *p;
}

/* From now on the largest resident set is told anew. */
static void forget_peak(void)
{
	FILE *f = fopen("/proc/self/clear_refs", "we");

	if (!f)
		return;
	fputs("5", f);
	fclose(f);
}

static enum status run_once(const struct bench_job *job, int number, struct sample *out)
{
	struct engine_job e = { .model = job->model, .recipe = job->recipe, .progress = on_progress, .context = out };
	size_t len = strlen(job->recipe->prompt);
	struct bytes png = { 0 };
	struct bench_watch watch;
	enum status s;

	for (int i = 1; i <= 3; i++, number /= 10)
		job->recipe->prompt[len - (size_t)i] = (char)('0' + number % 10);
	bench_watch_start(&watch);
	s = engine_generate(job->engine, &e, &png);
	out->seconds = run_clock() - watch.at;
	out->others = bench_watch_others(&watch);
	bytes_free(&png);
	return s;
}

/* A call of the network for the steps, the whole stage for the others. */
static double per_call(const struct sample *s, enum stage stage, double value)
{
	return stage == STAGE_STEP && s->calls > 0 ? value / s->calls : value;
}

static json_t *stage_json(const struct bench_job *job, enum stage stage, const struct sample *samples, int n)
{
	double values[BENCH_REPEATS_MAX + 1];
	double flops = per_call(samples, stage, samples[0].last.flops[stage]), seconds;
	json_t *out = json_object();

	for (int i = 0; i < n; i++)
		values[i] = per_call(&samples[i], stage, samples[i].last.seconds[stage]);
	seconds = bench_median(values, n);
	json_object_set_new(out, "seconds", json_real(seconds));
	if (flops > 0 && seconds > 0) {
		json_object_set_new(out, "gflop", json_real(flops / 1e9));
		json_object_set_new(out, "gflops", json_real(flops / seconds / 1e9));
		if (job->limit > 0)
			json_object_set_new(out, "share", json_real(flops / seconds / job->limit));
	}
	return out;
}

/* Loading is what the first run took of it, everything else the median of those that count. */
static json_t *run_json(const struct bench_job *job, const struct sample *samples, int n)
{
	const struct sample *counted = n > 1 ? samples + 1 : samples;
	int n_counted = n > 1 ? n - 1 : n;
	json_t *out = json_object(), *stages = json_object(), *others = json_array();
	double values[BENCH_REPEATS_MAX + 1];

	for (int i = 0; i < n_counted; i++) {
		values[i] = counted[i].seconds;
		json_array_append_new(others, json_real(counted[i].others));
	}
	for (int i = 0; i < STAGE_COUNT; i++)
		json_object_set_new(stages, stage_name((enum stage)i),
			i == STAGE_LOAD ? stage_json(job, (enum stage)i, samples, 1)
					: stage_json(job, (enum stage)i, counted, n_counted));
	json_object_set_new(out, "width", json_integer(job->recipe->width));
	json_object_set_new(out, "height", json_integer(job->recipe->height));
	json_object_set_new(out, "steps", json_integer(samples[0].calls));
	json_object_set_new(out, "repeats", json_integer(n_counted));
	json_object_set_new(out, "others", others);
	json_object_set_new(out, "stages", stages);
	json_object_set_new(out, "seconds", json_real(bench_median(values, n_counted)));
	json_object_set_new(out, "peak_memory", json_integer((json_int_t)engine_peak_memory()));
	json_object_set_new(out, "device_memory", json_integer((json_int_t)engine_memory_peak(job->engine)));
	return out;
}

enum status bench_run(const struct bench_job *job, json_t **run)
{
	struct sample samples[BENCH_REPEATS_MAX + 1] = { 0 };

	forget_peak();
	for (int i = 0; i <= job->repeats; i++)
		TRY(run_once(job, job->first + i, &samples[i]));
	*run = run_json(job, samples, job->repeats + 1);
	return STATUS_OK;
}

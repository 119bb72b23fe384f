/* bench/kernels: the speed of the operations that a picture's time goes to, at the sizes of the largest models.
 *
 *     make bench && build/release/bench/kernels [device [f32|bf16|int8 [threads [part of a name]]]]
 *
 * One thread is timed by the processor time it took, so that a busy machine disturbs little; more by the clock.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"

static struct kernels *k;
static clockid_t timer = CLOCK_MONOTONIC;
static const char *wanted = "";

static double seconds(void)
{
	struct timespec now;

	clock_gettime(timer, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void need(enum status status)
{
	if (status == STATUS_OK)
		return;
	fprintf(stderr, "bench: %s\n", status_text());
	exit(1);
}

/* A tensor of small values in its own arena, which lasts until exit. */
static struct tensor tensor_new(enum dtype dtype, int rank, const int64_t *dim)
{
	struct tensor host = tensor_view(NULL, DTYPE_F32, rank, dim), t;
	const int64_t count = tensor_count(&host);
	struct arena *arena;
	float *values = malloc((size_t)count * sizeof *values);

	if (!values)
		exit(1);
	for (int64_t i = 0; i < count; i++)
		values[i] = (float)(i * 7919 % 2003) / 1001.5f - 1;
	host.data = values;
	need(arena_open(k, (size_t)count * 4 + 64, &arena));
	need(arena_take(arena, dtype, rank, dim, &t));
	need(kernels_upload(k, &host, t));
	free(values);
	return t;
}

/* Runs op until it has taken a second or ten turns; prints the best. */
static void measure(const char *name, double work, const char *unit, enum status (*run)(const void *op), const void *op)
{
	double best = 1e30, total = 0;

	if (!strstr(name, wanted))
		return;
	need(run(op)); /* the first makes primitives and touches pages */
	for (int i = 0; i < 10 && total < 1; i++) {
		const double start = seconds();
		double took;

		need(run(op));
		took = seconds() - start;
		total += took;
		best = took < best ? took : best;
	}
	printf("%-40s %9.2f ms %8.1f %s\n", name, best * 1e3, work / best / 1e9, unit);
	fflush(stdout);
}

static enum status run_linear(const void *op)
{
	return kernels_linear(k, op);
}

static void bench_linear(int64_t n, int64_t in)
{
	static const int64_t rows[] = { 1, 32, 64, 320, 1088 };
	struct tensor source = tensor_view(calloc((size_t)(n * in), sizeof(float)), DTYPE_F32, 2, (int64_t[]){ n, in });
	struct weight *w;
	double start = seconds();
	char name[64];

	if (!source.data)
		exit(1);
	need(kernels_pack_block(k, 1, &source, &w));
	printf("%-40s %9.2f ms %8.1f GB/s\n", "pack from f32", (seconds() - start) * 1e3,
		(double)(n * in) * sizeof(float) / (seconds() - start) / 1e9);
	free(source.data);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct linear op = { .w = w };

		op.x = tensor_new(kernels_dtype(k), 2, (int64_t[]){ rows[i], in });
		op.y = tensor_new(DTYPE_F32, 2, (int64_t[]){ rows[i], n });
		snprintf(name, sizeof name, "linear %lld x %lld x %lld", (long long)rows[i], (long long)n,
			(long long)in);
		measure(name, 2.0 * (double)(rows[i] * n * in), "GFLOP/s", run_linear, &op);
	}
	weight_free(k, w);
}

static enum status run_conv(const void *op)
{
	return kernels_conv(k, op);
}

static void bench_conv(int64_t in, int64_t out, int64_t side, bool upsample)
{
	struct tensor source =
		tensor_view(calloc((size_t)(in * out * 9), sizeof(float)), DTYPE_F32, 4, (int64_t[]){ out, in, 3, 3 });
	const int64_t y_side = upsample ? 2 * side : side;
	struct conv op = { .upsample = upsample };
	struct weight *w;
	char name[64];

	if (!source.data)
		exit(1);
	need(kernels_pack_conv(k, &source, &w));
	free(source.data);
	op.w = w;
	op.x = tensor_new(kernels_dtype(k), 3, (int64_t[]){ side, side, in });
	op.y = tensor_new(DTYPE_F32, 3, (int64_t[]){ y_side, y_side, out });
	snprintf(name, sizeof name, "conv %lld to %lld, %lld x %lld%s", (long long)in, (long long)out, (long long)side,
		(long long)side, upsample ? " enlarged" : "");
	measure(name, 18.0 * (double)(in * out * y_side * y_side), "GFLOP/s", run_conv, &op);
	weight_free(k, w);
}

static enum status run_attention(const void *op)
{
	return kernels_attention(k, op);
}

static void bench_attention(int64_t rows, int64_t heads, int64_t head_dim)
{
	const int64_t dim[] = { rows, heads, head_dim };
	const enum dtype dtype = kernels_dtype(k);
	struct attention op = { .scale = 0.1f };
	char name[64];

	op.q = tensor_new(dtype, 3, dim);
	op.k = tensor_new(dtype, 3, dim);
	op.v = tensor_new(dtype, 3, dim);
	op.out = tensor_new(dtype, 3, dim);
	snprintf(name, sizeof name, "attention %lld tokens, %lld x %lld", (long long)rows, (long long)heads,
		(long long)head_dim);
	measure(name, 4.0 * (double)(rows * rows * heads * head_dim), "GFLOP/s", run_attention, &op);
}

static enum status run_norm(const void *op)
{
	return kernels_norm(k, op);
}

static enum status run_norm_residual(const void *op)
{
	return kernels_norm_residual(k, op);
}

static enum status run_group_norm(const void *op)
{
	return kernels_group_norm(k, op);
}

static enum status run_rope(const void *op)
{
	return kernels_qk_rope(k, op);
}

static enum status run_glu(const void *op)
{
	const struct tensor *t = op;

	return kernels_glu(k, ACTIVATION_SILU, tensor_slice(t[0], 1, 0, t[1].dim[1]),
		tensor_slice(t[0], 1, t[1].dim[1], t[1].dim[1]), t[1]);
}

static void bench_rows(int64_t rows)
{
	const enum dtype dtype = kernels_dtype(k);
	const int64_t dim[] = { rows, 3840 };
	struct tensor ones = tensor_new(DTYPE_F32, 1, &dim[1]), x = tensor_new(DTYPE_F32, 2, dim);
	struct weight *w;
	struct tensor halves[2];

	need(kernels_pack_table(k, &ones, &w)); /* device memory is host memory on the devices there are */
	measure("norm 1088 x 3840", 1e-6 * (double)(rows * 3840) * 1e6, "G values/s", run_norm,
		&(struct norm){ .rms = true,
			.x = x,
			.weight = w,
			.scale = ones.data,
			.eps = 1e-5f,
			.y = tensor_new(dtype, 2, dim) });
	measure("norm_residual 1088 x 3840", (double)(rows * 3840), "G values/s", run_norm_residual,
		&(struct norm_residual){ .x = tensor_new(DTYPE_F32, 2, dim),
			.weight = w,
			.gate = ones.data,
			.eps = 1e-5f,
			.stream = x });
	weight_free(k, w);
	measure("qk_rope 1088 x 30 x 128", (double)(rows * 3840), "G values/s", run_rope,
		&(struct qk_rope){ .x = tensor_new(dtype, 3, (int64_t[]){ rows, 30, 128 }),
			.interleaved = true,
			.table = tensor_new(DTYPE_F32, 3, (int64_t[]){ rows, 64, 2 }) });
	halves[0] = tensor_new(dtype, 2, (int64_t[]){ rows, 20480 });
	halves[1] = tensor_new(dtype, 2, (int64_t[]){ rows, 10240 });
	measure("glu 1088 x 10240", (double)(rows * 10240), "G values/s", run_glu, halves);
}

static void bench_group_norm(int64_t side, int64_t channels)
{
	struct tensor ones = tensor_new(DTYPE_F32, 1, &channels);
	const int64_t dim[] = { side, side, channels };
	struct weight *w;
	char name[64];

	need(kernels_pack_table(k, &ones, &w));
	snprintf(name, sizeof name, "group_norm %lld x %lld x %lld", (long long)side, (long long)side,
		(long long)channels);
	measure(name, (double)(side * side * channels), "G values/s", run_group_norm,
		&(struct group_norm){ .x = tensor_new(DTYPE_F32, 3, dim),
			.groups = 32,
			.weight = w,
			.bias = w,
			.eps = 1e-6f,
			.silu = true,
			.y = tensor_new(kernels_dtype(k), 3, dim) });
	weight_free(k, w);
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "cpu", *name = argc > 2 ? argv[2] : "";
	enum dtype dtype = DTYPE_F32;

	while (dtype < DTYPE_OTHER && strcmp(dtype_name(dtype), name) != 0)
		dtype++;

	if (argc > 3 && atoi(argv[3]) == 1)
		timer = CLOCK_PROCESS_CPUTIME_ID;
	if (argc > 4)
		wanted = argv[4];
	need(kernels_open(device, dtype, argc > 3 ? atoi(argv[3]) : 0, &k));
	printf("%s %s\n", kernels_device(k), dtype_name(kernels_weight_dtype(k)));
	bench_linear(3840, 3840);
	bench_linear(10240, 3840);
	bench_linear(3840, 10240);
	bench_attention(1088, 30, 128);
	bench_attention(96, 4, 64);
	bench_attention(4096, 1, 512);
	bench_conv(512, 512, 64, false);
	bench_conv(512, 512, 64, true);
	bench_conv(256, 256, 256, false);
	bench_conv(128, 3, 256, false);
	bench_rows(1088);
	bench_group_norm(64, 512);
	bench_group_norm(256, 128);
	kernels_close(k);
	return 0;
}

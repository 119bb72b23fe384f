/* launch: the launchers of kernels/cuda/launch.h that no operation of kernels.h has, on the shim. */
#include "kernels/cuda/launch.h"

#include "engine/fp8.h"
#include "engine/rng.h"
#include "tests/unit/kernels_cases.h"

enum { ROWS = 5, DIMS = 4 };

static const int64_t dims[DIMS] = { 1, 37, 64, 2056 };

static void *take(size_t len)
{
	void *data = malloc(len); /* exactly as long: AddressSanitizer sees what lies behind */

	if (!data)
		abort();
	memset(data, 0xff, len);
	return data;
}

/* ---- noise ------------------------------------------------------------------------------------------------------- */

static void test_philox(int64_t n, uint64_t offset, uint64_t threads)
{
	struct rng r;
	float *wanted = take((size_t)n * sizeof *wanted), *got = take((size_t)n * sizeof *got);
	int error, different = 0;

	rng_seed(&r, RNG_PHILOX, 0x123456789abcull);
	r.offset = offset;
	r.device_threads = threads;
	error = cuda_philox_normal(NULL, r.seed, r.offset, r.device_threads, n, got);
	rng_normal(&r, DTYPE_F32, n, wanted);
	for (int64_t i = 0; i < n; i++)
		different += wanted[i] != got[i];
	check_case(error == 0 && different == 0, NULL, "%lld numbers at %llu of %llu threads are the engine's",
		(long long)n, (unsigned long long)offset, (unsigned long long)threads);
	free(wanted);
	free(got);
}

/* ---- conversion -------------------------------------------------------------------------------------------------- */

static void test_convert(void)
{
	struct cage x = cage_random(DTYPE_F32, 3, (int64_t[]){ 5, 7, 9 }, 3, 4, 1);
	struct cage y = cage_new(DTYPE_BF16, 3, (int64_t[]){ 9, 5, 7 }, 2), back = cage_new(DTYPE_F32, 3, x.t.dim, 1);
	struct tensor turned = y.t;
	uint16_t half[] = { 0x3c00, 0xc000, 0x0001, 0x7c00 };
	float values[4];
	const struct tensor from = tensor_view(half, DTYPE_F16, 1, (int64_t[]){ 4 });
	const struct tensor to = tensor_view(values, DTYPE_F32, 1, from.dim);
	bool right = true;

	for (int i = 0; i < 3; i++) { /* y as [5, 7, 9] */
		turned.dim[i] = y.t.dim[(i + 1) % 3];
		turned.stride[i] = y.t.stride[(i + 1) % 3];
	}
	right = cuda_convert(NULL, &x.t, &turned) == 0 && cuda_convert(NULL, &turned, &back.t) == 0;
	EACH(&x.t, i, j, l)
	right &= value_at(&back.t, i, j, l) == bf16_to_f32(bf16_from_f32(value_at(&x.t, i, j, l)));
	CHECK("f32 to bf16 and back between strides", right && cage_intact(&y) && cage_intact(&back));
	CHECK("f16 to f32", cuda_convert(NULL, &from, &to) == 0 && values[0] == 1 && values[1] == -2 &&
				    values[2] == 0x1p-24f && isinf(values[3]));
	cage_free(&x);
	cage_free(&y);
	cage_free(&back);
}

/* ---- 8 bits ------------------------------------------------------------------------------------------------------ */

static float code_value(enum quantized q, const void *codes, int64_t at)
{
	return q == QUANTIZED_I8 ? ((const int8_t *)codes)[at] : e4m3_to_f32(((const uint8_t *)codes)[at]);
}

/* The code and scale that kernels.h says, of a value in a row whose largest is `most`. */
static bool code_right(enum quantized q, float x, float most, const void *codes, int64_t at, float scale)
{
	const float range = q == QUANTIZED_I8 ? 127 : 448, scaled = x * (range / most);
	const float wanted = q == QUANTIZED_I8 ? rintf(scaled) : e4m3_to_f32(e4m3_from_f32(scaled));

	return scale == most / range && code_value(q, codes, at) == wanted;
}

static float largest_in(const struct tensor *t, int64_t row)
{
	float most = 0;

	for (int64_t j = 0; j < t->dim[1]; j++)
		most = fmaxf(most, fabsf(value_at(t, row, j, 0)));
	return most;
}

static void test_quantize(enum quantized q, int64_t dim, enum dtype dtype, int64_t gap)
{
	struct cage x = cage_random(dtype, 2, (int64_t[]){ ROWS, dim }, gap, 3, (uint32_t)dim);
	void *codes = take((size_t)(ROWS * dim));
	float scale[ROWS], most[ROWS];
	bool rows = cuda_quantize_rows(NULL, q, &x.t, codes, scale) == 0;

	for (int i = 0; i < ROWS; i++)
		most[i] = largest_in(&x.t, i);
	EACH(&x.t, i, j, l)
	rows &= code_right(q, value_at(&x.t, i, j, l), most[i], codes, i * dim + j, scale[i]);
	check_case(rows, NULL, "codes of rows, %s %d x %lld gap %lld to %d", dtype_name(dtype), ROWS, (long long)dim,
		(long long)gap, q);
	cage_free(&x);
	free(codes);
}

/* Rows that are zero, tiny, and not finite. */
static void test_odd_rows(enum quantized q)
{
	enum { N = 40 };
	float x[4][N] = { { 0 } }, back[4][N], scale[4];
	unsigned char codes[4][N];
	const struct tensor t = tensor_view(x, DTYPE_F32, 2, (int64_t[]){ 4, N });
	const struct tensor y = tensor_view(back, DTYPE_F32, 2, t.dim);
	int32_t found = 0;

	x[1][3] = -9e-31f;
	x[2][39] = INFINITY;
	x[3][0] = NAN;
	x[3][1] = INFINITY;
	cuda_quantize_rows(NULL, q, &t, codes, scale);
	for (int i = 0; i < 4 * N; i++)
		back[i / N][i % N] = scale[i / N] * code_value(q, codes, i);
	check_case(scale[0] == 0 && scale[1] == 0 && back[0][0] == 0 && back[1][3] == 0, NULL,
		"%d: rows of nothing are zeros", q);
	check_case(isnan(back[2][39]) && isnan(back[2][0]) && isnan(back[3][5]), NULL,
		"%d: a row that is not finite is NaN", q);
	cuda_find_not_finite(NULL, &y, &found);
	check_case(found == 1, NULL, "%d: and is found", q);
}

/* Puts the values of codes in place of those they were made of. */
static void put_back(const struct cage *t, const void *codes, const float *scale)
{
	EACH(&t->t, i, j, l)
	value_set(&t->t, i, j, l, scale[i] * code_value(QUANTIZED_E4M3, codes, i * t->t.dim[1] + j));
}

/* A product in codes as the backend makes it, against ref's: in int8, or in f32 of what the codes of fp8 stand for. */
static void test_product(
	enum quantized q, int64_t m, int64_t n, int64_t k, enum activation f, bool accumulate, enum dtype y_dtype)
{
	struct cage x = cage_random(DTYPE_F32, 2, (int64_t[]){ m, k }, 0, 1, 1);
	struct cage w = cage_random(DTYPE_F32, 2, (int64_t[]){ n, k }, 0, 1, 2);
	struct cage bias = cage_random(DTYPE_F32, 1, &n, 0, 1, 3);
	struct cage wanted = cage_random(y_dtype, 2, (int64_t[]){ m, n }, 0, 1, 4);
	struct cage got = cage_random(y_dtype, 2, wanted.t.dim, 3, 1, 4);
	void *x_codes = take((size_t)(m * k)), *w_codes = take((size_t)(n * k)), *sums = take((size_t)(m * n) * 4);
	float *x_scale = take((size_t)m * sizeof *x_scale), *w_scale = take((size_t)n * sizeof *w_scale);
	struct kernels *ref = NULL;
	struct weight *packed = NULL, *table = NULL;
	enum status status;

	cuda_quantize_rows(NULL, q, &x.t, x_codes, x_scale);
	cuda_quantize_rows(NULL, q, &w.t, w_codes, w_scale);
	if (q == QUANTIZED_E4M3) {
		put_back(&x, x_codes, x_scale);
		put_back(&w, w_codes, w_scale);
	}
	status = kernels_open("ref", q == QUANTIZED_I8 ? DTYPE_I8 : DTYPE_F32, 1, &ref);
	if (status != STATUS_OK || kernels_pack_block(ref, 1, &w.t, &packed) != STATUS_OK ||
		kernels_pack_table(ref, &bias.t, &table) != STATUS_OK)
		abort();
	status = kernels_linear(ref, &(struct linear){ .x = x.t,
					     .w = packed,
					     .bias = table,
					     .activation = f,
					     .accumulate = accumulate,
					     .y = wanted.t });
	cuda_multiply_codes(NULL, q, x_codes, w_codes, m, n, k, sums);
	cuda_scale_sums(NULL, f, q, sums, x_scale, w_scale, bias.t.data, accumulate, &got.t);
	check_near(&wanted, &got,
		(struct tolerance){ 1e-5, y_dtype == DTYPE_BF16 ? 0x1p-7 : 3e-6, y_dtype == DTYPE_BF16 ? 1e-5 : 1e-11 },
		status, q == QUANTIZED_I8 ? "a product in int8 is ref's" : "a product in fp8 is ref's");
	weight_free(ref, packed);
	weight_free(ref, table);
	kernels_close(ref);
	cage_free(&x);
	cage_free(&w);
	cage_free(&bias);
	cage_free(&wanted);
	cage_free(&got);
	free(x_codes);
	free(w_codes);
	free(x_scale);
	free(w_scale);
	free(sums);
}

/* Sums of e4m3 are of values that f32 holds: exact for small codes. */
static void test_product_e4m3(void)
{
	enum { M = 3, N = 70, K = 33 };
	uint8_t x[M * K], w[N * K];
	float sums[M * N];
	bool right = true;

	for (int i = 0; i < M * K; i++)
		x[i] = e4m3_from_f32((float)(i % 9 - 4));
	for (int i = 0; i < N * K; i++)
		w[i] = e4m3_from_f32((float)(i % 7 - 3) / 2);
	right = cuda_multiply_codes(NULL, QUANTIZED_E4M3, x, w, M, N, K, sums) == 0;
	for (int i = 0; i < M; i++)
		for (int j = 0; j < N; j++) {
			float sum = 0;

			for (int l = 0; l < K; l++)
				sum += e4m3_to_f32(x[i * K + l]) * e4m3_to_f32(w[j * K + l]);
			right &= sums[i * N + j] == sum;
		}
	CHECK("a product of e4m3", right);
}

/* ---- an epilogue ------------------------------------------------------------------------------------------------- */

/* The same as linear with the identity as its matrix. */
static void test_epilogue(int64_t dim, enum activation f, bool accumulate, enum dtype y_dtype)
{
	struct cage x = cage_random(DTYPE_F32, 2, (int64_t[]){ ROWS, dim }, 8, 3, 1);
	struct cage identity = cage_new(DTYPE_F32, 2, (int64_t[]){ dim, dim }, 0);
	struct cage bias = cage_random(DTYPE_F32, 1, &dim, 0, 1, 3), wanted = cage_random(y_dtype, 2, x.t.dim, 0, 1, 4);
	struct cage got = cage_random(y_dtype, 2, x.t.dim, 8, 1, 4);
	struct kernels *ref = NULL;
	struct weight *w = NULL, *table = NULL;
	int error;

	EACH(&identity.t, i, j, l)
	value_set(&identity.t, i, j, l, i == j);
	if (kernels_open("ref", DTYPE_F32, 1, &ref) || kernels_pack_linear(ref, 1, &identity.t, &w) ||
		kernels_pack_table(ref, &bias.t, &table) ||
		kernels_linear(ref, &(struct linear){ .x = x.t,
					    .w = w,
					    .bias = table,
					    .activation = f,
					    .accumulate = accumulate,
					    .y = wanted.t }))
		abort();
	error = cuda_epilogue(NULL, f, &x.t, bias.t.data, accumulate, &got.t);
	check_near(&wanted, &got,
		(struct tolerance){ 1e-6, y_dtype == DTYPE_BF16 ? 0x1p-7 : 3e-6, y_dtype == DTYPE_BF16 ? 1e-5 : 1e-11 },
		error ? STATUS_DEVICE : STATUS_OK, "an epilogue");
	weight_free(ref, w);
	weight_free(ref, table);
	kernels_close(ref);
	cage_free(&x);
	cage_free(&identity);
	cage_free(&bias);
	cage_free(&wanted);
	cage_free(&got);
}

int main(void)
{
	test_philox(1, 0, RNG_PHILOX_THREADS);
	test_philox(1000, 4, RNG_PHILOX_THREADS);
	test_philox(4097, 0, 512); /* several calls a thread, the last one short */
	test_philox(2048, 12, 512);
	test_convert();
	for (int q = QUANTIZED_E4M3; q <= QUANTIZED_I8; q++) {
		for (int i = 0; i < DIMS; i++) {
			test_quantize(q, dims[i], DTYPE_F32, 0);
			test_quantize(q, dims[i], DTYPE_BF16, 5);
			test_quantize(q, dims[i], DTYPE_BF16, 8);
		}
		test_odd_rows(q);
	}
	for (int q = QUANTIZED_E4M3; q <= QUANTIZED_I8; q++) {
		test_product((enum quantized)q, 3, 65, 40, ACTIVATION_NONE, false, DTYPE_F32);
		test_product((enum quantized)q, 17, 24, 64, ACTIVATION_GELU_TANH, true, DTYPE_F32);
		test_product((enum quantized)q, 5, 16, 64, ACTIVATION_SILU, false, DTYPE_BF16);
	}
	/* sums beyond f32's integers */
	test_product(QUANTIZED_I8, 65, 24, 3840, ACTIVATION_NONE, true, DTYPE_F32);
	test_product_e4m3();
	test_epilogue(37, ACTIVATION_SILU, false, DTYPE_F32);
	test_epilogue(64, ACTIVATION_GELU, true, DTYPE_F32);
	test_epilogue(64, ACTIVATION_QUICK_GELU, false, DTYPE_BF16);
	return check_result();
}

/* kernels: every operation of the cpu backend against ref, in both dtypes, and every vector level this processor has.
 *
 * Tolerances.  Sums of k products of values up to 1 in f32 differ from the exact sum by about 1e-7 a term.  A result in
 * bf16 may round to the neighbour: 2^-8 of its size.  Row operations in f32 carry a few roundings of 6e-8 and functions
 * good to about 3e-7.
 */
#include "kernels/backend.h"
#include "kernels/cpu/simd.h"
#include "kernels/plugin.h"
#include "tests/cuda/host.h"
#include "tests/unit/kernels_cases.h"

/* A handle under test, and the reference in the same dtype. */
struct pair {
	const char *name;
	struct kernels *k, *ref;
	bool whole; /* products too; else row operations and attention only */
};

static struct tolerance tolerance(enum dtype dtype, double atol)
{
	if (dtype == DTYPE_BF16)
		return (struct tolerance){ .atol = atol + 1e-30, .rtol = 0x1p-7, .nmse = 1e-5 };
	return (struct tolerance){ .atol = atol + 1e-30, .rtol = 3e-6, .nmse = 1e-11 };
}

static const char *label(const struct pair *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *label(const struct pair *p, const char *format, ...)
{
	static char text[256];
	va_list args;
	int len = snprintf(text, sizeof text, "%s %s ", p->name, dtype_name(p->k->weight_dtype));

	va_start(args, format);
	vsnprintf(text + len, sizeof text - (size_t)len, format, args);
	va_end(args);
	return text;
}

/* The same table in both handles. */
static void pack_tables(const struct pair *p, int64_t n, uint32_t seed, struct weight **ours, struct weight **refs)
{
	struct cage c = cage_random(DTYPE_F32, 1, (int64_t[]){ n }, 0, 1, seed);

	if (kernels_pack_table(p->k, &c.t, ours) != STATUS_OK || kernels_pack_table(p->ref, &c.t, refs) != STATUS_OK)
		check_case(false, status_text(), "pack_table");
	cage_free(&c);
}

/* A second cage with the same values. */
static struct cage cage_copy(const struct cage *from, int64_t gap)
{
	struct cage c = cage_new(from->t.dtype, from->t.rank, from->t.dim, gap);

	EACH(&c.t, i, j, l)
	value_set(&c.t, i, j, l, value_at(&from->t, i, j, l));
	return c;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

struct linear_case {
	int64_t m, n, k, gap;
	enum dtype y_dtype;
	bool bias, accumulate;
	enum activation activation;
};

static void test_linear(const struct pair *p, const struct linear_case *c)
{
	const enum dtype dtype = p->k->dtype;
	const bool exact = p->k->weight_dtype == dtype;
	struct cage x = cage_random(dtype, 2, (int64_t[]){ c->m, c->k }, c->gap, 1, 1);
	struct cage source = cage_random(dtype, 2, (int64_t[]){ c->n, c->k }, 0, 1, 2);
	struct cage wanted = cage_random(c->y_dtype, 2, (int64_t[]){ c->m, c->n }, 0, 1, 3);
	struct cage got = c->accumulate ? cage_copy(&wanted, c->gap) : cage_new(c->y_dtype, 2, wanted.t.dim, c->gap);
	struct weight *w = NULL, *w_ref = NULL, *bias = NULL, *bias_ref = NULL;
	struct linear op = { .x = x.t, .activation = c->activation, .accumulate = c->accumulate };
	enum status status;

	pack_tables(p, c->n, 4, &bias, &bias_ref);
	status = kernels_pack_block(p->ref, 1, &source.t, &w_ref);
	op.w = w_ref;
	op.bias = c->bias ? bias_ref : NULL;
	op.y = wanted.t;
	if (status == STATUS_OK)
		status = kernels_linear(p->ref, &op);
	if (status == STATUS_OK)
		status = kernels_pack_block(p->k, 1, &source.t, &w);
	op.w = w;
	op.bias = c->bias ? bias : NULL;
	op.y = got.t;
	if (status == STATUS_OK)
		status = kernels_linear(p->k, &op);
	check_near(&wanted, &got, tolerance(c->y_dtype, exact ? 1e-7 * (double)c->k + 1e-6 : 2e-6), status,
		label(p, "linear %lld x %lld x %lld gap %lld y %s bias %d sum %d activation %d", (long long)c->m,
			(long long)c->n, (long long)c->k, (long long)c->gap, dtype_name(c->y_dtype), c->bias,
			c->accumulate, c->activation));
	weight_free(p->k, w);
	weight_free(p->ref, w_ref);
	weight_free(p->k, bias);
	weight_free(p->ref, bias_ref);
	cage_free(&x);
	cage_free(&source);
	cage_free(&wanted);
	cage_free(&got);
}

static void test_linears(const struct pair *p)
{
	static const struct linear_case cases[] = {
		{ 1, 1, 1, 0, DTYPE_F32, false, false, ACTIVATION_NONE },
		{ 1, 64, 64, 0, DTYPE_F32, true, false, ACTIVATION_NONE },
		{ 7, 13, 11, 5, DTYPE_F32, true, false, ACTIVATION_NONE },
		{ 31, 63, 65, 3, DTYPE_BF16, true, false, ACTIVATION_NONE },
		{ 33, 65, 63, 0, DTYPE_BF16, false, false, ACTIVATION_NONE },
		{ 64, 128, 97, 32, DTYPE_F32, true, true, ACTIVATION_NONE },
		{ 5, 48, 33, 0, DTYPE_F32, false, true, ACTIVATION_NONE },
		{ 5, 48, 33, 1, DTYPE_F32, true, false, ACTIVATION_SILU },
		{ 5, 48, 33, 1, DTYPE_F32, true, false, ACTIVATION_GELU },
		{ 5, 48, 33, 1, DTYPE_F32, true, false, ACTIVATION_GELU_TANH },
		{ 5, 48, 33, 1, DTYPE_F32, true, false, ACTIVATION_QUICK_GELU },
		{ 6, 40, 24, 7, DTYPE_F32, true, true, ACTIVATION_SILU },
		{ 6, 40, 24, 7, DTYPE_BF16, true, false, ACTIVATION_GELU_TANH },
		{ 3, 256, 3840, 0, DTYPE_F32, true, false, ACTIVATION_NONE },
		{ 2, 3840, 256, 0, DTYPE_BF16, false, false, ACTIVATION_NONE },
		{ 320, 64, 64, 0, DTYPE_F32, false, false, ACTIVATION_NONE },
		{ 1088, 16, 64, 0, DTYPE_F32, true, true, ACTIVATION_NONE },
		{ 3, PACK_ROWS, 16, 0, DTYPE_F32, true, false, ACTIVATION_NONE },
		{ 3, PACK_ROWS + 1, 16, 0, DTYPE_F32, true, false, ACTIVATION_NONE },
		{ 3, 2 * PACK_ROWS - 1, 16, 0, DTYPE_F32, true, false, ACTIVATION_NONE },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		test_linear(p, &cases[i]);
}

/* Parts of every dtype, with borders inside and on a block of packing, equal one matrix; other m use the same weight.
 */
static void test_parts(const struct pair *p)
{
	static const int64_t sizes[] = { 700, 3, PACK_ROWS - 703, PACK_ROWS, 37 };
	enum { PARTS = 5, K = 40, N = 2 * PACK_ROWS + 37 };
	struct cage whole = cage_random(DTYPE_BF16, 2, (int64_t[]){ N, K }, 0, 1, 9);
	struct tensor parts[PARTS];
	struct cage f32 = cage_copy(&whole, 0);
	struct weight *w = NULL, *w_ref = NULL;
	enum status status;
	int64_t at = 0;

	cage_free(&f32);
	f32 = cage_new(DTYPE_F32, 2, whole.t.dim, 0);
	EACH(&whole.t, i, j, l)
	value_set(&f32.t, i, j, l, value_at(&whole.t, i, j, l));
	for (int i = 0; i < PARTS; at += sizes[i++])
		parts[i] = tensor_slice(i % 2 ? f32.t : whole.t, 0, at, sizes[i]);
	status = kernels_pack_block(p->k, PARTS, parts, &w);
	if (status == STATUS_OK)
		status = kernels_pack_block(p->ref, 1, &f32.t, &w_ref);
	for (int64_t m = 1; status == STATUS_OK && m <= 65; m += 32) {
		struct cage x = cage_random(p->k->dtype, 2, (int64_t[]){ m, K }, 0, 1, 10);
		struct cage wanted = cage_new(DTYPE_F32, 2, (int64_t[]){ m, N }, 0),
			    got = cage_new(DTYPE_F32, 2, wanted.t.dim, 0);

		kernels_linear(p->ref, &(struct linear){ .x = x.t, .w = w_ref, .y = wanted.t });
		status = kernels_linear(p->k, &(struct linear){ .x = x.t, .w = w, .y = got.t });
		check_near(&wanted, &got, tolerance(DTYPE_F32, 1e-5), status,
			label(p, "joined parts, %lld rows", (long long)m));
		cage_free(&x);
		cage_free(&wanted);
		cage_free(&got);
	}
	CHECK(label(p, "joined parts are packed"), status == STATUS_OK);
	weight_free(p->k, w);
	weight_free(p->ref, w_ref);
	cage_free(&whole);
	cage_free(&f32);
}

struct conv_case {
	int64_t h, w, in, out;
	int kernel;
	bool upsample, bias, accumulate;
	enum dtype y_dtype;
	int stride, crop; /* crop: rows and columns less than enlarging gives */
};

static void test_conv(const struct pair *p, const struct conv_case *c)
{
	const enum dtype dtype = p->k->dtype;
	const int64_t factor = c->upsample ? 2 : 1, stride = c->stride == 2 ? 2 : 1;
	const int64_t height = (c->h * factor - c->crop + stride - 1) / stride;
	const int64_t width = (c->w * factor - c->crop + stride - 1) / stride;
	struct cage x = cage_random(dtype, 3, (int64_t[]){ c->h, c->w, c->in }, 0, 1, 1);
	struct cage source = cage_random(dtype, 2, (int64_t[]){ c->out, c->in * c->kernel * c->kernel }, 0, 1, 2);
	struct tensor kernel = tensor_view(source.t.data, dtype, 4, (int64_t[]){ c->out, c->in, c->kernel, c->kernel });
	struct cage wanted = cage_random(c->y_dtype, 3, (int64_t[]){ height, width, c->out }, 0, 1, 3);
	struct cage got = c->accumulate ? cage_copy(&wanted, 0) : cage_new(c->y_dtype, 3, wanted.t.dim, 0);
	struct weight *w = NULL, *w_ref = NULL, *bias = NULL, *bias_ref = NULL;
	struct conv op = { .x = x.t, .upsample = c->upsample, .stride = c->stride, .accumulate = c->accumulate };
	enum status status;

	pack_tables(p, c->out, 4, &bias, &bias_ref);
	status = kernels_pack_conv(p->ref, &kernel, &w_ref);
	op.w = w_ref;
	op.bias = c->bias ? bias_ref : NULL;
	op.y = wanted.t;
	if (status == STATUS_OK)
		status = kernels_conv(p->ref, &op);
	if (status == STATUS_OK)
		status = kernels_pack_conv(p->k, &kernel, &w);
	op.w = w;
	op.bias = c->bias ? bias : NULL;
	op.y = got.t;
	if (status == STATUS_OK)
		status = kernels_conv(p->k, &op);
	check_near(&wanted, &got, tolerance(c->y_dtype, 1e-7 * (double)(c->in * c->kernel * c->kernel) + 1e-6), status,
		label(p, "conv %lld x %lld, %lld to %lld, kernel %d, upsample %d stride %d crop %d bias %d sum %d y %s",
			(long long)c->h, (long long)c->w, (long long)c->in, (long long)c->out, c->kernel, c->upsample,
			c->stride, c->crop, c->bias, c->accumulate, dtype_name(c->y_dtype)));
	weight_free(p->k, w);
	weight_free(p->ref, w_ref);
	weight_free(p->k, bias);
	weight_free(p->ref, bias_ref);
	cage_free(&x);
	cage_free(&source);
	cage_free(&wanted);
	cage_free(&got);
}

static void test_convs(const struct pair *p)
{
	static const struct conv_case cases[] = {
		{ 1, 1, 1, 1, 1, false, true, false, DTYPE_F32, 0, 0 },
		{ 1, 1, 1, 1, 3, false, true, false, DTYPE_F32, 0, 0 },
		{ 1, 1, 3, 5, 3, true, true, false, DTYPE_F32, 0, 0 },
		{ 5, 7, 3, 13, 3, false, true, false, DTYPE_F32, 0, 0 },
		{ 5, 7, 17, 3, 3, false, false, false, DTYPE_BF16, 1, 0 },
		{ 8, 9, 16, 33, 1, false, true, true, DTYPE_F32, 0, 0 },
		{ 7, 5, 31, 32, 3, false, true, true, DTYPE_F32, 0, 0 },
		{ 6, 4, 8, 16, 3, true, true, false, DTYPE_BF16, 1, 0 },
		{ 3, 5, 7, 11, 3, true, false, true, DTYPE_F32, 0, 0 },
		{ 3, 5, 7, 11, 1, true, true, false, DTYPE_F32, 0, 0 },
		{ 4, 4, 512, 64, 3, false, true, false, DTYPE_F32, 0, 0 },
		{ 4, 4, 16, 512, 3, false, true, true, DTYPE_F32, 0, 0 },
		{ 32, 32, 8, 16, 3, false, true, false, DTYPE_F32, 0, 0 },
		{ 16, 1, 4, 4, 3, false, true, false, DTYPE_F32, 0, 0 },
		{ 1, 16, 4, 4, 3, true, true, false, DTYPE_F32, 0, 0 },
		{ 8, 6, 32, 32, 3, false, true, false, DTYPE_F32, 2, 0 },
		{ 7, 5, 31, 9, 3, false, true, true, DTYPE_F32, 2, 0 },
		{ 5, 8, 4, 64, 3, false, false, false, DTYPE_BF16, 2, 0 },
		{ 1, 1, 4, 4, 3, false, true, false, DTYPE_F32, 2, 0 },
		{ 7, 4, 16, 8, 1, false, true, false, DTYPE_F32, 2, 0 },
		{ 33, 32, 64, 64, 3, false, true, false, DTYPE_F32, 2, 0 },
		{ 4, 5, 32, 16, 3, true, true, false, DTYPE_F32, 0, 1 },
		{ 3, 3, 5, 7, 3, true, true, true, DTYPE_F32, 1, 1 },
		{ 1, 1, 5, 7, 3, true, true, false, DTYPE_BF16, 1, 1 },
		/* narrow pictures of many channels, for which oneDNN wants another layout than for wide ones */
		{ 4, 4, 320, 320, 3, false, true, true, DTYPE_F32, 1, 0 },
		{ 4, 4, 320, 320, 3, false, true, false, DTYPE_BF16, 2, 0 },
		{ 8, 8, 64, 320, 3, false, true, false, DTYPE_BF16, 1, 0 },
		{ 4, 4, 96, 384, 1, false, false, false, DTYPE_F32, 1, 0 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		test_conv(p, &cases[i]);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

struct attention_case {
	int64_t rows, keys, heads, kv_heads, head_dim, gap;
	float scale, size; /* size: of the values */
	bool causal;
	int64_t bias; /* its heads; 0: none */
};

static void test_attention(const struct pair *p, const struct attention_case *c)
{
	const enum dtype dtype = p->k->dtype;
	struct cage q = cage_random(dtype, 3, (int64_t[]){ c->rows, c->heads, c->head_dim }, c->gap, c->size, 1);
	struct cage key = cage_random(dtype, 3, (int64_t[]){ c->keys, c->kv_heads, c->head_dim }, c->gap, c->size, 2);
	struct cage value = cage_random(dtype, 3, (int64_t[]){ c->keys, c->kv_heads, c->head_dim }, c->gap, 1, 3);
	struct cage wanted = cage_new(dtype, 3, q.t.dim, 0), got = cage_new(dtype, 3, q.t.dim, c->gap);
	struct cage bias = cage_random(DTYPE_F32, 3, (int64_t[]){ c->bias ? c->bias : 1, c->rows, c->keys }, 3, 2, 4);
	struct attention op = { .q = q.t, .k = key.t, .v = value.t, .scale = c->scale, .causal = c->causal };
	enum status status;
	/* the scores' own error, of which exp makes a relative one; in bf16 the probabilities are rounded as well */
	const double scores = 1e-7 * (double)c->head_dim * fabs((double)c->scale) * c->size * c->size;
	struct tolerance tol = tolerance(dtype, (dtype == DTYPE_BF16 ? 0x1p-9 : 2e-6) + 2 * scores);

	tol.nmse += scores * scores;
	if (c->bias)
		op.bias = bias.t;
	op.out = wanted.t;
	kernels_attention(p->ref, &op);
	op.out = got.t;
	status = kernels_attention(p->k, &op);
	check_near(&wanted, &got, tol, status,
		label(p,
			"attention %lld rows %lld keys, %lld of %lld heads of %lld, scale %g size %g causal %d bias "
			"%lld",
			(long long)c->rows, (long long)c->keys, (long long)c->heads, (long long)c->kv_heads,
			(long long)c->head_dim, (double)c->scale, (double)c->size, c->causal, (long long)c->bias));
	cage_free(&q);
	cage_free(&key);
	cage_free(&value);
	cage_free(&bias);
	cage_free(&wanted);
	cage_free(&got);
}

static void test_attentions(const struct pair *p)
{
	static const struct attention_case cases[] = {
		{ 1, 1, 1, 1, 1, 0, 1, 1, false, 0 },
		{ 1, 1, 1, 1, 1, 0, 1, 1, true, 0 },
		{ 7, 13, 3, 3, 5, 2, 0.5f, 1, false, 0 },
		{ 24, 32, 2, 2, 64, 0, 0.125f, 1, false, 0 },
		{ 23, 31, 2, 1, 63, 3, 0.125f, 1, false, 0 },
		{ 25, 33, 4, 2, 65, 0, 0.125f, 1, false, 0 },
		{ 33, 33, 4, 2, 32, 32, 0.2f, 1, true, 0 },
		{ 50, 50, 3, 3, 16, 0, 0.25f, 1, true, 0 },
		{ 96, 96, 4, 4, 64, 0, 0.125f, 1, false, 0 },
		{ 65, 129, 2, 2, 128, 256, 0.088f, 1, false, 0 },
		{ 40, 300, 1, 1, 512, 0, 0.044f, 1, false, 0 },
		{ 9, 40, 2, 2, 32, 0, 0.2f, 16, false, 0 }, /* scores near +-300: one key takes nearly all */
		{ 9, 40, 2, 2, 32, 0, 0, 1, false, 0 },     /* every key the same */
		{ 9, 40, 2, 2, 32, 0, -0.2f, 1, false, 0 },
		{ 64, 77, 2, 2, 8, 0, 0.35f, 1, false, 0 },
		{ 30, 77, 3, 3, 40, 0, 0.16f, 1, false, 0 },
		{ 26, 13, 2, 2, 80, 16, 0.11f, 1, false, 0 },
		{ 50, 50, 2, 2, 160, 0, 0.08f, 1, false, 0 },
		{ 1, 1, 1, 1, 1, 0, 1, 1, false, 1 },
		{ 27, 41, 3, 3, 40, 2, 0.16f, 1, false, 1 },
		{ 27, 41, 3, 3, 24, 0, 0.2f, 1, false, 3 },
		{ 25, 25, 4, 2, 64, 0, 1, 1, true, 4 },
		{ 70, 33, 2, 2, 160, 0, -0.1f, 1, false, 2 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		test_attention(p, &cases[i]);
}

/* ---- norms and positions ----------------------------------------------------------------------------------------- */

/* flags: 1 rms, 2 weight, 4 bias, 8 scale, 16 shift, 32 in place */
static void test_norm(const struct pair *p, int64_t rows, int64_t dim, int64_t gap, enum dtype x_dtype,
	enum dtype y_dtype, int flags, float size)
{
	struct cage x = cage_random(x_dtype, 2, (int64_t[]){ rows, dim }, gap, size, 1);
	struct cage scale = cage_random(DTYPE_F32, 1, &dim, 0, 1, 2), shift = cage_random(DTYPE_F32, 1, &dim, 0, 1, 3);
	struct cage wanted = cage_new(y_dtype, 2, x.t.dim, 0);
	struct cage got = flags & 32 ? cage_copy(&x, gap) : cage_new(y_dtype, 2, x.t.dim, gap);
	struct weight *w[4] = { NULL };
	struct norm op = { .rms = flags & 1, .x = x.t, .eps = 1e-5f };
	enum status status;

	pack_tables(p, dim, 5, &w[0], &w[1]);
	pack_tables(p, dim, 6, &w[2], &w[3]);
	op.scale = flags & 8 ? scale.t.data : NULL;
	op.shift = flags & 16 ? shift.t.data : NULL;
	op.weight = flags & 2 ? w[1] : NULL;
	op.bias = flags & 4 ? w[3] : NULL;
	op.y = wanted.t;
	kernels_norm(p->ref, &op);
	op.weight = flags & 2 ? w[0] : NULL;
	op.bias = flags & 4 ? w[2] : NULL;
	op.y = got.t;
	if (flags & 32)
		op.x = got.t;
	status = kernels_norm(p->k, &op);
	check_near(&wanted, &got, tolerance(y_dtype, y_dtype == DTYPE_BF16 ? 1e-5 : 2e-6), status,
		label(p, "norm %lld x %lld gap %lld, %s to %s, flags %d, size %g", (long long)rows, (long long)dim,
			(long long)gap, dtype_name(x_dtype), dtype_name(y_dtype), flags, (double)size));
	for (int i = 0; i < 4; i++)
		weight_free(i % 2 ? p->ref : p->k, w[i]);
	cage_free(&x);
	cage_free(&scale);
	cage_free(&shift);
	cage_free(&wanted);
	cage_free(&got);
}

static void test_norms(const struct pair *p)
{
	for (int flags = 0; flags < 64; flags++)
		test_norm(p, 3, 37, flags % 3, DTYPE_F32, flags & 32 || flags % 2 ? DTYPE_F32 : DTYPE_BF16, flags, 1);
	test_norm(p, 1, 1, 0, DTYPE_F32, DTYPE_F32, 1, 1);
	test_norm(p, 1, 1, 0, DTYPE_F32, DTYPE_F32, 0, 1);
	test_norm(p, 5, 1023, 1, DTYPE_BF16, DTYPE_F32, 31, 1);
	test_norm(p, 5, 1024, 0, DTYPE_BF16, DTYPE_BF16, 30, 1);
	test_norm(p, 5, 1025, 7, DTYPE_BF16, DTYPE_BF16, 63, 1);
	test_norm(p, 17, 3840, 0, DTYPE_F32, DTYPE_BF16, 3, 1);
	test_norm(p, 3, 64, 0, DTYPE_F32, DTYPE_F32, 1, 1e15f);  /* squares near the end of f32 */
	test_norm(p, 3, 64, 0, DTYPE_F32, DTYPE_F32, 0, 1e-15f); /* eps rules */
	test_norm(p, 3, 64, 0, DTYPE_F32, DTYPE_F32, 1, 0);
}

static void test_norm_residual(
	const struct pair *p, int64_t rows, int64_t dim, int64_t gap, enum dtype x_dtype, bool gated)
{
	struct cage x = cage_random(x_dtype, 2, (int64_t[]){ rows, dim }, gap, 1, 1);
	struct cage gate = cage_random(DTYPE_F32, 1, &dim, 0, 1, 2);
	struct cage wanted = cage_random(DTYPE_F32, 2, x.t.dim, 0, 1, 3), got = cage_copy(&wanted, gap);
	struct weight *w, *w_ref;
	struct norm_residual op = { .x = x.t, .gate = gated ? gate.t.data : NULL, .eps = 1e-5f };
	enum status status;

	pack_tables(p, dim, 5, &w, &w_ref);
	op.weight = w_ref;
	op.stream = wanted.t;
	kernels_norm_residual(p->ref, &op);
	op.weight = w;
	op.stream = got.t;
	status = kernels_norm_residual(p->k, &op);
	check_near(&wanted, &got, tolerance(DTYPE_F32, 2e-6), status,
		label(p, "norm_residual %lld x %lld gap %lld x %s gate %d", (long long)rows, (long long)dim,
			(long long)gap, dtype_name(x_dtype), gated));
	weight_free(p->k, w);
	weight_free(p->ref, w_ref);
	cage_free(&x);
	cage_free(&gate);
	cage_free(&wanted);
	cage_free(&got);
}

/* In two steps: moments as ref has them; a picture normed by given ones; op is of p->k, `wanted` what it gives. */
static void test_moments(const struct pair *p, const struct group_norm *op, const struct cage *wanted, float mean)
{
	const int64_t dim[] = { op->groups, 2 };
	struct cage by_ref = cage_new(DTYPE_F32, 2, dim, 0), by_k = cage_new(DTYPE_F32, 2, dim, 0);
	struct cage got = cage_new(op->y.dtype, 3, op->y.dim, 0);
	struct group_norm only = { .x = op->x, .groups = op->groups, .moments = by_ref.t }, given = *op;
	enum status status = kernels_group_norm(p->ref, &only);

	only.moments = by_k.t;
	if (status == STATUS_OK)
		status = kernels_group_norm(p->k, &only);
	check_near(&by_ref, &by_k, tolerance(DTYPE_F32, 3e-6 + 2e-7 * fabs((double)mean)), status,
		label(p, "group_norm: moments of %d groups, mean %g", op->groups, (double)mean));
	given.moments = by_k.t;
	given.y = got.t;
	status = kernels_group_norm(p->k, &given);
	check_near(wanted, &got, tolerance(op->y.dtype, 3e-6 + 2e-7 * fabs((double)mean)), status,
		label(p, "group_norm by its own moments"));
	for (int g = 0; g < op->groups; g++) { /* those of others: deviation 2 */
		value_set(&by_k.t, g, 0, 0, mean + 1);
		value_set(&by_k.t, g, 1, 0, 4);
	}
	status = kernels_group_norm(p->k, &given);
	check_case(status == STATUS_OK && memcmp(wanted->memory, got.memory, got.len) != 0, NULL,
		"group_norm: other moments, another picture");
	cage_free(&by_ref);
	cage_free(&by_k);
	cage_free(&got);
}

/* The same bytes as ref; values beyond the ends, halves, NaN. */
static void test_rgb8(const struct pair *p, int64_t h, int64_t w, enum dtype dtype)
{
	const int64_t dim[] = { h, w, 3 };
	struct cage x = cage_random(dtype, 3, dim, 0, 1, 9);
	uint8_t *wanted = calloc((size_t)(h * w), 3), *got = calloc((size_t)(h * w), 3);
	enum status status;

	EACH(&x.t, i, j, l)
	if ((i * w + j) % 3 == 0)
		value_set(&x.t, i, j, l, 2 * ((float)((i * w + j) % 255) + 0.5f) / 255 - 1);
	value_set(&x.t, 0, 0, 0, NAN);
	value_set(&x.t, h - 1, w - 1, 2, INFINITY);
	kernels_to_rgb8(p->ref, x.t, wanted);
	status = kernels_to_rgb8(p->k, x.t, got);
	check_case(status == STATUS_OK && memcmp(wanted, got, (size_t)(h * w) * 3) == 0, "other bytes than ref's", "%s",
		label(p, "to_rgb8 %lld x %lld from %s", (long long)h, (long long)w, dtype_name(dtype)));
	free(wanted);
	free(got);
	cage_free(&x);
}

static void test_group_norm(const struct pair *p, int64_t h, int64_t w, int64_t channels, int groups,
	enum dtype x_dtype, enum dtype y_dtype, bool silu, float mean)
{
	struct cage scale = cage_random(DTYPE_F32, 1, &channels, 0, 1, 7);
	struct cage shift = cage_random(DTYPE_F32, 1, &channels, 0, 1, 8);
	struct cage x = cage_random(x_dtype, 3, (int64_t[]){ h, w, channels }, 0, 1, 1);
	struct cage wanted = cage_new(y_dtype, 3, x.t.dim, 0), got = cage_new(y_dtype, 3, x.t.dim, 0);
	struct weight *t[4];
	struct group_norm op = { .groups = groups, .eps = 1e-6f, .silu = silu };
	enum status status;

	EACH(&x.t, i, j, l)
	value_set(&x.t, i, j, l, value_at(&x.t, i, j, l) + mean);
	pack_tables(p, channels, 5, &t[0], &t[1]);
	pack_tables(p, channels, 6, &t[2], &t[3]);
	op.x = x.t;
	if (h % 2) {
		op.scale = scale.t.data;
		op.shift = shift.t.data;
	}
	op.weight = t[1];
	op.bias = t[3];
	op.y = wanted.t;
	kernels_group_norm(p->ref, &op);
	op.weight = t[0];
	op.bias = t[2];
	op.y = got.t;
	status = kernels_group_norm(p->k, &op);
	check_near(&wanted, &got, tolerance(y_dtype, 3e-6 + 2e-7 * fabs((double)mean)), status,
		label(p, "group_norm %lld x %lld x %lld, %d groups, %s to %s, silu %d, mean %g", (long long)h,
			(long long)w, (long long)channels, groups, dtype_name(x_dtype), dtype_name(y_dtype), silu,
			(double)mean));
	test_moments(p, &op, &wanted, mean);
	if (x_dtype == y_dtype) {
		op.x = op.y = x.t;
		status = kernels_group_norm(p->k, &op);
		check_near(&got, &x, (struct tolerance){ 0, 0, 0 }, status, label(p, "group_norm in place"));
	}
	for (int i = 0; i < 4; i++)
		weight_free(i % 2 ? p->ref : p->k, t[i]);
	cage_free(&scale);
	cage_free(&shift);
	cage_free(&x);
	cage_free(&wanted);
	cage_free(&got);
}

static void test_rope(const struct pair *p, int64_t rows, int64_t heads, int64_t head_dim, int64_t gap, bool weighted,
	bool interleaved)
{
	struct cage wanted = cage_random(p->k->dtype, 3, (int64_t[]){ rows, heads, head_dim }, gap, 1, 1);
	struct cage got = cage_copy(&wanted, gap);
	struct cage table = cage_random(DTYPE_F32, 3, (int64_t[]){ rows, head_dim / 2, 2 }, 0, 1, 2);
	struct weight *w, *w_ref;
	struct qk_rope op = { .eps = 1e-5f, .interleaved = interleaved, .table = table.t };
	enum status status;

	pack_tables(p, head_dim, 5, &w, &w_ref);
	op.weight = weighted ? w_ref : NULL;
	op.x = wanted.t;
	kernels_qk_rope(p->ref, &op);
	op.weight = weighted ? w : NULL;
	op.x = got.t;
	status = kernels_qk_rope(p->k, &op);
	check_near(&wanted, &got, tolerance(p->k->dtype, 1e-6), status,
		label(p, "qk_rope %lld x %lld x %lld gap %lld, norm %d interleaved %d", (long long)rows,
			(long long)heads, (long long)head_dim, (long long)gap, weighted, interleaved));
	weight_free(p->k, w);
	weight_free(p->ref, w_ref);
	cage_free(&wanted);
	cage_free(&got);
	cage_free(&table);
}

static void test_norms_and_positions(const struct pair *p)
{
	test_norms(p);
	for (int gated = 0; gated < 2; gated++) {
		test_norm_residual(p, 1, 1, 0, DTYPE_F32, gated);
		test_norm_residual(p, 5, 31, 3, DTYPE_BF16, gated);
		test_norm_residual(p, 9, 3840, 0, DTYPE_F32, gated);
	}
	for (int i = 0; i < 2; i++) {
		test_rgb8(p, 1, 1, i ? DTYPE_BF16 : DTYPE_F32);
		test_rgb8(p, 17, 61, i ? DTYPE_BF16 : DTYPE_F32);
		test_rgb8(p, 256, 128, i ? DTYPE_BF16 : DTYPE_F32);
	}
	for (int silu = 0; silu < 2; silu++) {
		test_group_norm(p, 1, 1, 1, 1, DTYPE_F32, DTYPE_F32, silu, 0);
		test_group_norm(p, 3, 5, 6, 3, DTYPE_F32, DTYPE_BF16, silu, 0);
		test_group_norm(p, 4, 4, 64, 32, DTYPE_BF16, DTYPE_F32, silu, 0);
		test_group_norm(p, 17, 19, 96, 32, DTYPE_F32, DTYPE_F32, silu, 100);
		test_group_norm(p, 96, 64, 8, 2, DTYPE_F32, DTYPE_F32, silu, 1);
		test_group_norm(p, 8, 8, 32, 32, DTYPE_F32, DTYPE_F32, silu, 0);
		test_group_norm(p, 3, 3, 1100, 10, DTYPE_BF16, DTYPE_BF16, silu, 0);
	}
	for (int flags = 0; flags < 4; flags++) {
		test_rope(p, 1, 1, 2, 0, flags & 1, flags & 2);
		test_rope(p, 3, 5, 14, 4, flags & 1, flags & 2);
		test_rope(p, 40, 3, 64, 64, flags & 1, flags & 2);
		test_rope(p, 33, 5, 128, 0, flags & 1, flags & 2);
	}
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

static void test_glu(const struct pair *p, enum activation f, int64_t rows, int64_t dim, int64_t gap,
	const enum dtype dtypes[3], float size)
{
	struct cage gate = cage_random(dtypes[0], 2, (int64_t[]){ rows, dim }, gap, size, 1);
	struct cage up = cage_random(dtypes[1], 2, gate.t.dim, gap, 1, 2);
	struct cage wanted = cage_new(dtypes[2], 2, gate.t.dim, 0), got = cage_new(dtypes[2], 2, gate.t.dim, gap);
	enum status status;

	kernels_glu(p->ref, f, gate.t, up.t, wanted.t);
	status = kernels_glu(p->k, f, gate.t, up.t, got.t);
	check_near(&wanted, &got, tolerance(dtypes[2], f == ACTIVATION_SILU ? 1e-30 : 1e-6), status,
		label(p, "glu %d %lld x %lld gap %lld %s %s %s size %g", f, (long long)rows, (long long)dim,
			(long long)gap, dtype_name(dtypes[0]), dtype_name(dtypes[1]), dtype_name(dtypes[2]),
			(double)size));
	if (dtypes[0] == dtypes[2]) {
		status = kernels_glu(p->k, f, gate.t, up.t, gate.t);
		check_near(&got, &gate, (struct tolerance){ 0, 0, 0 }, status, label(p, "glu in place"));
	}
	cage_free(&gate);
	cage_free(&up);
	cage_free(&wanted);
	cage_free(&got);
}

/* gate NULL or [dim]; then the same in add_row's terms */
static void test_row_sums(const struct pair *p, int64_t rows, int64_t dim, int64_t gap, enum dtype dtype, bool gated)
{
	struct cage x = cage_random(dtype, 2, (int64_t[]){ rows, dim }, gap, 1, 1);
	struct cage row = cage_random(DTYPE_F32, 1, &dim, 0, 1, 2);
	struct cage wanted = cage_random(DTYPE_F32, 2, x.t.dim, 0, 1, 3), got = cage_copy(&wanted, gap);
	struct cage sum = cage_copy(&x, 0);
	enum status status;

	kernels_gated_add(p->ref, x.t, gated ? row.t.data : NULL, wanted.t);
	status = kernels_gated_add(p->k, x.t, gated ? row.t.data : NULL, got.t);
	check_near(&wanted, &got, tolerance(DTYPE_F32, 1e-6), status,
		label(p, "gated_add %lld x %lld gap %lld %s gate %d", (long long)rows, (long long)dim, (long long)gap,
			dtype_name(dtype), gated));
	kernels_add_row(p->ref, row.t, sum.t);
	status = kernels_add_row(p->k, row.t, x.t);
	check_near(&sum, &x, tolerance(dtype, 1e-6), status,
		label(p, "add_row %lld x %lld gap %lld %s", (long long)rows, (long long)dim, (long long)gap,
			dtype_name(dtype)));
	cage_free(&x);
	cage_free(&row);
	cage_free(&wanted);
	cage_free(&got);
	cage_free(&sum);
}

static void test_unary(const struct pair *p, enum unary f, int64_t rows, int64_t dim, int64_t gap, enum dtype x_dtype,
	enum dtype y_dtype, float size)
{
	struct cage x = cage_random(x_dtype, 2, (int64_t[]){ rows, dim }, gap, size, 1);
	struct cage wanted = cage_random(y_dtype, 2, x.t.dim, 0, 1, 2), got = cage_copy(&wanted, gap);
	/* GELU's erfc is near 0 for large negative x, where f32 has but few digits of its argument */
	const double atol = f == UNARY_GELU || f == UNARY_QUICK_GELU ? 1e-6 : f == UNARY_ADD ? 1e-7 : 1e-30;
	enum status status;

	kernels_unary(p->ref, f, x.t, wanted.t);
	status = kernels_unary(p->k, f, x.t, got.t);
	check_near(&wanted, &got, tolerance(y_dtype, atol), status,
		label(p, "unary %d %lld x %lld gap %lld %s to %s size %g", f, (long long)rows, (long long)dim,
			(long long)gap, dtype_name(x_dtype), dtype_name(y_dtype), (double)size));
	cage_free(&x);
	cage_free(&wanted);
	cage_free(&got);
}

/* What silu and tanh do at the ends: no NaN, the right limits, and NaN stays NaN. */
static void test_extremes(const struct pair *p)
{
	static const float values[] = { 0, -0.0f, 1e-30f, -1e-30f, 1e-5f, 88, 89, -88, -89, 1e4f, -1e4f, 3e38f,
		-3e38f };
	enum { N = sizeof values / sizeof *values };
	const enum unary functions[] = { UNARY_SILU, UNARY_TANH, UNARY_GELU, UNARY_QUICK_GELU };
	float x[N + 1], wanted[N + 1], got[N + 1];
	struct tensor tx = tensor_view(x, DTYPE_F32, 2, (int64_t[]){ 1, N + 1 }), tw = tx, tg = tx;
	bool near_all = true, nan_kept = true;

	memcpy(x, values, sizeof values);
	x[N] = NAN;
	tw.data = wanted;
	tg.data = got;
	for (int f = 0; f < 4; f++) {
		kernels_unary(p->ref, functions[f], tx, tw);
		kernels_unary(p->k, functions[f], tx, tg);
		for (int i = 0; i < N; i++)
			near_all &= fabsf(wanted[i] - got[i]) <= 1e-6f * fabsf(wanted[i]) + 1e-33f;
		nan_kept &= isnan(got[N]) && isnan(wanted[N]);
	}
	CHECK(label(p, "silu, tanh and gelu at the ends"), near_all);
	CHECK(label(p, "silu, tanh and gelu keep NaN"), nan_kept);
}

/* f32 in and out: within a few roundings of 6e-8 of the exact value, everywhere from 1e-6 to 20. */
static void test_accuracy(const struct pair *p)
{
	enum { N = 20000 };
	const int64_t dim[] = { 1, N };
	struct cage x = cage_new(DTYPE_F32, 2, dim, 0), y = cage_new(DTYPE_F32, 2, dim, 0);
	double silu_error = 0, tanh_error = 0;

	for (int i = 0; i < N; i++)
		value_set(&x.t, 0, i, 0, (i % 2 ? 1 : -1) * 1e-6f * expf((float)i * (16.8f / N)));
	kernels_unary(p->k, UNARY_SILU, x.t, y.t);
	for (int i = 0; i < N; i++) {
		const double v = value_at(&x.t, 0, i, 0), wanted = v / (1 + exp(-v));

		silu_error = fmax(silu_error, fabs(value_at(&y.t, 0, i, 0) / wanted - 1));
	}
	kernels_unary(p->k, UNARY_TANH, x.t, y.t);
	for (int i = 0; i < N; i++)
		tanh_error = fmax(tanh_error, fabs(value_at(&y.t, 0, i, 0) / tanh(value_at(&x.t, 0, i, 0)) - 1));
	check_case(silu_error < 5e-7, NULL, "%s (%.2g)", label(p, "silu is exact to 5e-7"), silu_error);
	check_case(tanh_error < 5e-7, NULL, "%s (%.2g)", label(p, "tanh is exact to 5e-7"), tanh_error);
	cage_free(&x);
	cage_free(&y);
}

static void test_elements(const struct pair *p)
{
	const enum dtype both[] = { DTYPE_F32, DTYPE_BF16 };

	for (int i = 0; i < 8; i++) {
		const enum dtype dtypes[] = { both[i & 1], both[i >> 1 & 1], both[i >> 2] };

		for (enum activation f = ACTIVATION_NONE; f <= ACTIVATION_QUICK_GELU; f++)
			test_glu(p, f, 3, 37, i, dtypes, 8);
	}
	for (int i = 0; i < 4; i++) {
		test_row_sums(p, 1, 1, 0, both[i & 1], i & 2);
		test_row_sums(p, 5, 1030, 3, both[i & 1], i & 2);
	}
	test_glu(p, ACTIVATION_SILU, 1, 1, 0, (const enum dtype[]){ DTYPE_F32, DTYPE_F32, DTYPE_F32 }, 1);
	test_glu(p, ACTIVATION_SILU, 9, 2050, 10, (const enum dtype[]){ DTYPE_F32, DTYPE_F32, DTYPE_F32 }, 60);
	for (enum unary f = UNARY_COPY; f <= UNARY_MULTIPLY; f++) {
		for (int i = 0; i < 4; i++)
			test_unary(p, f, 3, 41, i, both[i & 1], both[i >> 1], 4);
		test_unary(p, f, 1, 1, 0, DTYPE_F32, DTYPE_F32, 1);
		test_unary(p, f, 17, 1025, 3, DTYPE_F32, DTYPE_F32, 0.01f);
	}
	test_extremes(p);
	test_accuracy(p);
}

/* ---- repetition and the vector levels ---------------------------------------------------------------------------- */

/* The same inputs give the same bits, also when other shapes ran in between. */
static void test_repetition(const struct pair *p)
{
	const enum dtype dtype = p->k->dtype;
	struct cage x = cage_random(dtype, 2, (int64_t[]){ 70, 130 }, 0, 1, 1);
	struct cage source = cage_random(dtype, 2, (int64_t[]){ 200, 130 }, 0, 1, 2);
	struct cage first = cage_new(DTYPE_F32, 2, (int64_t[]){ 70, 200 }, 0),
		    again = cage_new(DTYPE_F32, 2, first.t.dim, 0);
	struct weight *w = NULL;
	bool same = kernels_pack_block(p->k, 1, &source.t, &w) == STATUS_OK &&
		    kernels_linear(p->k, &(struct linear){ .x = x.t, .w = w, .y = first.t }) == STATUS_OK;

	for (int64_t m = 1; same && m < 70; m += 1) { /* more shapes than one might keep */
		const struct tensor part = tensor_slice(x.t, 0, 0, m), out = tensor_slice(again.t, 0, 0, m);

		same = kernels_linear(p->k, &(struct linear){ .x = part, .w = w, .y = out }) == STATUS_OK;
	}
	same = same && kernels_linear(p->k, &(struct linear){ .x = x.t, .w = w, .y = again.t }) == STATUS_OK;
	CHECK(label(p, "linear repeats its bits"), same && memcmp(first.memory, again.memory, first.len) == 0);
	weight_free(p->k, w);
	cage_free(&x);
	cage_free(&source);
	cage_free(&first);
	cage_free(&again);
}

/* One thread and several give the same bits in our own loops; output [rows of 3 dimensions] of a handle's run. */
static struct cage run_with_threads(
	int threads, const struct tensor *x, const struct tensor *picture, struct cage *normed)
{
	struct cage out = cage_new(DTYPE_F32, 3, x->dim, 0),
		    table = cage_random(DTYPE_F32, 1, &picture->dim[2], 0, 1, 3);
	struct attention attention = { .q = *x, .k = *x, .v = *x, .scale = 0.3f, .causal = true, .out = out.t };
	struct group_norm norm = { .x = *picture, .groups = 4, .eps = 1e-6f, .silu = true };
	struct kernels *k = NULL;
	struct weight *w = NULL;

	*normed = cage_new(DTYPE_F32, 3, picture->dim, 0);
	if (kernels_open("cpu", DTYPE_F32, threads, &k) != STATUS_OK ||
		kernels_pack_table(k, &table.t, &w) != STATUS_OK)
		abort();
	norm.weight = norm.bias = w;
	norm.y = normed->t;
	check_case(kernels_attention(k, &attention) == STATUS_OK && kernels_group_norm(k, &norm) == STATUS_OK, NULL,
		"attention and group_norm on %d threads", threads);
	weight_free(k, w);
	kernels_close(k);
	cage_free(&table);
	return out;
}

static void test_threads(void)
{
	struct cage x = cage_random(DTYPE_F32, 3, (int64_t[]){ 150, 3, 40 }, 0, 1, 1);
	struct cage picture = cage_random(DTYPE_F32, 3, (int64_t[]){ 70, 90, 8 }, 0, 1, 2);
	struct cage normed_one, normed_many;
	struct cage one = run_with_threads(1, &x.t, &picture.t, &normed_one);
	struct cage many = run_with_threads(3, &x.t, &picture.t, &normed_many);

	CHECK("attention: the threads do not change the bits", memcmp(one.memory, many.memory, one.len) == 0);
	CHECK("group_norm: nor here", memcmp(normed_one.memory, normed_many.memory, normed_one.len) == 0);
	cage_free(&x);
	cage_free(&picture);
	cage_free(&one);
	cage_free(&many);
	cage_free(&normed_one);
	cage_free(&normed_many);
}

/* A backend of one vector level: ref with that level's functions put in. */
static const struct simd *level;

static enum status with_scratch(size_t len, void (*f)(const void *op, void *scratch), const void *op)
{
	void *scratch = aligned_alloc(64, (len + 63) / 64 * 64);

	if (!scratch)
		return STATUS_NO_MEMORY;
	memset(scratch, 0xff, len); /* NaN: what is not written may not be used */
	f(op, scratch);
	free(scratch);
	return STATUS_OK;
}

static void attention_with(const void *op, void *scratch)
{
	level->attention(op, scratch);
}

static enum status level_attention(struct kernels *k, const struct attention *op)
{
	return with_scratch(level->attention_scratch(op, k->threads), attention_with, op);
}

static void group_norm_with(const void *op, void *scratch)
{
	level->group_norm(op, scratch);
}

static enum status level_group_norm(struct kernels *k, const struct group_norm *op)
{
	return with_scratch(level->group_norm_scratch(op, k->threads), group_norm_with, op);
}

static enum status level_norm(struct kernels *k, const struct norm *op)
{
	level->norm(op);
	return STATUS_OK;
}

static enum status level_norm_residual(struct kernels *k, const struct norm_residual *op)
{
	level->norm_residual(op);
	return STATUS_OK;
}

static enum status level_qk_rope(struct kernels *k, const struct qk_rope *op)
{
	level->qk_rope(op);
	return STATUS_OK;
}

static enum status level_glu(
	struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	level->glu(f, &gate, &up, &y);
	return STATUS_OK;
}

static enum status level_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	level->gated_add(&x, gate, &stream);
	return STATUS_OK;
}

static enum status level_add_row(struct kernels *k, struct tensor row, struct tensor y)
{
	level->add_row(row.data, &y);
	return STATUS_OK;
}

static enum status level_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	level->to_rgb8(&x, rgb);
	return STATUS_OK;
}

static enum status level_pack_begin(struct kernels *k, struct weight *w)
{
	w->len = level->i8_len(w);
	return memory_map(k, w->len, &w->data);
}

static enum status level_pack_rows(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	level->i8_pack(w, k->dtype, first, count, rows);
	return STATUS_OK;
}

static void linear_with(const void *op, void *scratch)
{
	level->i8_linear(op, scratch);
}

static enum status level_linear(struct kernels *k, const struct linear *op)
{
	return with_scratch(level->i8_scratch(op), linear_with, op);
}

static enum status level_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	level->unary(f, &x, &y);
	return STATUS_OK;
}

static void test_pair(const struct pair *p)
{
	if (p->whole) {
		test_linears(p);
		test_parts(p);
		test_convs(p);
		test_repetition(p);
	}
	test_attentions(p);
	test_norms_and_positions(p);
	test_elements(p);
}

static void test_level(const struct simd *simd, enum dtype dtype)
{
	struct pair p = { .name = simd->name };
	struct backend backend = backend_ref;

	level = simd;
	backend.attention = level_attention;
	backend.group_norm = level_group_norm;
	backend.norm = level_norm;
	backend.norm_residual = level_norm_residual;
	backend.qk_rope = level_qk_rope;
	backend.glu = level_glu;
	backend.gated_add = level_gated_add;
	backend.add_row = level_add_row;
	backend.unary = level_unary;
	backend.to_rgb8 = level_to_rgb8;
	if (kernels_open("ref", dtype, 2, &p.k) == STATUS_OK && kernels_open("ref", dtype, 2, &p.ref) == STATUS_OK) {
		p.k->backend = &backend;
		test_pair(&p);
		p.k->backend = &backend_ref;
	}
	kernels_close(p.k);
	kernels_close(p.ref);
}

/* Products with weights in int8 of one vector level. */
static void test_level_i8(const struct simd *simd)
{
	struct pair p = { .name = simd->name };
	struct backend backend = backend_ref;

	level = simd;
	backend.pack_begin = level_pack_begin;
	backend.pack_rows = level_pack_rows;
	backend.linear = level_linear;
	if (kernels_open("ref", DTYPE_I8, 2, &p.k) == STATUS_OK &&
		kernels_open("ref", DTYPE_I8, 2, &p.ref) == STATUS_OK) {
		p.k->backend = &backend;
		test_linears(&p);
		p.k->backend = &backend_ref;
	}
	kernels_close(p.k);
	kernels_close(p.ref);
}

static void test_cpu(enum dtype dtype, int threads)
{
	struct pair p = { .name = threads == 1 ? "cpu, 1 thread," : "cpu", .whole = true };
	enum status status = kernels_open("cpu", dtype, threads, &p.k);

	if (status == STATUS_UNSUPPORTED) {
		printf("skip - cpu %s: %s\n", dtype_name(dtype), status_text());
		return;
	}
	if (status == STATUS_OK)
		status = kernels_open("ref", dtype, 1, &p.ref);
	CHECK("cpu opens", status == STATUS_OK);
	if (status == STATUS_OK)
		test_pair(&p);
	CHECK("nothing is left but buffers", !p.k || kernels_memory(p.k) < (size_t)64 << 20);
	kernels_close(p.k);
	kernels_close(p.ref);
}

/* What the cpu itself chooses, its operands in whatever is its default; ref computes in the same. */
static void test_cpu_i8(void)
{
	struct pair p = { .name = "cpu" };

	CHECK("cpu opens in int8", kernels_open("cpu", DTYPE_I8, 2, &p.k) == STATUS_OK);
	if (p.k && kernels_open("ref", p.k->dtype, 1, &p.ref) == STATUS_OK) {
		p.ref->weight_dtype = DTYPE_I8;
		test_linears(&p);
		test_parts(&p);
		test_repetition(&p);
	}
	kernels_close(p.k);
	kernels_close(p.ref);
}

static void test_cuda_host(enum dtype dtype)
{
	struct pair p = { .name = "cuda-host", .whole = true };
	const bool open =
		host_kernels_open(dtype, &p.k) == STATUS_OK && kernels_open("ref", dtype, 1, &p.ref) == STATUS_OK;

	CHECK("cuda-host opens", open);
	if (open) {
		test_pair(&p);
		p.k->weight_dtype = p.ref->weight_dtype = DTYPE_I8;
		test_linears(&p);
		test_parts(&p);
		test_repetition(&p);
	}
	CHECK("cuda-host holds nothing", !p.k || kernels_memory(p.k) == 0);
	kernels_close(p.k);
	kernels_close(p.ref);
}

/* dtype: of the operands that its attention takes. */
static void test_levels(const struct simd *simd, enum dtype dtype, bool present)
{
	if (!present) {
		printf("skip - %s: this processor lacks it\n", simd->name);
		return;
	}
	test_level(simd, dtype);
	test_level_i8(simd);
}

/* Weights in 8 bits; ref defines them in int8. */
static void test_gpu_codes(const char *device, enum dtype dtype)
{
	struct pair p = { .name = device };

	CHECK("the GPU opens with weights in 8 bits", kernels_open(device, dtype, 2, &p.k) == STATUS_OK);
	if (p.k && kernels_open("ref", p.k->dtype, 1, &p.ref) == STATUS_OK) {
		p.ref->weight_dtype = dtype;
		test_linears(&p);
		test_parts(&p);
		test_repetition(&p);
	}
	kernels_close(p.k);
	kernels_close(p.ref);
}

/* A GPU, or its fake (PROMPTFS_CUDA); CUDA_LAUNCH_BLOCKING=1 makes results be there when a call returns. */
static int test_gpu(const char *device)
{
	static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16 };
	const struct plugin *plugin;

	if (plugin_cuda(&plugin) != STATUS_OK) {
		printf("skip - %s: %s\n", device, status_text());
		return 0;
	}
	cage_memory = (struct cage_memory){ plugin->take_host, plugin->give_host };
	for (int i = 0; i < 2; i++) {
		struct pair p = { .name = device, .whole = true };
		size_t before;

		CHECK("the GPU opens", kernels_open(device, dtypes[i], 2, &p.k) == STATUS_OK);
		if (!p.k || kernels_open("ref", dtypes[i], 1, &p.ref) != STATUS_OK)
			return check_result();
		before = kernels_memory(p.k);
		test_pair(&p);
		printf("# %s: %zu bytes of scratch\n", device, kernels_memory(p.k) - before);
		kernels_close(p.k);
		kernels_close(p.ref);
	}
	test_gpu_codes(device, DTYPE_I8);
	return check_result();
}

/* An argument: the device to test in place of the cpu. */
int main(int argc, char **argv)
{
	if (argc > 1)
		return test_gpu(argv[1]);
	if (&backend_cuda_host) {
		test_cuda_host(DTYPE_F32);
		test_cuda_host(DTYPE_BF16);
		return check_result();
	}
	test_cpu(DTYPE_F32, 2);
	test_cpu(DTYPE_BF16, 2);
	test_cpu(DTYPE_F32, 1);
	test_cpu_i8();
	test_threads();
	test_levels(&simd_base, DTYPE_F32, true);
#if defined(__x86_64__)
	const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
	const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");

	test_levels(&simd_avx2, DTYPE_F32, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
	test_levels(&simd_avx512, DTYPE_F32, avx512);
	test_levels(&simd_avx512vnni, DTYPE_F32, vnni);
	/* the last of bf16's levels that there is was tested as cpu */
	test_levels(&simd_avx512bf16, DTYPE_BF16, vnni && __builtin_cpu_supports("avx512bf16"));
#endif
	return check_result();
}

/* kernels_contract: what holds on every host backend: dtypes, views, arenas, packing's refusals, the simple operations
 * against formulas of the test's own, and the texts of failures.  Also ref's products against such formulas, since
 * everything else is compared with ref. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "tests/cuda/host.h"
#include "tests/unit/kernels_cases.h"

static bool close_to(double a, double b)
{
	return fabs(a - b) <= 1e-6 + 1e-6 * fabs(b);
}

/* The failure's status, and a text that has `word`. */
static void check_failure(enum status got, enum status wanted, const char *word, const char *name)
{
	char why[400];

	snprintf(why, sizeof why, "got \"%s\": %.300s", status_name(got), got == STATUS_OK ? "" : status_text());
	check_case(got == wanted && strstr(status_text(), word), why, "%s", name);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static void test_bf16(void)
{
	bool round_trip = true, nearest = true;

	for (uint32_t x = 0; x < 0x10000; x++) {
		const float f = bf16_to_f32((uint16_t)x);

		round_trip &= isnan(f) ? isnan(bf16_to_f32(bf16_from_f32(f))) : bf16_from_f32(f) == x;
		if (!isfinite(f) || fabsf(f) > 1e38f)
			continue;
		/* between f and its upper neighbour */
		const float next = bf16_to_f32((uint16_t)(x + 1)), middle = f + (next - f) / 2;

		nearest &= bf16_from_f32(nextafterf(middle, f)) == x;
		nearest &= bf16_from_f32(nextafterf(middle, next)) == x + 1;
		nearest &= bf16_from_f32(middle) == (x % 2 ? x + 1 : x);
	}
	CHECK("every bf16 survives f32", round_trip);
	CHECK("f32 rounds to the nearest bf16, middles to even", nearest);
	CHECK("a NaN with a low payload stays NaN", isnan(bf16_to_f32(bf16_from_f32(__builtin_nansf("1")))));
	CHECK("f32 above bf16's largest is infinity", isinf(bf16_to_f32(bf16_from_f32(3.4e38f))));
}

static void test_f16(void)
{
	bool exact = true;

	for (uint32_t x = 0; x < 0x7c00; x++) {
		const int exponent = (int)(x >> 10);
		const double value = exponent ? ldexp(1024 + (x & 0x3ff), exponent - 25) : ldexp(x & 0x3ff, -24);

		exact &= f16_to_f32((uint16_t)x) == value && f16_to_f32((uint16_t)(x | 0x8000)) == -value;
	}
	CHECK("every finite f16 is exact", exact);
	CHECK("f16 infinity and NaN", isinf(f16_to_f32(0x7c00)) && f16_to_f32(0xfc00) < 0 && isnan(f16_to_f32(0x7c01)));
}

static void test_views(void)
{
	float data[24];
	struct tensor t = tensor_view(data, DTYPE_F32, 3, (int64_t[]){ 2, 3, 4 }), s = tensor_slice(t, 1, 1, 2);

	CHECK("a view is contiguous",
		tensor_contiguous(&t) && tensor_count(&t) == 24 && t.stride[0] == 12 && t.dim[3] == 1);
	CHECK("a slice starts at its range", s.data == data + 4 && s.dim[1] == 2 && tensor_count(&s) == 16);
	CHECK("a slice of the middle is strided", !tensor_contiguous(&s));
	s = tensor_slice(t, 0, 1, 1);
	CHECK("a slice of the first axis is contiguous", tensor_contiguous(&s) && s.data == data + 12);
	CHECK("sizes", dtype_size(DTYPE_I64) == 8 && dtype_size(DTYPE_BF16) == 2 && dtype_size(DTYPE_OTHER) == 0);
}

/* ---- handle and memory ------------------------------------------------------------------------------------------- */

static void test_open(void)
{
	struct kernels *k = NULL;

	check_failure(kernels_open("tpu", DTYPE_F32, 1, &k), STATUS_INVALID, "tpu", "an unknown device is named");
	check_failure(
		kernels_open("cuda:0", DTYPE_F32, 1, &k), STATUS_UNSUPPORTED, "--device cpu", "cuda says what to do");
	check_failure(
		kernels_open("cpu", DTYPE_I64, 1, &k), STATUS_UNSUPPORTED, "i64", "a dtype no device computes in");
	check_failure(
		kernels_open("ref", DTYPE_F8_E4M3, 1, &k), STATUS_UNSUPPORTED, "no products in fp8", "fp8 on ref");
	check_failure(
		kernels_open("cpu", DTYPE_F8_E4M3, 1, &k), STATUS_UNSUPPORTED, "no products in fp8", "fp8 on cpu");
	CHECK("failures leave the handle alone", k == NULL);
	CHECK("auto opens", kernels_open("auto", DTYPE_OTHER, 0, &k) == STATUS_OK);
	CHECK("auto is cpu here", k && strcmp(kernels_device(k), "cpu") == 0);
	CHECK("the default dtype is one to compute in",
		k && (kernels_dtype(k) == DTYPE_F32 || kernels_dtype(k) == DTYPE_BF16));
	kernels_close(k);
	kernels_close(NULL);
}

static void test_arena(struct kernels *k)
{
	const size_t before = kernels_memory(k);
	struct arena *a = NULL;
	struct tensor t, u;
	size_t mark;

	CHECK("an arena opens", arena_open(k, (size_t)256 << 20, &a) == STATUS_OK);
	CHECK("takes", arena_take(a, DTYPE_BF16, 2, (int64_t[]){ 3, 5 }, &t) == STATUS_OK &&
			       arena_take(a, DTYPE_F32, 1, (int64_t[]){ 7 }, &u) == STATUS_OK);
	CHECK("aligned", (uintptr_t)t.data % 64 == 0 && (uintptr_t)u.data % 64 == 0);
	CHECK("apart", (char *)u.data >= (char *)t.data + 30 && t.stride[0] == 5 && u.dtype == DTYPE_F32);
	mark = arena_mark(a);
	CHECK("a large one", arena_take(a, DTYPE_U8, 1, (int64_t[]){ 200 << 20 }, &t) == STATUS_OK);
	((char *)t.data)[(200 << 20) - 1] = 1;
	CHECK("counts", kernels_memory(k) >= before + ((size_t)200 << 20) && arena_peak(a) >= (size_t)200 << 20);
	check_failure(arena_take(a, DTYPE_U8, 1, (int64_t[]){ 100 << 20 }, &u), STATUS_NO_MEMORY, "MiB",
		"a full arena says so");
	check_failure(arena_take(a, DTYPE_F32, 3, (int64_t[]){ INT64_MAX, 4, 4 }, &u), STATUS_INTERNAL, "arena",
		"an overflow is refused");
	check_failure(
		arena_take(a, DTYPE_F32, 1, (int64_t[]){ -1 }, &u), STATUS_INTERNAL, "arena", "so is a negative size");
	arena_release(a, mark);
	CHECK("a release gives back what is far above the mark", kernels_memory(k) <= before + ((size_t)65 << 20));
	CHECK("and its place is taken again", arena_take(a, DTYPE_U8, 1, (int64_t[]){ 200 << 20 }, &u) == STATUS_OK &&
						      u.data == t.data && ((char *)u.data)[(200 << 20) - 1] == 0);
	arena_close(a);
	arena_close(NULL);
	CHECK("closing gives back everything", kernels_memory(k) == before);
}

static void test_copies(struct kernels *k)
{
	const float values[6] = { 1, -2, 0.5f, 3, 1e-3f, 7 };
	const uint16_t halves[6] = { 0x3c00, 0xc000, 0x3800, 0x4200, 0x0000, 0x4700 };
	float back[6], device[6];
	uint16_t narrow[6];
	const int64_t dim[] = { 2, 3 };
	struct tensor host = tensor_view((void *)(uintptr_t)values, DTYPE_F32, 2, dim);
	struct tensor half = tensor_view((void *)(uintptr_t)halves, DTYPE_F16, 2, dim);
	struct tensor wide = tensor_view(device, DTYPE_F32, 2, dim), thin = tensor_view(narrow, DTYPE_BF16, 2, dim);
	struct tensor out = tensor_view(back, DTYPE_F32, 2, dim),
		      other = tensor_view(back, DTYPE_F32, 2, (int64_t[]){ 3, 2 });

	CHECK("f32 up and down", kernels_upload(k, &host, wide) == STATUS_OK &&
					 kernels_download(k, wide, &out) == STATUS_OK &&
					 memcmp(back, values, sizeof back) == 0);
	CHECK("f32 to bf16", kernels_upload(k, &host, thin) == STATUS_OK && narrow[4] == bf16_from_f32(1e-3f));
	CHECK("bf16 to f32", kernels_download(k, thin, &out) == STATUS_OK && back[1] == -2 && back[5] == 7);
	CHECK("f16 to f32", kernels_upload(k, &half, wide) == STATUS_OK && device[1] == -2 && device[3] == 3);
	CHECK("f16 to bf16", kernels_upload(k, &half, thin) == STATUS_OK && bf16_to_f32(narrow[5]) == 7);
	check_failure(kernels_upload(k, &other, wide), STATUS_INTERNAL, "upload", "shapes must agree");
}

/* ---- packing's refusals ------------------------------------------------------------------------------------------ */

static void test_packing(struct kernels *k)
{
	enum { ROWS = 300, COLUMNS = 257 };
	const size_t before = kernels_memory(k);
	struct cage c = cage_random(DTYPE_F32, 2, (int64_t[]){ ROWS, COLUMNS }, 0, 1, 1);
	struct cage h = cage_random(DTYPE_BF16, 2, (int64_t[]){ ROWS, COLUMNS }, 0, 1, 1), tall;
	struct tensor parts[2] = { h.t, c.t }, t = c.t, kernel;
	struct weight *w = NULL;

	value_set(&c.t, 217, COLUMNS - 1, 0, NAN);
	check_failure(kernels_pack_linear(k, 1, &c.t, &w), STATUS_CORRUPT, "NaN or infinity (row 217)", "NaN in f32");
	check_failure(kernels_pack_linear(k, 2, parts, &w), STATUS_CORRUPT, "(row 217)", "NaN in the second part");
	value_set(&c.t, 217, COLUMNS - 1, 0, 1);
	value_set(&h.t, 299, 0, 0, -INFINITY);
	check_failure(kernels_pack_linear(k, 1, &h.t, &w), STATUS_CORRUPT, "(row 299)", "infinity in bf16");
	((uint16_t *)h.t.data)[COLUMNS] = 0x7c00;
	h.t.dtype = DTYPE_F16;
	check_failure(kernels_pack_linear(k, 1, &h.t, &w), STATUS_CORRUPT, "(row 1)", "infinity in f16");
	tall = cage_random(DTYPE_F32, 2, (int64_t[]){ PACK_ROWS + 5, 3 }, 0, 1, 1);
	value_set(&tall.t, PACK_ROWS + 2, 1, 0, NAN);
	check_failure(kernels_pack_linear(k, 1, &tall.t, &w), STATUS_CORRUPT, "(row 3074)", "NaN in the second block");
	if (kernels_dtype(k) == DTYPE_BF16) {
		value_set(&c.t, 5, 5, 0, 3.4e38f);
		check_failure(kernels_pack_linear(k, 1, &c.t, &w), STATUS_CORRUPT, "(row 5)", "what bf16 cannot hold");
	}
	value_set(&c.t, 5, 5, 0, NAN);
	kernel = tensor_view(c.t.data, DTYPE_F32, 4, (int64_t[]){ 2, 3, 3, 3 });
	((float *)kernel.data)[30] = INFINITY;
	check_failure(kernels_pack_conv(k, &kernel, &w), STATUS_CORRUPT, "(row 1)", "infinity in a convolution kernel");
	check_failure(kernels_pack_table(k, &c.t, &w), STATUS_CORRUPT, "(row 0)", "infinity in a table");
	kernel = tensor_view(c.t.data, DTYPE_F32, 4, (int64_t[]){ 2, 3, 2, 2 });
	check_failure(kernels_pack_conv(k, &kernel, &w), STATUS_INTERNAL, "2 x 2", "a 2 x 2 kernel");
	t.dtype = DTYPE_F8_E4M3;
	check_failure(kernels_pack_linear(k, 1, &t, &w), STATUS_UNSUPPORTED, "f8_e4m3", "a dtype without conversion");
	parts[1] = tensor_view(c.t.data, DTYPE_F32, 2, (int64_t[]){ 2, COLUMNS - 1 });
	check_failure(kernels_pack_linear(k, 2, parts, &w), STATUS_INTERNAL, "part 1", "parts of different width");
	parts[1] = tensor_slice(c.t, 1, 0, COLUMNS - 1);
	check_failure(kernels_pack_linear(k, 1, &parts[1], &w), STATUS_INTERNAL, "pack_linear", "a strided source");
	check_failure(kernels_pack_linear(k, 0, parts, &w), STATUS_INTERNAL, "no parts", "no parts");
	CHECK("failed packs leave nothing", w == NULL && kernels_memory(k) == before);
	cage_free(&tall);
	cage_free(&c);
	cage_free(&h);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static void test_products_refuse(struct kernels *k, struct weight *w, struct weight *table)
{
	const enum dtype dtype = kernels_dtype(k), other = dtype == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32;
	struct cage x = cage_random(dtype, 2, (int64_t[]){ 4, 8 }, 0, 1, 1),
		    y = cage_new(DTYPE_F32, 2, (int64_t[]){ 4, 6 }, 0);
	struct cage q = cage_random(dtype, 3, (int64_t[]){ 4, 4, 8 }, 0, 1, 1);
	struct linear op = { .x = x.t, .w = w, .y = y.t };
	struct attention at = { .q = q.t, .k = q.t, .v = q.t, .out = q.t };

	op.y.dim[1] = 5;
	check_failure(
		kernels_linear(k, &op), STATUS_INTERNAL, "linear: y is [4, 5], expected [4, 6]", "linear: y's shape");
	op.y = y.t;
	op.x.dim[1] = 7;
	check_failure(
		kernels_linear(k, &op), STATUS_INTERNAL, "linear: x is [4, 7], expected [-1, 8]", "linear: x's shape");
	op.x = x.t;
	op.x.dtype = other;
	check_failure(kernels_linear(k, &op), STATUS_INTERNAL, "linear: x is", "linear: x's dtype");
	op.x = x.t;
	op.y.dtype = DTYPE_BF16;
	op.accumulate = true;
	check_failure(kernels_linear(k, &op), STATUS_INTERNAL, "linear: y is bf16", "linear: a sum in bf16");
	op = (struct linear){ .x = x.t, .w = table, .y = y.t };
	check_failure(kernels_linear(k, &op), STATUS_INTERNAL, "linear: w", "linear: a table for w");
	op = (struct linear){ .x = x.t, .w = w, .bias = table, .y = y.t };
	check_failure(kernels_linear(k, &op), STATUS_INTERNAL, "linear: bias is no table of 6",
		"linear: bias of another size");
	check_failure(kernels_conv(k, &(struct conv){ .x = q.t, .w = w, .y = q.t }), STATUS_INTERNAL, "conv: w",
		"conv: a matrix for w");
	at.k.dim[1] = 3;
	at.v.dim[1] = 3;
	check_failure(
		kernels_attention(k, &at), STATUS_INTERNAL, "attention: the query heads", "attention: 4 heads on 3");
	at = (struct attention){ .q = q.t, .k = q.t, .v = q.t, .out = q.t, .causal = true };
	at.q.dim[0] = at.out.dim[0] = 3;
	check_failure(
		kernels_attention(k, &at), STATUS_INTERNAL, "attention: causal", "attention: causal and not square");
	at.causal = false;
	at.v.dim[2] = 7;
	check_failure(kernels_attention(k, &at), STATUS_INTERNAL, "attention: v is [4, 4, 7]", "attention: v's shape");
	at.v = q.t;
	at.bias = y.t;
	check_failure(kernels_attention(k, &at), STATUS_INTERNAL, "attention: bias", "attention: bias's shape");
	CHECK("a refused operation writes nothing", isnan(value_at(&y.t, 0, 0, 0)) && cage_intact(&y));
	cage_free(&x);
	cage_free(&y);
	cage_free(&q);
}

static void test_rows_refuse(struct kernels *k, struct weight *table)
{
	struct cage x = cage_random(DTYPE_F32, 2, (int64_t[]){ 4, 8 }, 0, 1, 1),
		    p = cage_new(DTYPE_F32, 3, (int64_t[]){ 4, 4, 6 }, 0);
	struct cage h = cage_random(kernels_dtype(k), 3, (int64_t[]){ 4, 1, 7 }, 0, 1, 1);
	struct tensor narrow = tensor_slice(x.t, 1, 0, 7), turned = x.t;

	check_failure(kernels_norm(k, &(struct norm){ .x = x.t, .y = narrow }), STATUS_INTERNAL, "norm: y",
		"norm: y's shape");
	check_failure(kernels_norm(k, &(struct norm){ .x = narrow, .y = narrow, .weight = table }), STATUS_INTERNAL,
		"norm: weight", "norm: weight of another size");
	check_failure(kernels_norm_residual(k, &(struct norm_residual){ .x = x.t, .stream = x.t }), STATUS_INTERNAL,
		"norm_residual", "norm_residual: no weight");
	check_failure(kernels_group_norm(k,
			      &(struct group_norm){ .x = p.t, .y = p.t, .groups = 4, .weight = table, .bias = table }),
		STATUS_INTERNAL, "group_norm: the groups", "group_norm: 4 groups of 6 channels");
	check_failure(kernels_group_norm(k, &(struct group_norm){ .x = p.t, .groups = 3, .moments = p.t }),
		STATUS_INTERNAL, "group_norm: moments is", "group_norm: moments of another shape");
	check_failure(kernels_group_norm(k, &(struct group_norm){ .x = p.t, .groups = 3, .weight = table }),
		STATUS_INTERNAL, "group_norm: y is", "group_norm: neither y nor moments");
	check_failure(kernels_qk_rope(k, &(struct qk_rope){ .x = h.t, .table = p.t }), STATUS_INTERNAL,
		"qk_rope: head_dim", "qk_rope: an odd head");
	check_failure(kernels_glu(k, ACTIVATION_SILU, x.t, narrow, x.t), STATUS_INTERNAL, "glu: up", "glu: up's shape");
	check_failure(kernels_gated_add(k, x.t, NULL, narrow), STATUS_INTERNAL, "gated_add: stream",
		"gated_add: stream's shape");
	check_failure(kernels_add_row(k, x.t, x.t), STATUS_INTERNAL, "add_row: row", "add_row: a matrix for row");
	check_failure(kernels_clamp(k, 1, 0, x.t), STATUS_INTERNAL, "clamp: low", "clamp: low above high");
	check_failure(kernels_halve(k, p.t, p.t), STATUS_INTERNAL, "halve: y", "halve: y's shape");
	check_failure(
		kernels_unary(k, UNARY_COPY, p.t, x.t), STATUS_INTERNAL, "unary: x is [4, 4, 6]", "unary: x's rank");
	turned.stride[0] = 1;
	turned.stride[1] = 4;
	check_failure(kernels_unary(k, UNARY_COPY, turned, x.t), STATUS_INTERNAL, "unary: the strides of x",
		"unary: columns first");
	check_failure(kernels_axpby(k, 1, narrow, 1, x.t), STATUS_INTERNAL, "axpby", "axpby: sizes");
	check_failure(kernels_fill_rows(k, x.t, x.t), STATUS_INTERNAL, "fill_rows: row", "fill_rows: a matrix for row");
	check_failure(
		kernels_patchify(k, p.t, 4, x.t), STATUS_INTERNAL, "patchify: the patch", "patchify: 4 in 6 columns");
	check_failure(kernels_unpatchify(k, x.t, 2, 1, p.t), STATUS_INTERNAL,
		"unpatchify: rows is [4, 8], expected [6, 16]", "unpatchify: rows' shape");
	check_failure(kernels_to_nhwc(k, p.t, 1, 0, p.t), STATUS_INTERNAL, "to_nhwc: y", "to_nhwc: y's shape");
	check_failure(kernels_to_rgb8(k, p.t, h.t.data), STATUS_INTERNAL, "to_rgb8: x", "to_rgb8: 6 channels");
	cage_free(&x);
	cage_free(&p);
	cage_free(&h);
}

static void test_refusals(struct kernels *k)
{
	struct cage source = cage_random(DTYPE_F32, 2, (int64_t[]){ 6, 8 }, 0, 1, 1);
	struct cage values = cage_random(DTYPE_F32, 1, (int64_t[]){ 8 }, 0, 1, 1);
	struct weight *w = NULL, *table = NULL;

	if (kernels_pack_linear(k, 1, &source.t, &w) == STATUS_OK &&
		kernels_pack_table(k, &values.t, &table) == STATUS_OK) {
		test_products_refuse(k, w, table);
		test_rows_refuse(k, table);
	}
	CHECK("weights for the refusals", w && table);
	weight_free(k, w);
	weight_free(k, table);
	weight_free(k, NULL);
	cage_free(&source);
	cage_free(&values);
}

/* No rows is no work, not an error: a prompt may need no padding. */
static void test_empty(struct kernels *k)
{
	struct cage x = cage_random(DTYPE_F32, 2, (int64_t[]){ 4, 8 }, 0, 1, 1);
	struct tensor none = tensor_slice(x.t, 0, 4, 0), row = tensor_view(x.t.data, DTYPE_F32, 1, (int64_t[]){ 8 });

	CHECK("no rows", kernels_norm(k, &(struct norm){ .x = none, .y = none }) == STATUS_OK &&
				 kernels_fill_rows(k, row, none) == STATUS_OK &&
				 kernels_unary(k, UNARY_SILU, none, none) == STATUS_OK);
	CHECK("no rows touch nothing", cage_intact(&x));
	cage_free(&x);
}

/* ---- simple operations ------------------------------------------------------------------------------------------- */

static void test_patches(struct kernels *k, int patch, int64_t c, int64_t h, int64_t w, enum dtype dtype)
{
	struct cage latents = cage_random(DTYPE_F32, 3, (int64_t[]){ c, h, w }, 0, 1, 1),
		    back = cage_new(DTYPE_F32, 3, latents.t.dim, 0);
	struct cage rows = cage_new(dtype, 2, (int64_t[]){ h / patch * (w / patch), patch * patch * c }, 3);
	const double rtol = dtype == DTYPE_BF16 ? 0x1p-8 : 0;
	bool right = kernels_patchify(k, latents.t, patch, rows.t) == STATUS_OK;
	int64_t row = 0;

	for (int64_t y = 0; y < h; y += patch)
		for (int64_t x = 0; x < w; x += patch, row++)
			for (int64_t at = 0; at < patch * patch * c; at++) {
				const int64_t dy = at / (patch * c), dx = at / c % patch;
				const double wanted = value_at(&latents.t, at % c, y + dy, x + dx);

				right &= fabs(value_at(&rows.t, row, at, 0) - wanted) <= rtol * fabs(wanted);
			}
	check_case(right && cage_intact(&rows), NULL, "patchify by %d, %s", patch, dtype_name(dtype));
	right = kernels_unpatchify(k, rows.t, patch, -2, back.t) == STATUS_OK;
	EACH(&back.t, i, j, l)
	right &= fabs(value_at(&back.t, i, j, l) + 2 * value_at(&latents.t, i, j, l)) <= 2 * rtol;
	check_case(right && cage_intact(&back), NULL, "unpatchify by %d, %s", patch, dtype_name(dtype));
	cage_free(&latents);
	cage_free(&back);
	cage_free(&rows);
}

static void test_small(struct kernels *k)
{
	struct cage x = cage_random(DTYPE_F32, 3, (int64_t[]){ 3, 4, 5 }, 0, 1, 1),
		    y = cage_new(DTYPE_F32, 3, (int64_t[]){ 4, 5, 3 }, 0);
	struct cage z = cage_random(DTYPE_F32, 3, x.t.dim, 0, 1, 2), was = cage_random(DTYPE_F32, 3, x.t.dim, 0, 1, 2);
	struct cage rows = cage_new(DTYPE_F32, 2, (int64_t[]){ 7, 5 }, 4);
	struct tensor row = tensor_view(x.t.data, DTYPE_F32, 1, (int64_t[]){ 5 });
	bool right = kernels_to_nhwc(k, x.t, 3, 0.25f, y.t) == STATUS_OK, finite = false;

	EACH(&y.t, i, j, l)
	right &= close_to(value_at(&y.t, i, j, l), value_at(&x.t, l, i, j) * 3 + 0.25);
	CHECK("to_nhwc", right && cage_intact(&y));
	right = kernels_axpby(k, -0.5f, x.t, 2, z.t) == STATUS_OK;
	EACH(&z.t, i, j, l)
	right &= close_to(value_at(&z.t, i, j, l), -0.5 * value_at(&x.t, i, j, l) + 2.0 * value_at(&was.t, i, j, l));
	CHECK("axpby", right && cage_intact(&z));
	right = kernels_fill_rows(k, row, rows.t) == STATUS_OK;
	EACH(&rows.t, i, j, l)
	right &= value_at(&rows.t, i, j, 0) == value_at(&row, j, 0, 0);
	CHECK("fill_rows", right && cage_intact(&rows));
	CHECK("all_finite says yes", kernels_all_finite(k, z.t, &finite) == STATUS_OK && finite);
	value_set(&z.t, 2, 3, 4, INFINITY);
	CHECK("all_finite finds infinity", kernels_all_finite(k, z.t, &finite) == STATUS_OK && !finite);
	value_set(&z.t, 2, 3, 4, NAN);
	CHECK("all_finite finds NaN", kernels_all_finite(k, z.t, &finite) == STATUS_OK && !finite);
	cage_free(&x);
	cage_free(&y);
	cage_free(&z);
	cage_free(&was);
	cage_free(&rows);
}

/* Enlarging, shrinking and pooling between dtypes; clamping keeps NaN. */
static void test_sizes(struct kernels *k, enum dtype x_dtype, enum dtype y_dtype)
{
	struct cage x = cage_random(x_dtype, 3, (int64_t[]){ 4, 6, 3 }, 0, 1, 1);
	struct cage y = cage_new(y_dtype, 3, (int64_t[]){ 7, 12, 3 }, 0),
		    half = cage_new(y_dtype, 3, (int64_t[]){ 2, 3, 3 }, 0);
	const double tol = y_dtype == DTYPE_BF16 ? 0x1p-8 : 1e-6;
	bool right = kernels_resize_nearest(k, x.t, y.t) == STATUS_OK && kernels_halve(k, x.t, half.t) == STATUS_OK;
	float values[] = { -3, -1, 0.5f, 2, NAN };

	EACH(&y.t, i, j, l)
	right &= fabs(value_at(&y.t, i, j, l) - value_at(&x.t, i * 4 / 7, j / 2, l)) <= tol;
	EACH(&half.t, i, j, l)
	{
		double sum = 0;

		for (int place = 0; place < 4; place++)
			sum += value_at(&x.t, 2 * i + place / 2, 2 * j + place % 2, l);
		right &= fabs(value_at(&half.t, i, j, l) - sum / 4) <= tol;
	}
	check_case(right && cage_intact(&y) && cage_intact(&half), NULL, "resize_nearest and halve, %s to %s",
		dtype_name(x_dtype), dtype_name(y_dtype));
	right = kernels_clamp(k, -1, 1, tensor_view(values, DTYPE_F32, 1, (int64_t[]){ 5 })) == STATUS_OK;
	CHECK("clamp",
		right && values[0] == -1 && values[1] == -1 && values[2] == 0.5f && values[3] == 1 && isnan(values[4]));
	cage_free(&x);
	cage_free(&y);
	cage_free(&half);
}

/* Halves go to the even pixel; ends are held. */
static void test_rgb8(struct kernels *k)
{
	float x[768];
	uint8_t rgb[769];
	bool right;
	int halves = 0;
	const float ends[] = { 0, -1, 1, -7, 9, INFINITY, -INFINITY, 0.999f, NAN };
	const uint8_t wanted[] = { 128, 0, 255, 0, 255, 255, 0, 255, 0 };

	memcpy(x, ends, sizeof ends);
	rgb[9] = 77;
	right = kernels_to_rgb8(k, tensor_view(x, DTYPE_F32, 3, (int64_t[]){ 1, 3, 3 }), rgb) == STATUS_OK;
	CHECK("pixels at the ends", right && memcmp(rgb, wanted, sizeof wanted) == 0 && rgb[9] == 77);
	for (int i = 0; i < 768; i++) /* around every half: x = 2 (i + 1/2) / 255 - 1 */
		x[i] = 2 * ((float)(i % 255) + 0.5f) / 255 - 1;
	right = kernels_to_rgb8(k, tensor_view(x, DTYPE_F32, 3, (int64_t[]){ 16, 16, 3 }), rgb) == STATUS_OK;
	for (int i = 0; i < 255; i++) {
		const float exact = (x[i] / 2 + 0.5f) * 255;

		halves += exact == (float)i + 0.5f;
		right &= exact == (float)i + 0.5f ? rgb[i] == (i % 2 ? i + 1 : i)
						  : rgb[i] == (exact < (float)i + 0.5f ? i : i + 1);
	}
	CHECK("halves round to even", right && halves > 20);
}

/* ---- ref's products, against formulas of the test's own ---------------------------------------------------------- */

static void test_linear_formula(struct kernels *k)
{
	enum { M = 3, N = 5, K = 7 };
	struct cage x = cage_random(DTYPE_F32, 2, (int64_t[]){ M, K }, 2, 1, 1),
		    s = cage_random(DTYPE_F32, 2, (int64_t[]){ N, K }, 0, 1, 2);
	struct cage b = cage_random(DTYPE_F32, 1, (int64_t[]){ N }, 0, 1, 3),
		    y = cage_random(DTYPE_F32, 2, (int64_t[]){ M, N }, 3, 1, 4);
	struct cage was = cage_random(DTYPE_F32, 2, (int64_t[]){ M, N }, 3, 1, 4);
	struct weight *w = NULL, *bias = NULL;
	const double flops = kernels_flops(k);
	bool right = kernels_pack_linear(k, 1, &s.t, &w) == STATUS_OK &&
		     kernels_pack_table(k, &b.t, &bias) == STATUS_OK &&
		     kernels_linear(k, &(struct linear){ .x = x.t,
					       .w = w,
					       .bias = bias,
					       .activation = ACTIVATION_SILU,
					       .accumulate = true,
					       .y = y.t }) == STATUS_OK;

	EACH(&y.t, i, j, l)
	{
		double sum = value_at(&b.t, j, 0, 0);

		for (int64_t c = 0; c < K; c++)
			sum += (double)value_at(&x.t, i, c, 0) * (double)value_at(&s.t, j, c, 0);
		right &= close_to(value_at(&y.t, i, j, 0), sum / (1 + exp(-sum)) + value_at(&was.t, i, j, 0));
	}
	CHECK("ref linear is its formula", right);
	CHECK("a product's arithmetic is counted", kernels_flops(k) - flops == 2 * M * N * K);
	weight_free(k, w);
	weight_free(k, bias);
	cage_free(&x);
	cage_free(&s);
	cage_free(&b);
	cage_free(&y);
	cage_free(&was);
}

/* A kernel that is 1 at one place moves the picture: checks order of dimensions, padding and enlargement. */
static void test_conv_shift(struct kernels *k, bool upsample)
{
	enum { H = 3, W = 4, IN = 2, OUT = 3 };
	struct cage x = cage_random(DTYPE_F32, 3, (int64_t[]){ H, W, IN }, 0, 1, 1);
	const int64_t f = upsample ? 2 : 1;
	struct cage y = cage_new(DTYPE_F32, 3, (int64_t[]){ f * H, f * W, OUT }, 0);
	const double flops = kernels_flops(k);
	bool right = true;

	for (int place = 0; place < OUT * IN * 9; place++) {
		float values[OUT * IN * 9] = { 0 };
		struct tensor source = tensor_view(values, DTYPE_F32, 4, (int64_t[]){ OUT, IN, 3, 3 });
		const int out = place / (IN * 9), in = place / 9 % IN, dy = place / 3 % 3 - 1, dx = place % 3 - 1;
		struct weight *w = NULL;

		values[place] = 2;
		right &= kernels_pack_conv(k, &source, &w) == STATUS_OK &&
			 kernels_conv(k, &(struct conv){ .x = x.t, .w = w, .upsample = upsample, .y = y.t }) ==
				 STATUS_OK;
		EACH(&y.t, i, j, l)
		{
			const int64_t row = i + dy, column = j + dx;
			const bool inside = row >= 0 && row < f * H && column >= 0 && column < f * W;
			const double wanted = inside && l == out ? 2 * value_at(&x.t, row / f, column / f, in) : 0;

			right &= value_at(&y.t, i, j, l) == wanted;
		}
		weight_free(k, w);
	}
	check_case(right, NULL, "%s: one tap of a kernel moves the picture, enlarged %d", kernels_device(k), upsample);
	right = kernels_flops(k) - flops == 2.0 * (double)(f * f * H * W) * OUT * IN * 9 * (OUT * IN * 9);
	check_case(
		right, NULL, "%s: the arithmetic of convolutions is counted, enlarged %d", kernels_device(k), upsample);
	cage_free(&x);
	cage_free(&y);
}

static void test_attention_formula(struct kernels *k)
{
	/* two keys, two elements: softmax is a logistic function of the difference of the scores */
	float q[] = { 1, 2, -1, 0.5f }, key[] = { 0.5f, -1, 2, 0.25f }, value[] = { 1, 10, -3, 20 }, out[4];
	const int64_t dim[] = { 2, 1, 2 };
	struct attention op = { .scale = 0.7f };
	double flops = kernels_flops(k);
	bool right, causal;

	op.q = tensor_view(q, DTYPE_F32, 3, dim);
	op.k = tensor_view(key, DTYPE_F32, 3, dim);
	op.v = tensor_view(value, DTYPE_F32, 3, dim);
	op.out = tensor_view(out, DTYPE_F32, 3, dim);
	right = kernels_attention(k, &op) == STATUS_OK;
	for (int i = 0; i < 2; i++) {
		const double first = q[2 * i] * key[0] + q[2 * i + 1] * key[1],
			     second = q[2 * i] * key[2] + q[2 * i + 1] * key[3];
		const double p = 1 / (1 + exp((double)op.scale * (second - first)));

		for (int d = 0; d < 2; d++)
			right &= close_to(out[2 * i + d], p * value[d] + (1 - p) * value[2 + d]);
	}
	CHECK("ref attention is its formula", right);
	CHECK("its arithmetic is counted", kernels_flops(k) - flops == 2 * 2 * 2 * 2 * 2);
	flops = kernels_flops(k);
	op.causal = true;
	causal = kernels_attention(k, &op) == STATUS_OK && out[0] == value[0] && out[1] == value[1];
	CHECK("ref attention, causal: the first row sees the first key", causal);
	CHECK("what a causal row does not see is not counted", kernels_flops(k) - flops == 2 * 2 * 2 * 3);
}

static void test_norm_formula(struct kernels *k)
{
	float x[] = { 3, -1, 2, 4 }, y[4], w[] = { 1, 2, 3, 4 }, bias[] = { 5, 6, 7, 8 }, scale[] = { 0.5f, 0, -1, 1 };
	const int64_t dim[] = { 1, 4 };
	struct tensor tw = tensor_view(w, DTYPE_F32, 1, &dim[1]), tb = tensor_view(bias, DTYPE_F32, 1, &dim[1]);
	struct weight *weight = NULL, *table = NULL;
	struct norm op = { .scale = scale, .shift = bias, .eps = 0.5f };
	bool layer = kernels_pack_table(k, &tw, &weight) == STATUS_OK &&
		     kernels_pack_table(k, &tb, &table) == STATUS_OK,
	     rms;

	op.x = tensor_view(x, DTYPE_F32, 2, dim);
	op.y = tensor_view(y, DTYPE_F32, 2, dim);
	op.weight = weight;
	op.bias = table;
	layer &= kernels_norm(k, &op) == STATUS_OK; /* mean 2, variance (1 + 9 + 0 + 4) / 4 = 3.5, + eps = 4 */
	for (int i = 0; i < 4; i++)
		layer &= close_to(y[i], (x[i] - 2) / 2.0 * w[i] * (1 + scale[i]) + 2.0 * bias[i]);
	CHECK("ref layer norm is its formula", layer);
	op.rms = true;
	op.eps = 1.5f; /* mean square 30 / 4 = 7.5, + eps = 9 */
	rms = kernels_norm(k, &op) == STATUS_OK;
	for (int i = 0; i < 4; i++)
		rms &= close_to(y[i], x[i] / 3.0 * w[i] * (1 + scale[i]) + 2.0 * bias[i]);
	CHECK("ref rms norm is its formula", rms);
	weight_free(k, weight);
	weight_free(k, table);
}

static void test_group_norm_formula(struct kernels *k)
{
	float x[] = { 1, 5, 3, 9, 10, -5, 12, -1 }; /* 4 places of 2 channels; one group a channel, then one of both */
	float y[8], moments[4], one[] = { 1, 1 }, zero[] = { 0, 0 };
	const int64_t dim[] = { 2, 2, 2 };
	struct tensor t1 = tensor_view(one, DTYPE_F32, 1, &dim[2]), t0 = tensor_view(zero, DTYPE_F32, 1, &dim[2]);
	struct weight *weight = NULL, *bias = NULL;
	struct group_norm op = { .groups = 2, .eps = 0 };
	bool right = kernels_pack_table(k, &t1, &weight) == STATUS_OK && kernels_pack_table(k, &t0, &bias) == STATUS_OK;
	const double variance[] = { 21.25, 29 }, mean[] = { 6.5, 2 };

	op.weight = weight;
	op.bias = bias;
	op.x = tensor_view(x, DTYPE_F32, 3, dim);
	op.y = tensor_view(y, DTYPE_F32, 3, dim);
	right &= kernels_group_norm(k, &op) == STATUS_OK;
	for (int i = 0; i < 8; i++)
		right &= close_to(y[i], (x[i] - mean[i % 2]) / sqrt(variance[i % 2]));
	op.moments = tensor_view(moments, DTYPE_F32, 2, (int64_t[]){ 2, 2 });
	op.y.data = NULL;
	right &= kernels_group_norm(k, &op) == STATUS_OK;
	for (int i = 0; i < 2; i++)
		right &= close_to(moments[2 * i], mean[i]) && close_to(moments[2 * i + 1], variance[i]);
	memcpy(moments, (float[]){ 1, 4, 2, 16 }, sizeof moments);
	op.y.data = y;
	right &= kernels_group_norm(k, &op) == STATUS_OK;
	for (int i = 0; i < 8; i++)
		right &= close_to(y[i], (x[i] - 1.0 - i % 2) / (2.0 + i % 2 * 2.0));
	op.moments.data = NULL;
	op.groups = 1; /* mean 4.25; mean of squares (1+25+9+81+100+25+144+1)/8 = 48.25 */
	op.silu = true;
	right &= kernels_group_norm(k, &op) == STATUS_OK;
	for (int i = 0; i < 8; i++) {
		const double v = (x[i] - 4.25) / sqrt(48.25 - 4.25 * 4.25);

		right &= close_to(y[i], v / (1 + exp(-v)));
	}
	CHECK("ref group norm is its formula", right);
	weight_free(k, weight);
	weight_free(k, bias);
}

static void test_rope_formula(struct kernels *k)
{
	float table[] = { 0, 1, 1, 0 }; /* pair 0 by a quarter turn, pair 1 not at all */
	float a[] = { 1, 2, 3, 4 }, b[] = { 1, 2, 3, 4 };
	const int64_t dim[] = { 1, 1, 4 };
	struct qk_rope op = { .interleaved = true };
	bool right;

	op.table = tensor_view(table, DTYPE_F32, 3, (int64_t[]){ 1, 2, 2 });
	op.x = tensor_view(a, DTYPE_F32, 3, dim);
	right = kernels_qk_rope(k, &op) == STATUS_OK && a[0] == -2 && a[1] == 1 && a[2] == 3 && a[3] == 4;
	CHECK("ref rope turns pairs of neighbours", right);
	op.interleaved = false;
	op.x = tensor_view(b, DTYPE_F32, 3, dim);
	right = kernels_qk_rope(k, &op) == STATUS_OK && b[0] == -3 && b[1] == 2 && b[2] == 1 && b[3] == 4;
	CHECK("ref rope turns pairs of halves", right);
}

/* ---- copies of packed weights ------------------------------------------------------------------------------------ */

/* Packs a matrix, a block and a convolution under `identity` from sources of this seed; y: of products with one x. */
static bool pack_kept(enum dtype dtype, const char *dir, const char *identity, uint32_t seed, float y[3][7])
{
	struct cage matrix = cage_random(DTYPE_F32, 2, (int64_t[]){ 7, 9 }, 0, 1, seed);
	struct cage conv = cage_random(DTYPE_F32, 4, (int64_t[]){ 7, 9, 1, 1 }, 0, 1, seed + 1);
	struct weight *w[3] = { NULL };
	struct kernels *k = NULL;
	bool good = kernels_open("cpu", dtype, 1, &k) == STATUS_OK;
	struct cage x = cage_random(good ? kernels_dtype(k) : DTYPE_F32, 2, (int64_t[]){ 1, 9 }, 0, 1, 99);

	if (good)
		kernels_keep_packed(k, dir, PACKED_MIN * 2);
	if (good)
		kernels_packed_begin(k, identity, PACKED_MIN);
	good = good && kernels_pack_linear(k, 1, &matrix.t, &w[0]) == STATUS_OK &&
	       kernels_pack_block(k, 1, &matrix.t, &w[1]) == STATUS_OK &&
	       kernels_pack_conv(k, &conv.t, &w[2]) == STATUS_OK;
	if (k)
		kernels_packed_end(k, good);
	for (int i = 0; good && i < 2; i++)
		good = kernels_linear(k, &(struct linear){ .x = x.t,
						 .w = w[i],
						 .y = tensor_view(y[i], DTYPE_F32, 2, (int64_t[]){ 1, 7 }) }) ==
		       STATUS_OK;
	good = good &&
	       kernels_conv(k, &(struct conv){ .x = tensor_view(x.t.data, x.t.dtype, 3, (int64_t[]){ 1, 1, 9 }),
				       .w = w[2],
				       .y = tensor_view(y[2], DTYPE_F32, 3, (int64_t[]){ 1, 1, 7 }) }) == STATUS_OK;
	for (int i = 0; i < 3; i++)
		weight_free(k, w[i]);
	kernels_close(k);
	cage_free(&matrix);
	cage_free(&conv);
	cage_free(&x);
	return good;
}

/* The only file of the folder. */
static bool only_file(const char *dir, char path[512])
{
	DIR *d = opendir(dir);
	int n = 0;

	for (const struct dirent *e = NULL; d && (e = readdir(d));)
		if (e->d_name[0] != '.') {
			snprintf(path, 512, "%s/%s", dir, e->d_name);
			n++;
		}
	if (d)
		closedir(d);
	return n == 1;
}

/* Changes one byte of the values, or cuts the file short. */
static bool damage(const char *path, bool cut)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char byte = 0;
	bool good;

	if (cut)
		good = ftruncate(fd, 4096 + 10) == 0;
	else
		good = pread(fd, &byte, 1, 4100) == 1 && pwrite(fd, &(char){ (char)(byte ^ 1) }, 1, 4100) == 1;
	close(fd);
	return good;
}

/* A source of other values under the same identity shows whether it was read. */
static void test_kept(enum dtype dtype)
{
	char dir[] = "/tmp/promptfs-packed-XXXXXX", path[512] = "";
	float first[3][7], other[3][7], y[3][7];
	bool good;

	if (!mkdtemp(dir) || !pack_kept(dtype, dir, "a", 1, first)) {
		printf("skip - packed %s: %s\n", dtype_name(dtype), status_text());
		rmdir(dir);
		return;
	}
	CHECK("packing writes one file", only_file(dir, path));
	good = pack_kept(dtype, dir, "a", 2, y) && memcmp(first, y, sizeof y) == 0 && only_file(dir, path);
	CHECK("the next start takes it from there", good);
	good = damage(path, false) && pack_kept(dtype, dir, "a", 2, other) && memcmp(first, other, sizeof y) != 0;
	CHECK("a damaged file is not used", good && access(path, F_OK) != 0);
	good = pack_kept(dtype, dir, "a", 2, y) && memcmp(other, y, sizeof y) == 0 && only_file(dir, path);
	CHECK("it is written anew", good && pack_kept(dtype, dir, "a", 1, y) && memcmp(other, y, sizeof y) == 0);
	CHECK("nor is a short one", damage(path, true) && pack_kept(dtype, dir, "a", 1, y) &&
					    memcmp(first, y, sizeof y) == 0 && access(path, F_OK) != 0);
	good = pack_kept(dtype, dir, "b", 1, y) && only_file(dir, path) && truncate(path, 2 * (off_t)PACKED_MIN) == 0;
	CHECK("another identity has a file of its own, and what is old makes room",
		good && pack_kept(dtype, dir, "c", 1, y) && access(path, F_OK) != 0 && only_file(dir, path));
	unlink(path);
	rmdir(dir);
}

static void test_device(const char *device, enum dtype dtype)
{
	struct kernels *k = NULL;
	enum status status = &backend_cuda_host ? host_kernels_open(dtype, &k) : kernels_open(device, dtype, 2, &k);

	if (status == STATUS_UNSUPPORTED) {
		printf("skip - %s %s: %s\n", device, dtype_name(dtype), status_text());
		return;
	}
	check_case(status == STATUS_OK, status_text(), "%s opens in %s", device, dtype_name(dtype));
	if (status != STATUS_OK)
		return;
	test_arena(k);
	test_copies(k);
	test_packing(k);
	test_refusals(k);
	test_empty(k);
	test_patches(k, 2, 3, 4, 6, DTYPE_F32);
	test_patches(k, 1, 5, 3, 7, DTYPE_BF16);
	test_patches(k, 2, 16, 10, 6, DTYPE_BF16);
	test_small(k);
	test_sizes(k, DTYPE_F32, DTYPE_F32);
	test_sizes(k, DTYPE_BF16, DTYPE_F32);
	test_sizes(k, DTYPE_F32, DTYPE_BF16);
	test_rgb8(k);
	if (dtype == DTYPE_F32) {
		test_conv_shift(k, false);
		test_conv_shift(k, true);
	}
	kernels_close(k);
}

/* int8 by hand: rows of x scaled by 4 / 127 and 1 / 127; of w by 2 / 127 and 0; codes are whole multiples. */
static void test_i8_formula(void)
{
	float x[] = { 4, -2, 1, 0.5f }, w[] = { 1, 2, 0, 0 }, y[4], bias[] = { 0.25f, -1 };
	const int64_t square[] = { 2, 2 };
	struct tensor source = tensor_view(w, DTYPE_F32, 2, square), row = tensor_view(bias, DTYPE_F32, 1, square);
	struct linear op = { .x = tensor_view(x, DTYPE_F32, 2, square), .y = tensor_view(y, DTYPE_F32, 2, square) };
	struct weight *matrix = NULL, *exact = NULL, *table = NULL;
	struct kernels *k = NULL;
	bool right = kernels_open("ref", DTYPE_I8, 1, &k) == STATUS_OK &&
		     kernels_pack_block(k, 1, &source, &matrix) == STATUS_OK &&
		     kernels_pack_linear(k, 1, &source, &exact) == STATUS_OK &&
		     kernels_pack_table(k, &row, &table) == STATUS_OK;

	CHECK("ref opens in int8", right && kernels_dtype(k) == DTYPE_F32 && kernels_weight_dtype(k) == DTYPE_I8);
	op.w = matrix;
	op.bias = table;
	right = right && kernels_linear(k, &op) == STATUS_OK;
	/* codes: x 127 -64 | 127 64 (63.5 is halfway, to even), w 64 127 | 0 0 */
	right = right && fabsf(y[0] - (float)((127 * 64 - 64 * 127) * (4.0 * 2 / 127 / 127) + 0.25)) < 1e-6f &&
		y[1] == -1 && fabsf(y[2] - (float)((127 * 64 + 64 * 127) * (2.0 / 127 / 127) + 0.25)) < 1e-6f &&
		y[3] == -1;
	CHECK("ref int8 is what the header says", right);
	x[1] = NAN;
	right = right && kernels_linear(k, &op) == STATUS_OK;
	CHECK("a row with NaN gives NaN, the others do not", right && isnan(y[0]) && isnan(y[1]) && y[3] == -1);
	x[1] = -2;
	op.w = exact;
	right = right && kernels_linear(k, &op) == STATUS_OK;
	CHECK("what pack_linear packed stays exact", right && y[0] == 0.25f && y[2] == 2.25f);
	weight_free(k, matrix);
	weight_free(k, exact);
	weight_free(k, table);
	kernels_close(k);
}

static void test_ref(void)
{
	struct kernels *k = NULL;

	if (kernels_open("ref", DTYPE_OTHER, 1, &k) == STATUS_OK && kernels_dtype(k) == DTYPE_F32) {
		test_linear_formula(k);
		test_attention_formula(k);
		test_norm_formula(k);
		test_group_norm_formula(k);
		test_rope_formula(k);
	}
	CHECK("ref opens in f32", k != NULL);
	kernels_close(k);
}

int main(void)
{
	if (&backend_cuda_host) {
		test_device("cuda-host", DTYPE_F32);
		test_device("cuda-host", DTYPE_BF16);
		return check_result();
	}
	test_bf16();
	test_f16();
	test_views();
	test_open();
	test_ref();
	test_i8_formula();
	test_device("ref", DTYPE_F32);
	test_device("ref", DTYPE_BF16);
	test_device("cpu", DTYPE_F32);
	test_device("cpu", DTYPE_BF16);
	test_kept(DTYPE_F32);
	test_kept(DTYPE_I8);
	return check_result();
}

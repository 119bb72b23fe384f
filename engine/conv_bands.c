/* conv_bands: see conv_bands.h. */
#include "engine/conv_bands.h"

#include <stdlib.h>
#include <string.h>

/* Rows first .. first + n - 1 of a picture; loops over bands run first = 0, rows, 2 rows, ... */
struct span {
	int64_t first, n;
};

static int64_t source_rows(const struct band_source *x)
{
	return x->doubled ? 2 * x->whole.dim[0] : x->whole.dim[0];
}

static struct span band_at(int64_t first, int64_t rows, int64_t height)
{
	return (struct span){ first, height - first < rows ? height - first : rows };
}

/* With the row beyond each edge that a convolution reaches; past the picture there are zeros. */
static struct span with_halo(struct span s, int64_t height)
{
	const int64_t from = s.first > 0 ? s.first - 1 : 0;
	const int64_t end = s.first + s.n < height ? s.first + s.n + 1 : height;

	return (struct span){ from, end - from };
}

/* The rows of x: a view, or made of those of x->whole that the wanted ones reach.  Rows at the edge of what is made
 * had zeros beyond them instead of the picture: they are left out of the view. */
static enum status take_rows(const struct conv_pass *p, const struct band_source *x, struct span s, struct tensor *out)
{
	const int64_t from = s.first > 0 ? (s.first - 1) / 2 : 0, reach = (s.first + s.n) / 2 + 1;
	const int64_t end = reach < x->whole.dim[0] ? reach : x->whole.dim[0];
	struct tensor operand, made;

	if (!x->doubled) {
		*out = tensor_slice(x->whole, 0, s.first, s.n);
		return STATUS_OK;
	}
	TRY(conv_operand(p, tensor_slice(x->whole, 0, from, end - from), &operand));
	TRY(arena_take(
		p->arena, DTYPE_F32, 3, (int64_t[]){ 2 * (end - from), 2 * x->whole.dim[1], x->whole.dim[2] }, &made));
	TRY(kernels_conv(p->k, &(struct conv){ .x = operand,
				       .w = x->doubled->conv,
				       .bias = x->doubled->conv_bias,
				       .upsample = true,
				       .y = made }));
	*out = tensor_slice(made, 0, s.first - 2 * from, s.n);
	return STATUS_OK;
}

/* ---- moments ----------------------------------------------------------------------------------------------------- */

/* band: [bands][groups][2] mean and variance of each band, of `rows` rows but for the last; joined into the first. */
static void join(float *band, int groups, int64_t height, int64_t rows)
{
	for (int g = 0; g < groups; g++) {
		double mean = 0, variance = 0;

		for (int64_t i = 0; i * rows < height; i++)
			mean += (double)band[2 * (i * groups + g)] * (double)band_at(i * rows, rows, height).n;
		mean /= (double)height;
		for (int64_t i = 0; i * rows < height; i++) {
			const float *of = band + 2 * (i * groups + g);
			const double apart = (double)of[0] - mean;

			variance += ((double)of[1] + apart * apart) * (double)band_at(i * rows, rows, height).n;
		}
		band[2 * g] = (float)mean;
		band[2 * g + 1] = (float)(variance / (double)height);
	}
}

/* Those of bands, on the device, to those of the picture. */
static enum status join_bands(
	const struct conv_pass *p, int64_t height, int64_t rows, struct tensor bands, struct tensor moments)
{
	struct tensor host = bands, joined = moments;
	enum status status;

	host.data = malloc((size_t)tensor_count(&bands) * sizeof(float));
	if (!host.data)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld bands", (long long)bands.dim[0]);
	status = kernels_download(p->k, bands, &host);
	if (status == STATUS_OK)
		join(host.data, p->groups, height, rows);
	joined.data = host.data;
	if (status == STATUS_OK)
		status = kernels_upload(p->k, &joined, moments);
	free(host.data);
	return status;
}

static enum status moments_of(const struct conv_pass *p, struct tensor x, struct tensor moments)
{
	return kernels_group_norm(p->k, &(struct group_norm){ .x = x, .groups = p->groups, .moments = moments });
}

/* *moments [groups, 2] of the whole picture, taken from the arena. */
static enum status find_moments(
	const struct conv_pass *p, int64_t rows, const struct band_source *x, struct tensor *moments)
{
	const int64_t height = source_rows(x), n = (height + rows - 1) / rows;
	struct tensor bands, part;
	size_t mark;

	TRY(arena_take(p->arena, DTYPE_F32, 2, (int64_t[]){ p->groups, 2 }, moments));
	if (!x->doubled)
		return moments_of(p, x->whole, *moments);
	mark = arena_mark(p->arena);
	TRY(arena_take(p->arena, DTYPE_F32, 3, (int64_t[]){ n, p->groups, 2 }, &bands));
	for (int64_t i = 0; i < n; i++) {
		const size_t inner = arena_mark(p->arena);
		struct tensor of =
			tensor_view((float *)bands.data + 2 * i * p->groups, DTYPE_F32, 2, (int64_t[]){ p->groups, 2 });

		TRY(take_rows(p, x, band_at(i * rows, rows, height), &part));
		TRY(moments_of(p, part, of));
		arena_release(p->arena, inner);
	}
	TRY(join_bands(p, height, rows, bands, *moments));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* ---- bands ------------------------------------------------------------------------------------------------------- */

/* A convolution of silu(norm(x)). */
struct layer {
	const struct band_source *x;
	const struct conv_norm *norm;
	struct tensor moments; /* of x */
	const struct weight *conv, *bias;
	int64_t out;
	enum dtype dtype;
};

/* Rows s of it, and of x itself; both taken from the arena. */
static enum status run_rows(
	const struct conv_pass *p, const struct layer *l, struct span s, struct tensor *out, struct tensor *x)
{
	const struct span wide = with_halo(s, source_rows(l->x));
	struct tensor rows, normed, made;

	TRY(take_rows(p, l->x, wide, &rows));
	TRY(conv_take(p, kernels_dtype(p->k), rows, rows.dim[2], &normed));
	TRY(conv_take(p, l->dtype, rows, l->out, &made));
	TRY(kernels_group_norm(p->k, &(struct group_norm){ .x = rows,
					     .groups = p->groups,
					     .weight = l->norm->weight,
					     .bias = l->norm->bias,
					     .eps = p->eps,
					     .silu = true,
					     .moments = l->moments,
					     .y = normed }));
	TRY(kernels_conv(p->k, &(struct conv){ .x = normed, .w = l->conv, .bias = l->bias, .y = made }));
	*out = tensor_slice(made, 0, s.first - wide.first, s.n);
	*x = tensor_slice(rows, 0, s.first - wide.first, s.n);
	return STATUS_OK;
}

/* y (operation)= the layer, a band after the other; where r is given, start = residual_start(x) as well. */
static enum status run_layer(const struct conv_pass *p, int64_t rows, const struct layer *l, enum unary f,
	struct tensor y, const struct residual *r, struct tensor start)
{
	const int64_t height = source_rows(l->x);

	for (int64_t first = 0; first < height; first += rows) {
		const struct span s = band_at(first, rows, height);
		const size_t mark = arena_mark(p->arena);
		struct tensor made, x;

		TRY(run_rows(p, l, s, &made, &x));
		TRY(kernels_unary(p->k, f, conv_places(made), conv_places(tensor_slice(y, 0, s.first, s.n))));
		if (r)
			TRY(residual_start(p, r, x, tensor_slice(start, 0, s.first, s.n)));
		arena_release(p->arena, mark);
	}
	return STATUS_OK;
}

enum status bands_residual(
	const struct conv_pass *p, int64_t rows, const struct residual *r, const struct band_source *x, struct tensor y)
{
	const bool in_place = !x->doubled && x->whole.data == y.data;
	const size_t mark = arena_mark(p->arena);
	struct layer first = { .x = x, .norm = &r->norm1, .conv = r->conv1, .bias = r->conv1_bias, .out = r->out };
	struct band_source hidden = { 0 };
	struct layer second = {
		.x = &hidden, .norm = &r->norm2, .conv = r->conv2, .bias = r->conv2_bias, .out = r->out
	};

	if (p->norm || r->time || (in_place && r->shortcut))
		return status_fail(STATUS_INTERNAL, "bands: a block of another kind");
	first.dtype = kernels_dtype(p->k);
	second.dtype = DTYPE_F32;
	TRY(conv_take(p, kernels_dtype(p->k), y, r->out, &hidden.whole));
	TRY(find_moments(p, rows, x, &first.moments));
	TRY(run_layer(p, rows, &first, UNARY_COPY, hidden.whole, in_place ? NULL : r, y));
	TRY(find_moments(p, rows, &hidden, &second.moments));
	TRY(run_layer(p, rows, &second, UNARY_ADD, y, NULL, y));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

enum status bands_normed_conv(const struct conv_pass *p, int64_t rows, const struct conv_norm *norm,
	const struct conv_sampler *conv, const struct band_source *x, struct tensor y)
{
	const size_t mark = arena_mark(p->arena);
	struct layer l = {
		.x = x, .norm = norm, .conv = conv->conv, .bias = conv->conv_bias, .out = y.dim[2], .dtype = DTYPE_F32
	};

	TRY(find_moments(p, rows, x, &l.moments));
	TRY(run_layer(p, rows, &l, UNARY_COPY, y, NULL, y));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

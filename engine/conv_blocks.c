/* conv_blocks: see conv_blocks.h. */
#include "engine/conv_blocks.h"

#include <math.h>
#include <stdio.h>

enum { D_ONE, D_IN, D_OUT, D_TIME, D_TIME_ROWS, D_SPATIAL, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define NORM(type, member, prefix, rows)                                                                               \
	VECTOR(type, member.weight, prefix "weight", rows), VECTOR(type, member.bias, prefix "bias", rows)
#define SPATIAL(type, member, prefix, rows)                                                                            \
	NORM(type, member, prefix "norm_layer.", rows),                                                                \
		LOAD_ONE(type, member.y, LOAD_CONV_1, prefix "conv_y.weight", rows, D_SPATIAL),                        \
		VECTOR(type, member.y_bias, prefix "conv_y.bias", rows),                                               \
		LOAD_ONE(type, member.b, LOAD_CONV_1, prefix "conv_b.weight", rows, D_SPATIAL),                        \
		VECTOR(type, member.b_bias, prefix "conv_b.bias", rows)

static const struct load_entry norms_table[] = {
	NORM(residual, norm1, "norm1.", D_IN),
	NORM(residual, norm2, "norm2.", D_OUT),
};

static const struct load_entry spatial_norms_table[] = {
	SPATIAL(residual, norm1, "norm1.", D_IN),
	SPATIAL(residual, norm2, "norm2.", D_OUT),
};

static const struct load_entry convs_table[] = {
	LOAD_ONE(residual, conv1, LOAD_CONV_3, "conv1.weight", D_OUT, D_IN),
	VECTOR(residual, conv1_bias, "conv1.bias", D_OUT),
	LOAD_ONE(residual, conv2, LOAD_CONV_3, "conv2.weight", D_OUT, D_OUT),
	VECTOR(residual, conv2_bias, "conv2.bias", D_OUT),
};

static const struct load_entry time_table[] = {
	LOAD_ONE(residual, time, LOAD_LINEAR, "time_emb_proj.weight", D_TIME_ROWS, D_TIME),
	VECTOR(residual, time_bias, "time_emb_proj.bias", D_TIME_ROWS),
};

static const struct load_entry shortcut_table[] = {
	LOAD_ONE(residual, shortcut, LOAD_CONV_1, "conv_shortcut.weight", D_OUT, D_IN),
	VECTOR(residual, shortcut_bias, "conv_shortcut.bias", D_OUT),
};

#define PROJECTION(member, name)                                                                                       \
	LOAD_ONE(place_attention, member, LOAD_LINEAR_1X1, name ".weight", D_OUT, D_OUT),                              \
		VECTOR(place_attention, member##_bias, name ".bias", D_OUT)

static const struct load_entry attention_table[] = {
	PROJECTION(q, "to_q"),
	PROJECTION(k, "to_k"),
	PROJECTION(v, "to_v"),
	PROJECTION(out, "to_out.0"),
};

/* the spelling of files from before diffusers 0.17 */
static const struct load_entry old_attention_table[] = {
	PROJECTION(q, "query"),
	PROJECTION(k, "key"),
	PROJECTION(v, "value"),
	PROJECTION(out, "proj_attn"),
};

static const struct load_entry attention_norm_table[] = { NORM(place_attention, norm, "group_norm.", D_OUT) };
static const struct load_entry attention_spatial_table[] = { SPATIAL(place_attention, norm, "spatial_norm.", D_OUT) };

static const struct load_entry sampler_table[] = {
	LOAD_ONE(conv_sampler, conv, LOAD_CONV_3, "conv.weight", D_OUT, D_OUT),
	VECTOR(conv_sampler, conv_bias, "conv.bias", D_OUT),
};

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static void describe(const struct conv_shape *s, int64_t dims[D_COUNT])
{
	dims[D_ONE] = 1;
	dims[D_IN] = s->in;
	dims[D_OUT] = s->out;
	dims[D_TIME] = s->time;
	dims[D_TIME_ROWS] = s->time_rows;
	dims[D_SPATIAL] = s->spatial;
}

enum status residual_load(struct kernels *k, const struct weights *w, const char *prefix,
	const struct conv_shape *shape, struct residual *r)
{
	int64_t dims[D_COUNT];
	struct loader loader = { k, w, dims };

	describe(shape, dims);
	r->in = shape->in;
	r->out = shape->out;
	r->time_rows = shape->time_rows;
	if (shape->spatial)
		TRY(load_table(&loader, prefix, spatial_norms_table, LOAD_COUNT(spatial_norms_table), r));
	else
		TRY(load_table(&loader, prefix, norms_table, LOAD_COUNT(norms_table), r));
	TRY(load_table(&loader, prefix, convs_table, LOAD_COUNT(convs_table), r));
	if (shape->time)
		TRY(load_table(&loader, prefix, time_table, LOAD_COUNT(time_table), r));
	if (shape->in != shape->out)
		TRY(load_table(&loader, prefix, shortcut_table, LOAD_COUNT(shortcut_table), r));
	return STATUS_OK;
}

void residual_free(struct kernels *k, struct residual *r)
{
	load_free(k, spatial_norms_table, LOAD_COUNT(spatial_norms_table), r);
	load_free(k, convs_table, LOAD_COUNT(convs_table), r);
	load_free(k, time_table, LOAD_COUNT(time_table), r);
	load_free(k, shortcut_table, LOAD_COUNT(shortcut_table), r);
}

enum status place_attention_load(struct kernels *k, const struct weights *w, const char *prefix,
	const struct conv_shape *shape, struct place_attention *a)
{
	int64_t dims[D_COUNT];
	struct loader loader = { k, w, dims };
	char old[128];

	describe(shape, dims);
	snprintf(old, sizeof old, "%squery.weight", prefix);
	if (shape->spatial)
		TRY(load_table(&loader, prefix, attention_spatial_table, LOAD_COUNT(attention_spatial_table), a));
	else
		TRY(load_table(&loader, prefix, attention_norm_table, LOAD_COUNT(attention_norm_table), a));
	return load_table(&loader, prefix, weights_has(w, old) ? old_attention_table : attention_table,
		LOAD_COUNT(attention_table), a);
}

void place_attention_free(struct kernels *k, struct place_attention *a)
{
	load_free(k, attention_spatial_table, LOAD_COUNT(attention_spatial_table), a);
	load_free(k, attention_table, LOAD_COUNT(attention_table), a);
}

enum status conv_sampler_load(
	struct kernels *k, const struct weights *w, const char *prefix, int64_t width, struct conv_sampler *s)
{
	int64_t dims[D_COUNT];
	struct loader loader = { k, w, dims };

	describe(&(struct conv_shape){ .in = width, .out = width }, dims);
	return load_table(&loader, prefix, sampler_table, LOAD_COUNT(sampler_table), s);
}

void conv_sampler_free(struct kernels *k, struct conv_sampler *s)
{
	load_free(k, sampler_table, LOAD_COUNT(sampler_table), s);
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

enum status conv_take(
	const struct conv_pass *p, enum dtype dtype, struct tensor like, int64_t channels, struct tensor *out)
{
	return arena_take(p->arena, dtype, 3, (int64_t[]){ like.dim[0], like.dim[1], channels }, out);
}

struct tensor conv_places(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 2, (int64_t[]){ t.dim[0] * t.dim[1], t.dim[2] });
}

enum status conv_operand(const struct conv_pass *p, struct tensor x, struct tensor *out)
{
	if (kernels_dtype(p->k) == x.dtype) {
		*out = x;
		return STATUS_OK;
	}
	TRY(conv_take(p, kernels_dtype(p->k), x, x.dim[2], out));
	return kernels_unary(p->k, UNARY_COPY, conv_places(x), conv_places(*out));
}

enum status conv_resized(const struct conv_pass *p, enum conv_resize resize, struct tensor x, struct tensor *out)
{
	const int64_t h = x.dim[0], w = x.dim[1];

	*out = x;
	if (resize == RESIZE_NONE)
		return STATUS_OK;
	if (resize == RESIZE_HALVE) {
		TRY(arena_take(p->arena, x.dtype, 3, (int64_t[]){ h / 2, w / 2, x.dim[2] }, out));
		return kernels_halve(p->k, x, *out);
	}
	TRY(arena_take(p->arena, x.dtype, 3, (int64_t[]){ 2 * h, 2 * w, x.dim[2] }, out));
	return kernels_resize_nearest(p->k, x, *out);
}

enum status conv_group_norm(
	const struct conv_pass *p, const struct conv_norm *n, bool silu, struct tensor x, struct tensor y)
{
	return kernels_group_norm(p->k, &(struct group_norm){ .x = x,
						.groups = p->groups,
						.weight = n->weight,
						.bias = n->bias,
						.eps = p->eps,
						.silu = silu,
						.y = y });
}

static enum status norm(
	const struct conv_pass *p, const struct conv_norm *n, bool silu, struct tensor x, struct tensor y)
{
	return p->norm ? p->norm(p, n, silu, x, y) : conv_group_norm(p, n, silu, x, y);
}

/* ---- residual blocks --------------------------------------------------------------------------------------------- */

enum status residual_start(const struct conv_pass *p, const struct residual *r, struct tensor x, struct tensor y)
{
	size_t mark = arena_mark(p->arena);
	struct tensor operand;

	if (!r->shortcut)
		return kernels_unary(p->k, UNARY_COPY, conv_places(x), conv_places(y));
	TRY(conv_operand(p, x, &operand));
	TRY(kernels_conv(p->k, &(struct conv){ .x = operand, .w = r->shortcut, .bias = r->shortcut_bias, .y = y }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* hidden = silu(norm2(hidden)), moved by the time embedding before the norm (a row), or after it (scale and shift). */
static enum status second_norm(const struct conv_pass *p, const struct residual *r, struct tensor hidden)
{
	struct tensor time;

	if (!r->time)
		return norm(p, &r->norm2, true, hidden, hidden);
	TRY(arena_take(p->arena, DTYPE_F32, 2, (int64_t[]){ 1, r->time_rows }, &time));
	TRY(kernels_linear(p->k, &(struct linear){ .x = p->time, .w = r->time, .bias = r->time_bias, .y = time }));
	if (r->time_rows == r->out) {
		TRY(kernels_add_row(p->k, tensor_view(time.data, DTYPE_F32, 1, &r->out), conv_places(hidden)));
		return norm(p, &r->norm2, true, hidden, hidden);
	}
	return kernels_group_norm(p->k, &(struct group_norm){ .x = hidden,
						.groups = p->groups,
						.weight = r->norm2.weight,
						.bias = r->norm2.bias,
						.scale = time.data,
						.shift = (const float *)time.data + r->out,
						.eps = p->eps,
						.silu = true,
						.y = hidden });
}

/* y += conv2(silu(norm2(conv1(resized(silu(norm1(x))))))) */
enum status residual_add(
	const struct conv_pass *p, const struct residual *r, enum conv_resize resize, struct tensor x, struct tensor y)
{
	struct tensor normed, sized, hidden;

	TRY(conv_take(p, kernels_dtype(p->k), x, r->in, &normed));
	TRY(conv_take(p, kernels_dtype(p->k), y, r->out, &hidden));
	TRY(norm(p, &r->norm1, true, x, normed));
	TRY(conv_resized(p, resize, normed, &sized));
	TRY(kernels_conv(p->k, &(struct conv){ .x = sized, .w = r->conv1, .bias = r->conv1_bias, .y = hidden }));
	TRY(second_norm(p, r, hidden));
	return kernels_conv(
		p->k, &(struct conv){ .x = hidden, .w = r->conv2, .bias = r->conv2_bias, .accumulate = true, .y = y });
}

enum status residual_run(const struct conv_pass *p, const struct residual *r, struct tensor *stream)
{
	struct tensor x = *stream, y = x;
	size_t mark;

	if (r->shortcut)
		TRY(conv_take(p, DTYPE_F32, x, r->out, &y));
	mark = arena_mark(p->arena);
	if (r->shortcut)
		TRY(residual_start(p, r, x, y));
	TRY(residual_add(p, r, RESIZE_NONE, x, y));
	arena_release(p->arena, mark);
	*stream = y;
	return STATUS_OK;
}

/* ---- attention, sizes -------------------------------------------------------------------------------------------- */

static struct tensor one_head(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 3, (int64_t[]){ t.dim[0], 1, t.dim[1] });
}

/* x += out(attention(norm(x))), one head as wide as the picture has channels. */
enum status place_attention_run(const struct conv_pass *p, const struct place_attention *a, struct tensor x)
{
	const struct weight *const w[] = { a->q, a->k, a->v }, *const bias[] = { a->q_bias, a->k_bias, a->v_bias };
	struct tensor normed, rows = conv_places(x), t[3];
	size_t mark = arena_mark(p->arena);

	TRY(conv_take(p, kernels_dtype(p->k), x, x.dim[2], &normed));
	TRY(norm(p, &a->norm, false, x, normed));
	normed = conv_places(normed);
	for (int i = 0; i < 3; i++) {
		TRY(arena_take(p->arena, kernels_dtype(p->k), 2, rows.dim, &t[i]));
		TRY(kernels_linear(p->k, &(struct linear){ .x = normed, .w = w[i], .bias = bias[i], .y = t[i] }));
	}
	TRY(kernels_attention(p->k, &(struct attention){ .q = one_head(t[0]),
					    .k = one_head(t[1]),
					    .v = one_head(t[2]),
					    .scale = 1 / sqrtf((float)x.dim[2]),
					    .out = one_head(normed) }));
	TRY(kernels_linear(p->k,
		&(struct linear){ .x = normed, .w = a->out, .bias = a->out_bias, .accumulate = true, .y = rows }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

enum status conv_double(const struct conv_pass *p, const struct conv_sampler *s, struct tensor *stream)
{
	struct tensor x = *stream, operand, y;
	size_t mark;

	TRY(arena_take(p->arena, DTYPE_F32, 3, (int64_t[]){ 2 * x.dim[0], 2 * x.dim[1], x.dim[2] }, &y));
	mark = arena_mark(p->arena);
	TRY(conv_operand(p, x, &operand));
	TRY(kernels_conv(
		p->k, &(struct conv){ .x = operand, .w = s->conv, .bias = s->conv_bias, .upsample = true, .y = y }));
	arena_release(p->arena, mark);
	*stream = y;
	return STATUS_OK;
}

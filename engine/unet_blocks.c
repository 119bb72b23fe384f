/* unet_blocks: see unet_blocks.h. */
#include "engine/unet_blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const float TRANSFORMER_NORM_EPS = 1e-6f, LAYER_NORM_EPS = 1e-5f; /* fixed in the reference */

enum { D_ONE, D_IN, D_OUT, D_TIME, D_CROSS, D_HIDDEN, D_GATED, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define BLOCK_VECTOR(member, name, rows) VECTOR(unet_transformer_block, member, name, rows)
#define BLOCK_MATRIX(member, name, rows, columns)                                                                      \
	LOAD_ONE(unet_transformer_block, member, LOAD_BLOCK, name, rows, columns)

static const struct load_entry resnet_table[] = {
	VECTOR(unet_resnet, norm1_weight, "norm1.weight", D_IN),
	VECTOR(unet_resnet, norm1_bias, "norm1.bias", D_IN),
	LOAD_ONE(unet_resnet, conv1, LOAD_CONV_3, "conv1.weight", D_OUT, D_IN),
	VECTOR(unet_resnet, conv1_bias, "conv1.bias", D_OUT),
	LOAD_ONE(unet_resnet, time, LOAD_LINEAR, "time_emb_proj.weight", D_OUT, D_TIME),
	VECTOR(unet_resnet, time_bias, "time_emb_proj.bias", D_OUT),
	VECTOR(unet_resnet, norm2_weight, "norm2.weight", D_OUT),
	VECTOR(unet_resnet, norm2_bias, "norm2.bias", D_OUT),
	LOAD_ONE(unet_resnet, conv2, LOAD_CONV_3, "conv2.weight", D_OUT, D_OUT),
	VECTOR(unet_resnet, conv2_bias, "conv2.bias", D_OUT),
};

static const struct load_entry shortcut_table[] = {
	LOAD_ONE(unet_resnet, shortcut, LOAD_CONV_1, "conv_shortcut.weight", D_OUT, D_IN),
	VECTOR(unet_resnet, shortcut_bias, "conv_shortcut.bias", D_OUT),
};

/* clang-format off */
#define TRANSFORMER_TABLE(name, kind)                                                                                  \
	static const struct load_entry name[] = {                                                                      \
		VECTOR(unet_transformer, norm_weight, "norm.weight", D_OUT),                                           \
		VECTOR(unet_transformer, norm_bias, "norm.bias", D_OUT),                                               \
		LOAD_ONE(unet_transformer, in, kind, "proj_in.weight", D_OUT, D_OUT),                                  \
		VECTOR(unet_transformer, in_bias, "proj_in.bias", D_OUT),                                              \
		LOAD_ONE(unet_transformer, out, kind, "proj_out.weight", D_OUT, D_OUT),                                \
		VECTOR(unet_transformer, out_bias, "proj_out.bias", D_OUT),                                            \
	}
/* clang-format on */
TRANSFORMER_TABLE(transformer_table, LOAD_CONV_LINEAR);
TRANSFORMER_TABLE(linear_transformer_table, LOAD_LINEAR_1X1);

static const struct load_entry block_table[] = {
	BLOCK_VECTOR(norm1_weight, "norm1.weight", D_OUT),
	BLOCK_VECTOR(norm1_bias, "norm1.bias", D_OUT),
	{ offsetof(struct unet_transformer_block, self_qkv), LOAD_BLOCK, D_OUT,
		{ { "attn1.to_q.weight", D_OUT }, { "attn1.to_k.weight", D_OUT }, { "attn1.to_v.weight", D_OUT } } },
	BLOCK_MATRIX(self_out, "attn1.to_out.0.weight", D_OUT, D_OUT),
	BLOCK_VECTOR(self_out_bias, "attn1.to_out.0.bias", D_OUT),
	BLOCK_VECTOR(norm2_weight, "norm2.weight", D_OUT),
	BLOCK_VECTOR(norm2_bias, "norm2.bias", D_OUT),
	BLOCK_MATRIX(cross_q, "attn2.to_q.weight", D_OUT, D_OUT),
	{ offsetof(struct unet_transformer_block, cross_kv), LOAD_BLOCK, D_CROSS,
		{ { "attn2.to_k.weight", D_OUT }, { "attn2.to_v.weight", D_OUT } } },
	BLOCK_MATRIX(cross_out, "attn2.to_out.0.weight", D_OUT, D_OUT),
	BLOCK_VECTOR(cross_out_bias, "attn2.to_out.0.bias", D_OUT),
	BLOCK_VECTOR(norm3_weight, "norm3.weight", D_OUT),
	BLOCK_VECTOR(norm3_bias, "norm3.bias", D_OUT),
	BLOCK_MATRIX(ff_in, "ff.net.0.proj.weight", D_GATED, D_OUT),
	BLOCK_VECTOR(ff_in_bias, "ff.net.0.proj.bias", D_GATED),
	BLOCK_MATRIX(ff_out, "ff.net.2.weight", D_OUT, D_HIDDEN),
	BLOCK_VECTOR(ff_out_bias, "ff.net.2.bias", D_OUT),
};

static const struct load_entry sampler_table[] = {
	LOAD_ONE(unet_sampler, conv, LOAD_CONV_3, "conv.weight", D_OUT, D_OUT),
	VECTOR(unet_sampler, conv_bias, "conv.bias", D_OUT),
};

/* ---- loading ---- */

enum status unet_load(const struct unet_loader *l, const int64_t *dims, const char *prefix,
	const struct load_entry *table, int n, void *base)
{
	const struct loader loader = { l->k, l->weights, dims };

	return load_table(&loader, prefix, table, n, base);
}

enum status unet_resnet_load(struct unet_loader *l, const char *prefix, int64_t in, int64_t out, struct unet_resnet *r)
{
	int64_t dims[D_COUNT] = { [D_ONE] = 1, [D_IN] = in, [D_OUT] = out, [D_TIME] = l->time };

	r->in = in;
	r->out = out;
	TRY(unet_load(l, dims, prefix, resnet_table, LOAD_COUNT(resnet_table), r));
	return in == out ? STATUS_OK : unet_load(l, dims, prefix, shortcut_table, LOAD_COUNT(shortcut_table), r);
}

void unet_resnet_free(struct kernels *k, struct unet_resnet *r)
{
	load_free(k, resnet_table, LOAD_COUNT(resnet_table), r);
	load_free(k, shortcut_table, LOAD_COUNT(shortcut_table), r);
}

enum status unet_transformer_load(struct unet_loader *l, const char *prefix, int64_t width, int64_t heads,
	int64_t n_blocks, struct unet_transformer *t)
{
	int64_t dims[D_COUNT] = {
		[D_ONE] = 1, [D_OUT] = width, [D_CROSS] = l->cross, [D_HIDDEN] = 4 * width, [D_GATED] = 8 * width
	};
	char name[192];

	t->width = width;
	t->heads = heads;
	t->blocks = calloc((size_t)n_blocks, sizeof *t->blocks);
	if (!t->blocks)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld transformer blocks", (long long)n_blocks);
	t->n_blocks = n_blocks;
	TRY(unet_load(l, dims, prefix, l->linear ? linear_transformer_table : transformer_table,
		LOAD_COUNT(transformer_table), t));
	for (int64_t i = 0; i < n_blocks; i++) {
		snprintf(name, sizeof name, "%stransformer_blocks.%lld.", prefix, (long long)i);
		TRY(unet_load(l, dims, name, block_table, LOAD_COUNT(block_table), &t->blocks[i]));
	}
	return STATUS_OK;
}

void unet_transformer_free(struct kernels *k, struct unet_transformer *t)
{
	load_free(k, transformer_table, LOAD_COUNT(transformer_table), t);
	for (int64_t i = 0; i < t->n_blocks; i++)
		load_free(k, block_table, LOAD_COUNT(block_table), &t->blocks[i]);
	free(t->blocks);
	t->blocks = NULL;
	t->n_blocks = 0;
}

enum status unet_sampler_load(struct unet_loader *l, const char *prefix, int64_t width, struct unet_sampler *s)
{
	int64_t dims[D_COUNT] = { [D_ONE] = 1, [D_OUT] = width };

	return unet_load(l, dims, prefix, sampler_table, LOAD_COUNT(sampler_table), s);
}

void unet_sampler_free(struct kernels *k, struct unet_sampler *s)
{
	load_free(k, sampler_table, LOAD_COUNT(sampler_table), s);
}

/* ---- residual blocks ---- */

static enum status take(struct unet_pass *p, enum dtype dtype, struct tensor like, int64_t channels, struct tensor *out)
{
	return arena_take(p->arena, dtype, 3, (int64_t[]){ like.dim[0], like.dim[1], channels }, out);
}

static struct tensor rows_of(struct tensor x)
{
	return tensor_view(x.data, x.dtype, 2, (int64_t[]){ x.dim[0] * x.dim[1], x.dim[2] });
}

enum status unet_operand(struct unet_pass *p, struct tensor x, struct tensor *out)
{
	if (kernels_dtype(p->k) == x.dtype) {
		*out = x;
		return STATUS_OK;
	}
	TRY(take(p, kernels_dtype(p->k), x, x.dim[2], out));
	return kernels_unary(p->k, UNARY_COPY, rows_of(x), rows_of(*out));
}

/* x and skip side by side along channels. */
static enum status join(struct unet_pass *p, struct tensor x, struct tensor skip, struct tensor *out)
{
	struct tensor rows;

	TRY(take(p, DTYPE_F32, x, x.dim[2] + skip.dim[2], out));
	rows = rows_of(*out);
	TRY(kernels_unary(p->k, UNARY_COPY, rows_of(x), tensor_slice(rows, 1, 0, x.dim[2])));
	return kernels_unary(p->k, UNARY_COPY, rows_of(skip), tensor_slice(rows, 1, x.dim[2], skip.dim[2]));
}

/* y = x, through the shortcut where the number of channels changes */
static enum status start_residual(struct unet_pass *p, const struct unet_resnet *r, struct tensor x, struct tensor y)
{
	size_t mark = arena_mark(p->arena);
	struct tensor operand;

	if (!r->shortcut)
		return kernels_unary(p->k, UNARY_COPY, rows_of(x), rows_of(y));
	TRY(unet_operand(p, x, &operand));
	TRY(kernels_conv(p->k, &(struct conv){ .x = operand, .w = r->shortcut, .bias = r->shortcut_bias, .y = y }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* hidden += the time embedding's row of this block */
static enum status add_time(struct unet_pass *p, const struct unet_resnet *r, struct tensor hidden)
{
	struct tensor row;

	TRY(arena_take(p->arena, DTYPE_F32, 2, (int64_t[]){ 1, r->out }, &row));
	TRY(kernels_linear(p->k, &(struct linear){ .x = p->time, .w = r->time, .bias = r->time_bias, .y = row }));
	return kernels_add_row(p->k, tensor_view(row.data, DTYPE_F32, 1, (int64_t[]){ r->out }), rows_of(hidden));
}

static enum status norm_silu(
	struct unet_pass *p, struct tensor x, const struct weight *weight, const struct weight *bias, struct tensor y)
{
	return kernels_group_norm(p->k, &(struct group_norm){ .x = x,
						.groups = p->groups,
						.weight = weight,
						.bias = bias,
						.eps = p->eps,
						.silu = true,
						.y = y });
}

/* y += conv2(silu(norm2(conv1(silu(norm1(x))) + time))) */
static enum status add_residual(struct unet_pass *p, const struct unet_resnet *r, struct tensor x, struct tensor y)
{
	struct tensor normed, hidden;

	TRY(take(p, kernels_dtype(p->k), x, r->in, &normed));
	TRY(take(p, kernels_dtype(p->k), x, r->out, &hidden));
	TRY(norm_silu(p, x, r->norm1_weight, r->norm1_bias, normed));
	TRY(kernels_conv(p->k, &(struct conv){ .x = normed, .w = r->conv1, .bias = r->conv1_bias, .y = hidden }));
	TRY(add_time(p, r, hidden));
	TRY(norm_silu(p, hidden, r->norm2_weight, r->norm2_bias, hidden));
	return kernels_conv(
		p->k, &(struct conv){ .x = hidden, .w = r->conv2, .bias = r->conv2_bias, .accumulate = true, .y = y });
}

enum status unet_resnet_run(
	struct unet_pass *p, const struct unet_resnet *r, struct tensor x, struct tensor skip, struct tensor *y)
{
	size_t mark;

	TRY(take(p, DTYPE_F32, x, r->out, y));
	mark = arena_mark(p->arena);
	if (skip.data)
		TRY(join(p, x, skip, &x));
	TRY(start_residual(p, r, x, *y));
	TRY(add_residual(p, r, x, *y));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* ---- transformers ---- */

static enum status layer_norm(
	struct unet_pass *p, struct tensor x, const struct weight *weight, const struct weight *bias, struct tensor y)
{
	return kernels_norm(
		p->k, &(struct norm){ .x = x, .weight = weight, .bias = bias, .eps = LAYER_NORM_EPS, .y = y });
}

static struct tensor heads_of(struct tensor rows, int64_t first, int64_t width, int64_t heads)
{
	struct tensor t = tensor_slice(rows, 1, first, width);

	t.rank = 3;
	t.dim[1] = heads;
	t.dim[2] = width / heads;
	t.stride[1] = width / heads;
	t.stride[2] = 1;
	return t;
}

/* stream += out(attention(q, k, v)) + bias */
static enum status attend(struct unet_pass *p, const struct unet_transformer *t, struct tensor q, struct tensor k,
	struct tensor v, const struct weight *out, const struct weight *bias, struct tensor stream)
{
	struct tensor y;

	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, stream.dim, &y));
	TRY(kernels_attention(p->k, &(struct attention){ .q = q,
					    .k = k,
					    .v = v,
					    .scale = 1 / sqrtf((float)(t->width / t->heads)),
					    .out = heads_of(y, 0, t->width, t->heads) }));
	return kernels_linear(
		p->k, &(struct linear){ .x = y, .w = out, .bias = bias, .accumulate = true, .y = stream });
}

static enum status self_attention(struct unet_pass *p, const struct unet_transformer *t,
	const struct unet_transformer_block *b, struct tensor stream)
{
	size_t mark = arena_mark(p->arena);
	int64_t rows = stream.dim[0], width = t->width;
	struct tensor normed, qkv;

	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, stream.dim, &normed));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, (int64_t[]){ rows, 3 * width }, &qkv));
	TRY(layer_norm(p, stream, b->norm1_weight, b->norm1_bias, normed));
	TRY(kernels_linear(p->k, &(struct linear){ .x = normed, .w = b->self_qkv, .y = qkv }));
	TRY(attend(p, t, heads_of(qkv, 0, width, t->heads), heads_of(qkv, width, width, t->heads),
		heads_of(qkv, 2 * width, width, t->heads), b->self_out, b->self_out_bias, stream));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

static enum status cross_attention(struct unet_pass *p, const struct unet_transformer *t,
	const struct unet_transformer_block *b, struct tensor stream)
{
	size_t mark = arena_mark(p->arena);
	int64_t width = t->width;
	struct tensor normed, q, kv;

	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, stream.dim, &normed));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, stream.dim, &q));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, (int64_t[]){ p->text.dim[0], 2 * width }, &kv));
	TRY(layer_norm(p, stream, b->norm2_weight, b->norm2_bias, normed));
	TRY(kernels_linear(p->k, &(struct linear){ .x = normed, .w = b->cross_q, .y = q }));
	TRY(kernels_linear(p->k, &(struct linear){ .x = p->text, .w = b->cross_kv, .y = kv }));
	TRY(attend(p, t, heads_of(q, 0, width, t->heads), heads_of(kv, 0, width, t->heads),
		heads_of(kv, width, width, t->heads), b->cross_out, b->cross_out_bias, stream));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

static enum status feed_forward(struct unet_pass *p, const struct unet_transformer_block *b, struct tensor stream)
{
	size_t mark = arena_mark(p->arena);
	int64_t rows = stream.dim[0], hidden = 4 * stream.dim[1];
	struct tensor normed, both, y;

	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, stream.dim, &normed));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, (int64_t[]){ rows, 2 * hidden }, &both));
	TRY(arena_take(p->arena, kernels_dtype(p->k), 2, (int64_t[]){ rows, hidden }, &y));
	TRY(layer_norm(p, stream, b->norm3_weight, b->norm3_bias, normed));
	TRY(kernels_linear(p->k, &(struct linear){ .x = normed, .w = b->ff_in, .bias = b->ff_in_bias, .y = both }));
	TRY(kernels_glu(
		p->k, ACTIVATION_GELU, tensor_slice(both, 1, hidden, hidden), tensor_slice(both, 1, 0, hidden), y));
	TRY(kernels_linear(p->k,
		&(struct linear){ .x = y, .w = b->ff_out, .bias = b->ff_out_bias, .accumulate = true, .y = stream }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* The rows that the blocks work on. */
static enum status project_in(
	struct unet_pass *p, const struct unet_transformer *t, struct tensor x, struct tensor stream)
{
	size_t mark = arena_mark(p->arena);
	struct tensor normed;

	TRY(take(p, kernels_dtype(p->k), x, t->width, &normed));
	TRY(kernels_group_norm(p->k, &(struct group_norm){ .x = x,
					     .groups = p->groups,
					     .weight = t->norm_weight,
					     .bias = t->norm_bias,
					     .eps = TRANSFORMER_NORM_EPS,
					     .y = normed }));
	TRY(kernels_linear(
		p->k, &(struct linear){ .x = rows_of(normed), .w = t->in, .bias = t->in_bias, .y = stream }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

enum status unet_transformer_run(struct unet_pass *p, const struct unet_transformer *t, struct tensor x)
{
	size_t mark = arena_mark(p->arena);
	struct tensor stream, operand;

	TRY(arena_take(p->arena, DTYPE_F32, 2, (int64_t[]){ x.dim[0] * x.dim[1], t->width }, &stream));
	TRY(project_in(p, t, x, stream));
	for (int64_t i = 0; i < t->n_blocks; i++) {
		TRY(self_attention(p, t, &t->blocks[i], stream));
		TRY(cross_attention(p, t, &t->blocks[i], stream));
		TRY(feed_forward(p, &t->blocks[i], stream));
	}
	TRY(unet_operand(p, tensor_view(stream.data, DTYPE_F32, 3, x.dim), &operand));
	TRY(kernels_linear(p->k, &(struct linear){ .x = rows_of(operand),
					 .w = t->out,
					 .bias = t->out_bias,
					 .accumulate = true,
					 .y = rows_of(x) }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* ---- resampling ---- */

static enum status resample(
	struct unet_pass *p, const struct unet_sampler *s, struct tensor x, int stride, bool upsample, struct tensor y)
{
	size_t mark = arena_mark(p->arena);
	struct tensor operand;

	TRY(unet_operand(p, x, &operand));
	TRY(kernels_conv(p->k, &(struct conv){ .x = operand,
				       .w = s->conv,
				       .bias = s->conv_bias,
				       .stride = stride,
				       .upsample = upsample,
				       .y = y }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

enum status unet_downsample(struct unet_pass *p, const struct unet_sampler *s, struct tensor x, struct tensor *y)
{
	int64_t dim[3] = { (x.dim[0] + 1) / 2, (x.dim[1] + 1) / 2, x.dim[2] };

	TRY(arena_take(p->arena, DTYPE_F32, 3, dim, y));
	return resample(p, s, x, 2, false, *y);
}

enum status unet_upsample(struct unet_pass *p, const struct unet_sampler *s, struct tensor x, int64_t height,
	int64_t width, struct tensor *y)
{
	TRY(arena_take(p->arena, DTYPE_F32, 3, (int64_t[]){ height, width, x.dim[2] }, y));
	return resample(p, s, x, 1, true, *y);
}

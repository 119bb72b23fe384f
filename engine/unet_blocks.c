/* unet_blocks: see unet_blocks.h. */
#include "engine/unet_blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const float TRANSFORMER_NORM_EPS = 1e-6f, LAYER_NORM_EPS = 1e-5f; /* fixed in the reference */

enum { D_ONE, D_OUT, D_CROSS, D_HIDDEN, D_GATED, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define BLOCK_VECTOR(member, name, rows) VECTOR(unet_transformer_block, member, name, rows)
#define BLOCK_MATRIX(member, name, rows, columns)                                                                      \
	LOAD_ONE(unet_transformer_block, member, LOAD_BLOCK, name, rows, columns)

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

/* ---- loading ---- */

enum status unet_load(const struct unet_loader *l, const int64_t *dims, const char *prefix,
	const struct load_entry *table, int n, void *base)
{
	const struct loader loader = { l->k, l->weights, dims };

	return load_table(&loader, prefix, table, n, base);
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

/* ---- residual blocks ---- */

/* x and skip side by side along channels. */
static enum status join(struct unet_pass *p, struct tensor x, struct tensor skip, struct tensor *out)
{
	struct tensor rows;

	TRY(conv_take(&p->conv, DTYPE_F32, x, x.dim[2] + skip.dim[2], out));
	rows = conv_places(*out);
	TRY(kernels_unary(p->conv.k, UNARY_COPY, conv_places(x), tensor_slice(rows, 1, 0, x.dim[2])));
	return kernels_unary(p->conv.k, UNARY_COPY, conv_places(skip), tensor_slice(rows, 1, x.dim[2], skip.dim[2]));
}

enum status unet_residual_run(
	struct unet_pass *p, const struct residual *r, struct tensor x, struct tensor skip, struct tensor *y)
{
	size_t mark;

	TRY(conv_take(&p->conv, DTYPE_F32, x, r->out, y));
	mark = arena_mark(p->conv.arena);
	if (skip.data)
		TRY(join(p, x, skip, &x));
	TRY(residual_start(&p->conv, r, x, *y));
	TRY(residual_add(&p->conv, r, RESIZE_NONE, x, *y));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

/* ---- transformers ---- */

static enum status layer_norm(
	struct unet_pass *p, struct tensor x, const struct weight *weight, const struct weight *bias, struct tensor y)
{
	return kernels_norm(
		p->conv.k, &(struct norm){ .x = x, .weight = weight, .bias = bias, .eps = LAYER_NORM_EPS, .y = y });
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

	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, stream.dim, &y));
	TRY(kernels_attention(p->conv.k, &(struct attention){ .q = q,
						 .k = k,
						 .v = v,
						 .scale = 1 / sqrtf((float)(t->width / t->heads)),
						 .out = heads_of(y, 0, t->width, t->heads) }));
	return kernels_linear(
		p->conv.k, &(struct linear){ .x = y, .w = out, .bias = bias, .accumulate = true, .y = stream });
}

static enum status self_attention(struct unet_pass *p, const struct unet_transformer *t,
	const struct unet_transformer_block *b, struct tensor stream)
{
	size_t mark = arena_mark(p->conv.arena);
	int64_t rows = stream.dim[0], width = t->width;
	struct tensor normed, qkv;

	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, stream.dim, &normed));
	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, (int64_t[]){ rows, 3 * width }, &qkv));
	TRY(layer_norm(p, stream, b->norm1_weight, b->norm1_bias, normed));
	TRY(kernels_linear(p->conv.k, &(struct linear){ .x = normed, .w = b->self_qkv, .y = qkv }));
	TRY(attend(p, t, heads_of(qkv, 0, width, t->heads), heads_of(qkv, width, width, t->heads),
		heads_of(qkv, 2 * width, width, t->heads), b->self_out, b->self_out_bias, stream));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

static enum status cross_attention(struct unet_pass *p, const struct unet_transformer *t,
	const struct unet_transformer_block *b, struct tensor stream)
{
	size_t mark = arena_mark(p->conv.arena);
	int64_t width = t->width;
	struct tensor normed, q, kv;

	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, stream.dim, &normed));
	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, stream.dim, &q));
	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, (int64_t[]){ p->text.dim[0], 2 * width }, &kv));
	TRY(layer_norm(p, stream, b->norm2_weight, b->norm2_bias, normed));
	TRY(kernels_linear(p->conv.k, &(struct linear){ .x = normed, .w = b->cross_q, .y = q }));
	TRY(kernels_linear(p->conv.k, &(struct linear){ .x = p->text, .w = b->cross_kv, .y = kv }));
	TRY(attend(p, t, heads_of(q, 0, width, t->heads), heads_of(kv, 0, width, t->heads),
		heads_of(kv, width, width, t->heads), b->cross_out, b->cross_out_bias, stream));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

static enum status feed_forward(struct unet_pass *p, const struct unet_transformer_block *b, struct tensor stream)
{
	size_t mark = arena_mark(p->conv.arena);
	int64_t rows = stream.dim[0], hidden = 4 * stream.dim[1];
	struct tensor normed, both, y;

	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, stream.dim, &normed));
	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, (int64_t[]){ rows, 2 * hidden }, &both));
	TRY(arena_take(p->conv.arena, kernels_dtype(p->conv.k), 2, (int64_t[]){ rows, hidden }, &y));
	TRY(layer_norm(p, stream, b->norm3_weight, b->norm3_bias, normed));
	TRY(kernels_linear(
		p->conv.k, &(struct linear){ .x = normed, .w = b->ff_in, .bias = b->ff_in_bias, .y = both }));
	TRY(kernels_glu(p->conv.k, ACTIVATION_GELU, tensor_slice(both, 1, hidden, hidden),
		tensor_slice(both, 1, 0, hidden), y));
	TRY(kernels_linear(p->conv.k,
		&(struct linear){ .x = y, .w = b->ff_out, .bias = b->ff_out_bias, .accumulate = true, .y = stream }));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

/* The rows that the blocks work on. */
static enum status project_in(
	struct unet_pass *p, const struct unet_transformer *t, struct tensor x, struct tensor stream)
{
	size_t mark = arena_mark(p->conv.arena);
	struct tensor normed;

	TRY(conv_take(&p->conv, kernels_dtype(p->conv.k), x, t->width, &normed));
	TRY(kernels_group_norm(p->conv.k, &(struct group_norm){ .x = x,
						  .groups = p->conv.groups,
						  .weight = t->norm_weight,
						  .bias = t->norm_bias,
						  .eps = TRANSFORMER_NORM_EPS,
						  .y = normed }));
	TRY(kernels_linear(
		p->conv.k, &(struct linear){ .x = conv_places(normed), .w = t->in, .bias = t->in_bias, .y = stream }));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

enum status unet_transformer_run(struct unet_pass *p, const struct unet_transformer *t, struct tensor x)
{
	size_t mark = arena_mark(p->conv.arena);
	struct tensor stream, operand;

	TRY(arena_take(p->conv.arena, DTYPE_F32, 2, (int64_t[]){ x.dim[0] * x.dim[1], t->width }, &stream));
	TRY(project_in(p, t, x, stream));
	for (int64_t i = 0; i < t->n_blocks; i++) {
		TRY(self_attention(p, t, &t->blocks[i], stream));
		TRY(cross_attention(p, t, &t->blocks[i], stream));
		TRY(feed_forward(p, &t->blocks[i], stream));
	}
	TRY(conv_operand(&p->conv, tensor_view(stream.data, DTYPE_F32, 3, x.dim), &operand));
	TRY(kernels_linear(p->conv.k, &(struct linear){ .x = conv_places(operand),
					      .w = t->out,
					      .bias = t->out_bias,
					      .accumulate = true,
					      .y = conv_places(x) }));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

/* ---- resampling ---- */

static enum status resample(
	struct unet_pass *p, const struct conv_sampler *s, struct tensor x, int stride, bool upsample, struct tensor y)
{
	size_t mark = arena_mark(p->conv.arena);
	struct tensor operand;

	TRY(conv_operand(&p->conv, x, &operand));
	TRY(kernels_conv(p->conv.k, &(struct conv){ .x = operand,
					    .w = s->conv,
					    .bias = s->conv_bias,
					    .stride = stride,
					    .upsample = upsample,
					    .y = y }));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

enum status unet_downsample(struct unet_pass *p, const struct conv_sampler *s, struct tensor x, struct tensor *y)
{
	int64_t dim[3] = { (x.dim[0] + 1) / 2, (x.dim[1] + 1) / 2, x.dim[2] };

	TRY(arena_take(p->conv.arena, DTYPE_F32, 3, dim, y));
	return resample(p, s, x, 2, false, *y);
}

enum status unet_upsample(struct unet_pass *p, const struct conv_sampler *s, struct tensor x, int64_t height,
	int64_t width, struct tensor *y)
{
	TRY(arena_take(p->conv.arena, DTYPE_F32, 3, (int64_t[]){ height, width, x.dim[2] }, y));
	return resample(p, s, x, 1, true, *y);
}

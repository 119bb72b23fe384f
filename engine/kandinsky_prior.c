/* kandinsky_prior: see kandinsky_prior.h. */
#include "engine/kandinsky_prior.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/time_embedding.h"

static const float NORM_EPS = 1e-5f; /* PyTorch's default, in no configuration */

enum { EXTRA_ROWS = 4 };

struct config {
	int64_t heads, head_dim, layers, width, tokens, inner;
};

struct block {
	struct weight *norm1, *norm1_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
	struct weight *norm3, *norm3_bias, *up, *up_bias, *down, *down_bias;
};

struct ends {
	struct time_embedding time;
	struct weight *text, *text_bias, *pooled, *pooled_bias, *in, *in_bias;
	struct weight *norm, *norm_bias, *out, *out_bias, *mean, *std;
	struct weight *positions, *last_row;
};

enum { D_ONE, D_WIDTH, D_INNER, D_FFN, D_ROWS, D_COUNT };

#define ROW(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define MATRIX(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_LINEAR, name, rows, columns)
#define BLOCK(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_BLOCK, name, rows, columns)

static const struct load_entry block_table[] = {
	ROW(block, norm1, "norm1.weight", D_INNER),
	ROW(block, norm1_bias, "norm1.bias", D_INNER),
	BLOCK(block, q, "attn1.to_q.weight", D_INNER, D_INNER),
	ROW(block, q_bias, "attn1.to_q.bias", D_INNER),
	BLOCK(block, k, "attn1.to_k.weight", D_INNER, D_INNER),
	ROW(block, k_bias, "attn1.to_k.bias", D_INNER),
	BLOCK(block, v, "attn1.to_v.weight", D_INNER, D_INNER),
	ROW(block, v_bias, "attn1.to_v.bias", D_INNER),
	BLOCK(block, out, "attn1.to_out.0.weight", D_INNER, D_INNER),
	ROW(block, out_bias, "attn1.to_out.0.bias", D_INNER),
	ROW(block, norm3, "norm3.weight", D_INNER),
	ROW(block, norm3_bias, "norm3.bias", D_INNER),
	BLOCK(block, up, "ff.net.0.proj.weight", D_FFN, D_INNER),
	ROW(block, up_bias, "ff.net.0.proj.bias", D_FFN),
	BLOCK(block, down, "ff.net.2.weight", D_INNER, D_FFN),
	ROW(block, down_bias, "ff.net.2.bias", D_INNER),
};

static const struct load_entry ends_table[] = {
	TIME_EMBEDDING_ENTRIES(ends, time, "time_embedding.", D_INNER, D_INNER, D_INNER, D_ONE),
	MATRIX(ends, text, "encoder_hidden_states_proj.weight", D_INNER, D_WIDTH),
	ROW(ends, text_bias, "encoder_hidden_states_proj.bias", D_INNER),
	MATRIX(ends, pooled, "embedding_proj.weight", D_INNER, D_WIDTH),
	ROW(ends, pooled_bias, "embedding_proj.bias", D_INNER),
	MATRIX(ends, in, "proj_in.weight", D_INNER, D_WIDTH),
	ROW(ends, in_bias, "proj_in.bias", D_INNER),
	ROW(ends, norm, "norm_out.weight", D_INNER),
	ROW(ends, norm_bias, "norm_out.bias", D_INNER),
	MATRIX(ends, out, "proj_to_clip_embeddings.weight", D_WIDTH, D_INNER),
	ROW(ends, out_bias, "proj_to_clip_embeddings.bias", D_WIDTH),
	LOAD_ONE(ends, mean, LOAD_ROW, "clip_mean", D_WIDTH, D_ONE),
	LOAD_ONE(ends, std, LOAD_ROW, "clip_std", D_WIDTH, D_ONE),
	LOAD_ONE(ends, positions, LOAD_TABLES, "positional_embedding", D_ROWS, D_INNER),
	LOAD_ONE(ends, last_row, LOAD_TABLES, "prd_embedding", D_ONE, D_INNER),
};

struct kandinsky_prior {
	struct kernels *k;
	struct config config;
	struct weights *weights; /* while loading */
	struct ends ends;
	struct block *blocks;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

/* That a setting is missing or has this value: others would need code that is not here. */
static enum status expect_text(const json_t *object, const char *path, const char *key, const char *wanted)
{
	const char *value = wanted;

	TRY(json_get_string(object, path, key, &value));
	return value == wanted || (wanted && strcmp(value, wanted) == 0)
		       ? STATUS_OK
		       : status_fail(STATUS_UNSUPPORTED, "%s: %s %.40s is not supported", path, key, value);
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct config *c = out;
	int64_t extra = EXTRA_ROWS, size = 0;
	static const char *const sizes[] = { "clip_embed_dim", "embedding_proj_dim" };

	*c = (struct config){ .heads = 32, .head_dim = 64, .layers = 20, .width = 768, .tokens = 77 };
	TRY(json_get_int(object, path, "num_attention_heads", 1, 1024, &c->heads));
	TRY(json_get_int(object, path, "attention_head_dim", 1, 1024, &c->head_dim));
	TRY(json_get_int(object, path, "num_layers", 1, 1000, &c->layers));
	TRY(json_get_int(object, path, "embedding_dim", 1, 1 << 14, &c->width));
	TRY(json_get_int(object, path, "num_embeddings", 1, 1 << 14, &c->tokens));
	TRY(json_get_int(object, path, "additional_embeddings", EXTRA_ROWS, EXTRA_ROWS, &extra));
	c->inner = c->heads * c->head_dim;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size = c->width;
		TRY(json_get_int(object, path, sizes[i], c->width, c->width, &size));
	}
	TRY(json_get_int(object, path, "time_embed_dim", c->inner, c->inner, &size));
	TRY(expect_text(object, path, "time_embed_act_fn", "silu"));
	TRY(expect_text(object, path, "norm_in_type", NULL));
	TRY(expect_text(object, path, "embedding_proj_norm_type", NULL));
	TRY(expect_text(object, path, "encoder_hid_proj_type", "linear"));
	TRY(expect_text(object, path, "added_emb_type", "prd"));
	if (c->inner % 2)
		return status_fail(STATUS_CORRUPT, "%s: the width of the transformer is odd", path);
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum status load(struct kandinsky_prior *p, const struct component *component)
{
	int64_t dims[D_COUNT];
	struct loader loader = { p->k, NULL, dims };
	char prefix[64];

	TRY(json_read_with(component->config, read_config, &p->config));
	TRY(weights_open_component(component, &p->weights));
	dims[D_ONE] = 1;
	dims[D_WIDTH] = p->config.width;
	dims[D_INNER] = p->config.inner;
	dims[D_FFN] = 4 * p->config.inner;
	dims[D_ROWS] = p->config.tokens + EXTRA_ROWS;
	loader.weights = p->weights;
	TRY(load_table(&loader, "", ends_table, LOAD_COUNT(ends_table), &p->ends));
	p->blocks = calloc((size_t)p->config.layers, sizeof *p->blocks);
	if (!p->blocks)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld blocks", (long long)p->config.layers);
	for (int64_t i = 0; i < p->config.layers; i++) {
		snprintf(prefix, sizeof prefix, "transformer_blocks.%lld.", (long long)i);
		TRY(load_table(&loader, prefix, block_table, LOAD_COUNT(block_table), &p->blocks[i]));
	}
	return weights_check_read(p->weights, NULL);
}

enum status kandinsky_prior_open(struct kernels *k, const struct component *c, struct kandinsky_prior **out)
{
	struct kandinsky_prior *p = calloc(1, sizeof *p);
	enum status status;

	if (!p)
		return status_fail(STATUS_NO_MEMORY, "no memory for a prior");
	p->k = k;
	status = load(p, c);
	weights_close(p->weights);
	p->weights = NULL;
	if (status != STATUS_OK) {
		kandinsky_prior_close(p);
		return status;
	}
	*out = p;
	return STATUS_OK;
}

void kandinsky_prior_close(struct kandinsky_prior *p)
{
	if (!p)
		return;
	for (int64_t i = 0; p->blocks && i < p->config.layers; i++)
		load_free(p->k, block_table, LOAD_COUNT(block_table), &p->blocks[i]);
	load_free(p->k, ends_table, LOAD_COUNT(ends_table), &p->ends);
	free(p->blocks);
	free(p);
}

int64_t kandinsky_prior_tokens(const struct kandinsky_prior *p)
{
	return p->config.tokens;
}

int64_t kandinsky_prior_width(const struct kandinsky_prior *p)
{
	return p->config.width;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

struct pass {
	struct kandinsky_prior *p;
	struct tensor stream;              /* [rows, inner] F32 */
	struct tensor bias;                /* [1, rows, rows] F32: the masks */
	struct tensor operand, q, k, v;    /* [rows, inner] */
	struct tensor heads, feed_forward; /* [rows, inner], [rows, 4 inner] */
};

static enum status take_buffers(struct pass *s, struct arena *arena)
{
	int64_t inner = s->p->config.inner, rows = s->p->config.tokens + EXTRA_ROWS;
	struct tensor *operands[] = { &s->operand, &s->q, &s->k, &s->v, &s->heads };
	enum dtype dtype = kernels_dtype(s->p->k);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ rows, inner }, &s->stream));
	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ 1, rows, rows }, &s->bias));
	for (size_t i = 0; i < sizeof operands / sizeof operands[0]; i++)
		TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, inner }, operands[i]));
	return arena_take(arena, dtype, 2, (int64_t[]){ rows, 4 * inner }, &s->feed_forward);
}

/* -10000 for what comes later, and again for padding. */
static enum status fill_masks(struct pass *s, int64_t tokens)
{
	int64_t rows = s->bias.dim[1];
	float *values = malloc((size_t)(rows * rows) * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 3, s->bias.dim);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for a mask");
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < rows; j++)
			values[i * rows + j] =
				(j > i ? -10000.0f : 0) + (j >= tokens && j < s->p->config.tokens ? -10000.0f : 0);
	status = kernels_upload(s->p->k, &host, s->bias);
	free(values);
	return status;
}

/* stream[row ..] = w x + bias, x [n, width] F32 */
static enum status project(struct pass *s, struct arena *arena, struct tensor x, const struct weight *w,
	const struct weight *b, int64_t row)
{
	struct kernels *k = s->p->k;
	struct tensor operand = x;
	size_t mark = arena_mark(arena);

	if (kernels_dtype(k) != DTYPE_F32) {
		TRY(arena_take(arena, kernels_dtype(k), 2, x.dim, &operand));
		TRY(kernels_unary(k, UNARY_COPY, x, operand));
	}
	TRY(kernels_linear(k,
		&(struct linear){ .x = operand, .w = w, .bias = b, .y = tensor_slice(s->stream, 0, row, x.dim[0]) }));
	arena_release(arena, mark);
	return STATUS_OK;
}

static enum status fill_stream(
	struct pass *s, struct arena *arena, const struct kandinsky_text *text, float timestep, struct tensor x)
{
	struct kandinsky_prior *p = s->p;
	int64_t n = p->config.tokens, inner = p->config.inner;

	TRY(project(s, arena, text->hidden, p->ends.text, p->ends.text_bias, 0));
	TRY(project(s, arena, text->pooled, p->ends.pooled, p->ends.pooled_bias, n));
	TRY(time_embedding_run(
		p->k, arena, &p->ends.time, inner, inner, timestep, tensor_slice(s->stream, 0, n + 1, 1)));
	TRY(project(s, arena, x, p->ends.in, p->ends.in_bias, n + 2));
	TRY(kernels_unary(p->k, UNARY_COPY, *weight_table(p->ends.last_row), tensor_slice(s->stream, 0, n + 3, 1)));
	return kernels_unary(p->k, UNARY_ADD, *weight_table(p->ends.positions), s->stream);
}

static struct tensor heads_view(const struct pass *s, struct tensor x)
{
	const struct config *c = &s->p->config;

	return tensor_view(x.data, x.dtype, 3, (int64_t[]){ x.dim[0], c->heads, c->head_dim });
}

static enum status norm(
	const struct pass *s, struct tensor x, const struct weight *weight, const struct weight *bias, struct tensor y)
{
	return kernels_norm(s->p->k, &(struct norm){ .x = x, .weight = weight, .bias = bias, .eps = NORM_EPS, .y = y });
}

static enum status linear(
	const struct pass *s, struct tensor x, const struct weight *w, const struct weight *bias, struct tensor y)
{
	return kernels_linear(s->p->k, &(struct linear){ .x = x, .w = w, .bias = bias, .y = y });
}

static enum status run_block(struct pass *s, const struct block *b)
{
	struct kernels *k = s->p->k;

	TRY(norm(s, s->stream, b->norm1, b->norm1_bias, s->operand));
	TRY(linear(s, s->operand, b->q, b->q_bias, s->q));
	TRY(linear(s, s->operand, b->k, b->k_bias, s->k));
	TRY(linear(s, s->operand, b->v, b->v_bias, s->v));
	TRY(kernels_attention(k, &(struct attention){ .q = heads_view(s, s->q),
					 .k = heads_view(s, s->k),
					 .v = heads_view(s, s->v),
					 .scale = 1 / sqrtf((float)s->p->config.head_dim),
					 .bias = s->bias,
					 .out = heads_view(s, s->heads) }));
	TRY(kernels_linear(
		k, &(struct linear){
			   .x = s->heads, .w = b->out, .bias = b->out_bias, .accumulate = true, .y = s->stream }));
	TRY(norm(s, s->stream, b->norm3, b->norm3_bias, s->operand));
	TRY(kernels_linear(k, &(struct linear){ .x = s->operand,
				      .w = b->up,
				      .bias = b->up_bias,
				      .activation = ACTIVATION_GELU,
				      .y = s->feed_forward }));
	return kernels_linear(k,
		&(struct linear){
			.x = s->feed_forward, .w = b->down, .bias = b->down_bias, .accumulate = true, .y = s->stream });
}

static enum status predict(struct pass *s, struct arena *arena, const struct kandinsky_text *text, float timestep,
	struct tensor x, struct tensor out)
{
	struct kandinsky_prior *p = s->p;
	struct tensor normed;

	TRY(take_buffers(s, arena));
	TRY(fill_masks(s, text->tokens));
	TRY(fill_stream(s, arena, text, timestep, x));
	for (int64_t i = 0; i < p->config.layers; i++)
		TRY(run_block(s, &p->blocks[i]));
	normed = tensor_slice(s->operand, 0, 0, 1);
	TRY(norm(s, tensor_slice(s->stream, 0, s->stream.dim[0] - 1, 1), p->ends.norm, p->ends.norm_bias, normed));
	return linear(s, normed, p->ends.out, p->ends.out_bias, out);
}

enum status kandinsky_prior_predict(struct kandinsky_prior *p, struct arena *arena, const struct kandinsky_text *text,
	float timestep, struct tensor x, struct tensor out)
{
	struct pass s = { .p = p };
	size_t mark = arena_mark(arena);
	enum status status = predict(&s, arena, text, timestep, x, out);

	arena_release(arena, mark);
	return status;
}

enum status kandinsky_prior_finish(struct kandinsky_prior *p, struct tensor x)
{
	struct tensor std = *weight_table(p->ends.std);

	TRY(kernels_multiply(p->k, tensor_view(std.data, std.dtype, 2, x.dim), x));
	return kernels_add_row(p->k, *weight_table(p->ends.mean), x);
}

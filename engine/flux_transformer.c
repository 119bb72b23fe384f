/* flux_transformer: loading and the forward pass.  The stream is F32; operands are in the dtype of the kernels. */
#include "engine/flux_transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"
#include "engine/time_embedding.h"

/* constants of the reference that are in no configuration */
enum { FREQUENCIES = 256, MLP_RATIO = 4, MODULATION_DOUBLE = 6, MODULATION_SINGLE = 3 };
static const float EPS = 1e-6f, ROPE_THETA = 10000;

/* One of the two streams of a double block. */
struct half {
	struct weight *modulation, *modulation_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *norm_q, *norm_k;
	struct weight *out, *out_bias, *up, *up_bias, *down, *down_bias;
};

struct double_block {
	struct half picture, text;
};

struct single_block {
	struct weight *modulation, *modulation_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *norm_q, *norm_k;
	struct weight *up, *up_bias, *out, *out_bias; /* out reads [attention, feed-forward] */
};

struct ends {
	struct weight *text, *text_bias, *picture, *picture_bias;
	struct weight *time1, *time1_bias, *time2, *time2_bias, *pooled1, *pooled1_bias, *pooled2, *pooled2_bias;
	struct weight *final_modulation, *final_modulation_bias, *final, *final_bias;
	struct weight *guidance1, *guidance1_bias, *guidance2, *guidance2_bias; /* where it was distilled */
};

enum {
	D_ONE,
	D_DIM,
	D_2DIM,
	D_3DIM,
	D_6DIM,
	D_MLP,
	D_DIM_MLP,
	D_HEAD,
	D_FREQUENCIES,
	D_PATCH,
	D_TEXT,
	D_POOLED,
	D_COUNT
};

/* A linear layer and its bias. */
#define LAYER_OF(kind, type, member, name, rows, columns)                                                              \
	LOAD_ONE(type, member, kind, name ".weight", rows, columns),                                                   \
		LOAD_ONE(type, member##_bias, LOAD_VECTOR, name ".bias", rows, D_ONE)
#define LAYER(type, member, name, rows, columns) LAYER_OF(LOAD_LINEAR, type, member, name, rows, columns)
#define BLOCK(type, member, name, rows, columns) LAYER_OF(LOAD_BLOCK, type, member, name, rows, columns)
#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)

static const struct load_entry picture_table[] = {
	LAYER(half, modulation, "norm1.linear", D_6DIM, D_DIM),
	BLOCK(half, q, "attn.to_q", D_DIM, D_DIM),
	BLOCK(half, k, "attn.to_k", D_DIM, D_DIM),
	BLOCK(half, v, "attn.to_v", D_DIM, D_DIM),
	VECTOR(half, norm_q, "attn.norm_q.weight", D_HEAD),
	VECTOR(half, norm_k, "attn.norm_k.weight", D_HEAD),
	BLOCK(half, out, "attn.to_out.0", D_DIM, D_DIM),
	BLOCK(half, up, "ff.net.0.proj", D_MLP, D_DIM),
	BLOCK(half, down, "ff.net.2", D_DIM, D_MLP),
};

static const struct load_entry text_table[] = {
	LAYER(half, modulation, "norm1_context.linear", D_6DIM, D_DIM),
	BLOCK(half, q, "attn.add_q_proj", D_DIM, D_DIM),
	BLOCK(half, k, "attn.add_k_proj", D_DIM, D_DIM),
	BLOCK(half, v, "attn.add_v_proj", D_DIM, D_DIM),
	VECTOR(half, norm_q, "attn.norm_added_q.weight", D_HEAD),
	VECTOR(half, norm_k, "attn.norm_added_k.weight", D_HEAD),
	BLOCK(half, out, "attn.to_add_out", D_DIM, D_DIM),
	BLOCK(half, up, "ff_context.net.0.proj", D_MLP, D_DIM),
	BLOCK(half, down, "ff_context.net.2", D_DIM, D_MLP),
};

static const struct load_entry single_table[] = {
	LAYER(single_block, modulation, "norm.linear", D_3DIM, D_DIM),
	BLOCK(single_block, q, "attn.to_q", D_DIM, D_DIM),
	BLOCK(single_block, k, "attn.to_k", D_DIM, D_DIM),
	BLOCK(single_block, v, "attn.to_v", D_DIM, D_DIM),
	VECTOR(single_block, norm_q, "attn.norm_q.weight", D_HEAD),
	VECTOR(single_block, norm_k, "attn.norm_k.weight", D_HEAD),
	BLOCK(single_block, up, "proj_mlp", D_MLP, D_DIM),
	BLOCK(single_block, out, "proj_out", D_DIM, D_DIM_MLP),
};

static const struct load_entry ends_table[] = {
	LAYER(ends, text, "context_embedder", D_DIM, D_TEXT),
	LOAD_ONE(ends, picture, LOAD_PATCH_COLUMNS, "x_embedder.weight", D_DIM, D_PATCH),
	VECTOR(ends, picture_bias, "x_embedder.bias", D_DIM),
	LAYER(ends, time1, "time_text_embed.timestep_embedder.linear_1", D_DIM, D_FREQUENCIES),
	LAYER(ends, time2, "time_text_embed.timestep_embedder.linear_2", D_DIM, D_DIM),
	LAYER(ends, pooled1, "time_text_embed.text_embedder.linear_1", D_DIM, D_POOLED),
	LAYER(ends, pooled2, "time_text_embed.text_embedder.linear_2", D_DIM, D_DIM),
	LAYER(ends, final_modulation, "norm_out.linear", D_2DIM, D_DIM),
	LOAD_ONE(ends, final, LOAD_PATCH_ROWS, "proj_out.weight", D_PATCH, D_DIM),
	LOAD_ONE(ends, final_bias, LOAD_PATCH_VECTOR, "proj_out.bias", D_PATCH, D_ONE),
};

static const struct load_entry guidance_table[] = {
	LAYER(ends, guidance1, "time_text_embed.guidance_embedder.linear_1", D_DIM, D_FREQUENCIES),
	LAYER(ends, guidance2, "time_text_embed.guidance_embedder.linear_2", D_DIM, D_DIM),
};

struct flux_transformer {
	struct kernels *k;
	struct flux_config config;
	struct ends ends;
	struct double_block *doubles;
	struct single_block *singles;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_axes(const json_t *object, const char *path, struct flux_config *c)
{
	const json_t *axes = json_object_get(object, "axes_dims_rope");
	int n = 3;

	memcpy(c->axes, (int64_t[]){ 16, 56, 56 }, sizeof c->axes);
	if (axes && !json_is_null(axes))
		TRY(json_need_ints(object, path, "axes_dims_rope", 2, 1024, 3, c->axes, &n));
	if (n != 3 || c->axes[0] % 2 || c->axes[1] % 2 || c->axes[2] % 2 ||
		c->axes[0] + c->axes[1] + c->axes[2] != c->head_dim)
		return status_fail(STATUS_CORRUPT,
			"%s: axes_dims_rope must be three even numbers with the sum attention_head_dim = %lld", path,
			(long long)c->head_dim);
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct flux_config *c = out;
	int64_t in = 64, out_channels, patch = 1;

	c->layers = 19;
	c->single_layers = 38;
	c->head_dim = 128;
	c->heads = 24;
	c->text_dim = 4096;
	c->pooled_dim = 768;
	TRY(json_get_int(object, path, "in_channels", 1, 4096, &in));
	TRY(json_get_int(object, path, "num_layers", 0, 1000, &c->layers));
	TRY(json_get_int(object, path, "num_single_layers", 0, 1000, &c->single_layers));
	TRY(json_get_int(object, path, "attention_head_dim", 2, 1024, &c->head_dim));
	TRY(json_get_int(object, path, "num_attention_heads", 1, 256, &c->heads));
	TRY(json_get_int(object, path, "joint_attention_dim", 1, 1 << 16, &c->text_dim));
	TRY(json_get_int(object, path, "pooled_projection_dim", 1, 1 << 16, &c->pooled_dim));
	TRY(json_get_bool(object, path, "guidance_embeds", &c->guidance));
	TRY(json_get_int(object, path, "patch_size", 1, 64, &patch));
	out_channels = in;
	TRY(json_get_int(object, path, "out_channels", 1, 4096, &out_channels));
	if (in % (FLUX_PATCH * FLUX_PATCH))
		return status_fail(STATUS_CORRUPT, "%s: in_channels must be a multiple of 4", path);
	if (out_channels != in)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: out_channels that differ from in_channels are not supported", path);
	if (patch != 1)
		return status_fail(STATUS_UNSUPPORTED, "%s: only patch_size 1 is supported", path);
	c->channels = in / (FLUX_PATCH * FLUX_PATCH);
	c->dim = c->heads * c->head_dim;
	return read_axes(object, path, c);
}

enum status flux_config_read(const struct component *part, struct flux_config *out)
{
	struct flux_config c = { 0 };

	TRY(derive_read_config(part, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

enum { GROUPS = 5 };

static void describe_groups(struct flux_transformer *t, struct load_group out[GROUPS])
{
	struct double_block *doubles = t->doubles;
	const size_t step = sizeof *doubles;

	out[0] = (struct load_group){ "", 1, ends_table, LOAD_COUNT(ends_table), &t->ends, 0 };
	out[1] = (struct load_group){ "", t->config.guidance, guidance_table, LOAD_COUNT(guidance_table), &t->ends, 0 };
	out[2] = (struct load_group){ "transformer_blocks", t->config.layers, picture_table, LOAD_COUNT(picture_table),
		doubles ? &doubles->picture : NULL, step };
	out[3] = (struct load_group){ "transformer_blocks", t->config.layers, text_table, LOAD_COUNT(text_table),
		doubles ? &doubles->text : NULL, step };
	out[4] = (struct load_group){ "single_transformer_blocks", t->config.single_layers, single_table,
		LOAD_COUNT(single_table), t->singles, sizeof *t->singles };
}

static void describe_dims(const struct flux_config *c, int64_t out[D_COUNT])
{
	const int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_DIM] = c->dim,
		[D_2DIM] = 2 * c->dim,
		[D_3DIM] = MODULATION_SINGLE * c->dim,
		[D_6DIM] = MODULATION_DOUBLE * c->dim,
		[D_MLP] = MLP_RATIO * c->dim,
		[D_DIM_MLP] = (1 + MLP_RATIO) * c->dim,
		[D_HEAD] = c->head_dim,
		[D_FREQUENCIES] = FREQUENCIES,
		[D_PATCH] = FLUX_PATCH * FLUX_PATCH * c->channels,
		[D_TEXT] = c->text_dim,
		[D_POOLED] = c->pooled_dim };

	memcpy(out, dims, sizeof dims);
}

static enum status load_all(struct flux_transformer *t, const struct weights *w)
{
	int64_t dims[D_COUNT];
	struct loader l = { t->k, w, dims };
	struct load_group groups[GROUPS];

	describe_dims(&t->config, dims);
	describe_groups(t, groups);
	TRY(load_groups(&l, groups, GROUPS));
	return weights_check_read(w, NULL);
}

static enum status open_weights(struct flux_transformer *t, const struct component *c)
{
	struct weights *w;
	enum status status;

	TRY(flux_config_read(c, &t->config));
	t->doubles = calloc((size_t)t->config.layers + 1, sizeof *t->doubles);
	t->singles = calloc((size_t)t->config.single_layers + 1, sizeof *t->singles);
	if (!t->doubles || !t->singles)
		return status_fail(STATUS_NO_MEMORY, "no memory for a transformer of %lld layers",
			(long long)(t->config.layers + t->config.single_layers));
	TRY(weights_open_component(c, &w));
	status = load_all(t, w);
	weights_close(w); /* everything is packed */
	return status;
}

enum status flux_transformer_open(struct kernels *k, const struct component *c, struct flux_transformer **out)
{
	struct flux_transformer *t = calloc(1, sizeof *t);
	enum status status;

	if (!t)
		return status_fail(STATUS_NO_MEMORY, "no memory for a transformer");
	t->k = k;
	status = open_weights(t, c);
	if (status != STATUS_OK) {
		flux_transformer_close(t);
		return status;
	}
	*out = t;
	return STATUS_OK;
}

void flux_transformer_close(struct flux_transformer *t)
{
	struct load_group groups[GROUPS];

	if (!t)
		return;
	describe_groups(t, groups);
	load_groups_free(t->k, groups, GROUPS);
	free(t->doubles);
	free(t->singles);
	free(t);
}

/* ---- small parts ------------------------------------------------------------------------------------------------- */

static enum status linear(struct flux_transformer *t, struct tensor x, const struct weight *w,
	const struct weight *bias, enum activation activation, struct tensor y)
{
	return kernels_linear(t->k, &(struct linear){ .x = x, .w = w, .bias = bias, .activation = activation, .y = y });
}

/* A tensor [rows, dim] as [rows, heads, head_dim]. */
static struct tensor heads_of(const struct flux_config *c, struct tensor rows)
{
	rows.rank = 3;
	rows.dim[1] = c->heads;
	rows.dim[2] = c->head_dim;
	rows.stride[1] = c->head_dim;
	rows.stride[2] = 1;
	return rows;
}

/* Contiguous rows of a buffer of one dimension, from an offset on. */
static struct tensor matrix_at(struct tensor buffer, int64_t offset, int64_t rows, int64_t dim)
{
	return tensor_view(tensor_slice(buffer, 0, offset, rows * dim).data, buffer.dtype, 2, (int64_t[]){ rows, dim });
}

/* y (+)= second(silu(first(x))): an embedding of vectors. */
static enum status embed(struct flux_transformer *t, struct arena *arena, struct tensor x, const struct weight *first,
	const struct weight *first_bias, const struct weight *second, const struct weight *second_bias, bool accumulate,
	struct tensor y)
{
	struct tensor operand, hidden;

	TRY(arena_take(arena, kernels_dtype(t->k), 2, x.dim, &operand));
	TRY(arena_take(arena, kernels_dtype(t->k), 2, (int64_t[]){ x.dim[0], t->config.dim }, &hidden));
	TRY(kernels_unary(t->k, UNARY_COPY, x, operand));
	TRY(linear(t, operand, first, first_bias, ACTIVATION_SILU, hidden));
	return kernels_linear(t->k,
		&(struct linear){ .x = hidden, .w = second, .bias = second_bias, .accumulate = accumulate, .y = y });
}

/* Sinusoids of n numbers, cosines first. */
static enum status upload_sinusoids(
	struct flux_transformer *t, struct arena *arena, int64_t n, const float *numbers, struct tensor *out)
{
	enum { HALF = FREQUENCIES / 2 };
	int64_t dim[2] = { n, FREQUENCIES };
	float *values = malloc((size_t)n * FREQUENCIES * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 2, dim);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld time steps", (long long)n);
	for (int64_t row = 0; row < n; row++)
		for (int i = 0; i < HALF; i++) {
			float angle = numbers[row] * expf(-logf(10000) * (float)i / HALF);

			values[row * FREQUENCIES + i] = cosf(angle);
			values[row * FREQUENCIES + HALF + i] = sinf(angle);
		}
	status = arena_take(arena, DTYPE_F32, 2, dim, out);
	if (status == STATUS_OK)
		status = kernels_upload(t->k, &host, *out);
	free(values);
	return status;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* (cos, sin) of every pair of a head at (0, row, column), frequencies in double as in the reference. */
static void rope_row(const struct flux_config *c, const int64_t position[3], float *out)
{
	for (int axis = 0; axis < 3; axis++)
		for (int64_t i = 0; i < c->axes[axis]; i += 2) {
			double angle =
				(double)position[axis] / pow((double)ROPE_THETA, (double)i / (double)c->axes[axis]);

			*out++ = (float)cos(angle);
			*out++ = (float)sin(angle);
		}
}

static enum status make_rope(struct flux_transformer *t, struct arena *arena, int64_t tokens, int64_t lines,
	int64_t columns, struct tensor *out)
{
	int64_t rows = tokens + lines * columns, row_len = t->config.head_dim;
	int64_t dim[3] = { rows, row_len / 2, 2 };
	float *values = malloc((size_t)(rows * row_len) * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 3, dim);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld positions", (long long)rows);
	for (int64_t i = 0; i < rows; i++) {
		int64_t place = i < tokens ? 0 : i - tokens;

		rope_row(&t->config, (int64_t[]){ 0, place / columns, place % columns }, values + i * row_len);
	}
	status = arena_take(arena, DTYPE_F32, 3, dim, out);
	if (status == STATUS_OK)
		status = kernels_upload(t->k, &host, *out);
	free(values);
	return status;
}

static enum status check_text(const struct flux_config *c, struct tensor embeds, struct tensor pooled)
{
	if (embeds.dim[1] != c->text_dim)
		return status_fail(STATUS_CORRUPT,
			"text_encoder_2 gives %lld values a token, the transformer wants joint_attention_dim %lld",
			(long long)embeds.dim[1], (long long)c->text_dim);
	if (pooled.dim[0] != c->pooled_dim)
		return status_fail(STATUS_CORRUPT,
			"text_encoder gives %lld pooled values, the transformer wants pooled_projection_dim %lld",
			(long long)pooled.dim[0], (long long)c->pooled_dim);
	return STATUS_OK;
}

static enum status embed_text(struct flux_transformer *t, struct arena *arena, struct tensor embeds,
	struct tensor pooled, float guidance, const struct flux_text *out)
{
	const struct ends *e = &t->ends;
	const float scaled = guidance * 1000;
	struct tensor operand, sinusoids, vector;

	TRY(arena_take(arena, kernels_dtype(t->k), 2, embeds.dim, &operand));
	TRY(kernels_unary(t->k, UNARY_COPY, embeds, operand));
	TRY(linear(t, operand, e->text, e->text_bias, ACTIVATION_NONE, out->rows));
	vector = tensor_view(out->vector.data, DTYPE_F32, 2, (int64_t[]){ 1, t->config.dim });
	pooled = tensor_view(pooled.data, DTYPE_F32, 2, (int64_t[]){ 1, t->config.pooled_dim });
	TRY(embed(t, arena, pooled, e->pooled1, e->pooled1_bias, e->pooled2, e->pooled2_bias, false, vector));
	if (!t->config.guidance)
		return STATUS_OK;
	TRY(upload_sinusoids(t, arena, 1, &scaled, &sinusoids));
	return embed(
		t, arena, sinusoids, e->guidance1, e->guidance1_bias, e->guidance2, e->guidance2_bias, true, vector);
}

enum status flux_transformer_text(struct flux_transformer *t, struct arena *arena, struct tensor embeds,
	struct tensor pooled, float guidance, int64_t height, int64_t width, struct flux_text *out)
{
	struct flux_text text;
	enum status status;
	size_t mark;

	TRY(check_text(&t->config, embeds, pooled));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ embeds.dim[0], t->config.dim }, &text.rows));
	TRY(arena_take(arena, DTYPE_F32, 1, &t->config.dim, &text.vector));
	TRY(make_rope(t, arena, embeds.dim[0], height / FLUX_PATCH, width / FLUX_PATCH, &text.rope));
	mark = arena_mark(arena);
	status = embed_text(t, arena, embeds, pooled, guidance, &text);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*out = text;
	return status;
}

/* ---- modulation -------------------------------------------------------------------------------------------------- */

/* What every modulation is a linear function of: [n, dim], after SiLU. */
static enum status embed_times(struct flux_transformer *t, struct arena *arena, struct tensor vector, int64_t n,
	const float *times, struct tensor *out)
{
	const struct ends *e = &t->ends;
	int64_t dim[2] = { n, t->config.dim };
	struct tensor sinusoids, sum;

	TRY(arena_take(arena, DTYPE_F32, 2, dim, &sum));
	TRY(arena_take(arena, kernels_dtype(t->k), 2, dim, out));
	TRY(kernels_fill_rows(t->k, vector, sum));
	TRY(upload_sinusoids(t, arena, n, times, &sinusoids));
	TRY(embed(t, arena, sinusoids, e->time1, e->time1_bias, e->time2, e->time2_bias, true, sum));
	return kernels_unary(t->k, UNARY_SILU, sum, *out);
}

/* [n, values] of one block. */
static struct tensor block_of(struct tensor all, int64_t block)
{
	return tensor_view(tensor_slice(all, 0, block, 1).data, DTYPE_F32, 2, &all.dim[1]);
}

static enum status modulate(struct flux_transformer *t, struct arena *arena, const struct flux_text *text, int64_t n,
	const float *times, const struct flux_modulation *m)
{
	int64_t half = MODULATION_DOUBLE * t->config.dim;
	struct tensor x;

	TRY(embed_times(t, arena, text->vector, n, times, &x));
	for (int64_t i = 0; i < t->config.layers; i++) {
		const struct half *picture = &t->doubles[i].picture, *words = &t->doubles[i].text;
		struct tensor y = block_of(m->doubles, i);

		TRY(linear(t, x, picture->modulation, picture->modulation_bias, ACTIVATION_NONE,
			tensor_slice(y, 1, 0, half)));
		TRY(linear(t, x, words->modulation, words->modulation_bias, ACTIVATION_NONE,
			tensor_slice(y, 1, half, half)));
	}
	for (int64_t i = 0; i < t->config.single_layers; i++)
		TRY(linear(t, x, t->singles[i].modulation, t->singles[i].modulation_bias, ACTIVATION_NONE,
			block_of(m->singles, i)));
	return linear(
		t, x, t->ends.final_modulation, t->ends.final_modulation_bias, ACTIVATION_NONE, block_of(m->final, 0));
}

enum status flux_transformer_modulation(struct flux_transformer *t, struct arena *arena, const struct flux_text *text,
	int64_t n, const float *times, struct flux_modulation *out)
{
	const struct flux_config *c = &t->config;
	struct flux_modulation m;
	enum status status;
	size_t mark;

	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ c->layers, n, 2 * MODULATION_DOUBLE * c->dim }, &m.doubles));
	TRY(arena_take(
		arena, DTYPE_F32, 3, (int64_t[]){ c->single_layers, n, MODULATION_SINGLE * c->dim }, &m.singles));
	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ 1, n, 2 * c->dim }, &m.final));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ c->layers, 2 * MODULATION_DOUBLE * c->dim }, &m.double_row));
	TRY(arena_take(
		arena, DTYPE_F32, 2, (int64_t[]){ c->single_layers, MODULATION_SINGLE * c->dim }, &m.single_row));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, 2 * c->dim }, &m.final_row));
	mark = arena_mark(arena);
	status = modulate(t, arena, text, n, times, &m);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*out = m;
	return status;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* What the blocks work with: [text, picture] rows. */
struct pass {
	struct flux_transformer *t;
	int64_t tokens;       /* rows of text */
	struct tensor stream; /* [rows, dim] F32 */
	struct tensor rope;
	struct tensor operand, q, k, v, out; /* [rows, dim] */
	struct tensor wide;                  /* rows * (dim + feed-forward) values */
};

static enum status take_buffers(struct pass *p, struct arena *arena, int64_t rows)
{
	int64_t dim[2] = { rows, p->t->config.dim }, wide = rows * (1 + MLP_RATIO) * dim[1];
	struct tensor *const same[] = { &p->operand, &p->q, &p->k, &p->v, &p->out };
	enum dtype dtype = kernels_dtype(p->t->k);

	TRY(arena_take(arena, DTYPE_F32, 2, dim, &p->stream));
	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
		TRY(arena_take(arena, dtype, 2, dim, same[i]));
	return arena_take(arena, dtype, 1, &wide, &p->wide);
}

/* y = LayerNorm(x) * (1 + scale) + shift */
static enum status modulated_norm(
	const struct pass *p, struct tensor x, const float *shift, const float *scale, struct tensor y)
{
	return kernels_norm(p->t->k, &(struct norm){ .x = x, .scale = scale, .shift = shift, .eps = EPS, .y = y });
}

static enum status rotate(
	const struct pass *p, struct tensor rows, const struct weight *weight, int64_t first, int64_t count)
{
	return kernels_qk_rope(p->t->k, &(struct qk_rope){ .x = heads_of(&p->t->config, rows),
						.weight = weight,
						.eps = EPS,
						.interleaved = true,
						.table = tensor_slice(p->rope, 0, first, count) });
}

static enum status attend(const struct pass *p, struct tensor out)
{
	const struct flux_config *c = &p->t->config;

	return kernels_attention(p->t->k, &(struct attention){ .q = heads_of(c, p->q),
						  .k = heads_of(c, p->k),
						  .v = heads_of(c, p->v),
						  .scale = 1 / sqrtf((float)c->head_dim),
						  .out = heads_of(c, out) });
}

/* Queries, keys and values of a range of rows of a double block. */
static enum status project_half(
	const struct pass *p, const struct half *h, int64_t first, int64_t count, const float *modulation)
{
	struct tensor x = tensor_slice(p->operand, 0, first, count), q = tensor_slice(p->q, 0, first, count),
		      k = tensor_slice(p->k, 0, first, count);

	TRY(modulated_norm(p, tensor_slice(p->stream, 0, first, count), modulation, modulation + p->t->config.dim, x));
	TRY(linear(p->t, x, h->q, h->q_bias, ACTIVATION_NONE, q));
	TRY(linear(p->t, x, h->k, h->k_bias, ACTIVATION_NONE, k));
	TRY(linear(p->t, x, h->v, h->v_bias, ACTIVATION_NONE, tensor_slice(p->v, 0, first, count)));
	TRY(rotate(p, q, h->norm_q, first, count));
	return rotate(p, k, h->norm_k, first, count);
}

/* What follows the attention in a range of rows of a double block. */
static enum status finish_half(const struct pass *p, const struct half *h, struct tensor heads, int64_t first,
	int64_t count, const float *modulation)
{
	int64_t dim = p->t->config.dim, rows = p->stream.dim[0];
	struct tensor stream = tensor_slice(p->stream, 0, first, count), x = tensor_slice(p->operand, 0, first, count),
		      out = tensor_slice(p->out, 0, first, count);
	struct tensor hidden = matrix_at(p->wide, rows * dim, count, MLP_RATIO * dim);

	TRY(linear(p->t, tensor_slice(heads, 0, first, count), h->out, h->out_bias, ACTIVATION_NONE, out));
	TRY(kernels_gated_add(p->t->k, out, modulation + 2 * dim, stream));
	TRY(modulated_norm(p, stream, modulation + 3 * dim, modulation + 4 * dim, x));
	TRY(linear(p->t, x, h->up, h->up_bias, ACTIVATION_GELU_TANH, hidden));
	TRY(linear(p->t, hidden, h->down, h->down_bias, ACTIVATION_NONE, out));
	return kernels_gated_add(p->t->k, out, modulation + 5 * dim, stream);
}

static enum status run_double(const struct pass *p, const struct double_block *b, const float *modulation)
{
	const float *text = modulation + MODULATION_DOUBLE * p->t->config.dim;
	int64_t rows = p->stream.dim[0], tokens = p->tokens;
	struct tensor heads = matrix_at(p->wide, 0, rows, p->t->config.dim);

	TRY(project_half(p, &b->text, 0, tokens, text));
	TRY(project_half(p, &b->picture, tokens, rows - tokens, modulation));
	TRY(attend(p, heads));
	TRY(finish_half(p, &b->text, heads, 0, tokens, text));
	return finish_half(p, &b->picture, heads, tokens, rows - tokens, modulation);
}

static enum status run_single(const struct pass *p, const struct single_block *b, const float *modulation)
{
	int64_t rows = p->stream.dim[0], dim = p->t->config.dim;
	struct tensor both = matrix_at(p->wide, 0, rows, (1 + MLP_RATIO) * dim);

	TRY(modulated_norm(p, p->stream, modulation, modulation + dim, p->operand));
	TRY(linear(p->t, p->operand, b->q, b->q_bias, ACTIVATION_NONE, p->q));
	TRY(linear(p->t, p->operand, b->k, b->k_bias, ACTIVATION_NONE, p->k));
	TRY(linear(p->t, p->operand, b->v, b->v_bias, ACTIVATION_NONE, p->v));
	TRY(linear(p->t, p->operand, b->up, b->up_bias, ACTIVATION_GELU_TANH,
		tensor_slice(both, 1, dim, MLP_RATIO * dim)));
	TRY(rotate(p, p->q, b->norm_q, 0, rows));
	TRY(rotate(p, p->k, b->norm_k, 0, rows));
	TRY(attend(p, tensor_slice(both, 1, 0, dim)));
	TRY(linear(p->t, both, b->out, b->out_bias, ACTIVATION_NONE, p->out));
	return kernels_gated_add(p->t->k, p->out, modulation + 2 * dim, p->stream);
}

/* ---- prediction -------------------------------------------------------------------------------------------------- */

/* What block i is modulated with at this step. */
static const float *row_of(struct tensor rows, int64_t i)
{
	return (const float *)rows.data + i * rows.stride[0];
}

static enum status run_final(
	const struct pass *p, struct arena *arena, const float *modulation, int64_t patch_len, struct tensor out)
{
	int64_t dim = p->t->config.dim, count = p->stream.dim[0] - p->tokens;
	struct tensor patches, x = tensor_slice(p->operand, 0, 0, count);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ count, patch_len }, &patches));
	TRY(modulated_norm(p, tensor_slice(p->stream, 0, p->tokens, count), modulation + dim, modulation, x));
	TRY(linear(p->t, x, p->t->ends.final, p->t->ends.final_bias, ACTIVATION_NONE, patches));
	return kernels_unpatchify(p->t->k, patches, FLUX_PATCH, 1, out);
}

/* A prediction; also what it depends on, byte by byte, so the fields leave no gaps. */
struct prediction {
	struct flux_transformer *t;
	struct arena *arena;
	size_t mark;
	struct tensor text, rope, double_row, single_row, final_row, latents, out;
};

static enum status predict(const struct prediction *r)
{
	struct flux_transformer *t = r->t;
	int64_t rows = r->rope.dim[0], tokens = r->text.dim[0];
	int64_t patch_len = FLUX_PATCH * FLUX_PATCH * t->config.channels;
	struct pass p = { .t = t, .tokens = tokens, .rope = r->rope };
	struct tensor patches;

	TRY(take_buffers(&p, r->arena, rows));
	TRY(arena_take(r->arena, kernels_dtype(t->k), 2, (int64_t[]){ rows - tokens, patch_len }, &patches));
	TRY(kernels_patchify(t->k, r->latents, FLUX_PATCH, patches));
	TRY(kernels_unary(t->k, UNARY_COPY, r->text, tensor_slice(p.stream, 0, 0, tokens)));
	TRY(linear(t, patches, t->ends.picture, t->ends.picture_bias, ACTIVATION_NONE,
		tensor_slice(p.stream, 0, tokens, rows - tokens)));
	for (int64_t i = 0; i < t->config.layers; i++)
		TRY(run_double(&p, &t->doubles[i], row_of(r->double_row, i)));
	for (int64_t i = 0; i < t->config.single_layers; i++)
		TRY(run_single(&p, &t->singles[i], row_of(r->single_row, i)));
	return run_final(&p, r->arena, r->final_row.data, patch_len, r->out);
}

static enum status run_prediction(void *context)
{
	const struct prediction *p = context;
	enum status status = predict(p);

	arena_release(p->arena, p->mark);
	return status;
}

enum status flux_transformer_predict(struct flux_transformer *t, struct arena *arena, const struct flux_text *text,
	const struct flux_modulation *m, int64_t row, struct tensor latents, struct tensor out)
{
	struct prediction p = { t, arena, arena_mark(arena), text->rows, text->rope, m->double_row, m->single_row,
		m->final_row, latents, out };

	TRY(time_embedding_pick(t->k, m->doubles, row, m->double_row));
	TRY(time_embedding_pick(t->k, m->singles, row, m->single_row));
	TRY(time_embedding_pick(t->k, m->final, row, m->final_row));
	return kernels_repeat(t->k, run_prediction, &p, &p, sizeof p);
}

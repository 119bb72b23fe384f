/* zimage_transformer: loading and the forward pass.  The stream is F32; operands are in the dtype of the kernels. */
#include "engine/zimage_transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"
#include "engine/time_embedding.h"

/* constants of the reference that are in no configuration */
enum { TIME_FREQUENCIES = 256, TIME_HIDDEN = 1024, TIME_WIDTH_MAX = 256 };
static const float QK_EPS = 1e-5f, FINAL_EPS = 1e-6f;

struct block {
	struct weight *norm1, *qkv, *norm_q, *norm_k, *out, *norm2; /* attention */
	struct weight *ffn_norm1, *w13, *w2, *ffn_norm2;            /* feed-forward */
	struct weight *modulation, *modulation_bias;                /* not in the context refiner */
};

struct ends {
	struct weight *x_embed, *x_embed_bias, *x_pad, *caption_norm, *caption_embed, *caption_embed_bias, *caption_pad;
	struct weight *time1, *time1_bias, *time2, *time2_bias;
	struct weight *final_modulation, *final_modulation_bias, *final, *final_bias;
};

enum { D_ONE, D_DIM, D_FFN, D_HEAD, D_TIME, D_TIME_HIDDEN, D_FREQUENCIES, D_MODULATION, D_PATCH, D_CAPTION, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define MATRIX(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_LINEAR, name, rows, columns)
#define BLOCK(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_BLOCK, name, rows, columns)

static const struct load_entry block_table[] = {
	VECTOR(block, norm1, "attention_norm1.weight", D_DIM),
	{ offsetof(struct block, qkv), LOAD_BLOCK, D_DIM,
		{ { "attention.to_q.weight", D_DIM }, { "attention.to_k.weight", D_DIM },
			{ "attention.to_v.weight", D_DIM } } },
	VECTOR(block, norm_q, "attention.norm_q.weight", D_HEAD),
	VECTOR(block, norm_k, "attention.norm_k.weight", D_HEAD),
	BLOCK(block, out, "attention.to_out.0.weight", D_DIM, D_DIM),
	VECTOR(block, norm2, "attention_norm2.weight", D_DIM),
	VECTOR(block, ffn_norm1, "ffn_norm1.weight", D_DIM),
	{ offsetof(struct block, w13), LOAD_BLOCK, D_DIM,
		{ { "feed_forward.w1.weight", D_FFN }, { "feed_forward.w3.weight", D_FFN } } },
	BLOCK(block, w2, "feed_forward.w2.weight", D_DIM, D_FFN),
	VECTOR(block, ffn_norm2, "ffn_norm2.weight", D_DIM),
};

static const struct load_entry modulation_table[] = {
	MATRIX(block, modulation, "adaLN_modulation.0.weight", D_MODULATION, D_TIME),
	VECTOR(block, modulation_bias, "adaLN_modulation.0.bias", D_MODULATION),
};

static const struct load_entry ends_table[] = {
	MATRIX(ends, x_embed, "all_x_embedder.2-1.weight", D_DIM, D_PATCH),
	VECTOR(ends, x_embed_bias, "all_x_embedder.2-1.bias", D_DIM),
	{ offsetof(struct ends, x_pad), LOAD_ROW, D_ONE, { { "x_pad_token", D_DIM } } },
	VECTOR(ends, caption_norm, "cap_embedder.0.weight", D_CAPTION),
	MATRIX(ends, caption_embed, "cap_embedder.1.weight", D_DIM, D_CAPTION),
	VECTOR(ends, caption_embed_bias, "cap_embedder.1.bias", D_DIM),
	{ offsetof(struct ends, caption_pad), LOAD_ROW, D_ONE, { { "cap_pad_token", D_DIM } } },
	MATRIX(ends, time1, "t_embedder.mlp.0.weight", D_TIME_HIDDEN, D_FREQUENCIES),
	VECTOR(ends, time1_bias, "t_embedder.mlp.0.bias", D_TIME_HIDDEN),
	MATRIX(ends, time2, "t_embedder.mlp.2.weight", D_TIME, D_TIME_HIDDEN),
	VECTOR(ends, time2_bias, "t_embedder.mlp.2.bias", D_TIME),
	MATRIX(ends, final_modulation, "all_final_layer.2-1.adaLN_modulation.1.weight", D_DIM, D_TIME),
	VECTOR(ends, final_modulation_bias, "all_final_layer.2-1.adaLN_modulation.1.bias", D_DIM),
	MATRIX(ends, final, "all_final_layer.2-1.linear.weight", D_PATCH, D_DIM),
	VECTOR(ends, final_bias, "all_final_layer.2-1.linear.bias", D_PATCH),
};

struct zimage_transformer {
	struct kernels *k;
	struct zimage_config config;
	int64_t ffn, time_width;
	struct ends ends;
	struct block *noise_refiner, *layers; /* with modulation; one array: refiner_layers, then layers */
	struct block *context_refiner;        /* without */
	int64_t n_modulated;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct zimage_config *c = out;
	int64_t patch[4], f_patch[4];
	bool qk_norm = true;
	int n_patches, n_f_patches, n_axes, n_lens;

	TRY(json_need_int(object, path, "in_channels", 1, 1024, &c->channels));
	TRY(json_need_int(object, path, "dim", 8, 1 << 16, &c->dim));
	TRY(json_need_int(object, path, "n_layers", 1, 1000, &c->layers));
	TRY(json_need_int(object, path, "n_refiner_layers", 1, 1000, &c->refiner_layers));
	TRY(json_need_int(object, path, "n_heads", 1, 1024, &c->heads));
	TRY(json_need_int(object, path, "cap_feat_dim", 1, 1 << 16, &c->caption_dim));
	TRY(json_need_ints(object, path, "axes_dims", 2, 1024, 3, c->axes, &n_axes));
	TRY(json_need_ints(object, path, "axes_lens", 1, 1 << 16, 3, c->axes_len, &n_lens));
	TRY(json_need_ints(object, path, "all_patch_size", 1, 64, 4, patch, &n_patches));
	TRY(json_need_ints(object, path, "all_f_patch_size", 1, 64, 4, f_patch, &n_f_patches));
	c->norm_eps = 1e-5;
	c->rope_theta = 256;
	c->t_scale = 1000;
	TRY(json_get_number(object, path, "norm_eps", 0, 1, &c->norm_eps));
	TRY(json_get_number(object, path, "rope_theta", 1, 1e12, &c->rope_theta));
	TRY(json_get_number(object, path, "t_scale", 1e-6, 1e9, &c->t_scale));
	TRY(json_get_bool(object, path, "qk_norm", &qk_norm));
	if (c->dim % c->heads != 0)
		return status_fail(STATUS_CORRUPT, "%s: n_heads %lld does not divide dim %lld", path,
			(long long)c->heads, (long long)c->dim);
	c->head_dim = c->dim / c->heads;
	if (n_axes != 3 || n_lens != 3 || c->axes[0] + c->axes[1] + c->axes[2] != c->head_dim || c->axes[0] % 2 ||
		c->axes[1] % 2 || c->axes[2] % 2)
		return status_fail(STATUS_CORRUPT,
			"%s: axes_dims must be three even numbers with the sum dim / n_heads = %lld", path,
			(long long)c->head_dim);
	if (n_patches != 1 || patch[0] != ZIMAGE_PATCH || n_f_patches != 1 || f_patch[0] != 1)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: only all_patch_size [2] and all_f_patch_size [1] are supported", path);
	if (!qk_norm)
		return status_fail(STATUS_UNSUPPORTED, "%s: qk_norm false is not supported", path);
	return STATUS_OK;
}

enum status zimage_config_read(const struct component *part, struct zimage_config *out)
{
	struct zimage_config c = { 0 };

	TRY(derive_read_config(part, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum status load_blocks(
	const struct loader *l, const char *list, int64_t n, bool modulated, struct block *blocks)
{
	char prefix[64];

	for (int64_t i = 0; i < n; i++) {
		snprintf(prefix, sizeof prefix, "%s.%lld.", list, (long long)i);
		TRY(load_table(l, prefix, block_table, LOAD_COUNT(block_table), &blocks[i]));
		if (modulated)
			TRY(load_table(l, prefix, modulation_table, LOAD_COUNT(modulation_table), &blocks[i]));
	}
	return STATUS_OK;
}

static enum status load_all(struct zimage_transformer *t, const struct weights *w)
{
	const struct zimage_config *c = &t->config;
	int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_DIM] = c->dim,
		[D_FFN] = t->ffn,
		[D_HEAD] = c->head_dim,
		[D_TIME] = t->time_width,
		[D_TIME_HIDDEN] = TIME_HIDDEN,
		[D_FREQUENCIES] = TIME_FREQUENCIES,
		[D_MODULATION] = 4 * c->dim,
		[D_PATCH] = ZIMAGE_PATCH * ZIMAGE_PATCH * c->channels,
		[D_CAPTION] = c->caption_dim };
	struct loader l = { t->k, w, dims };
	static const char *const unused[] = { "norm_final.", NULL }; /* of the original code, which ignores it */

	TRY(load_table(&l, "", ends_table, LOAD_COUNT(ends_table), &t->ends));
	TRY(load_blocks(&l, "noise_refiner", c->refiner_layers, true, t->noise_refiner));
	TRY(load_blocks(&l, "context_refiner", c->refiner_layers, false, t->context_refiner));
	TRY(load_blocks(&l, "layers", c->layers, true, t->layers));
	return weights_check_read(w, unused);
}

static enum status open_weights(struct zimage_transformer *t, const struct component *c)
{
	struct weights *w;
	enum status status;

	TRY(zimage_config_read(c, &t->config));
	t->ffn = (int64_t)((double)t->config.dim / 3 * 8);
	t->time_width = t->config.dim < TIME_WIDTH_MAX ? t->config.dim : TIME_WIDTH_MAX;
	t->n_modulated = t->config.refiner_layers + t->config.layers;
	t->noise_refiner = calloc((size_t)t->n_modulated, sizeof *t->noise_refiner);
	t->context_refiner = calloc((size_t)t->config.refiner_layers, sizeof *t->context_refiner);
	if (!t->noise_refiner || !t->context_refiner)
		return status_fail(
			STATUS_NO_MEMORY, "no memory for a transformer of %lld layers", (long long)t->n_modulated);
	t->layers = t->noise_refiner + t->config.refiner_layers;
	TRY(weights_open_component(c, &w));
	status = load_all(t, w);
	weights_close(w); /* everything is packed */
	return status;
}

enum status zimage_transformer_open(struct kernels *k, const struct component *c, struct zimage_transformer **out)
{
	struct zimage_transformer *t = calloc(1, sizeof *t);
	enum status status;

	if (!t)
		return status_fail(STATUS_NO_MEMORY, "no memory for a transformer");
	t->k = k;
	status = open_weights(t, c);
	if (status != STATUS_OK) {
		zimage_transformer_close(t);
		return status;
	}
	*out = t;
	return STATUS_OK;
}

static void free_blocks(struct kernels *k, struct block *blocks, int64_t n)
{
	for (int64_t i = 0; blocks && i < n; i++) {
		load_free(k, block_table, LOAD_COUNT(block_table), &blocks[i]);
		load_free(k, modulation_table, LOAD_COUNT(modulation_table), &blocks[i]);
	}
	free(blocks);
}

void zimage_transformer_close(struct zimage_transformer *t)
{
	if (!t)
		return;
	load_free(t->k, ends_table, LOAD_COUNT(ends_table), &t->ends);
	free_blocks(t->k, t->noise_refiner, t->n_modulated);
	free_blocks(t->k, t->context_refiner, t->config.refiner_layers);
	free(t);
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

static int64_t padded(int64_t rows)
{
	return (rows + ZIMAGE_PAD - 1) / ZIMAGE_PAD * ZIMAGE_PAD;
}

/* (cos, sin) of every pair of a head at position (t, row, column), frequencies in double as in the reference. */
static void rope_row(const struct zimage_config *c, const int64_t position[3], float *out)
{
	for (int axis = 0; axis < 3; axis++)
		for (int64_t i = 0; i < c->axes[axis]; i += 2) {
			double frequency = 1 / pow(c->rope_theta, (double)i / (double)c->axes[axis]);
			float angle = (float)((double)position[axis] * frequency);

			*out++ = cosf(angle);
			*out++ = sinf(angle);
		}
}

static enum status make_rope(struct zimage_transformer *t, struct arena *arena, int64_t caption_rows, int64_t columns,
	struct zimage_caption *caption)
{
	int64_t rows = caption->picture_rows + caption_rows, row_len = t->config.head_dim;
	int64_t dim[3] = { rows, row_len / 2, 2 };
	float *values = malloc((size_t)(rows * row_len) * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 3, dim);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld positions", (long long)rows);
	for (int64_t i = 0; i < rows; i++) {
		int64_t position[3] = { 0, 0, 0 };

		if (i < caption->picture_tokens) {
			position[0] = caption_rows + 1;
			position[1] = i / columns;
			position[2] = i % columns;
		} else if (i >= caption->picture_rows) {
			position[0] = i - caption->picture_rows + 1;
		}
		rope_row(&t->config, position, values + i * row_len);
	}
	status = arena_take(arena, DTYPE_F32, 3, dim, &caption->rope);
	if (status == STATUS_OK)
		status = kernels_upload(t->k, &host, caption->rope);
	free(values);
	return status;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* What a block works with, for `rows` rows. */
struct buffers {
	struct tensor operand; /* [rows, dim] */
	struct tensor qkv;     /* [rows, 3 dim] */
	struct tensor heads;   /* [rows, heads, head_dim] */
	struct tensor out;     /* [rows, dim] */
	struct tensor w13;     /* [rows, 2 ffn] */
	struct tensor hidden;  /* [rows, ffn] */
};

static enum status take_buffers(struct zimage_transformer *t, struct arena *arena, int64_t rows, struct buffers *b)
{
	const struct zimage_config *c = &t->config;
	enum dtype dtype = kernels_dtype(t->k);

	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, c->dim }, &b->operand));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, 3 * c->dim }, &b->qkv));
	TRY(arena_take(arena, dtype, 3, (int64_t[]){ rows, c->heads, c->head_dim }, &b->heads));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, c->dim }, &b->out));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, 2 * t->ffn }, &b->w13));
	return arena_take(arena, dtype, 2, (int64_t[]){ rows, t->ffn }, &b->hidden);
}

/* The i-th third of the columns of qkv as [rows, heads, head_dim]. */
static struct tensor third(const struct zimage_config *c, struct tensor qkv, int i)
{
	struct tensor t = tensor_slice(qkv, 1, i * c->dim, c->dim);

	t.rank = 3;
	t.dim[1] = c->heads;
	t.dim[2] = c->head_dim;
	t.stride[1] = c->head_dim;
	t.stride[2] = 1;
	return t;
}

/* One block in place.  modulation: the block's 4 dim values for this noise level, or NULL (context refiner). */
static enum status run_block(struct zimage_transformer *t, const struct block *l, const struct buffers *b,
	struct tensor stream, struct tensor rope, const float *modulation)
{
	const struct zimage_config *c = &t->config;
	const float *scale[2] = { NULL, NULL }, *gate[2] = { NULL, NULL };
	float eps = (float)c->norm_eps;
	struct tensor query = third(c, b->qkv, 0), key = third(c, b->qkv, 1), value = third(c, b->qkv, 2);
	struct tensor joined = tensor_view(b->heads.data, b->heads.dtype, 2, b->operand.dim);
	struct tensor w1 = tensor_slice(b->w13, 1, 0, t->ffn), w3 = tensor_slice(b->w13, 1, t->ffn, t->ffn);

	for (int i = 0; modulation && i < 2; i++) {
		scale[i] = modulation + 2 * i * c->dim;
		gate[i] = modulation + (2 * i + 1) * c->dim;
	}
	TRY(kernels_norm(t->k, &(struct norm){ .rms = true,
				       .x = stream,
				       .weight = l->norm1,
				       .scale = scale[0],
				       .eps = eps,
				       .y = b->operand }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = b->operand, .w = l->qkv, .y = b->qkv }));
	TRY(kernels_qk_rope(
		t->k, &(struct qk_rope){
			      .x = query, .weight = l->norm_q, .eps = QK_EPS, .interleaved = true, .table = rope }));
	TRY(kernels_qk_rope(t->k,
		&(struct qk_rope){ .x = key, .weight = l->norm_k, .eps = QK_EPS, .interleaved = true, .table = rope }));
	TRY(kernels_attention(t->k,
		&(struct attention){
			.q = query, .k = key, .v = value, .scale = 1 / sqrtf((float)c->head_dim), .out = b->heads }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = joined, .w = l->out, .y = b->out }));
	TRY(kernels_norm_residual(
		t->k, &(struct norm_residual){
			      .x = b->out, .weight = l->norm2, .gate = gate[0], .eps = eps, .stream = stream }));

	TRY(kernels_norm(t->k, &(struct norm){ .rms = true,
				       .x = stream,
				       .weight = l->ffn_norm1,
				       .scale = scale[1],
				       .eps = eps,
				       .y = b->operand }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = b->operand, .w = l->w13, .y = b->w13 }));
	TRY(kernels_glu(t->k, ACTIVATION_SILU, w1, w3, b->hidden));
	TRY(kernels_linear(t->k, &(struct linear){ .x = b->hidden, .w = l->w2, .y = b->out }));
	return kernels_norm_residual(
		t->k, &(struct norm_residual){
			      .x = b->out, .weight = l->ffn_norm2, .gate = gate[1], .eps = eps, .stream = stream });
}

/* ---- caption ----------------------------------------------------------------------------------------------------- */

static enum status refine_caption(
	struct zimage_transformer *t, struct arena *arena, struct tensor embeds, struct zimage_caption *caption)
{
	const struct zimage_config *c = &t->config;
	int64_t tokens = embeds.dim[0], rows = caption->rows.dim[0];
	struct tensor normed, rope = tensor_slice(caption->rope, 0, caption->picture_rows, rows);
	struct buffers b;

	TRY(arena_take(arena, kernels_dtype(t->k), 2, embeds.dim, &normed));
	TRY(kernels_norm(t->k, &(struct norm){ .rms = true,
				       .x = embeds,
				       .weight = t->ends.caption_norm,
				       .eps = (float)c->norm_eps,
				       .y = normed }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = normed,
					 .w = t->ends.caption_embed,
					 .bias = t->ends.caption_embed_bias,
					 .y = tensor_slice(caption->rows, 0, 0, tokens) }));
	if (rows > tokens)
		TRY(kernels_fill_rows(t->k, *weight_table(t->ends.caption_pad),
			tensor_slice(caption->rows, 0, tokens, rows - tokens)));
	TRY(take_buffers(t, arena, rows, &b));
	for (int64_t i = 0; i < c->refiner_layers; i++)
		TRY(run_block(t, &t->context_refiner[i], &b, caption->rows, rope, NULL));
	return STATUS_OK;
}

enum status zimage_transformer_caption(struct zimage_transformer *t, struct arena *arena, struct tensor embeds,
	int64_t height, int64_t width, struct zimage_caption *out)
{
	const struct zimage_config *c = &t->config;
	int64_t lines = height / ZIMAGE_PATCH, columns = width / ZIMAGE_PATCH, rows = padded(embeds.dim[0]);
	struct zimage_caption caption = { .picture_tokens = lines * columns, .picture_rows = padded(lines * columns) };
	enum status status;
	size_t mark;

	if (embeds.dim[1] != c->caption_dim)
		return status_fail(STATUS_CORRUPT,
			"the text encoder gives %lld values a token, the transformer wants cap_feat_dim %lld",
			(long long)embeds.dim[1], (long long)c->caption_dim);
	if (rows + 1 >= c->axes_len[0] || lines > c->axes_len[1] || columns > c->axes_len[2])
		return status_fail(STATUS_INVALID,
			"%lld prompt tokens or a picture of %lld x %lld tokens go beyond the model's "
			"positions (axes_lens %lld, %lld, %lld)",
			(long long)embeds.dim[0], (long long)columns, (long long)lines, (long long)c->axes_len[0],
			(long long)c->axes_len[1], (long long)c->axes_len[2]);
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ rows, c->dim }, &caption.rows));
	TRY(make_rope(t, arena, rows, columns, &caption));
	mark = arena_mark(arena);
	status = refine_caption(t, arena, embeds, &caption);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*out = caption;
	return status;
}

/* ---- modulation -------------------------------------------------------------------------------------------------- */

/* Sinusoids of t_scale * times, cosines first. */
static enum status upload_frequencies(struct zimage_transformer *t, int64_t n, const float *times, struct tensor device)
{
	enum { HALF = TIME_FREQUENCIES / 2 };
	float *values = malloc((size_t)n * TIME_FREQUENCIES * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 2, device.dim);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld time steps", (long long)n);
	for (int64_t step = 0; step < n; step++)
		for (int i = 0; i < HALF; i++) {
			float angle = times[step] * (float)t->config.t_scale * expf(-logf(10000) * (float)i / HALF);

			values[step * TIME_FREQUENCIES + i] = cosf(angle);
			values[step * TIME_FREQUENCIES + HALF + i] = sinf(angle);
		}
	status = kernels_upload(t->k, &host, device);
	free(values);
	return status;
}

/* What every modulation is a linear function of: [n, time_width], plain and after SiLU. */
static enum status embed_times(struct zimage_transformer *t, struct arena *arena, int64_t n, const float *times,
	struct tensor *plain, struct tensor *silu)
{
	enum dtype dtype = kernels_dtype(t->k);
	struct tensor frequencies, hidden;

	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, TIME_FREQUENCIES }, &frequencies));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, TIME_HIDDEN }, &hidden));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, t->time_width }, plain));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, t->time_width }, silu));
	TRY(upload_frequencies(t, n, times, frequencies));
	TRY(kernels_linear(t->k, &(struct linear){ .x = frequencies,
					 .w = t->ends.time1,
					 .bias = t->ends.time1_bias,
					 .activation = ACTIVATION_SILU,
					 .y = hidden }));
	TRY(kernels_linear(
		t->k, &(struct linear){ .x = hidden, .w = t->ends.time2, .bias = t->ends.time2_bias, .y = *plain }));
	return kernels_unary(t->k, UNARY_SILU, *plain, *silu);
}

static struct tensor block_modulation(const struct zimage_modulation *m, int64_t block)
{
	struct tensor all = m->blocks, one = tensor_slice(all, 0, block, 1);

	return tensor_view(one.data, DTYPE_F32, 2, (int64_t[]){ all.dim[1], all.dim[2] });
}

static enum status modulate(struct zimage_transformer *t, struct arena *arena, int64_t n, const float *times,
	const struct zimage_modulation *m)
{
	int64_t dim = t->config.dim;
	struct tensor plain, silu;

	TRY(embed_times(t, arena, n, times, &plain, &silu));
	for (int64_t i = 0; i < t->n_modulated; i++) {
		const struct block *l = &t->noise_refiner[i];
		struct tensor y = block_modulation(m, i);

		TRY(kernels_linear(
			t->k, &(struct linear){ .x = plain, .w = l->modulation, .bias = l->modulation_bias, .y = y }));
		for (int gate = 1; gate <= 3; gate += 2) {
			struct tensor columns = tensor_slice(y, 1, gate * dim, dim);

			TRY(kernels_unary(t->k, UNARY_TANH, columns, columns));
		}
	}
	return kernels_linear(t->k, &(struct linear){ .x = silu,
					    .w = t->ends.final_modulation,
					    .bias = t->ends.final_modulation_bias,
					    .y = tensor_view(m->final.data, DTYPE_F32, 2, &m->final.dim[1]) });
}

enum status zimage_transformer_modulation(
	struct zimage_transformer *t, struct arena *arena, int64_t n, const float *times, struct zimage_modulation *out)
{
	struct zimage_modulation m;
	enum status status;
	size_t mark;

	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ t->n_modulated, n, 4 * t->config.dim }, &m.blocks));
	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ 1, n, t->config.dim }, &m.final));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ t->n_modulated, 4 * t->config.dim }, &m.block_row));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, t->config.dim }, &m.final_row));
	mark = arena_mark(arena);
	status = modulate(t, arena, n, times, &m);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*out = m;
	return status;
}

/* ---- prediction -------------------------------------------------------------------------------------------------- */

/* The first `rows` rows of the buffers. */
static struct buffers first_rows(const struct buffers *b, int64_t rows)
{
	return (struct buffers){
		.operand = tensor_slice(b->operand, 0, 0, rows),
		.qkv = tensor_slice(b->qkv, 0, 0, rows),
		.heads = tensor_slice(b->heads, 0, 0, rows),
		.out = tensor_slice(b->out, 0, 0, rows),
		.w13 = tensor_slice(b->w13, 0, 0, rows),
		.hidden = tensor_slice(b->hidden, 0, 0, rows),
	};
}

/* What block i is modulated with at this step. */
static const float *row_of(const struct zimage_modulation *m, int64_t i)
{
	return (const float *)m->block_row.data + i * m->block_row.stride[0];
}

/* Patches of the latents, embedded, padded and refined: the first rows of the stream. */
static enum status run_picture(struct zimage_transformer *t, struct arena *arena, const struct zimage_caption *caption,
	const struct zimage_modulation *m, const struct buffers *b, struct tensor latents, struct tensor stream)
{
	const struct zimage_config *c = &t->config;
	int64_t tokens = caption->picture_tokens, rows = caption->picture_rows;
	int64_t patch_len = ZIMAGE_PATCH * ZIMAGE_PATCH * c->channels;
	struct tensor patches, picture = tensor_slice(stream, 0, 0, rows),
			       rope = tensor_slice(caption->rope, 0, 0, rows);
	struct buffers part = first_rows(b, rows);

	TRY(arena_take(arena, kernels_dtype(t->k), 2, (int64_t[]){ tokens, patch_len }, &patches));
	TRY(kernels_patchify(t->k, latents, ZIMAGE_PATCH, patches));
	TRY(kernels_linear(t->k, &(struct linear){ .x = patches,
					 .w = t->ends.x_embed,
					 .bias = t->ends.x_embed_bias,
					 .y = tensor_slice(picture, 0, 0, tokens) }));
	if (rows > tokens)
		TRY(kernels_fill_rows(
			t->k, *weight_table(t->ends.x_pad), tensor_slice(picture, 0, tokens, rows - tokens)));
	for (int64_t i = 0; i < c->refiner_layers; i++)
		TRY(run_block(t, &t->noise_refiner[i], &part, picture, rope, row_of(m, i)));
	return STATUS_OK;
}

static enum status run_final(struct zimage_transformer *t, struct arena *arena, const struct zimage_modulation *m,
	const struct buffers *b, struct tensor picture, struct tensor out)
{
	int64_t tokens = picture.dim[0], patch_len = ZIMAGE_PATCH * ZIMAGE_PATCH * t->config.channels;
	struct tensor patches, operand = tensor_slice(b->operand, 0, 0, tokens);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ tokens, patch_len }, &patches));
	TRY(kernels_norm(
		t->k, &(struct norm){ .x = picture, .scale = m->final_row.data, .eps = FINAL_EPS, .y = operand }));
	TRY(kernels_linear(
		t->k, &(struct linear){ .x = operand, .w = t->ends.final, .bias = t->ends.final_bias, .y = patches }));
	return kernels_unpatchify(t->k, patches, ZIMAGE_PATCH, -1, out);
}

/* A prediction; also what it depends on, byte by byte, so the fields leave no gaps. */
struct prediction {
	struct zimage_transformer *t;
	struct arena *arena;
	size_t mark;
	struct zimage_caption caption;
	struct tensor block_row, final_row, latents, out;
};

static enum status predict(const struct prediction *p)
{
	struct zimage_transformer *t = p->t;
	const struct zimage_config *c = &t->config;
	const struct zimage_caption *caption = &p->caption;
	const struct zimage_modulation m = { .block_row = p->block_row, .final_row = p->final_row };
	int64_t caption_rows = caption->rows.dim[0], rows = caption->picture_rows + caption_rows;
	struct tensor stream;
	struct buffers b;

	TRY(arena_take(p->arena, DTYPE_F32, 2, (int64_t[]){ rows, c->dim }, &stream));
	TRY(take_buffers(t, p->arena, rows, &b));
	TRY(run_picture(t, p->arena, caption, &m, &b, p->latents, stream));
	TRY(kernels_unary(
		t->k, UNARY_COPY, caption->rows, tensor_slice(stream, 0, caption->picture_rows, caption_rows)));
	for (int64_t i = 0; i < c->layers; i++)
		TRY(run_block(t, &t->layers[i], &b, stream, caption->rope, row_of(&m, c->refiner_layers + i)));
	return run_final(t, p->arena, &m, &b, tensor_slice(stream, 0, 0, caption->picture_tokens), p->out);
}

static enum status run_prediction(void *context)
{
	const struct prediction *p = context;
	enum status status = predict(p);

	arena_release(p->arena, p->mark);
	return status;
}

enum status zimage_transformer_predict(struct zimage_transformer *t, struct arena *arena,
	const struct zimage_caption *caption, const struct zimage_modulation *modulation, int64_t row,
	struct tensor latents, struct tensor out)
{
	struct prediction p = { t, arena, arena_mark(arena), *caption, modulation->block_row, modulation->final_row,
		latents, out };

	TRY(time_embedding_pick(t->k, modulation->blocks, row, modulation->block_row));
	TRY(time_embedding_pick(t->k, modulation->final, row, modulation->final_row));
	return kernels_repeat(t->k, run_prediction, &p, &p, sizeof p);
}

/* sd3_transformer: loading and the forward pass.  The streams are F32; operands are in the dtype of the kernels. */
#include "engine/sd3_transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"

/* constants of the reference that are in no configuration */
enum { TIME_FREQUENCIES = 256, FFN_FACTOR = 4 };
static const float EPS = 1e-6f;

#define POSITIONS "pos_embed.pos_embed"

/* Where the modulation of one norm lies: numbers of dim values each. */
struct slot {
	int64_t first, count;
};

struct attention_weights {
	struct weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *norm_q, *norm_k, *out, *out_bias;
};

struct ffn_weights {
	struct weight *up, *up_bias, *down, *down_bias;
};

/* One stream's share of a block. */
struct half {
	struct attention_weights attention;
	struct ffn_weights ffn;
	struct weight *modulation, *modulation_bias;
	struct slot slot;
};

struct block {
	struct half picture, text;
	struct attention_weights second; /* empty but in dual layers */
};

struct ends {
	struct weight *patch, *patch_bias, *text, *text_bias;
	struct weight *time1, *time1_bias, *time2, *time2_bias, *pooled1, *pooled1_bias, *pooled2, *pooled2_bias;
	struct weight *modulation, *modulation_bias, *out, *out_bias;
};

struct sd3_transformer {
	struct kernels *k;
	struct sd3_config config;
	struct weights *weights; /* stays open for the position table, of which a picture needs a part */
	struct tensor table;     /* [1, positions^2, dim] in the file */
	struct ends ends;
	struct block *blocks;
	struct slot final;
	int64_t chunks; /* of dim values: all modulation of one noise level */
};

/* ---- what is in the file ----------------------------------------------------------------------------------------- */

enum {
	D_ONE,
	D_DIM,
	D_FFN,
	D_HEAD,
	D_FREQUENCIES,
	D_TEXT,
	D_POOLED,
	D_PATCH,
	D_FINAL,
	D_PICTURE_CHUNKS,
	D_TEXT_CHUNKS,
	D_COUNT
};

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define MATRIX(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_LINEAR, name, rows, columns)
/* A matrix of a block, with its bias. */
#define BLOCK(type, member, name, rows, columns)                                                                       \
	LOAD_ONE(type, member, LOAD_BLOCK, name ".weight", rows, columns),                                             \
		VECTOR(type, member##_bias, name ".bias", rows)
/* A matrix with its bias. */
#define LINEAR(type, member, name, rows, columns)                                                                      \
	MATRIX(type, member, name ".weight", rows, columns), VECTOR(type, member##_bias, name ".bias", rows)

#define QKV(member, q_name, k_name, v_name)                                                                            \
	BLOCK(block, member.q, q_name, D_DIM, D_DIM), BLOCK(block, member.k, k_name, D_DIM, D_DIM),                    \
		BLOCK(block, member.v, v_name, D_DIM, D_DIM)
#define NORMS(member, q_name, k_name)                                                                                  \
	VECTOR(block, member.norm_q, q_name ".weight", D_HEAD), VECTOR(block, member.norm_k, k_name ".weight", D_HEAD)
#define FFN(member, name)                                                                                              \
	BLOCK(block, member.up, name ".net.0.proj", D_FFN, D_DIM),                                                     \
		BLOCK(block, member.down, name ".net.2", D_DIM, D_FFN)

static const struct load_entry block_table[] = {
	QKV(picture.attention, "attn.to_q", "attn.to_k", "attn.to_v"),
	BLOCK(block, picture.attention.out, "attn.to_out.0", D_DIM, D_DIM),
	FFN(picture.ffn, "ff"),
	LINEAR(block, picture.modulation, "norm1.linear", D_PICTURE_CHUNKS, D_DIM),
	QKV(text.attention, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
	LINEAR(block, text.modulation, "norm1_context.linear", D_TEXT_CHUNKS, D_DIM),
};
/* in all blocks but the last */
static const struct load_entry text_table[] = {
	BLOCK(block, text.attention.out, "attn.to_add_out", D_DIM, D_DIM),
	FFN(text.ffn, "ff_context"),
};
static const struct load_entry norm_table[] = {
	NORMS(picture.attention, "attn.norm_q", "attn.norm_k"),
	NORMS(text.attention, "attn.norm_added_q", "attn.norm_added_k"),
};
static const struct load_entry second_table[] = {
	QKV(second, "attn2.to_q", "attn2.to_k", "attn2.to_v"),
	BLOCK(block, second.out, "attn2.to_out.0", D_DIM, D_DIM),
};
static const struct load_entry second_norm_table[] = {
	NORMS(second, "attn2.norm_q", "attn2.norm_k"),
};

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, patch, LOAD_PATCH_CONV, "pos_embed.proj.weight", D_DIM, D_PATCH),
	VECTOR(ends, patch_bias, "pos_embed.proj.bias", D_DIM),
	LINEAR(ends, text, "context_embedder", D_DIM, D_TEXT),
	LINEAR(ends, time1, "time_text_embed.timestep_embedder.linear_1", D_DIM, D_FREQUENCIES),
	LINEAR(ends, time2, "time_text_embed.timestep_embedder.linear_2", D_DIM, D_DIM),
	LINEAR(ends, pooled1, "time_text_embed.text_embedder.linear_1", D_DIM, D_POOLED),
	LINEAR(ends, pooled2, "time_text_embed.text_embedder.linear_2", D_DIM, D_DIM),
	LINEAR(ends, modulation, "norm_out.linear", D_FINAL, D_DIM),
	LINEAR(ends, out, "proj_out", D_PATCH, D_DIM),
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_dual(const json_t *object, const char *path, struct sd3_config *c)
{
	int64_t layer[SD3_LAYERS_MAX];
	const json_t *list = json_object_get(object, "dual_attention_layers");
	int n = 0;

	if (!list || json_is_null(list) || (json_is_array(list) && json_array_size(list) == 0))
		return STATUS_OK;
	TRY(json_need_ints(object, path, "dual_attention_layers", 0, c->layers - 1, SD3_LAYERS_MAX, layer, &n));
	for (int i = 0; i < n; i++)
		c->dual[layer[i]] = true;
	return STATUS_OK;
}

/* What the reference leaves free and no published model uses. */
static enum status check_fixed(const json_t *object, const char *path, struct sd3_config *c)
{
	int64_t patch = SD3_PATCH, out = c->channels, caption = 1152;
	const char *norm = NULL;

	TRY(json_get_int(object, path, "patch_size", 1, 1024, &patch));
	TRY(json_get_int(object, path, "out_channels", 1, 1024, &out));
	TRY(json_get_int(object, path, "caption_projection_dim", 1, 1 << 16, &caption));
	TRY(json_get_string(object, path, "qk_norm", &norm));
	c->qk_norm = norm != NULL;
	if (norm && strcmp(norm, "rms_norm") != 0)
		return status_fail(STATUS_UNSUPPORTED, "%s: qk_norm %.40s is not supported", path, norm);
	if (patch != SD3_PATCH)
		return status_fail(STATUS_UNSUPPORTED, "%s: only patch_size 2 is supported", path);
	if (out != c->channels)
		return status_fail(STATUS_UNSUPPORTED, "%s: out_channels %lld is not in_channels %lld", path,
			(long long)out, (long long)c->channels);
	if (caption != c->dim)
		return status_fail(STATUS_CORRUPT,
			"%s: caption_projection_dim %lld is not num_attention_heads * attention_head_dim = %lld", path,
			(long long)caption, (long long)c->dim);
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct sd3_config *c = out;

	*c = (struct sd3_config){ .channels = 16,
		.layers = 18,
		.heads = 18,
		.head_dim = 64,
		.text_dim = 4096,
		.pooled_dim = 2048,
		.positions = 96,
		.sample_size = 128 };
	TRY(json_get_int(object, path, "in_channels", 1, 1024, &c->channels));
	TRY(json_get_int(object, path, "num_layers", 1, SD3_LAYERS_MAX, &c->layers));
	TRY(json_get_int(object, path, "num_attention_heads", 1, 1024, &c->heads));
	TRY(json_get_int(object, path, "attention_head_dim", 1, 1024, &c->head_dim));
	TRY(json_get_int(object, path, "joint_attention_dim", 1, 1 << 16, &c->text_dim));
	TRY(json_get_int(object, path, "pooled_projection_dim", 1, 1 << 16, &c->pooled_dim));
	TRY(json_get_int(object, path, "pos_embed_max_size", 1, 1 << 12, &c->positions));
	TRY(json_get_int(object, path, "sample_size", 1, 1 << 16, &c->sample_size));
	c->dim = c->heads * c->head_dim;
	if (c->dim > 1 << 16)
		return status_fail(STATUS_CORRUPT, "%s: num_attention_heads * attention_head_dim is above 65536", path);
	TRY(check_fixed(object, path, c));
	return read_dual(object, path, c);
}

enum status sd3_config_read(const struct component *part, struct sd3_config *out)
{
	struct sd3_config c;

	TRY(derive_read_config(part, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

#define LOAD(l, prefix, table, base) load_table(l, prefix, table, LOAD_COUNT(table), base)
#define FREE(k, table, base) load_free(k, table, LOAD_COUNT(table), base)

static struct slot next_slot(struct sd3_transformer *t, int64_t count)
{
	struct slot s = { t->chunks, count };

	t->chunks += count;
	return s;
}

/* dims: those of the model; the block adds the widths of its modulation. */
static enum status load_block(struct sd3_transformer *t, int64_t *dims, int64_t i)
{
	const struct sd3_config *c = &t->config;
	const struct loader l = { t->k, t->weights, dims };
	struct block *b = &t->blocks[i];
	bool last = i == c->layers - 1;
	char prefix[64];

	b->picture.slot = next_slot(t, c->dual[i] ? 9 : 6);
	b->text.slot = next_slot(t, last ? 2 : 6);
	dims[D_PICTURE_CHUNKS] = b->picture.slot.count * c->dim;
	dims[D_TEXT_CHUNKS] = b->text.slot.count * c->dim;
	snprintf(prefix, sizeof prefix, "transformer_blocks.%lld.", (long long)i);
	TRY(LOAD(&l, prefix, block_table, b));
	if (!last)
		TRY(LOAD(&l, prefix, text_table, b));
	if (c->qk_norm)
		TRY(LOAD(&l, prefix, norm_table, b));
	if (c->dual[i])
		TRY(LOAD(&l, prefix, second_table, b));
	if (c->dual[i] && c->qk_norm)
		TRY(LOAD(&l, prefix, second_norm_table, b));
	return STATUS_OK;
}

static enum status load_all(struct sd3_transformer *t)
{
	const struct sd3_config *c = &t->config;
	int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_DIM] = c->dim,
		[D_FFN] = FFN_FACTOR * c->dim,
		[D_HEAD] = c->head_dim,
		[D_FREQUENCIES] = TIME_FREQUENCIES,
		[D_TEXT] = c->text_dim,
		[D_POOLED] = c->pooled_dim,
		[D_PATCH] = SD3_PATCH * SD3_PATCH * c->channels,
		[D_FINAL] = 2 * c->dim };
	const struct loader l = { t->k, t->weights, dims };

	TRY(LOAD(&l, "", ends_table, &t->ends));
	for (int64_t i = 0; i < c->layers; i++)
		TRY(load_block(t, dims, i));
	t->final = next_slot(t, 2);
	return weights_check_read(t->weights, NULL);
}

static enum status open_weights(struct sd3_transformer *t, const struct component *part)
{
	const struct sd3_config *c = &t->config;

	TRY(sd3_config_read(part, &t->config));
	t->blocks = calloc((size_t)c->layers, sizeof *t->blocks);
	if (!t->blocks)
		return status_fail(
			STATUS_NO_MEMORY, "no memory for a transformer of %lld layers", (long long)c->layers);
	TRY(weights_open_component(part, &t->weights));
	TRY(weights_find(t->weights, POSITIONS, 3, (int64_t[]){ 1, c->positions * c->positions, c->dim }, &t->table));
	return load_all(t);
}

enum status sd3_transformer_open(struct kernels *k, const struct component *c, struct sd3_transformer **out)
{
	struct sd3_transformer *t = calloc(1, sizeof *t);
	enum status status;

	if (!t)
		return status_fail(STATUS_NO_MEMORY, "no memory for a transformer");
	t->k = k;
	status = open_weights(t, c);
	if (status != STATUS_OK) {
		sd3_transformer_close(t);
		return status;
	}
	*out = t;
	return STATUS_OK;
}

void sd3_transformer_close(struct sd3_transformer *t)
{
	if (!t)
		return;
	FREE(t->k, ends_table, &t->ends);
	for (int64_t i = 0; t->blocks && i < t->config.layers; i++) {
		FREE(t->k, block_table, &t->blocks[i]);
		FREE(t->k, text_table, &t->blocks[i]);
		FREE(t->k, norm_table, &t->blocks[i]);
		FREE(t->k, second_table, &t->blocks[i]);
		FREE(t->k, second_norm_table, &t->blocks[i]);
	}
	free(t->blocks);
	weights_close(t->weights);
	free(t);
}

/* ---- prompt ------------------------------------------------------------------------------------------------------ */

/* x [m, ..] F32 as an operand. */
static enum status take_operand(struct sd3_transformer *t, struct arena *arena, struct tensor x, struct tensor *out)
{
	TRY(arena_take(arena, kernels_dtype(t->k), 2, x.dim, out));
	return kernels_unary(t->k, UNARY_COPY, x, *out);
}

static enum status embed_prompt(struct sd3_transformer *t, struct arena *arena, struct tensor embeds,
	struct tensor pooled, const struct sd3_prompt *prompt)
{
	const struct ends *e = &t->ends;
	struct tensor text, vector, hidden;

	TRY(take_operand(t, arena, embeds, &text));
	TRY(kernels_linear(t->k, &(struct linear){ .x = text, .w = e->text, .bias = e->text_bias, .y = prompt->rows }));
	TRY(take_operand(t, arena, pooled, &vector));
	TRY(arena_take(arena, kernels_dtype(t->k), 2, prompt->pooled.dim, &hidden));
	TRY(kernels_linear(t->k, &(struct linear){ .x = vector,
					 .w = e->pooled1,
					 .bias = e->pooled1_bias,
					 .activation = ACTIVATION_SILU,
					 .y = hidden }));
	return kernels_linear(
		t->k, &(struct linear){ .x = hidden, .w = e->pooled2, .bias = e->pooled2_bias, .y = prompt->pooled });
}

enum status sd3_transformer_prompt(struct sd3_transformer *t, struct arena *arena, struct tensor embeds,
	struct tensor pooled, struct sd3_prompt *out)
{
	const struct sd3_config *c = &t->config;
	struct sd3_prompt prompt;
	enum status status;
	size_t mark;

	if (embeds.dim[1] != c->text_dim || pooled.dim[1] != c->pooled_dim)
		return status_fail(STATUS_CORRUPT,
			"the text encoders give %lld values a token and %lld a prompt, the transformer wants "
			"joint_attention_dim %lld and pooled_projection_dim %lld",
			(long long)embeds.dim[1], (long long)pooled.dim[1], (long long)c->text_dim,
			(long long)c->pooled_dim);
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ embeds.dim[0], c->dim }, &prompt.rows));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, c->dim }, &prompt.pooled));
	mark = arena_mark(arena);
	status = embed_prompt(t, arena, embeds, pooled, &prompt);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*out = prompt;
	return status;
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

enum status sd3_transformer_positions(
	struct sd3_transformer *t, struct arena *arena, int64_t height, int64_t width, struct tensor *out)
{
	int64_t side = t->config.positions, dim = t->config.dim;
	int64_t lines = height / SD3_PATCH, columns = width / SD3_PATCH;
	int64_t top = (side - lines) / 2, left = (side - columns) / 2;
	struct tensor positions;
	bool finite;

	if (lines > side || columns > side)
		return status_fail(STATUS_INVALID,
			"a picture of %lld x %lld patches goes beyond the model's positions (pos_embed_max_size %lld)",
			(long long)columns, (long long)lines, (long long)side);
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ lines * columns, dim }, &positions));
	for (int64_t i = 0; i < lines; i++) {
		struct tensor line = tensor_slice(t->table, 1, (top + i) * side + left, columns);

		line = tensor_view(line.data, line.dtype, 2, (int64_t[]){ columns, dim });
		TRY(kernels_upload(t->k, &line, tensor_slice(positions, 0, i * columns, columns)));
	}
	TRY(kernels_all_finite(t->k, positions, &finite));
	if (!finite)
		return status_fail(
			STATUS_CORRUPT, "%s: %s holds NaN or infinity", weights_path(t->weights, POSITIONS), POSITIONS);
	*out = positions;
	return STATUS_OK;
}

/* ---- modulation -------------------------------------------------------------------------------------------------- */

/* Sinusoids of the timesteps, cosines first. */
static enum status upload_frequencies(struct sd3_transformer *t, int64_t n, const float *times, struct tensor device)
{
	enum { HALF = TIME_FREQUENCIES / 2 };
	float *values = malloc((size_t)n * TIME_FREQUENCIES * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 2, device.dim);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld time steps", (long long)n);
	for (int64_t step = 0; step < n; step++)
		for (int i = 0; i < HALF; i++) {
			float angle = times[step] * expf(-logf(10000) * (float)i / HALF);

			values[step * TIME_FREQUENCIES + i] = cosf(angle);
			values[step * TIME_FREQUENCIES + HALF + i] = sinf(angle);
		}
	status = kernels_upload(t->k, &host, device);
	free(values);
	return status;
}

/* What every modulation is a linear function of: SiLU of the embedded time and pooled prompt, [n, dim]. */
static enum status embed_times(struct sd3_transformer *t, struct arena *arena, const struct sd3_prompt *prompt,
	int64_t n, const float *times, struct tensor *silu)
{
	const struct ends *e = &t->ends;
	enum dtype dtype = kernels_dtype(t->k);
	int64_t dim[2] = { n, t->config.dim };
	struct tensor frequencies, hidden, sum, row = prompt->pooled;

	row = tensor_view(row.data, row.dtype, 1, &row.dim[1]);
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, TIME_FREQUENCIES }, &frequencies));
	TRY(arena_take(arena, dtype, 2, dim, &hidden));
	TRY(arena_take(arena, DTYPE_F32, 2, dim, &sum));
	TRY(arena_take(arena, dtype, 2, dim, silu));
	TRY(upload_frequencies(t, n, times, frequencies));
	TRY(kernels_linear(t->k, &(struct linear){ .x = frequencies,
					 .w = e->time1,
					 .bias = e->time1_bias,
					 .activation = ACTIVATION_SILU,
					 .y = hidden }));
	TRY(kernels_fill_rows(t->k, row, sum));
	TRY(kernels_linear(t->k,
		&(struct linear){ .x = hidden, .w = e->time2, .bias = e->time2_bias, .accumulate = true, .y = sum }));
	return kernels_unary(t->k, UNARY_SILU, sum, *silu);
}

static enum status modulate_slot(struct sd3_transformer *t, const struct sd3_modulation *m, struct slot s,
	const struct weight *w, const struct weight *bias, struct tensor silu)
{
	const int64_t dim = t->config.dim;
	struct tensor y = tensor_slice(tensor_slice(m->values, 0, 0, m->n), 1, s.first * dim, s.count * dim);

	return kernels_linear(t->k, &(struct linear){ .x = silu, .w = w, .bias = bias, .y = y });
}

static enum status modulate(struct sd3_transformer *t, struct arena *arena, const struct sd3_prompt *prompt,
	const float *times, const struct sd3_modulation *m)
{
	struct tensor silu;

	TRY(embed_times(t, arena, prompt, m->n, times, &silu));
	for (int64_t i = 0; i < t->config.layers; i++) {
		const struct half *picture = &t->blocks[i].picture, *text = &t->blocks[i].text;

		TRY(modulate_slot(t, m, picture->slot, picture->modulation, picture->modulation_bias, silu));
		TRY(modulate_slot(t, m, text->slot, text->modulation, text->modulation_bias, silu));
	}
	return modulate_slot(t, m, t->final, t->ends.modulation, t->ends.modulation_bias, silu);
}

enum status sd3_transformer_modulation(struct sd3_transformer *t, struct arena *arena, const struct sd3_prompt *prompt,
	int64_t n, const float *times, struct sd3_modulation *m)
{
	enum status status;
	size_t mark;

	if (!m->values.data) {
		TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ n, t->chunks * t->config.dim }, &m->values));
		TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, t->chunks * t->config.dim }, &m->row));
	}
	m->n = n;
	mark = arena_mark(arena);
	status = modulate(t, arena, prompt, times, m);
	arena_release(arena, mark);
	return status;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* What the blocks work with: rows of the picture, then rows of the text. */
struct buffers {
	int64_t picture, text;  /* rows */
	struct tensor stream;   /* [rows, dim] F32 */
	struct tensor operand;  /* [rows, dim] */
	struct tensor second;   /* [picture, dim]: what the second attention reads */
	struct tensor q, k, v;  /* [rows, dim] */
	struct tensor attended; /* [rows, dim] */
	struct tensor out;      /* [rows, dim] */
	struct tensor hidden;   /* [rows, ffn] */
};

static enum status take_buffers(
	struct sd3_transformer *t, struct arena *arena, int64_t picture, int64_t text, struct buffers *b)
{
	enum dtype dtype = kernels_dtype(t->k);
	int64_t dim = t->config.dim, rows = picture + text;
	struct tensor *each[] = { &b->operand, &b->q, &b->k, &b->v, &b->attended, &b->out };

	b->picture = picture;
	b->text = text;
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ rows, dim }, &b->stream));
	for (size_t i = 0; i < sizeof each / sizeof each[0]; i++)
		TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, dim }, each[i]));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ picture, dim }, &b->second));
	return arena_take(arena, dtype, 2, (int64_t[]){ rows, FFN_FACTOR * dim }, &b->hidden);
}

static struct tensor picture_rows(const struct buffers *b, struct tensor x)
{
	return tensor_slice(x, 0, 0, b->picture);
}

static struct tensor text_rows(const struct buffers *b, struct tensor x)
{
	return tensor_slice(x, 0, b->picture, b->text);
}

/* y = norm(x) * (1 + scale) + shift */
static enum status modulated_norm(
	struct sd3_transformer *t, struct tensor x, const float *shift, const float *scale, struct tensor y)
{
	return kernels_norm(t->k, &(struct norm){ .x = x, .scale = scale, .shift = shift, .eps = EPS, .y = y });
}

/* The RMS norm of each head of x [rows, dim], in place. */
static enum status head_norm(struct sd3_transformer *t, const struct weight *weight, struct tensor x)
{
	const struct sd3_config *c = &t->config;
	struct tensor heads = tensor_view(x.data, x.dtype, 2, (int64_t[]){ x.dim[0] * c->heads, c->head_dim });

	if (!weight)
		return STATUS_OK;
	return kernels_norm(t->k, &(struct norm){ .rms = true, .x = heads, .weight = weight, .eps = EPS, .y = heads });
}

static enum status project(struct sd3_transformer *t, const struct attention_weights *w, struct tensor x,
	struct tensor q, struct tensor k, struct tensor v)
{
	TRY(kernels_linear(t->k, &(struct linear){ .x = x, .w = w->q, .bias = w->q_bias, .y = q }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = x, .w = w->k, .bias = w->k_bias, .y = k }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = x, .w = w->v, .bias = w->v_bias, .y = v }));
	TRY(head_norm(t, w->norm_q, q));
	return head_norm(t, w->norm_k, k);
}

/* q [rows, dim], k and v [keys, dim]. */
static enum status attend(
	struct sd3_transformer *t, struct tensor q, struct tensor k, struct tensor v, struct tensor out)
{
	const struct sd3_config *c = &t->config;
	const int64_t rows[3] = { q.dim[0], c->heads, c->head_dim }, keys[3] = { k.dim[0], c->heads, c->head_dim };

	return kernels_attention(t->k, &(struct attention){ .q = tensor_view(q.data, q.dtype, 3, rows),
					       .k = tensor_view(k.data, k.dtype, 3, keys),
					       .v = tensor_view(v.data, v.dtype, 3, keys),
					       .scale = 1 / sqrtf((float)c->head_dim),
					       .out = tensor_view(out.data, out.dtype, 3, rows) });
}

/* stream += gate * (attended through the output projection) */
static enum status add_attended(struct sd3_transformer *t, const struct attention_weights *w, const float *gate,
	struct tensor attended, struct tensor out, struct tensor stream)
{
	TRY(kernels_linear(t->k, &(struct linear){ .x = attended, .w = w->out, .bias = w->out_bias, .y = out }));
	return kernels_gated_add(t->k, out, gate, stream);
}

/* chunks: shift, scale, gate of the feed-forward. */
static enum status run_ffn(struct sd3_transformer *t, const struct ffn_weights *w, const float *chunks,
	struct tensor operand, struct tensor hidden, struct tensor out, struct tensor stream)
{
	int64_t dim = t->config.dim;

	TRY(modulated_norm(t, stream, chunks, chunks + dim, operand));
	TRY(kernels_linear(t->k, &(struct linear){ .x = operand,
					 .w = w->up,
					 .bias = w->up_bias,
					 .activation = ACTIVATION_GELU_TANH,
					 .y = hidden }));
	TRY(kernels_linear(t->k, &(struct linear){ .x = hidden, .w = w->down, .bias = w->down_bias, .y = out }));
	return kernels_gated_add(t->k, out, chunks + 2 * dim, stream);
}

/* The second attention of a dual block, of the picture with itself; chunks: shift, scale, gate. */
static enum status run_second(
	struct sd3_transformer *t, const struct attention_weights *w, const struct buffers *b, const float *chunks)
{
	struct tensor q = picture_rows(b, b->q), k = picture_rows(b, b->k), v = picture_rows(b, b->v);
	struct tensor attended = picture_rows(b, b->attended);

	TRY(project(t, w, b->second, q, k, v));
	TRY(attend(t, q, k, v, attended));
	return add_attended(
		t, w, chunks + 2 * t->config.dim, attended, picture_rows(b, b->out), picture_rows(b, b->stream));
}

/* One block, in place.  picture and text: the modulation of this noise level. */
static enum status run_block(struct sd3_transformer *t, const struct block *l, const struct buffers *b,
	const float *picture, const float *text)
{
	const int64_t dim = t->config.dim;
	const bool dual = l->picture.slot.count == 9, last = l->text.slot.count == 2;
	const float *text_shift = last ? text + dim : text, *text_scale = last ? text : text + dim;
	struct tensor stream = picture_rows(b, b->stream), text_stream = text_rows(b, b->stream);
	struct tensor operand = picture_rows(b, b->operand), text_operand = text_rows(b, b->operand);
	struct tensor q = last ? picture_rows(b, b->q) : b->q,
		      attended = last ? picture_rows(b, b->attended) : b->attended;

	TRY(modulated_norm(t, stream, picture, picture + dim, operand));
	if (dual)
		TRY(modulated_norm(t, stream, picture + 6 * dim, picture + 7 * dim, b->second));
	TRY(modulated_norm(t, text_stream, text_shift, text_scale, text_operand));
	TRY(project(t, &l->picture.attention, operand, picture_rows(b, b->q), picture_rows(b, b->k),
		picture_rows(b, b->v)));
	TRY(project(t, &l->text.attention, text_operand, text_rows(b, b->q), text_rows(b, b->k), text_rows(b, b->v)));
	TRY(attend(t, q, b->k, b->v, attended));

	TRY(add_attended(t, &l->picture.attention, picture + 2 * dim, picture_rows(b, attended),
		picture_rows(b, b->out), stream));
	if (!last)
		TRY(add_attended(t, &l->text.attention, text + 2 * dim, text_rows(b, attended), text_rows(b, b->out),
			text_stream));
	if (dual)
		TRY(run_second(t, &l->second, b, picture + 6 * dim));
	TRY(run_ffn(t, &l->picture.ffn, picture + 3 * dim, operand, picture_rows(b, b->hidden), picture_rows(b, b->out),
		stream));
	if (!last)
		TRY(run_ffn(t, &l->text.ffn, text + 3 * dim, text_operand, text_rows(b, b->hidden),
			text_rows(b, b->out), text_stream));
	return STATUS_OK;
}

/* ---- prediction -------------------------------------------------------------------------------------------------- */

/* A prediction; also what it depends on, byte by byte, so the fields leave no gaps. */
struct prediction {
	struct sd3_transformer *t;
	struct arena *arena;
	size_t mark;
	bool skip[SD3_LAYERS_MAX];
	struct tensor text, row, positions, latents, out;
};

static enum status embed_picture(
	struct sd3_transformer *t, struct arena *arena, const struct prediction *p, struct tensor stream)
{
	struct tensor patches;

	TRY(arena_take(arena, kernels_dtype(t->k), 2,
		(int64_t[]){ stream.dim[0], SD3_PATCH * SD3_PATCH * t->config.channels }, &patches));
	TRY(kernels_patchify(t->k, p->latents, SD3_PATCH, patches));
	TRY(kernels_unary(t->k, UNARY_COPY, p->positions, stream));
	return kernels_linear(t->k, &(struct linear){ .x = patches,
					    .w = t->ends.patch,
					    .bias = t->ends.patch_bias,
					    .accumulate = true,
					    .y = stream });
}

static enum status run_final(
	struct sd3_transformer *t, struct arena *arena, const struct buffers *b, const float *chunks, struct tensor out)
{
	struct tensor patches, operand = picture_rows(b, b->operand);

	TRY(arena_take(
		arena, DTYPE_F32, 2, (int64_t[]){ b->picture, SD3_PATCH * SD3_PATCH * t->config.channels }, &patches));
	TRY(modulated_norm(t, picture_rows(b, b->stream), chunks + t->config.dim, chunks, operand));
	TRY(kernels_linear(
		t->k, &(struct linear){ .x = operand, .w = t->ends.out, .bias = t->ends.out_bias, .y = patches }));
	return kernels_unpatchify(t->k, patches, SD3_PATCH, 1, out);
}

/* What a block is modulated with at this step. */
static const float *chunks_of(const struct prediction *p, struct slot s)
{
	return (const float *)p->row.data + s.first * p->t->config.dim;
}

static enum status predict(const struct prediction *p)
{
	struct sd3_transformer *t = p->t;
	struct buffers b;

	TRY(take_buffers(t, p->arena, p->positions.dim[0], p->text.dim[0], &b));
	TRY(embed_picture(t, p->arena, p, picture_rows(&b, b.stream)));
	TRY(kernels_unary(t->k, UNARY_COPY, p->text, text_rows(&b, b.stream)));
	for (int64_t i = 0; i < t->config.layers; i++) {
		const struct block *l = &t->blocks[i];

		if (!p->skip[i])
			TRY(run_block(t, l, &b, chunks_of(p, l->picture.slot), chunks_of(p, l->text.slot)));
	}
	return run_final(t, p->arena, &b, chunks_of(p, t->final), p->out);
}

static enum status run_prediction(void *context)
{
	const struct prediction *p = context;
	enum status status = predict(p);

	arena_release(p->arena, p->mark);
	return status;
}

enum status sd3_transformer_predict(struct sd3_transformer *t, struct arena *arena, const struct sd3_condition *c,
	struct tensor latents, struct tensor out)
{
	struct prediction p = { .t = t,
		.arena = arena,
		.mark = arena_mark(arena),
		.text = c->prompt->rows,
		.row = c->modulation->row,
		.positions = c->positions,
		.latents = latents,
		.out = out };

	if (c->skip)
		memcpy(p.skip, c->skip, (size_t)t->config.layers * sizeof *p.skip);
	TRY(kernels_unary(t->k, UNARY_COPY, tensor_slice(c->modulation->values, 0, c->row, 1), p.row));
	return kernels_repeat(t->k, run_prediction, &p, &p, sizeof p);
}

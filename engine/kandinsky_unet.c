/* kandinsky_unet: see kandinsky_unet.h. */
#include "engine/kandinsky_unet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conv_blocks.h"
#include "engine/json.h"
#include "engine/time_embedding.h"

static const float ATTENTION_EPS = 1e-5f; /* of its group norm, in no configuration */

struct attention_layer {
	struct weight *norm, *norm_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
	struct weight *image_k, *image_k_bias, *image_v, *image_v_bias;
};

struct ends {
	struct time_embedding time;
	struct weight *image_time, *image_time_bias, *image_time_norm, *image_time_norm_bias;
	struct weight *image_rows, *image_rows_bias, *image_rows_norm, *image_rows_norm_bias;
	struct conv_norm norm;
	struct weight *conv_in, *conv_in_bias, *conv_out, *conv_out_bias;
};

enum { D_ONE, D_OUT, D_FIRST, D_TIME, D_CROSS, D_ROWS, D_IMAGE, D_LATENT, D_PREDICTION, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define MATRIX(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_LINEAR, name, rows, columns)
#define BLOCK(type, member, name, rows, columns) LOAD_ONE(type, member, LOAD_BLOCK, name, rows, columns)

static const struct load_entry attention_table[] = {
	VECTOR(attention_layer, norm, "group_norm.weight", D_OUT),
	VECTOR(attention_layer, norm_bias, "group_norm.bias", D_OUT),
	BLOCK(attention_layer, q, "to_q.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, q_bias, "to_q.bias", D_OUT),
	BLOCK(attention_layer, k, "to_k.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, k_bias, "to_k.bias", D_OUT),
	BLOCK(attention_layer, v, "to_v.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, v_bias, "to_v.bias", D_OUT),
	BLOCK(attention_layer, image_k, "add_k_proj.weight", D_OUT, D_CROSS),
	VECTOR(attention_layer, image_k_bias, "add_k_proj.bias", D_OUT),
	BLOCK(attention_layer, image_v, "add_v_proj.weight", D_OUT, D_CROSS),
	VECTOR(attention_layer, image_v_bias, "add_v_proj.bias", D_OUT),
	BLOCK(attention_layer, out, "to_out.0.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, out_bias, "to_out.0.bias", D_OUT),
};

static const struct load_entry ends_table[] = {
	TIME_EMBEDDING_ENTRIES(ends, time, "time_embedding.", D_FIRST, D_TIME, D_TIME, D_ONE),
	MATRIX(ends, image_time, "add_embedding.image_proj.weight", D_TIME, D_IMAGE),
	VECTOR(ends, image_time_bias, "add_embedding.image_proj.bias", D_TIME),
	VECTOR(ends, image_time_norm, "add_embedding.image_norm.weight", D_TIME),
	VECTOR(ends, image_time_norm_bias, "add_embedding.image_norm.bias", D_TIME),
	MATRIX(ends, image_rows, "encoder_hid_proj.image_embeds.weight", D_ROWS, D_IMAGE),
	VECTOR(ends, image_rows_bias, "encoder_hid_proj.image_embeds.bias", D_ROWS),
	VECTOR(ends, image_rows_norm, "encoder_hid_proj.norm.weight", D_CROSS),
	VECTOR(ends, image_rows_norm_bias, "encoder_hid_proj.norm.bias", D_CROSS),
	LOAD_ONE(ends, conv_in, LOAD_CONV_3, "conv_in.weight", D_FIRST, D_LATENT),
	VECTOR(ends, conv_in_bias, "conv_in.bias", D_FIRST),
	VECTOR(ends, norm.weight, "conv_norm_out.weight", D_FIRST),
	VECTOR(ends, norm.bias, "conv_norm_out.bias", D_FIRST),
	LOAD_ONE(ends, conv_out, LOAD_CONV_3, "conv_out.weight", D_PREDICTION, D_FIRST),
	VECTOR(ends, conv_out_bias, "conv_out.bias", D_PREDICTION),
};

/* One level of either half: resnets, an attention after each of them in some, and a resnet that changes the size. */
struct level {
	struct residual *resnets;
	struct attention_layer *attentions; /* NULL: none */
	struct residual resize;
	int64_t n;
	bool has_resize;
};

struct kandinsky_unet {
	struct kernels *k;
	struct kandinsky_unet_config config;
	struct weights *weights; /* while loading */
	struct ends ends;
	struct level down[KANDINSKY_BLOCKS_MAX], up[KANDINSKY_BLOCKS_MAX];
	struct residual mid[2];
	struct attention_layer mid_attention;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_types(const json_t *object, const char *path, const char *key, const char *plain,
	const char *attention, int n, bool *out)
{
	const json_t *types = json_object_get(object, key), *type;
	size_t i;

	if (json_array_size(types) != (size_t)n)
		return status_fail(STATUS_CORRUPT, "%s: %s must have as many entries as block_out_channels", path, key);
	json_array_foreach (types, i, type) {
		const char *name = json_string_value(type);

		if (!name || (strcmp(name, plain) != 0 && strcmp(name, attention) != 0))
			return status_fail(
				STATUS_UNSUPPORTED, "%s: %s may only be %s and %s", path, key, plain, attention);
		out[i] = strcmp(name, attention) == 0;
	}
	return STATUS_OK;
}

/* Settings of UNet2DConditionModel of which only one value is computed here; NULL: missing or null is right. */
static const struct {
	const char *key, *value;
} fixed_settings[] = {
	{ "act_fn", "silu" },
	{ "addition_embed_type", "image" },
	{ "encoder_hid_dim_type", "image_proj" },
	{ "mid_block_type", "UNetMidBlock2DSimpleCrossAttn" },
	{ "resnet_time_scale_shift", "scale_shift" },
	{ "time_embedding_type", "positional" },
	{ "class_embed_type", NULL },
	{ "cross_attention_norm", NULL },
	{ "time_embedding_act_fn", NULL },
	{ "timestep_post_act", NULL },
};

static enum status check_variant(const json_t *object, const char *path)
{
	static const char *const off[] = { "center_input_sample", "only_cross_attention", "resnet_skip_time_act",
		"time_cond_proj_dim", "time_embedding_dim" };

	for (size_t i = 0; i < sizeof fixed_settings / sizeof fixed_settings[0]; i++) {
		const char *key = fixed_settings[i].key, *wanted = fixed_settings[i].value, *value = wanted;

		TRY(json_get_string(object, path, key, &value));
		if (value != wanted && (!wanted || strcmp(value, wanted) != 0))
			return status_fail(STATUS_UNSUPPORTED, "%s: %s %.40s is not supported", path, key, value);
	}
	for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
		const json_t *value = json_object_get(object, off[i]);

		if (value && !json_is_null(value) && !json_is_false(value))
			return status_fail(STATUS_UNSUPPORTED, "%s: %s is not supported", path, off[i]);
	}
	return STATUS_OK;
}

static enum status check_sizes(const char *path, const struct kandinsky_unet_config *c)
{
	if (c->channels[0] % 2)
		return status_fail(STATUS_CORRUPT, "%s: block_out_channels begins with an odd number", path);
	for (int i = 0; i < c->n_blocks; i++)
		if (c->channels[i] % c->groups != 0 || c->channels[i] % c->head_dim != 0)
			return status_fail(STATUS_CORRUPT,
				"%s: norm_num_groups %lld or attention_head_dim %lld does not divide %lld of "
				"block_out_channels",
				path, (long long)c->groups, (long long)c->head_dim, (long long)c->channels[i]);
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct kandinsky_unet_config *c = out;

	TRY(json_need_ints(
		object, path, "block_out_channels", 1, 1 << 14, KANDINSKY_BLOCKS_MAX, c->channels, &c->n_blocks));
	TRY(check_variant(object, path));
	TRY(read_types(object, path, "down_block_types", "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D",
		c->n_blocks, c->attention_down));
	TRY(read_types(object, path, "up_block_types", "ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D", c->n_blocks,
		c->attention_up));
	TRY(json_need_int(object, path, "in_channels", 1, 1024, &c->in));
	TRY(json_need_int(object, path, "out_channels", 1, 1024, &c->out));
	TRY(json_need_int(object, path, "layers_per_block", 1, 16, &c->layers));
	TRY(json_need_int(object, path, "cross_attention_dim", 1, 1 << 14, &c->cross_dim));
	TRY(json_need_int(object, path, "encoder_hid_dim", 1, 1 << 14, &c->image_dim));
	TRY(json_need_int(object, path, "attention_head_dim", 1, 1024, &c->head_dim));
	c->groups = 32;
	TRY(json_get_int(object, path, "norm_num_groups", 1, 1 << 14, &c->groups));
	c->eps = 1e-5;
	TRY(json_get_number(object, path, "norm_eps", 0, 1, &c->eps));
	return check_sizes(path, c);
}

enum status kandinsky_unet_config_read(const char *path, struct kandinsky_unet_config *out)
{
	struct kandinsky_unet_config c = { 0 };

	TRY(json_read_with(path, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum status load_part(
	struct kandinsky_unet *u, const char *prefix, const struct load_entry *table, int n, int64_t out, void *base)
{
	const struct kandinsky_unet_config *c = &u->config;
	const int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_OUT] = out,
		[D_FIRST] = c->channels[0],
		[D_TIME] = 4 * c->channels[0],
		[D_CROSS] = c->cross_dim,
		[D_ROWS] = KANDINSKY_IMAGE_ROWS * c->cross_dim,
		[D_IMAGE] = c->image_dim,
		[D_LATENT] = c->in,
		[D_PREDICTION] = c->out };
	const struct loader loader = { u->k, u->weights, dims };

	return load_table(&loader, prefix, table, n, base);
}

/* The time embedding is scale and shift of the second norm. */
static enum status load_resnet(
	struct kandinsky_unet *u, const char *prefix, int64_t in, int64_t out, struct residual *r)
{
	return residual_load(u->k, u->weights, prefix,
		&(struct conv_shape){ .in = in, .out = out, .time = 4 * u->config.channels[0], .time_rows = 2 * out },
		r);
}

static enum status load_attention(
	struct kandinsky_unet *u, const char *prefix, int64_t width, struct attention_layer *a)
{
	return load_part(u, prefix, attention_table, LOAD_COUNT(attention_table), width, a);
}

static enum status level_new(struct level *l, int64_t n, bool attention)
{
	l->n = n;
	l->resnets = calloc((size_t)n, sizeof *l->resnets);
	l->attentions = attention ? calloc((size_t)n, sizeof *l->attentions) : NULL;
	return l->resnets && (l->attentions || !attention) ? STATUS_OK
							   : status_fail(STATUS_NO_MEMORY, "no memory for a UNet");
}

static enum status load_down(struct kandinsky_unet *u, int i)
{
	const struct kandinsky_unet_config *c = &u->config;
	const int64_t out = c->channels[i], in = i ? c->channels[i - 1] : out;
	struct level *l = &u->down[i];
	char prefix[64];

	TRY(level_new(l, c->layers, c->attention_down[i]));
	for (int64_t j = 0; j < l->n; j++) {
		snprintf(prefix, sizeof prefix, "down_blocks.%d.resnets.%lld.", i, (long long)j);
		TRY(load_resnet(u, prefix, j ? out : in, out, &l->resnets[j]));
		snprintf(prefix, sizeof prefix, "down_blocks.%d.attentions.%lld.", i, (long long)j);
		if (l->attentions)
			TRY(load_attention(u, prefix, out, &l->attentions[j]));
	}
	l->has_resize = i < c->n_blocks - 1;
	snprintf(prefix, sizeof prefix, "down_blocks.%d.downsamplers.0.", i);
	return l->has_resize ? load_resnet(u, prefix, out, out, &l->resize) : STATUS_OK;
}

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Block i of the upper half mirrors block n - 1 - i of the lower one: its last resnet joins that block's input. */
static enum status load_up(struct kandinsky_unet *u, int i)
{
	const struct kandinsky_unet_config *c = &u->config;
	const int last = c->n_blocks - 1, mirror = last - i;
	const int64_t out = c->channels[mirror], before = c->channels[smaller(mirror + 1, last)];
	const int64_t joined = c->channels[mirror ? mirror - 1 : 0];
	struct level *l = &u->up[i];
	char prefix[64];

	TRY(level_new(l, c->layers + 1, c->attention_up[i]));
	for (int64_t j = 0; j < l->n; j++) {
		snprintf(prefix, sizeof prefix, "up_blocks.%d.resnets.%lld.", i, (long long)j);
		TRY(load_resnet(u, prefix, (j ? out : before) + (j == l->n - 1 ? joined : out), out, &l->resnets[j]));
		snprintf(prefix, sizeof prefix, "up_blocks.%d.attentions.%lld.", i, (long long)j);
		if (l->attentions)
			TRY(load_attention(u, prefix, out, &l->attentions[j]));
	}
	l->has_resize = i < last;
	snprintf(prefix, sizeof prefix, "up_blocks.%d.upsamplers.0.", i);
	return l->has_resize ? load_resnet(u, prefix, out, out, &l->resize) : STATUS_OK;
}

static enum status load(struct kandinsky_unet *u, const struct component *from)
{
	int64_t width;

	TRY(kandinsky_unet_config_read(from->config, &u->config));
	TRY(weights_open_component(from, &u->weights));
	width = u->config.channels[u->config.n_blocks - 1];
	TRY(load_part(u, "", ends_table, LOAD_COUNT(ends_table), 0, &u->ends));
	for (int i = 0; i < u->config.n_blocks; i++) {
		TRY(load_down(u, i));
		TRY(load_up(u, i));
	}
	TRY(load_resnet(u, "mid_block.resnets.0.", width, width, &u->mid[0]));
	TRY(load_attention(u, "mid_block.attentions.0.", width, &u->mid_attention));
	TRY(load_resnet(u, "mid_block.resnets.1.", width, width, &u->mid[1]));
	return weights_check_read(u->weights, NULL);
}

enum status kandinsky_unet_open(struct kernels *k, const struct component *c, struct kandinsky_unet **out)
{
	struct kandinsky_unet *u = calloc(1, sizeof *u);
	enum status status;

	if (!u)
		return status_fail(STATUS_NO_MEMORY, "no memory for a UNet");
	u->k = k;
	status = load(u, c);
	weights_close(u->weights);
	u->weights = NULL;
	if (status != STATUS_OK) {
		kandinsky_unet_close(u);
		return status;
	}
	*out = u;
	return STATUS_OK;
}

static void free_level(struct kandinsky_unet *u, struct level *l)
{
	for (int64_t i = 0; i < l->n; i++) {
		if (l->resnets)
			residual_free(u->k, &l->resnets[i]);
		if (l->attentions)
			load_free(u->k, attention_table, LOAD_COUNT(attention_table), &l->attentions[i]);
	}
	residual_free(u->k, &l->resize);
	free(l->resnets);
	free(l->attentions);
}

void kandinsky_unet_close(struct kandinsky_unet *u)
{
	if (!u)
		return;
	load_free(u->k, ends_table, LOAD_COUNT(ends_table), &u->ends);
	for (int i = 0; i < KANDINSKY_BLOCKS_MAX; i++) {
		free_level(u, &u->down[i]);
		free_level(u, &u->up[i]);
	}
	residual_free(u->k, &u->mid[0]);
	residual_free(u->k, &u->mid[1]);
	load_free(u->k, attention_table, LOAD_COUNT(attention_table), &u->mid_attention);
	free(u);
}

/* ---- the image embedding ----------------------------------------------------------------------------------------- */

enum status kandinsky_unet_image(
	struct kandinsky_unet *u, struct arena *arena, struct tensor embedding, struct kandinsky_image *out)
{
	const struct kandinsky_unet_config *c = &u->config;
	const struct ends *e = &u->ends;
	const int64_t dim[2] = { KANDINSKY_IMAGE_ROWS, c->cross_dim };
	struct tensor operand, rows;
	size_t mark;

	TRY(arena_take(arena, kernels_dtype(u->k), 2, dim, &out->rows));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, 4 * c->channels[0] }, &out->time));
	mark = arena_mark(arena);
	TRY(arena_take(arena, kernels_dtype(u->k), 2, (int64_t[]){ 1, c->image_dim }, &operand));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, dim[0] * dim[1] }, &rows));
	TRY(kernels_unary(u->k, UNARY_COPY, embedding, operand));
	TRY(kernels_linear(
		u->k, &(struct linear){ .x = operand, .w = e->image_rows, .bias = e->image_rows_bias, .y = rows }));
	TRY(kernels_norm(u->k, &(struct norm){ .x = tensor_view(rows.data, rows.dtype, 2, dim),
				       .weight = e->image_rows_norm,
				       .bias = e->image_rows_norm_bias,
				       .eps = 1e-5f,
				       .y = out->rows }));
	TRY(kernels_linear(u->k,
		&(struct linear){ .x = operand, .w = e->image_time, .bias = e->image_time_bias, .y = out->time }));
	TRY(kernels_norm(u->k, &(struct norm){ .x = out->time,
				       .weight = e->image_time_norm,
				       .bias = e->image_time_norm_bias,
				       .eps = 1e-5f,
				       .y = out->time }));
	arena_release(arena, mark);
	return STATUS_OK;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

enum { SKIPS_MAX = KANDINSKY_BLOCKS_MAX * 17 + 1 };

struct pass {
	struct kandinsky_unet *u;
	const struct kandinsky_image *image;
	struct conv_pass conv;
	struct tensor skips[SKIPS_MAX]; /* F32 pictures of the lower half, last in first out */
	int n_skips;
};

/* The result is a picture of its own: x may be wanted again by the upper half. */
static enum status run_resnet(
	const struct pass *p, const struct residual *r, enum conv_resize resize, struct tensor *stream)
{
	const struct conv_pass *c = &p->conv;
	struct tensor x = *stream, y;
	size_t mark;

	if (resize != RESIZE_NONE) {
		TRY(conv_resized(c, resize, x, &y));
	} else {
		TRY(conv_take(c, DTYPE_F32, x, r->out, &y));
		TRY(residual_start(c, r, x, y));
	}
	mark = arena_mark(c->arena);
	TRY(residual_add(c, r, resize, x, y));
	arena_release(c->arena, mark);
	*stream = y;
	return STATUS_OK;
}

static struct tensor heads_view(const struct pass *p, struct tensor x)
{
	const int64_t head_dim = p->u->config.head_dim;

	return tensor_view(x.data, x.dtype, 3, (int64_t[]){ x.dim[0], x.dim[1] / head_dim, head_dim });
}

static enum status linear(
	const struct pass *p, struct tensor x, const struct weight *w, const struct weight *bias, struct tensor y)
{
	return kernels_linear(p->u->k, &(struct linear){ .x = x, .w = w, .bias = bias, .y = y });
}

/* [32 + places, channels]: what the image rows give, then what the picture gives. */
static enum status joined(const struct pass *p, struct tensor normed, const struct weight *image_w,
	const struct weight *image_bias, const struct weight *w, const struct weight *bias, struct tensor *out)
{
	const int64_t n = normed.dim[0];

	TRY(arena_take(
		p->conv.arena, kernels_dtype(p->u->k), 2, (int64_t[]){ KANDINSKY_IMAGE_ROWS + n, normed.dim[1] }, out));
	TRY(linear(p, p->image->rows, image_w, image_bias, tensor_slice(*out, 0, 0, KANDINSKY_IMAGE_ROWS)));
	return linear(p, normed, w, bias, tensor_slice(*out, 0, KANDINSKY_IMAGE_ROWS, n));
}

/* x += out(attention(norm(x))) */
static enum status run_attention(const struct pass *p, const struct attention_layer *a, struct tensor picture)
{
	struct kernels *k = p->u->k;
	struct tensor x = conv_places(picture), normed, q, keys, values, heads;
	size_t mark = arena_mark(p->conv.arena);

	TRY(conv_take(&p->conv, kernels_dtype(k), picture, x.dim[1], &normed));
	TRY(kernels_group_norm(k, &(struct group_norm){ .x = picture,
					  .groups = p->conv.groups,
					  .weight = a->norm,
					  .bias = a->norm_bias,
					  .eps = ATTENTION_EPS,
					  .y = normed }));
	normed = conv_places(normed);
	TRY(arena_take(p->conv.arena, kernels_dtype(k), 2, x.dim, &q));
	TRY(arena_take(p->conv.arena, kernels_dtype(k), 2, x.dim, &heads));
	TRY(linear(p, normed, a->q, a->q_bias, q));
	TRY(joined(p, normed, a->image_k, a->image_k_bias, a->k, a->k_bias, &keys));
	TRY(joined(p, normed, a->image_v, a->image_v_bias, a->v, a->v_bias, &values));
	TRY(kernels_attention(k, &(struct attention){ .q = heads_view(p, q),
					 .k = heads_view(p, keys),
					 .v = heads_view(p, values),
					 .scale = 1 / sqrtf((float)p->u->config.head_dim),
					 .out = heads_view(p, heads) }));
	TRY(kernels_linear(
		k, &(struct linear){ .x = heads, .w = a->out, .bias = a->out_bias, .accumulate = true, .y = x }));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

static enum status run_down(struct pass *p, const struct level *l, struct tensor *stream)
{
	for (int64_t i = 0; i < l->n; i++) {
		TRY(run_resnet(p, &l->resnets[i], RESIZE_NONE, stream));
		if (l->attentions)
			TRY(run_attention(p, &l->attentions[i], *stream));
		p->skips[p->n_skips++] = *stream;
	}
	if (l->has_resize) {
		TRY(run_resnet(p, &l->resize, RESIZE_HALVE, stream));
		p->skips[p->n_skips++] = *stream;
	}
	return STATUS_OK;
}

/* The stream's channels, then those of the last skip. */
static enum status join_skip(struct pass *p, struct tensor *stream)
{
	struct tensor x = *stream, skip = p->skips[--p->n_skips], y;
	const int64_t own = x.dim[2], other = skip.dim[2];

	TRY(conv_take(&p->conv, DTYPE_F32, x, own + other, &y));
	TRY(kernels_unary(p->u->k, UNARY_COPY, conv_places(x), tensor_slice(conv_places(y), 1, 0, own)));
	TRY(kernels_unary(p->u->k, UNARY_COPY, conv_places(skip), tensor_slice(conv_places(y), 1, own, other)));
	*stream = y;
	return STATUS_OK;
}

static enum status run_up(struct pass *p, const struct level *l, struct tensor *stream)
{
	for (int64_t i = 0; i < l->n; i++) {
		TRY(join_skip(p, stream));
		TRY(run_resnet(p, &l->resnets[i], RESIZE_NONE, stream));
		if (l->attentions)
			TRY(run_attention(p, &l->attentions[i], *stream));
	}
	return l->has_resize ? run_resnet(p, &l->resize, RESIZE_DOUBLE, stream) : STATUS_OK;
}

static enum status embed_time(struct kandinsky_unet *u, struct arena *arena, const struct kandinsky_image *image,
	float timestep, struct tensor *out)
{
	const int64_t first = u->config.channels[0], dim[2] = { 1, 4 * first };
	struct tensor sum;

	TRY(arena_take(arena, kernels_dtype(u->k), 2, dim, out));
	TRY(arena_take(arena, DTYPE_F32, 2, dim, &sum));
	TRY(time_embedding_run(u->k, arena, &u->ends.time, first, dim[1], timestep, sum));
	TRY(kernels_unary(u->k, UNARY_ADD, image->time, sum));
	return kernels_unary(u->k, UNARY_SILU, sum, *out);
}

static enum status run_start(struct pass *p, struct tensor latents, struct tensor *stream)
{
	struct kandinsky_unet *u = p->u;
	struct tensor operand;

	TRY(arena_take(p->conv.arena, kernels_dtype(u->k), 3,
		(int64_t[]){ latents.dim[1], latents.dim[2], latents.dim[0] }, &operand));
	TRY(conv_take(&p->conv, DTYPE_F32, operand, u->config.channels[0], stream));
	TRY(kernels_to_nhwc(u->k, latents, 1, 0, operand));
	TRY(kernels_conv(u->k,
		&(struct conv){ .x = operand, .w = u->ends.conv_in, .bias = u->ends.conv_in_bias, .y = *stream }));
	p->skips[p->n_skips++] = *stream;
	return STATUS_OK;
}

static enum status run_end(const struct pass *p, struct tensor stream, struct tensor out)
{
	struct kandinsky_unet *u = p->u;
	struct tensor normed, y;

	TRY(conv_take(&p->conv, kernels_dtype(u->k), stream, stream.dim[2], &normed));
	TRY(conv_take(&p->conv, DTYPE_F32, stream, u->config.out, &y));
	TRY(conv_group_norm(&p->conv, &u->ends.norm, true, stream, normed));
	TRY(kernels_conv(
		u->k, &(struct conv){ .x = normed, .w = u->ends.conv_out, .bias = u->ends.conv_out_bias, .y = y }));
	return kernels_unpatchify(u->k, conv_places(y), 1, 1, out);
}

static enum status predict(struct pass *p, struct tensor latents, struct tensor out)
{
	struct kandinsky_unet *u = p->u;
	struct tensor stream;

	TRY(run_start(p, latents, &stream));
	for (int i = 0; i < u->config.n_blocks; i++)
		TRY(run_down(p, &u->down[i], &stream));
	TRY(run_resnet(p, &u->mid[0], RESIZE_NONE, &stream));
	TRY(run_attention(p, &u->mid_attention, stream));
	TRY(run_resnet(p, &u->mid[1], RESIZE_NONE, &stream));
	for (int i = 0; i < u->config.n_blocks; i++)
		TRY(run_up(p, &u->up[i], &stream));
	return run_end(p, stream, out);
}

/* A prediction; also what it depends on, byte by byte, so the fields leave no gaps. */
struct prediction {
	struct kandinsky_unet *u;
	struct arena *arena;
	size_t mark;
	struct kandinsky_image image;
	struct tensor time, latents, out;
};

static enum status run_prediction(void *context)
{
	const struct prediction *r = context;
	struct pass p = { .u = r->u,
		.image = &r->image,
		.conv = { .k = r->u->k,
			.arena = r->arena,
			.groups = (int)r->u->config.groups,
			.eps = (float)r->u->config.eps,
			.time = r->time } };
	enum status status = predict(&p, r->latents, r->out);

	arena_release(r->arena, r->mark);
	return status;
}

enum status kandinsky_unet_predict(struct kandinsky_unet *u, struct arena *arena, const struct kandinsky_image *image,
	float timestep, struct tensor latents, struct tensor out)
{
	struct prediction p = { .u = u, .arena = arena, .image = *image, .latents = latents, .out = out };
	size_t mark = arena_mark(arena);
	enum status status = embed_time(u, arena, image, timestep, &p.time);

	p.mark = arena_mark(arena);
	if (status == STATUS_OK)
		status = kernels_repeat(u->k, run_prediction, &p, &p, sizeof p);
	arena_release(arena, mark);
	return status;
}

/* autoencoder: the decoder half of AutoencoderKL.
 *
 *     latents -> conv_in -> resnet -> attention -> resnet -> n_blocks x (resnets, twice the size) -> norm -> conv_out
 *
 * A resnet that changes the number of channels leaves its input on the arena's stack until the decode ends: the sum of
 * all streams is at most about a third more than the largest one.
 */
#include "engine/autoencoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"

static const float NORM_EPS = 1e-6f; /* fixed in the reference, in no configuration */

struct resnet {
	struct weight *norm1_weight, *norm1_bias, *conv1, *conv1_bias;
	struct weight *norm2_weight, *norm2_bias, *conv2, *conv2_bias;
	struct weight *shortcut, *shortcut_bias; /* where the number of channels changes */
	int64_t in, out;
};

struct mid_attention {
	struct weight *norm_weight, *norm_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
};

struct upsampler {
	struct weight *conv, *conv_bias;
};

struct ends {
	struct weight *conv_in, *conv_in_bias, *norm_weight, *norm_bias, *conv_out, *conv_out_bias;
};

struct quant {
	struct weight *conv, *conv_bias;
};

enum { D_ONE, D_IN, D_OUT, D_LATENT, D_RGB, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)

static const struct load_entry resnet_table[] = {
	VECTOR(resnet, norm1_weight, "norm1.weight", D_IN),
	VECTOR(resnet, norm1_bias, "norm1.bias", D_IN),
	LOAD_ONE(resnet, conv1, LOAD_CONV_3, "conv1.weight", D_OUT, D_IN),
	VECTOR(resnet, conv1_bias, "conv1.bias", D_OUT),
	VECTOR(resnet, norm2_weight, "norm2.weight", D_OUT),
	VECTOR(resnet, norm2_bias, "norm2.bias", D_OUT),
	LOAD_ONE(resnet, conv2, LOAD_CONV_3, "conv2.weight", D_OUT, D_OUT),
	VECTOR(resnet, conv2_bias, "conv2.bias", D_OUT),
};

static const struct load_entry shortcut_table[] = {
	LOAD_ONE(resnet, shortcut, LOAD_CONV_1, "conv_shortcut.weight", D_OUT, D_IN),
	VECTOR(resnet, shortcut_bias, "conv_shortcut.bias", D_OUT),
};

#define ATTENTION(q_name, k_name, v_name, out_name)                                                                    \
	{                                                                                                              \
		VECTOR(mid_attention, norm_weight, "group_norm.weight", D_OUT),                                        \
			VECTOR(mid_attention, norm_bias, "group_norm.bias", D_OUT),                                    \
			LOAD_ONE(mid_attention, q, LOAD_LINEAR_1X1, q_name ".weight", D_OUT, D_OUT),                   \
			VECTOR(mid_attention, q_bias, q_name ".bias", D_OUT),                                          \
			LOAD_ONE(mid_attention, k, LOAD_LINEAR_1X1, k_name ".weight", D_OUT, D_OUT),                   \
			VECTOR(mid_attention, k_bias, k_name ".bias", D_OUT),                                          \
			LOAD_ONE(mid_attention, v, LOAD_LINEAR_1X1, v_name ".weight", D_OUT, D_OUT),                   \
			VECTOR(mid_attention, v_bias, v_name ".bias", D_OUT),                                          \
			LOAD_ONE(mid_attention, out, LOAD_LINEAR_1X1, out_name ".weight", D_OUT, D_OUT),               \
			VECTOR(mid_attention, out_bias, out_name ".bias", D_OUT),                                      \
	}

static const struct load_entry attention_table[] = ATTENTION("to_q", "to_k", "to_v", "to_out.0");
/* the spelling of files from before diffusers 0.17 */
static const struct load_entry old_attention_table[] = ATTENTION("query", "key", "value", "proj_attn");

static const struct load_entry upsampler_table[] = {
	LOAD_ONE(upsampler, conv, LOAD_CONV_3, "conv.weight", D_OUT, D_OUT),
	VECTOR(upsampler, conv_bias, "conv.bias", D_OUT),
};

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, conv_in, LOAD_CONV_3, "decoder.conv_in.weight", D_IN, D_LATENT),
	VECTOR(ends, conv_in_bias, "decoder.conv_in.bias", D_IN),
	VECTOR(ends, norm_weight, "decoder.conv_norm_out.weight", D_OUT),
	VECTOR(ends, norm_bias, "decoder.conv_norm_out.bias", D_OUT),
	LOAD_ONE(ends, conv_out, LOAD_CONV_3, "decoder.conv_out.weight", D_RGB, D_OUT),
	VECTOR(ends, conv_out_bias, "decoder.conv_out.bias", D_RGB),
};

static const struct load_entry quant_table[] = {
	LOAD_ONE(quant, conv, LOAD_CONV_1, "post_quant_conv.weight", D_LATENT, D_LATENT),
	VECTOR(quant, conv_bias, "post_quant_conv.bias", D_LATENT),
};

struct autoencoder {
	struct kernels *k;
	struct autoencoder_config config;
	struct weights *weights;
	struct ends ends;
	struct quant quant;
	struct resnet mid[2];
	struct mid_attention attention;
	struct resnet *resnets; /* [n_blocks][layers_per_block + 1] */
	struct upsampler upsamplers[AUTOENCODER_BLOCKS_MAX];
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status check_variant(const json_t *object, const char *path, int n_blocks)
{
	const json_t *types = json_object_get(object, "up_block_types"), *type;
	const char *class_name = "AutoencoderKL", *activation = "silu";
	size_t i;

	TRY(json_get_string(object, path, "_class_name", &class_name));
	if (strcmp(class_name, "AutoencoderKL") != 0)
		return status_fail(STATUS_UNSUPPORTED, "%s: autoencoder %s is not supported", path, class_name);
	TRY(json_get_string(object, path, "act_fn", &activation));
	if (strcmp(activation, "silu") != 0)
		return status_fail(STATUS_UNSUPPORTED, "%s: act_fn %s is not supported", path, activation);
	if (types && json_array_size(types) != (size_t)n_blocks)
		return status_fail(
			STATUS_CORRUPT, "%s: up_block_types must have as many entries as block_out_channels", path);
	json_array_foreach (types, i, type)
		if (!json_is_string(type) || strcmp(json_string_value(type), "UpDecoderBlock2D") != 0)
			return status_fail(STATUS_UNSUPPORTED, "%s: up_block_types may only be UpDecoderBlock2D", path);
	return STATUS_OK;
}

/* latents_mean and latents_std: a number for each channel. */
static enum status read_statistic(const json_t *object, const char *path, const char *key, int64_t channels, float *out)
{
	const json_t *list = json_object_get(object, key), *value;
	size_t i;

	if (channels > AUTOENCODER_STATISTICS_MAX || json_array_size(list) != (size_t)channels)
		return status_fail(STATUS_CORRUPT, "%s: %s must be a list of latent_channels numbers, at most %d", path,
			key, AUTOENCODER_STATISTICS_MAX);
	json_array_foreach (list, i, value) {
		if (!json_is_number(value) || !(fabs(json_number_value(value)) < 1e6))
			return status_fail(STATUS_CORRUPT, "%s: %s may only hold numbers below 1e6", path, key);
		out[i] = (float)json_number_value(value);
	}
	return STATUS_OK;
}

static bool given(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return value && !json_is_null(value);
}

/* As the pipelines do: one list without the other counts for nothing. */
static enum status read_statistics(const json_t *object, const char *path, struct autoencoder_config *c)
{
	c->statistics = given(object, "latents_mean") && given(object, "latents_std");
	if (!c->statistics)
		return STATUS_OK;
	TRY(read_statistic(object, path, "latents_mean", c->latent_channels, c->mean));
	return read_statistic(object, path, "latents_std", c->latent_channels, c->std);
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct autoencoder_config *c = out;

	TRY(json_need_ints(
		object, path, "block_out_channels", 1, 1 << 14, AUTOENCODER_BLOCKS_MAX, c->channels, &c->n_blocks));
	TRY(check_variant(object, path, c->n_blocks));
	c->latent_channels = 4;
	TRY(json_get_int(object, path, "latent_channels", 1, 1024, &c->latent_channels));
	c->layers_per_block = 1;
	TRY(json_get_int(object, path, "layers_per_block", 1, 100, &c->layers_per_block));
	c->groups = 32;
	TRY(json_get_int(object, path, "norm_num_groups", 1, 1 << 14, &c->groups));
	c->attention = c->post_quant_conv = true;
	TRY(json_get_bool(object, path, "mid_block_add_attention", &c->attention));
	TRY(json_get_bool(object, path, "use_post_quant_conv", &c->post_quant_conv));
	c->scaling_factor = 0.18215;
	TRY(json_get_number(object, path, "scaling_factor", -1e6, 1e6, &c->scaling_factor));
	TRY(json_get_number(object, path, "shift_factor", -1e6, 1e6, &c->shift_factor));
	TRY(read_statistics(object, path, c));
	c->sample_size = 512;
	TRY(json_get_int(object, path, "sample_size", 1, 1 << 20, &c->sample_size));
	if (fabs(c->scaling_factor) < 1e-6)
		return status_fail(STATUS_CORRUPT, "%s: scaling_factor must not be 0: latents are divided by it", path);
	for (int i = 0; i < c->n_blocks; i++)
		if (c->channels[i] % c->groups != 0)
			return status_fail(STATUS_CORRUPT,
				"%s: norm_num_groups %lld does not divide %lld of block_out_channels", path,
				(long long)c->groups, (long long)c->channels[i]);
	return STATUS_OK;
}

enum status autoencoder_config_read(const struct component *part, struct autoencoder_config *out)
{
	struct autoencoder_config c = { 0 };

	TRY(derive_read_config(part, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum status load_resnet(struct autoencoder *a, const char *prefix, int64_t in, int64_t out, struct resnet *r)
{
	int64_t dims[D_COUNT] = { [D_ONE] = 1, [D_IN] = in, [D_OUT] = out };
	struct loader loader = { a->k, a->weights, dims };

	r->in = in;
	r->out = out;
	TRY(load_table(&loader, prefix, resnet_table, LOAD_COUNT(resnet_table), r));
	if (in != out)
		TRY(load_table(&loader, prefix, shortcut_table, LOAD_COUNT(shortcut_table), r));
	return STATUS_OK;
}

static enum status load_mid(struct autoencoder *a)
{
	int64_t width = a->config.channels[a->config.n_blocks - 1];
	int64_t dims[D_COUNT] = { [D_ONE] = 1, [D_OUT] = width };
	struct loader loader = { a->k, a->weights, dims };
	static const char prefix[] = "decoder.mid_block.attentions.0.";
	bool old = weights_has(a->weights, "decoder.mid_block.attentions.0.query.weight");

	TRY(load_resnet(a, "decoder.mid_block.resnets.0.", width, width, &a->mid[0]));
	TRY(load_resnet(a, "decoder.mid_block.resnets.1.", width, width, &a->mid[1]));
	if (!a->config.attention)
		return STATUS_OK;
	return load_table(&loader, prefix, old ? old_attention_table : attention_table, LOAD_COUNT(attention_table),
		&a->attention);
}

static int64_t resnets_per_block(const struct autoencoder *a)
{
	return a->config.layers_per_block + 1;
}

static enum status load_up_block(struct autoencoder *a, int block)
{
	const struct autoencoder_config *c = &a->config;
	int64_t out = c->channels[c->n_blocks - 1 - block];
	int64_t in = block == 0 ? out : c->channels[c->n_blocks - block];
	int64_t dims[D_COUNT] = { [D_ONE] = 1, [D_OUT] = out };
	struct loader loader = { a->k, a->weights, dims };
	char prefix[64];

	for (int64_t i = 0; i < resnets_per_block(a); i++) {
		snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.resnets.%lld.", block, (long long)i);
		TRY(load_resnet(a, prefix, i == 0 ? in : out, out, &a->resnets[block * resnets_per_block(a) + i]));
	}
	if (block == c->n_blocks - 1)
		return STATUS_OK;
	snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.upsamplers.0.", block);
	return load_table(&loader, prefix, upsampler_table, LOAD_COUNT(upsampler_table), &a->upsamplers[block]);
}

static enum status load_all(struct autoencoder *a, const struct component *from)
{
	const struct autoencoder_config *c = &a->config;
	static const char *const unused[] = { "encoder.", "quant_conv.", "post_quant_conv.", "loss.", NULL };
	int64_t dims[D_COUNT];
	struct loader loader = { a->k, NULL, dims };

	TRY(autoencoder_config_read(from, &a->config));
	TRY(weights_open_component(from, &a->weights));
	loader.weights = a->weights;
	dims[D_ONE] = 1;
	dims[D_IN] = c->channels[c->n_blocks - 1];
	dims[D_OUT] = c->channels[0];
	dims[D_LATENT] = c->latent_channels;
	dims[D_RGB] = 3;
	a->resnets = calloc((size_t)(c->n_blocks * resnets_per_block(a)), sizeof *a->resnets);
	if (!a->resnets)
		return status_fail(STATUS_NO_MEMORY, "no memory for the autoencoder");
	TRY(load_table(&loader, "", ends_table, LOAD_COUNT(ends_table), &a->ends));
	if (c->post_quant_conv)
		TRY(load_table(&loader, "", quant_table, LOAD_COUNT(quant_table), &a->quant));
	TRY(load_mid(a));
	for (int i = 0; i < c->n_blocks; i++)
		TRY(load_up_block(a, i));
	return weights_check_read(a->weights, unused);
}

enum status autoencoder_open(struct kernels *k, const struct component *c, struct autoencoder **out)
{
	struct autoencoder *a = calloc(1, sizeof *a);
	enum status status;

	if (!a)
		return status_fail(STATUS_NO_MEMORY, "no memory for the autoencoder");
	a->k = k;
	status = load_all(a, c);
	weights_close(a->weights); /* everything is packed */
	a->weights = NULL;
	if (status != STATUS_OK) {
		autoencoder_close(a);
		return status;
	}
	*out = a;
	return STATUS_OK;
}

static void free_resnet(struct autoencoder *a, struct resnet *r)
{
	load_free(a->k, resnet_table, LOAD_COUNT(resnet_table), r);
	load_free(a->k, shortcut_table, LOAD_COUNT(shortcut_table), r);
}

void autoencoder_close(struct autoencoder *a)
{
	if (!a)
		return;
	load_free(a->k, ends_table, LOAD_COUNT(ends_table), &a->ends);
	load_free(a->k, quant_table, LOAD_COUNT(quant_table), &a->quant);
	load_free(a->k, attention_table, LOAD_COUNT(attention_table), &a->attention);
	free_resnet(a, &a->mid[0]);
	free_resnet(a, &a->mid[1]);
	for (int64_t i = 0; a->resnets && i < a->config.n_blocks * resnets_per_block(a); i++)
		free_resnet(a, &a->resnets[i]);
	for (int i = 0; i < AUTOENCODER_BLOCKS_MAX; i++)
		load_free(a->k, upsampler_table, LOAD_COUNT(upsampler_table), &a->upsamplers[i]);
	free(a->resnets);
	free(a);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static enum status take_like(
	struct arena *arena, enum dtype dtype, struct tensor t, int64_t channels, struct tensor *out)
{
	return arena_take(arena, dtype, 3, (int64_t[]){ t.dim[0], t.dim[1], channels }, out);
}

/* x as an operand: itself where the stream's dtype is the operands', else a copy. */
static enum status as_operand(struct autoencoder *a, struct arena *arena, struct tensor x, struct tensor *out)
{
	int64_t flat[2] = { x.dim[0] * x.dim[1], x.dim[2] };

	if (kernels_dtype(a->k) == x.dtype) {
		*out = x;
		return STATUS_OK;
	}
	TRY(take_like(arena, kernels_dtype(a->k), x, x.dim[2], out));
	return kernels_unary(
		a->k, UNARY_COPY, tensor_view(x.data, x.dtype, 2, flat), tensor_view(out->data, out->dtype, 2, flat));
}

/* y += conv2(silu(norm2(conv1(silu(norm1(x)))))) where y holds x or its shortcut already. */
static enum status resnet_body(
	struct autoencoder *a, struct arena *arena, const struct resnet *r, struct tensor x, struct tensor y)
{
	enum dtype dtype = kernels_dtype(a->k);
	int groups = (int)a->config.groups;
	struct tensor normed, hidden;

	TRY(take_like(arena, dtype, x, r->in, &normed));
	TRY(take_like(arena, dtype, x, r->out, &hidden));
	TRY(kernels_group_norm(a->k, &(struct group_norm){ .x = x,
					     .groups = groups,
					     .weight = r->norm1_weight,
					     .bias = r->norm1_bias,
					     .eps = NORM_EPS,
					     .silu = true,
					     .y = normed }));
	TRY(kernels_conv(a->k, &(struct conv){ .x = normed, .w = r->conv1, .bias = r->conv1_bias, .y = hidden }));
	TRY(kernels_group_norm(a->k, &(struct group_norm){ .x = hidden,
					     .groups = groups,
					     .weight = r->norm2_weight,
					     .bias = r->norm2_bias,
					     .eps = NORM_EPS,
					     .silu = true,
					     .y = hidden }));
	return kernels_conv(
		a->k, &(struct conv){ .x = hidden, .w = r->conv2, .bias = r->conv2_bias, .accumulate = true, .y = y });
}

static enum status run_resnet(struct autoencoder *a, struct arena *arena, const struct resnet *r, struct tensor *stream)
{
	struct tensor x = *stream, y = x, operand;
	size_t mark;

	if (r->shortcut)
		TRY(take_like(arena, DTYPE_F32, x, r->out, &y));
	mark = arena_mark(arena);
	if (r->shortcut) {
		TRY(as_operand(a, arena, x, &operand));
		TRY(kernels_conv(
			a->k, &(struct conv){ .x = operand, .w = r->shortcut, .bias = r->shortcut_bias, .y = y }));
		arena_release(arena, mark);
		TRY(resnet_body(a, arena, r, x, y));
	} else {
		TRY(resnet_body(a, arena, r, x, y));
	}
	arena_release(arena, mark);
	*stream = y;
	return STATUS_OK;
}

/* x += out(attention(norm(x))), one head as wide as the picture has channels. */
static enum status run_attention(struct autoencoder *a, struct arena *arena, struct tensor stream)
{
	const struct mid_attention *m = &a->attention;
	enum dtype dtype = kernels_dtype(a->k);
	int64_t pixels = stream.dim[0] * stream.dim[1], width = stream.dim[2];
	int64_t flat[2] = { pixels, width }, heads[3] = { pixels, 1, width };
	struct weight *const weight[3] = { m->q, m->k, m->v }, *const bias[3] = { m->q_bias, m->k_bias, m->v_bias };
	struct tensor normed, qkv[3];

	TRY(take_like(arena, dtype, stream, width, &normed));
	TRY(kernels_group_norm(a->k, &(struct group_norm){ .x = stream,
					     .groups = (int)a->config.groups,
					     .weight = m->norm_weight,
					     .bias = m->norm_bias,
					     .eps = NORM_EPS,
					     .y = normed }));
	normed = tensor_view(normed.data, dtype, 2, flat);
	for (int i = 0; i < 3; i++) {
		TRY(arena_take(arena, dtype, 2, flat, &qkv[i]));
		TRY(kernels_linear(
			a->k, &(struct linear){ .x = normed, .w = weight[i], .bias = bias[i], .y = qkv[i] }));
		qkv[i] = tensor_view(qkv[i].data, dtype, 3, heads);
	}
	TRY(kernels_attention(a->k, &(struct attention){ .q = qkv[0],
					    .k = qkv[1],
					    .v = qkv[2],
					    .scale = 1 / sqrtf((float)width),
					    .out = tensor_view(normed.data, dtype, 3, heads) }));
	return kernels_linear(a->k, &(struct linear){ .x = normed,
					    .w = m->out,
					    .bias = m->out_bias,
					    .accumulate = true,
					    .y = tensor_view(stream.data, DTYPE_F32, 2, flat) });
}

static enum status run_upsampler(
	struct autoencoder *a, struct arena *arena, const struct upsampler *u, struct tensor *stream)
{
	struct tensor x = *stream, y, operand;
	size_t mark;

	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ 2 * x.dim[0], 2 * x.dim[1], x.dim[2] }, &y));
	mark = arena_mark(arena);
	TRY(as_operand(a, arena, x, &operand));
	TRY(kernels_conv(
		a->k, &(struct conv){ .x = operand, .w = u->conv, .bias = u->conv_bias, .upsample = true, .y = y }));
	arena_release(arena, mark);
	*stream = y;
	return STATUS_OK;
}

/* A row of the host in device memory, taken from the arena. */
static enum status upload_row(
	struct autoencoder *a, struct arena *arena, const float *values, int64_t n, struct tensor *out)
{
	struct tensor host = tensor_view((void *)(uintptr_t)values, DTYPE_F32, 1, &n);

	TRY(arena_take(arena, DTYPE_F32, 1, &n, out));
	return kernels_upload(a->k, &host, *out);
}

/* x [h, w, channels] = latents * std / scaling_factor + mean */
static enum status apply_statistics(struct autoencoder *a, struct arena *arena, struct tensor latents, struct tensor x)
{
	const struct autoencoder_config *c = &a->config;
	int64_t flat[2] = { x.dim[0] * x.dim[1], x.dim[2] };
	struct tensor mean, std, wide, factors;
	size_t mark = arena_mark(arena);

	TRY(upload_row(a, arena, c->mean, x.dim[2], &mean));
	TRY(upload_row(a, arena, c->std, x.dim[2], &std));
	TRY(arena_take(arena, DTYPE_F32, 3, x.dim, &wide));
	TRY(arena_take(arena, DTYPE_F32, 2, flat, &factors));
	TRY(kernels_to_nhwc(a->k, latents, (float)(1 / c->scaling_factor), 0, wide));
	wide = tensor_view(wide.data, DTYPE_F32, 2, flat);
	TRY(kernels_fill_rows(a->k, std, factors));
	TRY(kernels_multiply(a->k, factors, wide));
	TRY(kernels_add_row(a->k, mean, wide));
	TRY(kernels_unary(a->k, UNARY_COPY, wide, tensor_view(x.data, x.dtype, 2, flat)));
	arena_release(arena, mark);
	return STATUS_OK;
}

/* Latents to the stream that enters the middle block. */
static enum status run_conv_in(struct autoencoder *a, struct arena *arena, struct tensor latents, struct tensor *stream)
{
	const struct autoencoder_config *c = &a->config;
	int64_t height = latents.dim[1], width = latents.dim[2];
	struct tensor x, quantised;

	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ height, width, c->channels[c->n_blocks - 1] }, stream));
	TRY(take_like(arena, kernels_dtype(a->k), *stream, c->latent_channels, &x));
	if (c->statistics)
		TRY(apply_statistics(a, arena, latents, x));
	else
		TRY(kernels_to_nhwc(a->k, latents, (float)(1 / c->scaling_factor), (float)c->shift_factor, x));
	if (c->post_quant_conv) {
		TRY(take_like(arena, kernels_dtype(a->k), *stream, c->latent_channels, &quantised));
		TRY(kernels_conv(a->k,
			&(struct conv){ .x = x, .w = a->quant.conv, .bias = a->quant.conv_bias, .y = quantised }));
		x = quantised;
	}
	return kernels_conv(
		a->k, &(struct conv){ .x = x, .w = a->ends.conv_in, .bias = a->ends.conv_in_bias, .y = *stream });
}

static enum status run_conv_out(struct autoencoder *a, struct arena *arena, struct tensor stream, struct tensor picture)
{
	struct tensor normed;

	TRY(take_like(arena, kernels_dtype(a->k), stream, stream.dim[2], &normed));
	TRY(kernels_group_norm(a->k, &(struct group_norm){ .x = stream,
					     .groups = (int)a->config.groups,
					     .weight = a->ends.norm_weight,
					     .bias = a->ends.norm_bias,
					     .eps = NORM_EPS,
					     .silu = true,
					     .y = normed }));
	return kernels_conv(a->k,
		&(struct conv){ .x = normed, .w = a->ends.conv_out, .bias = a->ends.conv_out_bias, .y = picture });
}

static enum status run_middle(struct autoencoder *a, struct arena *arena, struct tensor *stream)
{
	size_t mark = arena_mark(arena);

	TRY(run_resnet(a, arena, &a->mid[0], stream));
	if (a->config.attention) {
		TRY(run_attention(a, arena, *stream));
		arena_release(arena, mark);
	}
	return run_resnet(a, arena, &a->mid[1], stream);
}

static enum status decode(struct autoencoder *a, struct arena *arena, struct tensor latents, struct tensor picture)
{
	struct tensor stream;

	TRY(run_conv_in(a, arena, latents, &stream));
	TRY(run_middle(a, arena, &stream));
	for (int block = 0; block < a->config.n_blocks; block++) {
		for (int64_t i = 0; i < resnets_per_block(a); i++)
			TRY(run_resnet(a, arena, &a->resnets[block * resnets_per_block(a) + i], &stream));
		if (block < a->config.n_blocks - 1)
			TRY(run_upsampler(a, arena, &a->upsamplers[block], &stream));
	}
	return run_conv_out(a, arena, stream, picture);
}

enum status autoencoder_decode(
	struct autoencoder *a, struct arena *arena, struct tensor latents, struct tensor *picture)
{
	int64_t factor = (int64_t)1 << (a->config.n_blocks - 1);
	struct tensor out;
	enum status status;
	size_t mark;

	if (latents.dim[0] != a->config.latent_channels)
		return status_fail(STATUS_CORRUPT, "the autoencoder decodes %lld channels, the transformer makes %lld",
			(long long)a->config.latent_channels, (long long)latents.dim[0]);
	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ latents.dim[1] * factor, latents.dim[2] * factor, 3 }, &out));
	mark = arena_mark(arena);
	status = decode(a, arena, latents, out);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*picture = out;
	return status;
}

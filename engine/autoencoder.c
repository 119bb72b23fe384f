/* autoencoder: the decoder half of AutoencoderKL.
 *
 *     latents -> conv_in -> resnet -> attention -> resnet -> n_blocks x (resnets, twice the size) -> norm -> conv_out
 *
 * A resnet that changes the number of channels leaves its input on the arena's stack until the decode ends: the sum of
 * all streams is at most about a third more than the largest one.  By bands of rows (conv_bands.h) there are the
 * streams of two levels, and one picture of the last level as operand: a third of that.
 */
#include "engine/autoencoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conv_bands.h"
#include "engine/conv_blocks.h"
#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"

static const float NORM_EPS = 1e-6f; /* fixed in the reference, in no configuration */

struct ends {
	struct conv_norm norm;
	struct weight *conv_in, *conv_in_bias;
	struct conv_sampler out;
};

struct quant {
	struct weight *conv, *conv_bias;
};

enum { D_ONE, D_IN, D_OUT, D_LATENT, D_RGB, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, conv_in, LOAD_CONV_3, "decoder.conv_in.weight", D_IN, D_LATENT),
	VECTOR(ends, conv_in_bias, "decoder.conv_in.bias", D_IN),
	VECTOR(ends, norm.weight, "decoder.conv_norm_out.weight", D_OUT),
	VECTOR(ends, norm.bias, "decoder.conv_norm_out.bias", D_OUT),
	LOAD_ONE(ends, out.conv, LOAD_CONV_3, "decoder.conv_out.weight", D_RGB, D_OUT),
	VECTOR(ends, out.conv_bias, "decoder.conv_out.bias", D_RGB),
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
	struct residual mid[2];
	struct place_attention attention;
	struct residual *resnets; /* [n_blocks][layers_per_block + 1] */
	struct conv_sampler upsamplers[AUTOENCODER_BLOCKS_MAX];
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

static enum status load_resnet(struct autoencoder *a, const char *prefix, int64_t in, int64_t out, struct residual *r)
{
	return residual_load(a->k, a->weights, prefix, &(struct conv_shape){ .in = in, .out = out }, r);
}

static enum status load_mid(struct autoencoder *a)
{
	int64_t width = a->config.channels[a->config.n_blocks - 1];

	TRY(load_resnet(a, "decoder.mid_block.resnets.0.", width, width, &a->mid[0]));
	TRY(load_resnet(a, "decoder.mid_block.resnets.1.", width, width, &a->mid[1]));
	if (!a->config.attention)
		return STATUS_OK;
	return place_attention_load(a->k, a->weights, "decoder.mid_block.attentions.0.",
		&(struct conv_shape){ .in = width, .out = width }, &a->attention);
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
	char prefix[64];

	for (int64_t i = 0; i < resnets_per_block(a); i++) {
		snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.resnets.%lld.", block, (long long)i);
		TRY(load_resnet(a, prefix, i == 0 ? in : out, out, &a->resnets[block * resnets_per_block(a) + i]));
	}
	if (block == c->n_blocks - 1)
		return STATUS_OK;
	snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.upsamplers.0.", block);
	return conv_sampler_load(a->k, a->weights, prefix, out, &a->upsamplers[block]);
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

void autoencoder_close(struct autoencoder *a)
{
	if (!a)
		return;
	load_free(a->k, ends_table, LOAD_COUNT(ends_table), &a->ends);
	load_free(a->k, quant_table, LOAD_COUNT(quant_table), &a->quant);
	place_attention_free(a->k, &a->attention);
	residual_free(a->k, &a->mid[0]);
	residual_free(a->k, &a->mid[1]);
	for (int64_t i = 0; a->resnets && i < a->config.n_blocks * resnets_per_block(a); i++)
		residual_free(a->k, &a->resnets[i]);
	for (int i = 0; i < AUTOENCODER_BLOCKS_MAX; i++)
		conv_sampler_free(a->k, &a->upsamplers[i]);
	free(a->resnets);
	free(a);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

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
static enum status run_conv_in(
	struct autoencoder *a, const struct conv_pass *p, struct tensor latents, struct tensor *stream)
{
	const struct autoencoder_config *c = &a->config;
	int64_t height = latents.dim[1], width = latents.dim[2];
	struct tensor x, quantised;

	TRY(arena_take(p->arena, DTYPE_F32, 3, (int64_t[]){ height, width, c->channels[c->n_blocks - 1] }, stream));
	TRY(conv_take(p, kernels_dtype(a->k), *stream, c->latent_channels, &x));
	if (c->statistics)
		TRY(apply_statistics(a, p->arena, latents, x));
	else
		TRY(kernels_to_nhwc(a->k, latents, (float)(1 / c->scaling_factor), (float)c->shift_factor, x));
	if (c->post_quant_conv) {
		TRY(conv_take(p, kernels_dtype(a->k), *stream, c->latent_channels, &quantised));
		TRY(kernels_conv(a->k,
			&(struct conv){ .x = x, .w = a->quant.conv, .bias = a->quant.conv_bias, .y = quantised }));
		x = quantised;
	}
	return kernels_conv(
		a->k, &(struct conv){ .x = x, .w = a->ends.conv_in, .bias = a->ends.conv_in_bias, .y = *stream });
}

static enum status run_conv_out(
	struct autoencoder *a, const struct conv_pass *p, struct tensor stream, struct tensor picture)
{
	struct tensor normed;

	TRY(conv_take(p, kernels_dtype(a->k), stream, stream.dim[2], &normed));
	TRY(conv_group_norm(p, &a->ends.norm, true, stream, normed));
	return kernels_conv(a->k,
		&(struct conv){ .x = normed, .w = a->ends.out.conv, .bias = a->ends.out.conv_bias, .y = picture });
}

static enum status run_middle(struct autoencoder *a, const struct conv_pass *p, struct tensor *stream)
{
	TRY(residual_run(p, &a->mid[0], stream));
	if (a->config.attention)
		TRY(place_attention_run(p, &a->attention, *stream));
	return residual_run(p, &a->mid[1], stream);
}

static enum status decode(struct autoencoder *a, struct arena *arena, struct tensor latents, struct tensor picture)
{
	const struct conv_pass p = { .k = a->k, .arena = arena, .groups = (int)a->config.groups, .eps = NORM_EPS };
	struct tensor stream;

	TRY(run_conv_in(a, &p, latents, &stream));
	TRY(run_middle(a, &p, &stream));
	for (int block = 0; block < a->config.n_blocks; block++) {
		for (int64_t i = 0; i < resnets_per_block(a); i++)
			TRY(residual_run(&p, &a->resnets[block * resnets_per_block(a) + i], &stream));
		if (block < a->config.n_blocks - 1)
			TRY(conv_double(&p, &a->upsamplers[block], &stream));
	}
	return run_conv_out(a, &p, stream, picture);
}

/* ---- decoding by bands ------------------------------------------------------------------------------------------- */

/* Room for the streams that leave the blocks from the second on: each needs the one before and no other, so two pieces
 * of memory serve in turn. */
static enum status take_streams(
	const struct autoencoder *a, const struct conv_pass *p, struct tensor latents, struct tensor stream[2])
{
	const struct autoencoder_config *c = &a->config;
	int64_t most[2] = { 0, 0 };

	for (int block = 1; block < c->n_blocks; block++) {
		const int64_t count =
			(latents.dim[1] << block) * (latents.dim[2] << block) * c->channels[c->n_blocks - 1 - block];

		if (count > most[block & 1])
			most[block & 1] = count;
	}
	for (int i = 0; i < 2; i++)
		TRY(arena_take(p->arena, DTYPE_F32, 1, &most[i], &stream[i]));
	return STATUS_OK;
}

/* The resnets of a block; its picture is that of the last block at twice the size, but for the first block. */
static enum status run_block_by_bands(
	struct autoencoder *a, const struct conv_pass *p, int64_t rows, int block, struct tensor room, struct tensor *x)
{
	const struct residual *resnets = a->resnets + block * resnets_per_block(a);
	struct band_source from = { *x, block > 0 ? &a->upsamplers[block - 1] : NULL };
	struct tensor y = *x;

	if (block > 0)
		y = tensor_view(room.data, DTYPE_F32, 3,
			(int64_t[]){
				2 * x->dim[0], 2 * x->dim[1], a->config.channels[a->config.n_blocks - 1 - block] });
	for (int64_t i = 0; i < resnets_per_block(a); i++) {
		TRY(bands_residual(p, rows, &resnets[i], &from, y));
		from = (struct band_source){ .whole = y };
	}
	*x = y;
	return STATUS_OK;
}

static enum status decode_by_bands(
	struct autoencoder *a, struct arena *arena, int64_t rows, struct tensor latents, struct tensor picture)
{
	const struct conv_pass p = { .k = a->k, .arena = arena, .groups = (int)a->config.groups, .eps = NORM_EPS };
	struct tensor stream, room[2];

	TRY(run_conv_in(a, &p, latents, &stream));
	TRY(run_middle(a, &p, &stream));
	TRY(take_streams(a, &p, latents, room));
	for (int block = 0; block < a->config.n_blocks; block++)
		TRY(run_block_by_bands(a, &p, rows, block, room[block & 1], &stream));
	return bands_normed_conv(
		&p, rows, &a->ends.norm, &a->ends.out, &(struct band_source){ .whole = stream }, picture);
}

int64_t autoencoder_band_rows(const struct autoencoder *a, int64_t height, int64_t width)
{
	enum { BAND_BYTES = 64 << 20, SHARE = 16, ROWS_MIN = 8 };
	const struct autoencoder_config *c = &a->config;
	/* of the last level: what is enlarged, normed and made of it; the others have fewer columns, more channels */
	const int64_t row = width * c->channels[c->n_blocks > 1 ? 1 : 0] * 2 * (int64_t)sizeof(float);
	int64_t rows = BAND_BYTES / row;

	if (rows > height / SHARE)
		rows = height / SHARE;
	return rows > ROWS_MIN ? rows : ROWS_MIN;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

enum status autoencoder_needs(const struct autoencoder *a, struct tensor latents, uint64_t *bytes)
{
	static const size_t ADDRESSES = (size_t)1 << 44;
	struct autoencoder dry = *a; /* its weights are looked at, not read */
	struct arena *arena = NULL;
	struct tensor picture;
	enum status status;

	TRY(kernels_open_dry(a->k, &dry.k));
	status = arena_open(dry.k, ADDRESSES, &arena);
	if (status == STATUS_OK)
		status = autoencoder_decode(&dry, arena, latents, 0, &picture);
	if (status == STATUS_OK)
		*bytes = kernels_memory_peak(dry.k);
	arena_close(arena);
	kernels_close(dry.k);
	return status;
}

enum status autoencoder_decode(
	struct autoencoder *a, struct arena *arena, struct tensor latents, int64_t rows, struct tensor *picture)
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
	status = rows > 0 ? decode_by_bands(a, arena, rows, latents, out) : decode(a, arena, latents, out);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*picture = out;
	return status;
}

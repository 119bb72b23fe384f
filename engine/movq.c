/* movq: see movq.h.
 *
 *     latents -> post_quant_conv -> conv_in -> resnet -> attention -> resnet -> n_blocks x (resnets, each followed by
 *     an attention in some blocks; twice the size) -> spatial norm -> conv_out
 *
 * A 1 x 1 convolution and repetition of places may change order: conv_y and conv_b run on the small latents.
 */
#include "engine/movq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conv_blocks.h"
#include "engine/json.h"

static const float NORM_EPS = 1e-6f; /* fixed in the reference, in no configuration; so are the groups */
enum { GROUPS = 32 };

struct ends {
	struct conv_norm norm;
	struct weight *post_quant, *post_quant_bias, *conv_in, *conv_in_bias, *conv_out, *conv_out_bias;
};

enum { D_ONE, D_IN, D_OUT, D_LATENT, D_VQ, D_RGB, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, post_quant, LOAD_CONV_1, "post_quant_conv.weight", D_LATENT, D_VQ),
	VECTOR(ends, post_quant_bias, "post_quant_conv.bias", D_LATENT),
	LOAD_ONE(ends, conv_in, LOAD_CONV_3, "decoder.conv_in.weight", D_IN, D_LATENT),
	VECTOR(ends, conv_in_bias, "decoder.conv_in.bias", D_IN),
	VECTOR(ends, norm.weight, "decoder.conv_norm_out.norm_layer.weight", D_OUT),
	VECTOR(ends, norm.bias, "decoder.conv_norm_out.norm_layer.bias", D_OUT),
	LOAD_ONE(ends, norm.y, LOAD_CONV_1, "decoder.conv_norm_out.conv_y.weight", D_OUT, D_VQ),
	VECTOR(ends, norm.y_bias, "decoder.conv_norm_out.conv_y.bias", D_OUT),
	LOAD_ONE(ends, norm.b, LOAD_CONV_1, "decoder.conv_norm_out.conv_b.weight", D_OUT, D_VQ),
	VECTOR(ends, norm.b_bias, "decoder.conv_norm_out.conv_b.bias", D_OUT),
	LOAD_ONE(ends, conv_out, LOAD_CONV_3, "decoder.conv_out.weight", D_RGB, D_OUT),
	VECTOR(ends, conv_out_bias, "decoder.conv_out.bias", D_RGB),
};

struct movq {
	struct kernels *k;
	struct movq_config config;
	struct weights *weights; /* while loading */
	struct ends ends;
	struct residual mid[2];
	struct place_attention mid_attention;
	struct residual *resnets;           /* [n_blocks][layers_per_block + 1] */
	struct place_attention *attentions; /* the same; empty where a block has none */
	struct conv_sampler upsamplers[MOVQ_BLOCKS_MAX];
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_block_types(const json_t *object, const char *path, struct movq_config *c)
{
	const json_t *types = json_object_get(object, "up_block_types"), *type;
	size_t i;

	if (!types)
		return STATUS_OK;
	if (json_array_size(types) != (size_t)c->n_blocks)
		return status_fail(
			STATUS_CORRUPT, "%s: up_block_types must have as many entries as block_out_channels", path);
	json_array_foreach (types, i, type) {
		const char *name = json_string_value(type);

		if (!name || (strcmp(name, "UpDecoderBlock2D") != 0 && strcmp(name, "AttnUpDecoderBlock2D") != 0))
			return status_fail(STATUS_UNSUPPORTED,
				"%s: up_block_types may only be UpDecoderBlock2D and AttnUpDecoderBlock2D", path);
		c->attention[i] = name[0] == 'A';
	}
	return STATUS_OK;
}

static enum status check_variant(const json_t *object, const char *path)
{
	static const char *const wanted[][2] = { { "_class_name", "VQModel" }, { "act_fn", "silu" },
		{ "norm_type", "spatial" } };
	bool attention = true, lookup = false;

	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		const char *value = i == 2 ? "group" : wanted[i][1];

		TRY(json_get_string(object, path, wanted[i][0], &value));
		if (strcmp(value, wanted[i][1]) != 0)
			return status_fail(
				STATUS_UNSUPPORTED, "%s: %s %.40s is not supported", path, wanted[i][0], value);
	}
	TRY(json_get_bool(object, path, "mid_block_add_attention", &attention));
	TRY(json_get_bool(object, path, "lookup_from_codebook", &lookup));
	if (!attention || lookup)
		return status_fail(STATUS_UNSUPPORTED, "%s: %s is not supported", path,
			lookup ? "lookup_from_codebook" : "mid_block_add_attention false");
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct movq_config *c = out;

	TRY(json_need_ints(object, path, "block_out_channels", 1, 1 << 14, MOVQ_BLOCKS_MAX, c->channels, &c->n_blocks));
	TRY(check_variant(object, path));
	TRY(read_block_types(object, path, c));
	c->latent_channels = 3;
	TRY(json_get_int(object, path, "latent_channels", 1, 1024, &c->latent_channels));
	c->vq_channels = c->latent_channels;
	TRY(json_get_int(object, path, "vq_embed_dim", 1, 1024, &c->vq_channels));
	c->layers_per_block = 1;
	TRY(json_get_int(object, path, "layers_per_block", 1, 100, &c->layers_per_block));
	for (int i = 0; i < c->n_blocks; i++)
		if (c->channels[i] % GROUPS != 0)
			return status_fail(STATUS_CORRUPT, "%s: 32 does not divide %lld of block_out_channels", path,
				(long long)c->channels[i]);
	return STATUS_OK;
}

enum status movq_config_read(const char *path, struct movq_config *out)
{
	struct movq_config c = { 0 };

	TRY(json_read_with(path, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static struct conv_shape shape_of(const struct movq *m, int64_t in, int64_t out)
{
	return (struct conv_shape){ .in = in, .out = out, .spatial = m->config.vq_channels };
}

static enum status load_resnet(struct movq *m, const char *prefix, int64_t in, int64_t out, struct residual *r)
{
	const struct conv_shape shape = shape_of(m, in, out);

	return residual_load(m->k, m->weights, prefix, &shape, r);
}

static enum status load_attention(struct movq *m, const char *prefix, int64_t width, struct place_attention *a)
{
	const struct conv_shape shape = shape_of(m, width, width);

	return place_attention_load(m->k, m->weights, prefix, &shape, a);
}

static enum status load_ends(struct movq *m)
{
	const struct movq_config *c = &m->config;
	const int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_IN] = c->channels[c->n_blocks - 1],
		[D_OUT] = c->channels[0],
		[D_LATENT] = c->latent_channels,
		[D_VQ] = c->vq_channels,
		[D_RGB] = 3 };
	const struct loader loader = { m->k, m->weights, dims };

	return load_table(&loader, "", ends_table, LOAD_COUNT(ends_table), &m->ends);
}

static int64_t resnets_per_block(const struct movq *m)
{
	return m->config.layers_per_block + 1;
}

static enum status load_up_block(struct movq *m, int block)
{
	const struct movq_config *c = &m->config;
	const int64_t out = c->channels[c->n_blocks - 1 - block], n = resnets_per_block(m);
	const int64_t in = block == 0 ? out : c->channels[c->n_blocks - block];
	char prefix[64];

	for (int64_t i = 0; i < n; i++) {
		snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.resnets.%lld.", block, (long long)i);
		TRY(load_resnet(m, prefix, i == 0 ? in : out, out, &m->resnets[block * n + i]));
		snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.attentions.%lld.", block, (long long)i);
		if (c->attention[block])
			TRY(load_attention(m, prefix, out, &m->attentions[block * n + i]));
	}
	if (block == c->n_blocks - 1)
		return STATUS_OK;
	snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.upsamplers.0.", block);
	return conv_sampler_load(m->k, m->weights, prefix, out, &m->upsamplers[block]);
}

static enum status load(struct movq *m, const struct component *from)
{
	const struct movq_config *c = &m->config;
	static const char *const unused[] = { "encoder.", "quant_conv.", "quantize.", NULL };
	int64_t width;

	TRY(movq_config_read(from->config, &m->config));
	TRY(weights_open_component(from, &m->weights));
	width = c->channels[c->n_blocks - 1];
	m->resnets = calloc((size_t)(c->n_blocks * resnets_per_block(m)), sizeof *m->resnets);
	m->attentions = calloc((size_t)(c->n_blocks * resnets_per_block(m)), sizeof *m->attentions);
	if (!m->resnets || !m->attentions)
		return status_fail(STATUS_NO_MEMORY, "no memory for the autoencoder");
	TRY(load_ends(m));
	TRY(load_resnet(m, "decoder.mid_block.resnets.0.", width, width, &m->mid[0]));
	TRY(load_resnet(m, "decoder.mid_block.resnets.1.", width, width, &m->mid[1]));
	TRY(load_attention(m, "decoder.mid_block.attentions.0.", width, &m->mid_attention));
	for (int i = 0; i < c->n_blocks; i++)
		TRY(load_up_block(m, i));
	return weights_check_read(m->weights, unused);
}

enum status movq_open(struct kernels *k, const struct component *c, struct movq **out)
{
	struct movq *m = calloc(1, sizeof *m);
	enum status status;

	if (!m)
		return status_fail(STATUS_NO_MEMORY, "no memory for the autoencoder");
	m->k = k;
	status = load(m, c);
	weights_close(m->weights);
	m->weights = NULL;
	if (status != STATUS_OK) {
		movq_close(m);
		return status;
	}
	*out = m;
	return STATUS_OK;
}

void movq_close(struct movq *m)
{
	int64_t n;

	if (!m)
		return;
	n = m->config.n_blocks * resnets_per_block(m);
	load_free(m->k, ends_table, LOAD_COUNT(ends_table), &m->ends);
	residual_free(m->k, &m->mid[0]);
	residual_free(m->k, &m->mid[1]);
	place_attention_free(m->k, &m->mid_attention);
	for (int64_t i = 0; m->resnets && i < n; i++)
		residual_free(m->k, &m->resnets[i]);
	for (int64_t i = 0; m->attentions && i < n; i++)
		place_attention_free(m->k, &m->attentions[i]);
	for (int i = 0; i < MOVQ_BLOCKS_MAX; i++)
		conv_sampler_free(m->k, &m->upsamplers[i]);
	free(m->resnets);
	free(m->attentions);
	free(m);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* The latents [h, w, channels], an operand. */
static struct tensor latents_of(const struct conv_pass *p)
{
	return *(const struct tensor *)p->context;
}

/* y (operation)= conv(latents), brought to y's size */
static enum status apply_latents(
	const struct conv_pass *p, const struct weight *w, const struct weight *bias, enum unary f, struct tensor y)
{
	struct tensor small, large, z = latents_of(p);
	size_t mark = arena_mark(p->arena);

	TRY(conv_take(p, DTYPE_F32, z, y.dim[2], &small));
	TRY(conv_take(p, DTYPE_F32, y, y.dim[2], &large));
	TRY(kernels_conv(p->k, &(struct conv){ .x = z, .w = w, .bias = bias, .y = small }));
	TRY(kernels_resize_nearest(p->k, small, large));
	TRY(kernels_unary(p->k, f, conv_places(large), conv_places(y)));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* y = silu(group_norm(x) * conv_y(latents) + conv_b(latents)), silu if asked; y is an operand. */
static enum status spatial_norm(
	const struct conv_pass *p, const struct conv_norm *n, bool silu, struct tensor x, struct tensor y)
{
	struct tensor normed;
	size_t mark = arena_mark(p->arena);

	TRY(conv_take(p, DTYPE_F32, x, x.dim[2], &normed));
	TRY(conv_group_norm(p, n, false, x, normed));
	TRY(apply_latents(p, n->y, n->y_bias, UNARY_MULTIPLY, normed));
	TRY(apply_latents(p, n->b, n->b_bias, UNARY_ADD, normed));
	TRY(kernels_unary(p->k, silu ? UNARY_SILU : UNARY_COPY, conv_places(normed), conv_places(y)));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

static enum status run_start(const struct movq *m, const struct conv_pass *p, struct tensor *stream)
{
	struct tensor latents, z = latents_of(p);

	TRY(conv_take(p, DTYPE_F32, z, m->config.channels[m->config.n_blocks - 1], stream));
	TRY(conv_take(p, kernels_dtype(m->k), z, m->config.latent_channels, &latents));
	TRY(kernels_conv(m->k,
		&(struct conv){ .x = z, .w = m->ends.post_quant, .bias = m->ends.post_quant_bias, .y = latents }));
	TRY(kernels_conv(m->k,
		&(struct conv){ .x = latents, .w = m->ends.conv_in, .bias = m->ends.conv_in_bias, .y = *stream }));
	TRY(residual_run(p, &m->mid[0], stream));
	TRY(place_attention_run(p, &m->mid_attention, *stream));
	return residual_run(p, &m->mid[1], stream);
}

static enum status run_end(const struct movq *m, const struct conv_pass *p, struct tensor x, struct tensor picture)
{
	struct tensor normed;

	TRY(conv_take(p, kernels_dtype(m->k), x, x.dim[2], &normed));
	TRY(spatial_norm(p, &m->ends.norm, true, x, normed));
	return kernels_conv(m->k,
		&(struct conv){ .x = normed, .w = m->ends.conv_out, .bias = m->ends.conv_out_bias, .y = picture });
}

static enum status decode(struct movq *m, struct arena *arena, struct tensor latents, struct tensor picture)
{
	const int64_t n = resnets_per_block(m);
	struct tensor stream, z;
	const struct conv_pass p = {
		.k = m->k, .arena = arena, .groups = GROUPS, .eps = NORM_EPS, .norm = spatial_norm, .context = &z
	};

	TRY(arena_take(
		arena, kernels_dtype(m->k), 3, (int64_t[]){ latents.dim[1], latents.dim[2], latents.dim[0] }, &z));
	TRY(kernels_to_nhwc(m->k, latents, 1, 0, z));
	TRY(run_start(m, &p, &stream));
	for (int block = 0; block < m->config.n_blocks; block++) {
		for (int64_t i = block * n; i < (block + 1) * n; i++) {
			TRY(residual_run(&p, &m->resnets[i], &stream));
			if (m->config.attention[block])
				TRY(place_attention_run(&p, &m->attentions[i], stream));
		}
		if (block < m->config.n_blocks - 1)
			TRY(conv_double(&p, &m->upsamplers[block], &stream));
	}
	return run_end(m, &p, stream, picture);
}

enum status movq_decode(struct movq *m, struct arena *arena, struct tensor latents, struct tensor *picture)
{
	const int64_t factor = (int64_t)1 << (m->config.n_blocks - 1);
	struct tensor out;
	enum status status;
	size_t mark;

	if (latents.dim[0] != m->config.vq_channels)
		return status_fail(STATUS_CORRUPT, "the autoencoder decodes %lld channels, the UNet makes %lld",
			(long long)m->config.vq_channels, (long long)latents.dim[0]);
	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ latents.dim[1] * factor, latents.dim[2] * factor, 3 }, &out));
	mark = arena_mark(arena);
	status = decode(m, arena, latents, out);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*picture = out;
	return status;
}

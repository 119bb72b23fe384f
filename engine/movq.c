/* movq: see movq.h.
 *
 *     latents -> post_quant_conv -> conv_in -> resnet -> attention -> resnet -> n_blocks x (resnets, each followed by
 *     an attention in some blocks; twice the size) -> spatial norm -> conv_out
 *
 * A 1 x 1 convolution and repetition of places may change order: conv_y and conv_b run on the small latents.
 */
#include "engine/movq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/load.h"

static const float NORM_EPS = 1e-6f; /* fixed in the reference, in no configuration; so are the groups */
enum { GROUPS = 32 };

struct spatial {
	struct weight *norm, *norm_bias, *y, *y_bias, *b, *b_bias;
};

struct resnet {
	struct spatial norm1, norm2;
	struct weight *conv1, *conv1_bias, *conv2, *conv2_bias;
	struct weight *shortcut, *shortcut_bias; /* where the number of channels changes */
	int64_t in, out;
};

struct attention_layer {
	struct spatial norm;
	struct weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
};

struct upsampler {
	struct weight *conv, *conv_bias;
};

struct ends {
	struct spatial norm;
	struct weight *post_quant, *post_quant_bias, *conv_in, *conv_in_bias, *conv_out, *conv_out_bias;
};

enum { D_ONE, D_IN, D_OUT, D_LATENT, D_VQ, D_RGB, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)
#define SPATIAL(type, member, prefix, rows)                                                                            \
	VECTOR(type, member.norm, prefix "norm_layer.weight", rows),                                                   \
		VECTOR(type, member.norm_bias, prefix "norm_layer.bias", rows),                                        \
		LOAD_ONE(type, member.y, LOAD_CONV_1, prefix "conv_y.weight", rows, D_VQ),                             \
		VECTOR(type, member.y_bias, prefix "conv_y.bias", rows),                                               \
		LOAD_ONE(type, member.b, LOAD_CONV_1, prefix "conv_b.weight", rows, D_VQ),                             \
		VECTOR(type, member.b_bias, prefix "conv_b.bias", rows)

static const struct load_entry resnet_table[] = {
	SPATIAL(resnet, norm1, "norm1.", D_IN),
	LOAD_ONE(resnet, conv1, LOAD_CONV_3, "conv1.weight", D_OUT, D_IN),
	VECTOR(resnet, conv1_bias, "conv1.bias", D_OUT),
	SPATIAL(resnet, norm2, "norm2.", D_OUT),
	LOAD_ONE(resnet, conv2, LOAD_CONV_3, "conv2.weight", D_OUT, D_OUT),
	VECTOR(resnet, conv2_bias, "conv2.bias", D_OUT),
};

static const struct load_entry shortcut_table[] = {
	LOAD_ONE(resnet, shortcut, LOAD_CONV_1, "conv_shortcut.weight", D_OUT, D_IN),
	VECTOR(resnet, shortcut_bias, "conv_shortcut.bias", D_OUT),
};

static const struct load_entry attention_table[] = {
	SPATIAL(attention_layer, norm, "spatial_norm.", D_OUT),
	LOAD_ONE(attention_layer, q, LOAD_LINEAR, "to_q.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, q_bias, "to_q.bias", D_OUT),
	LOAD_ONE(attention_layer, k, LOAD_LINEAR, "to_k.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, k_bias, "to_k.bias", D_OUT),
	LOAD_ONE(attention_layer, v, LOAD_LINEAR, "to_v.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, v_bias, "to_v.bias", D_OUT),
	LOAD_ONE(attention_layer, out, LOAD_LINEAR, "to_out.0.weight", D_OUT, D_OUT),
	VECTOR(attention_layer, out_bias, "to_out.0.bias", D_OUT),
};

static const struct load_entry upsampler_table[] = {
	LOAD_ONE(upsampler, conv, LOAD_CONV_3, "conv.weight", D_OUT, D_OUT),
	VECTOR(upsampler, conv_bias, "conv.bias", D_OUT),
};

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, post_quant, LOAD_CONV_1, "post_quant_conv.weight", D_LATENT, D_VQ),
	VECTOR(ends, post_quant_bias, "post_quant_conv.bias", D_LATENT),
	LOAD_ONE(ends, conv_in, LOAD_CONV_3, "decoder.conv_in.weight", D_IN, D_LATENT),
	VECTOR(ends, conv_in_bias, "decoder.conv_in.bias", D_IN),
	SPATIAL(ends, norm, "decoder.conv_norm_out.", D_OUT),
	LOAD_ONE(ends, conv_out, LOAD_CONV_3, "decoder.conv_out.weight", D_RGB, D_OUT),
	VECTOR(ends, conv_out_bias, "decoder.conv_out.bias", D_RGB),
};

struct movq {
	struct kernels *k;
	struct movq_config config;
	struct weights *weights; /* while loading */
	struct ends ends;
	struct resnet mid[2];
	struct attention_layer mid_attention;
	struct resnet *resnets;             /* [n_blocks][layers_per_block + 1] */
	struct attention_layer *attentions; /* the same; empty where a block has none */
	struct upsampler upsamplers[MOVQ_BLOCKS_MAX];
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

static enum status load_part(
	struct movq *m, const char *prefix, const struct load_entry *table, int n, int64_t in, int64_t out, void *base)
{
	const int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_IN] = in,
		[D_OUT] = out,
		[D_LATENT] = m->config.latent_channels,
		[D_VQ] = m->config.vq_channels,
		[D_RGB] = 3 };
	const struct loader loader = { m->k, m->weights, dims };

	return load_table(&loader, prefix, table, n, base);
}

static enum status load_resnet(struct movq *m, const char *prefix, int64_t in, int64_t out, struct resnet *r)
{
	r->in = in;
	r->out = out;
	TRY(load_part(m, prefix, resnet_table, LOAD_COUNT(resnet_table), in, out, r));
	if (in != out)
		TRY(load_part(m, prefix, shortcut_table, LOAD_COUNT(shortcut_table), in, out, r));
	return STATUS_OK;
}

static enum status load_attention(struct movq *m, const char *prefix, int64_t width, struct attention_layer *a)
{
	return load_part(m, prefix, attention_table, LOAD_COUNT(attention_table), width, width, a);
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
	return load_part(m, prefix, upsampler_table, LOAD_COUNT(upsampler_table), out, out, &m->upsamplers[block]);
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
	TRY(load_part(m, "", ends_table, LOAD_COUNT(ends_table), width, c->channels[0], &m->ends));
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

static void free_resnet(struct movq *m, struct resnet *r)
{
	load_free(m->k, resnet_table, LOAD_COUNT(resnet_table), r);
	load_free(m->k, shortcut_table, LOAD_COUNT(shortcut_table), r);
}

void movq_close(struct movq *m)
{
	int64_t n;

	if (!m)
		return;
	n = m->config.n_blocks * resnets_per_block(m);
	load_free(m->k, ends_table, LOAD_COUNT(ends_table), &m->ends);
	free_resnet(m, &m->mid[0]);
	free_resnet(m, &m->mid[1]);
	load_free(m->k, attention_table, LOAD_COUNT(attention_table), &m->mid_attention);
	for (int64_t i = 0; m->resnets && i < n; i++)
		free_resnet(m, &m->resnets[i]);
	for (int64_t i = 0; m->attentions && i < n; i++)
		load_free(m->k, attention_table, LOAD_COUNT(attention_table), &m->attentions[i]);
	for (int i = 0; i < MOVQ_BLOCKS_MAX; i++)
		load_free(m->k, upsampler_table, LOAD_COUNT(upsampler_table), &m->upsamplers[i]);
	free(m->resnets);
	free(m->attentions);
	free(m);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

struct pass {
	struct movq *m;
	struct arena *arena;
	struct tensor z; /* [h, w, channels] operand: the latents */
};

static enum status take(
	const struct pass *p, enum dtype dtype, struct tensor like, int64_t channels, struct tensor *out)
{
	return arena_take(p->arena, dtype, 3, (int64_t[]){ like.dim[0], like.dim[1], channels }, out);
}

static struct tensor places(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 2, (int64_t[]){ t.dim[0] * t.dim[1], t.dim[2] });
}

/* y (operation)= conv(z), brought to y's size */
static enum status apply_latents(
	const struct pass *p, const struct weight *w, const struct weight *bias, enum unary f, struct tensor y)
{
	struct kernels *k = p->m->k;
	struct tensor small, large;
	size_t mark = arena_mark(p->arena);

	TRY(take(p, DTYPE_F32, p->z, y.dim[2], &small));
	TRY(take(p, DTYPE_F32, y, y.dim[2], &large));
	TRY(kernels_conv(k, &(struct conv){ .x = p->z, .w = w, .bias = bias, .y = small }));
	TRY(kernels_resize_nearest(k, small, large));
	TRY(kernels_unary(k, f, places(large), places(y)));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

/* out = silu(group_norm(x) * conv_y(z) + conv_b(z)), silu if asked; out is an operand. */
static enum status spatial_norm(
	const struct pass *p, const struct spatial *s, struct tensor x, bool silu, struct tensor out)
{
	struct kernels *k = p->m->k;
	struct tensor normed;
	size_t mark = arena_mark(p->arena);

	TRY(take(p, DTYPE_F32, x, x.dim[2], &normed));
	TRY(kernels_group_norm(k, &(struct group_norm){ .x = x,
					  .groups = GROUPS,
					  .weight = s->norm,
					  .bias = s->norm_bias,
					  .eps = NORM_EPS,
					  .y = normed }));
	TRY(apply_latents(p, s->y, s->y_bias, UNARY_MULTIPLY, normed));
	TRY(apply_latents(p, s->b, s->b_bias, UNARY_ADD, normed));
	TRY(kernels_unary(k, silu ? UNARY_SILU : UNARY_COPY, places(normed), places(out)));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

static enum status resnet_body(const struct pass *p, const struct resnet *r, struct tensor x, struct tensor y)
{
	struct kernels *k = p->m->k;
	struct tensor normed, hidden;

	TRY(take(p, kernels_dtype(k), x, r->in, &normed));
	TRY(take(p, kernels_dtype(k), x, r->out, &hidden));
	TRY(spatial_norm(p, &r->norm1, x, true, normed));
	TRY(kernels_conv(k, &(struct conv){ .x = normed, .w = r->conv1, .bias = r->conv1_bias, .y = hidden }));
	TRY(spatial_norm(p, &r->norm2, hidden, true, hidden));
	return kernels_conv(
		k, &(struct conv){ .x = hidden, .w = r->conv2, .bias = r->conv2_bias, .accumulate = true, .y = y });
}

static enum status run_resnet(const struct pass *p, const struct resnet *r, struct tensor *stream)
{
	struct kernels *k = p->m->k;
	struct tensor x = *stream, y = x, operand;
	size_t mark;

	if (r->shortcut)
		TRY(take(p, DTYPE_F32, x, r->out, &y));
	mark = arena_mark(p->arena);
	if (r->shortcut) {
		TRY(take(p, kernels_dtype(k), x, r->in, &operand));
		TRY(kernels_unary(k, UNARY_COPY, places(x), places(operand)));
		TRY(kernels_conv(
			k, &(struct conv){ .x = operand, .w = r->shortcut, .bias = r->shortcut_bias, .y = y }));
	}
	TRY(resnet_body(p, r, x, y));
	arena_release(p->arena, mark);
	*stream = y;
	return STATUS_OK;
}

static struct tensor one_head(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 3, (int64_t[]){ t.dim[0], 1, t.dim[1] });
}

/* x += out(attention(norm(x))), one head as wide as the picture has channels. */
static enum status run_attention(const struct pass *p, const struct attention_layer *a, struct tensor x)
{
	struct kernels *k = p->m->k;
	int64_t channels = x.dim[2];
	struct tensor normed, t[4]; /* q, k, v, heads */
	const struct weight *w[] = { a->q, a->k, a->v }, *bias[] = { a->q_bias, a->k_bias, a->v_bias };
	size_t mark = arena_mark(p->arena);

	TRY(take(p, kernels_dtype(k), x, channels, &normed));
	TRY(spatial_norm(p, &a->norm, x, false, normed));
	for (int i = 0; i < 4; i++) {
		TRY(arena_take(p->arena, kernels_dtype(k), 2, (int64_t[]){ x.dim[0] * x.dim[1], channels }, &t[i]));
		if (i < 3)
			TRY(kernels_linear(
				k, &(struct linear){ .x = places(normed), .w = w[i], .bias = bias[i], .y = t[i] }));
	}
	TRY(kernels_attention(k, &(struct attention){ .q = one_head(t[0]),
					 .k = one_head(t[1]),
					 .v = one_head(t[2]),
					 .scale = 1 / sqrtf((float)channels),
					 .out = one_head(t[3]) }));
	TRY(kernels_linear(k,
		&(struct linear){ .x = t[3], .w = a->out, .bias = a->out_bias, .accumulate = true, .y = places(x) }));
	arena_release(p->arena, mark);
	return STATUS_OK;
}

static enum status run_upsampler(const struct pass *p, const struct upsampler *u, struct tensor *stream)
{
	struct kernels *k = p->m->k;
	struct tensor x = *stream, operand, y;
	size_t mark;

	TRY(arena_take(p->arena, DTYPE_F32, 3, (int64_t[]){ 2 * x.dim[0], 2 * x.dim[1], x.dim[2] }, &y));
	mark = arena_mark(p->arena);
	TRY(take(p, kernels_dtype(k), x, x.dim[2], &operand));
	TRY(kernels_unary(k, UNARY_COPY, places(x), places(operand)));
	TRY(kernels_conv(
		k, &(struct conv){ .x = operand, .w = u->conv, .bias = u->conv_bias, .upsample = true, .y = y }));
	arena_release(p->arena, mark);
	*stream = y;
	return STATUS_OK;
}

static enum status run_start(const struct pass *p, struct tensor *stream)
{
	const struct movq *m = p->m;
	struct tensor latents;

	TRY(take(p, DTYPE_F32, p->z, m->config.channels[m->config.n_blocks - 1], stream));
	TRY(take(p, kernels_dtype(m->k), p->z, m->config.latent_channels, &latents));
	TRY(kernels_conv(m->k,
		&(struct conv){ .x = p->z, .w = m->ends.post_quant, .bias = m->ends.post_quant_bias, .y = latents }));
	TRY(kernels_conv(m->k,
		&(struct conv){ .x = latents, .w = m->ends.conv_in, .bias = m->ends.conv_in_bias, .y = *stream }));
	TRY(run_resnet(p, &m->mid[0], stream));
	TRY(run_attention(p, &m->mid_attention, *stream));
	return run_resnet(p, &m->mid[1], stream);
}

static enum status run_end(const struct pass *p, struct tensor x, struct tensor picture)
{
	struct movq *m = p->m;
	struct tensor normed;

	TRY(take(p, kernels_dtype(m->k), x, x.dim[2], &normed));
	TRY(spatial_norm(p, &m->ends.norm, x, true, normed));
	return kernels_conv(m->k,
		&(struct conv){ .x = normed, .w = m->ends.conv_out, .bias = m->ends.conv_out_bias, .y = picture });
}

static enum status decode(struct pass *p, struct tensor latents, struct tensor picture)
{
	struct movq *m = p->m;
	const int64_t n = resnets_per_block(m);
	struct tensor stream;

	TRY(arena_take(p->arena, kernels_dtype(m->k), 3, (int64_t[]){ latents.dim[1], latents.dim[2], latents.dim[0] },
		&p->z));
	TRY(kernels_to_nhwc(m->k, latents, 1, 0, p->z));
	TRY(run_start(p, &stream));
	for (int block = 0; block < m->config.n_blocks; block++) {
		for (int64_t i = block * n; i < (block + 1) * n; i++) {
			TRY(run_resnet(p, &m->resnets[i], &stream));
			if (m->config.attention[block])
				TRY(run_attention(p, &m->attentions[i], stream));
		}
		if (block < m->config.n_blocks - 1)
			TRY(run_upsampler(p, &m->upsamplers[block], &stream));
	}
	return run_end(p, stream, picture);
}

enum status movq_decode(struct movq *m, struct arena *arena, struct tensor latents, struct tensor *picture)
{
	const int64_t factor = (int64_t)1 << (m->config.n_blocks - 1);
	struct pass p = { .m = m, .arena = arena };
	struct tensor out;
	enum status status;
	size_t mark;

	if (latents.dim[0] != m->config.vq_channels)
		return status_fail(STATUS_CORRUPT, "the autoencoder decodes %lld channels, the UNet makes %lld",
			(long long)m->config.vq_channels, (long long)latents.dim[0]);
	TRY(arena_take(arena, DTYPE_F32, 3, (int64_t[]){ latents.dim[1] * factor, latents.dim[2] * factor, 3 }, &out));
	mark = arena_mark(arena);
	status = decode(&p, latents, out);
	arena_release(arena, mark);
	if (status == STATUS_OK)
		*picture = out;
	return status;
}

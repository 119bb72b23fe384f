/* unet: see unet.h. */
#include "engine/unet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/unet_blocks.h"

/* layers + 1 on the way up */
enum { LAYERS = UNET_LAYERS_MAX + 1 };

/* A level on one of the two ways. */
struct level {
	int64_t n; /* residual blocks */
	bool attention, sampler;
	struct residual resnets[LAYERS];
	struct unet_transformer transformers[LAYERS];
	struct conv_sampler resample;
};

struct ends {
	struct weight *conv_in, *conv_in_bias, *time1, *time1_bias, *time2, *time2_bias;
	struct weight *norm_weight, *norm_bias, *conv_out, *conv_out_bias;
};

struct added {
	struct weight *linear1, *linear1_bias, *linear2, *linear2_bias;
};

struct unet {
	struct kernels *k;
	struct unet_config config;
	struct weights *weights;
	int64_t time; /* width of the time embedding */
	struct ends ends;
	struct added added;
	struct level down[UNET_LEVELS_MAX], up[UNET_LEVELS_MAX]; /* up: coarsest first */
	struct residual mid[2];
	struct unet_transformer mid_transformer;
};

enum { D_ONE, D_IN, D_FIRST, D_OUT, D_TIME, D_ADDED, D_COUNT };

#define VECTOR(type, member, name, rows) LOAD_ONE(type, member, LOAD_VECTOR, name, rows, D_ONE)

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, conv_in, LOAD_CONV_3, "conv_in.weight", D_FIRST, D_IN),
	VECTOR(ends, conv_in_bias, "conv_in.bias", D_FIRST),
	LOAD_ONE(ends, time1, LOAD_LINEAR, "time_embedding.linear_1.weight", D_TIME, D_FIRST),
	VECTOR(ends, time1_bias, "time_embedding.linear_1.bias", D_TIME),
	LOAD_ONE(ends, time2, LOAD_LINEAR, "time_embedding.linear_2.weight", D_TIME, D_TIME),
	VECTOR(ends, time2_bias, "time_embedding.linear_2.bias", D_TIME),
	VECTOR(ends, norm_weight, "conv_norm_out.weight", D_FIRST),
	VECTOR(ends, norm_bias, "conv_norm_out.bias", D_FIRST),
	LOAD_ONE(ends, conv_out, LOAD_CONV_3, "conv_out.weight", D_OUT, D_FIRST),
	VECTOR(ends, conv_out_bias, "conv_out.bias", D_OUT),
};

static const struct load_entry added_table[] = {
	LOAD_ONE(added, linear1, LOAD_LINEAR, "add_embedding.linear_1.weight", D_TIME, D_ADDED),
	VECTOR(added, linear1_bias, "add_embedding.linear_1.bias", D_TIME),
	LOAD_ONE(added, linear2, LOAD_LINEAR, "add_embedding.linear_2.weight", D_TIME, D_TIME),
	VECTOR(added, linear2_bias, "add_embedding.linear_2.bias", D_TIME),
};

/* ---- loading ---- */

static enum status load_ends(struct unet *u, struct unet_loader *l)
{
	const struct unet_config *c = &u->config;
	int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_IN] = c->in_channels,
		[D_FIRST] = c->level[0].channels,
		[D_OUT] = c->out_channels,
		[D_TIME] = u->time,
		[D_ADDED] = c->added_width };

	TRY(unet_load(l, dims, "", ends_table, LOAD_COUNT(ends_table), &u->ends));
	if (!c->text_time)
		return STATUS_OK;
	return unet_load(l, dims, "", added_table, LOAD_COUNT(added_table), &u->added);
}

/* The time embedding is added to what the first convolution gives. */
static enum status load_residual(
	const struct unet_loader *l, const char *prefix, int64_t in, int64_t out, struct residual *r)
{
	return residual_load(l->k, l->weights, prefix,
		&(struct conv_shape){ .in = in, .out = out, .time = l->time, .time_rows = out }, r);
}

static enum status load_layer(struct unet_loader *l, const char *prefix, int64_t i, int64_t in,
	const struct unet_level_config *c, struct level *level)
{
	char name[96];

	snprintf(name, sizeof name, "%sresnets.%lld.", prefix, (long long)i);
	TRY(load_residual(l, name, in, c->channels, &level->resnets[i]));
	if (!level->attention)
		return STATUS_OK;
	snprintf(name, sizeof name, "%sattentions.%lld.", prefix, (long long)i);
	return unet_transformer_load(l, name, c->channels, c->heads, c->blocks, &level->transformers[i]);
}

static enum status load_down(struct unet *u, struct unet_loader *l, int at)
{
	const struct unet_level_config *c = &u->config.level[at];
	struct level *level = &u->down[at];
	char prefix[64], name[96];

	level->n = c->layers;
	level->attention = c->attention;
	level->sampler = at < u->config.n_levels - 1;
	snprintf(prefix, sizeof prefix, "down_blocks.%d.", at);
	for (int64_t i = 0; i < level->n; i++)
		TRY(load_layer(l, prefix, i, i > 0 || at == 0 ? c->channels : c[-1].channels, c, level));
	if (!level->sampler)
		return STATUS_OK;
	snprintf(name, sizeof name, "%sdownsamplers.0.", prefix);
	return conv_sampler_load(l->k, l->weights, name, c->channels, &level->resample);
}

/* The stream comes from the next coarser level; what is joined to it comes from the way down, where the last joined
 * tensor is the input of the level: the output of the next finer one. */
static enum status load_up(struct unet *u, struct unet_loader *l, int block)
{
	int at = u->config.n_levels - 1 - block;
	const struct unet_level_config *c = &u->config.level[at];
	struct level *level = &u->up[block];
	char prefix[64], name[96];

	level->n = c->layers + 1;
	level->attention = c->attention_up;
	level->sampler = at > 0;
	snprintf(prefix, sizeof prefix, "up_blocks.%d.", block);
	for (int64_t i = 0; i < level->n; i++) {
		int64_t stream = i > 0 || block == 0 ? c->channels : c[1].channels;
		int64_t skip = i < c->layers || at == 0 ? c->channels : c[-1].channels;

		TRY(load_layer(l, prefix, i, stream + skip, c, level));
	}
	if (!level->sampler)
		return STATUS_OK;
	snprintf(name, sizeof name, "%supsamplers.0.", prefix);
	return conv_sampler_load(l->k, l->weights, name, c->channels, &level->resample);
}

static enum status load_mid(struct unet *u, struct unet_loader *l)
{
	const struct unet_level_config *c = &u->config.level[u->config.n_levels - 1];

	TRY(load_residual(l, "mid_block.resnets.0.", c->channels, c->channels, &u->mid[0]));
	TRY(load_residual(l, "mid_block.resnets.1.", c->channels, c->channels, &u->mid[1]));
	return unet_transformer_load(
		l, "mid_block.attentions.0.", c->channels, c->heads, c->blocks, &u->mid_transformer);
}

static enum status load_all(struct unet *u, const struct component *from)
{
	struct unet_loader l = { .k = u->k };

	TRY(unet_config_read(from, &u->config));
	TRY(weights_open_component(from, &u->weights));
	u->time = 4 * u->config.level[0].channels;
	l.weights = u->weights;
	l.time = u->time;
	l.cross = u->config.cross;
	l.linear = u->config.linear_projection;
	TRY(load_ends(u, &l));
	for (int i = 0; i < u->config.n_levels; i++)
		TRY(load_down(u, &l, i));
	TRY(load_mid(u, &l));
	for (int i = 0; i < u->config.n_levels; i++)
		TRY(load_up(u, &l, i));
	return weights_check_read(u->weights, NULL);
}

enum status unet_open(struct kernels *k, const struct component *c, struct unet **out)
{
	struct unet *u = calloc(1, sizeof *u);
	enum status status;

	if (!u)
		return status_fail(STATUS_NO_MEMORY, "no memory for a UNet");
	u->k = k;
	status = load_all(u, c);
	weights_close(u->weights); /* everything is packed */
	u->weights = NULL;
	if (status != STATUS_OK) {
		unet_close(u);
		return status;
	}
	*out = u;
	return STATUS_OK;
}

static void free_level(struct kernels *k, struct level *level)
{
	for (int i = 0; i < LAYERS; i++) {
		residual_free(k, &level->resnets[i]);
		unet_transformer_free(k, &level->transformers[i]);
	}
	conv_sampler_free(k, &level->resample);
}

void unet_close(struct unet *u)
{
	if (!u)
		return;
	load_free(u->k, ends_table, LOAD_COUNT(ends_table), &u->ends);
	load_free(u->k, added_table, LOAD_COUNT(added_table), &u->added);
	for (int i = 0; i < UNET_LEVELS_MAX; i++) {
		free_level(u->k, &u->down[i]);
		free_level(u->k, &u->up[i]);
	}
	residual_free(u->k, &u->mid[0]);
	residual_free(u->k, &u->mid[1]);
	unet_transformer_free(u->k, &u->mid_transformer);
	free(u);
}

/* ---- embeddings ---- */

/* The sinusoid of one number, in `width` values. */
static void sinusoid(const struct unet_config *c, float x, int64_t width, float *out)
{
	int64_t half = width / 2;

	for (int64_t i = 0; i < half; i++) {
		float angle = x * expf(-logf(10000) * (float)i / (float)((double)half - c->freq_shift));

		out[c->cos_first ? half + i : i] = sinf(angle);
		out[c->cos_first ? i : half + i] = cosf(angle);
	}
}

/* y [1, width] F32 = second(silu(first(x))), x from the host */
static enum status embed(struct unet *u, struct arena *arena, const float *x, int64_t width,
	const struct weight *const linear[4], struct tensor y)
{
	struct tensor host = tensor_view((void *)(uintptr_t)x, DTYPE_F32, 2, (int64_t[]){ 1, width }), in, hidden;
	size_t mark = arena_mark(arena);

	TRY(arena_take(arena, kernels_dtype(u->k), 2, host.dim, &in));
	TRY(arena_take(arena, kernels_dtype(u->k), 2, y.dim, &hidden));
	TRY(kernels_upload(u->k, &host, in));
	TRY(kernels_linear(u->k,
		&(struct linear){
			.x = in, .w = linear[0], .bias = linear[1], .activation = ACTIVATION_SILU, .y = hidden }));
	TRY(kernels_linear(u->k, &(struct linear){ .x = hidden, .w = linear[2], .bias = linear[3], .y = y }));
	arena_release(arena, mark);
	return STATUS_OK;
}

/* The pooled text and the sinusoids of the sizes. */
static enum status embed_added(
	struct unet *u, struct arena *arena, struct tensor pooled, const float sizes[UNET_SIZES], struct tensor *out)
{
	const struct unet_config *c = &u->config;
	const struct weight *const linear[4] = { u->added.linear1, u->added.linear1_bias, u->added.linear2,
		u->added.linear2_bias };
	int64_t text = c->added_width - UNET_SIZES * c->size_width;
	struct tensor host;
	float *values;
	enum status status;

	if (!pooled.data || pooled.dim[0] != text)
		return status_fail(STATUS_CORRUPT,
			"the UNet's projection_class_embeddings_input_dim wants pooled text of %lld values, the text "
			"encoder "
			"makes %lld",
			(long long)text, (long long)(pooled.data ? pooled.dim[0] : 0));
	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ 1, u->time }, out));
	values = malloc((size_t)c->added_width * sizeof *values);
	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for an embedding");
	host = tensor_view(values, DTYPE_F32, 1, &text);
	status = kernels_download(u->k, pooled, &host);
	for (int i = 0; i < UNET_SIZES; i++)
		sinusoid(c, sizes[i], c->size_width, values + text + i * c->size_width);
	if (status == STATUS_OK)
		status = embed(u, arena, values, c->added_width, linear, *out);
	free(values);
	return status;
}

enum status unet_embed_prompt(struct unet *u, struct arena *arena, struct tensor text, struct tensor pooled,
	const float sizes[UNET_SIZES], struct unet_prompt *out)
{
	if (text.dim[1] != u->config.cross)
		return status_fail(STATUS_CORRUPT,
			"the UNet's cross_attention_dim is %lld, the text encoders make rows of %lld",
			(long long)u->config.cross, (long long)text.dim[1]);
	*out = (struct unet_prompt){ 0 };
	TRY(arena_take(arena, kernels_dtype(u->k), 2, text.dim, &out->text));
	TRY(kernels_unary(u->k, UNARY_COPY, text, out->text));
	return u->config.text_time ? embed_added(u, arena, pooled, sizes, &out->added) : STATUS_OK;
}

/* *out = silu(time + what the prompt adds), from the arena */
static enum status embed_time(
	struct unet *u, struct arena *arena, const struct unet_prompt *prompt, float timestep, struct tensor *out)
{
	const struct weight *const linear[4] = { u->ends.time1, u->ends.time1_bias, u->ends.time2, u->ends.time2_bias };
	int64_t width = u->config.level[0].channels, dim[2] = { 1, u->time };
	float *values = malloc((size_t)width * sizeof *values);
	struct tensor sum;
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for an embedding");
	sinusoid(&u->config, timestep, width, values);
	status = arena_take(arena, kernels_dtype(u->k), 2, dim, out);
	if (status == STATUS_OK)
		status = arena_take(arena, DTYPE_F32, 2, dim, &sum);
	if (status == STATUS_OK)
		status = embed(u, arena, values, width, linear, sum);
	if (status == STATUS_OK && prompt->added.data)
		status = kernels_unary(u->k, UNARY_ADD, prompt->added, sum);
	free(values);
	return status == STATUS_OK ? kernels_unary(u->k, UNARY_SILU, sum, *out) : status;
}

/* ---- prediction ---- */

/* What the way down leaves for the way up. */
struct skips {
	struct tensor tensor[UNET_LEVELS_MAX * LAYERS + 1];
	int n;
};

static enum status run_down(struct unet_pass *p, const struct level *level, struct skips *skips, struct tensor *stream)
{
	struct tensor none = { 0 };

	for (int64_t i = 0; i < level->n; i++) {
		TRY(unet_residual_run(p, &level->resnets[i], *stream, none, stream));
		if (level->attention)
			TRY(unet_transformer_run(p, &level->transformers[i], *stream));
		skips->tensor[skips->n++] = *stream;
	}
	if (level->sampler) {
		TRY(unet_downsample(p, &level->resample, *stream, stream));
		skips->tensor[skips->n++] = *stream;
	}
	return STATUS_OK;
}

static enum status run_up(struct unet_pass *p, const struct level *level, struct skips *skips, struct tensor *stream)
{
	for (int64_t i = 0; i < level->n; i++) {
		TRY(unet_residual_run(p, &level->resnets[i], *stream, skips->tensor[--skips->n], stream));
		if (level->attention)
			TRY(unet_transformer_run(p, &level->transformers[i], *stream));
	}
	if (level->sampler) {
		struct tensor next = skips->tensor[skips->n - 1];

		TRY(unet_upsample(p, &level->resample, *stream, next.dim[0], next.dim[1], stream));
	}
	return STATUS_OK;
}

static enum status run_mid(struct unet *u, struct unet_pass *p, struct tensor *stream)
{
	struct tensor none = { 0 };

	TRY(unet_residual_run(p, &u->mid[0], *stream, none, stream));
	TRY(unet_transformer_run(p, &u->mid_transformer, *stream));
	return unet_residual_run(p, &u->mid[1], *stream, none, stream);
}

static enum status run_conv_in(struct unet *u, struct unet_pass *p, struct tensor latents, struct tensor *stream)
{
	int64_t h = latents.dim[1], w = latents.dim[2];
	size_t mark;
	struct tensor x;

	TRY(arena_take(p->conv.arena, DTYPE_F32, 3, (int64_t[]){ h, w, u->config.level[0].channels }, stream));
	mark = arena_mark(p->conv.arena);
	TRY(arena_take(p->conv.arena, kernels_dtype(u->k), 3, (int64_t[]){ h, w, latents.dim[0] }, &x));
	TRY(kernels_to_nhwc(u->k, latents, 1, 0, x));
	TRY(kernels_conv(
		u->k, &(struct conv){ .x = x, .w = u->ends.conv_in, .bias = u->ends.conv_in_bias, .y = *stream }));
	arena_release(p->conv.arena, mark);
	return STATUS_OK;
}

static enum status run_conv_out(struct unet *u, struct unet_pass *p, struct tensor stream, struct tensor out)
{
	int64_t h = stream.dim[0], w = stream.dim[1], channels = u->config.out_channels;
	struct tensor normed, y;

	TRY(arena_take(p->conv.arena, kernels_dtype(u->k), 3, stream.dim, &normed));
	TRY(arena_take(p->conv.arena, DTYPE_F32, 3, (int64_t[]){ h, w, channels }, &y));
	TRY(kernels_group_norm(u->k, &(struct group_norm){ .x = stream,
					     .groups = p->conv.groups,
					     .weight = u->ends.norm_weight,
					     .bias = u->ends.norm_bias,
					     .eps = p->conv.eps,
					     .silu = true,
					     .y = normed }));
	TRY(kernels_conv(
		u->k, &(struct conv){ .x = normed, .w = u->ends.conv_out, .bias = u->ends.conv_out_bias, .y = y }));
	return kernels_unpatchify(u->k, tensor_view(y.data, DTYPE_F32, 2, (int64_t[]){ h * w, channels }), 1, 1, out);
}

static enum status predict(struct unet *u, struct unet_pass *p, struct tensor latents, struct tensor out)
{
	struct skips skips = { .n = 1 };
	struct tensor stream;

	TRY(run_conv_in(u, p, latents, &stream));
	skips.tensor[0] = stream;
	for (int i = 0; i < u->config.n_levels; i++)
		TRY(run_down(p, &u->down[i], &skips, &stream));
	TRY(run_mid(u, p, &stream));
	for (int i = 0; i < u->config.n_levels; i++)
		TRY(run_up(p, &u->up[i], &skips, &stream));
	return run_conv_out(u, p, stream, out);
}

/* A prediction; also what it depends on, byte by byte, so the fields leave no gaps. */
struct prediction {
	struct unet *u;
	struct arena *arena;
	size_t mark;
	struct tensor text, time, latents, out;
};

static enum status run_prediction(void *context)
{
	const struct prediction *r = context;
	struct unet_pass pass = { .conv = { .k = r->u->k,
					  .arena = r->arena,
					  .groups = (int)r->u->config.groups,
					  .eps = (float)r->u->config.norm_eps,
					  .time = r->time },
		.text = r->text };
	enum status status = predict(r->u, &pass, r->latents, r->out);

	arena_release(r->arena, r->mark);
	return status;
}

enum status unet_predict(struct unet *u, struct arena *arena, const struct unet_prompt *prompt, float timestep,
	struct tensor latents, struct tensor out)
{
	size_t mark = arena_mark(arena);
	struct prediction p = { .u = u, .arena = arena, .text = prompt->text, .latents = latents, .out = out };
	enum status status = embed_time(u, arena, prompt, timestep, &p.time);

	p.mark = arena_mark(arena);
	if (status == STATUS_OK)
		status = kernels_repeat(u->k, run_prediction, &p, &p, sizeof p);
	arena_release(arena, mark);
	return status;
}

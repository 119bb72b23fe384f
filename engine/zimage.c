/* zimage: the family Z-Image (Turbo and base), as diffusers' ZImagePipeline runs it.
 *
 * Paper: arXiv 2511.22699.  Reference: diffusers, pipelines/z_image/pipeline_z_image.py.
 *
 * Traps: guidance acts when it is above 0, as positive + scale * (positive - negative); a missing negative prompt is
 * the empty one through the chat frame; the prompt is cut at max_sequence_length tokens, frame included; the latents
 * are drawn and stepped in float32.
 *
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/autoencoder.h"
#include "engine/family.h"
#include "engine/derive.h"
#include "engine/json.h"
#include "engine/pipeline.h"
#include "engine/png.h"
#include "engine/qwen3.h"
#include "engine/settings.h"
#include "engine/tokenizer.h"
#include "engine/weights.h"
#include "engine/zimage_transformer.h"

enum { TOKENS_DEFAULT = 512 };

enum { POSITIVE, NEGATIVE };

struct zimage {
	struct pipeline base;
	struct kernels *k;
	struct tokenizer *tokenizer;
	struct zimage_transformer *transformer; /* borrowed from parts */
	struct zimage_caption caption[2];       /* of the job under way */
	struct zimage_modulation modulation;
	struct pipeline_calls calls; /* of modulation */
};

/* ---- description and recipes ---- */

static void join(char *out, size_t len, const char *dir, const char *name)
{
	snprintf(out, len, "%s/%s", dir, name);
}

static int smaller(int64_t a, int64_t b)
{
	return (int)(a < b ? a : b);
}

static enum status read_shift(const json_t *object, const char *path, void *out)
{
	return json_get_number(object, path, "shift", 1e-3, 1e3, out);
}

/* The published files say nowhere which of the two models they are.  Turbo's schedule is shifted by 3, the base model's
 * by more; what follows from it are only the defaults of steps and guidance. */
static enum status zimage_describe(struct model *m)
{
	char path[PATH_MAX + 64];
	struct component part;
	struct zimage_config transformer;
	struct autoencoder_config vae;
	double shift = 1;
	int side;

	TRY(model_component(m, "transformer", &part));
	TRY(zimage_config_read(&part, &transformer));
	TRY(model_component(m, "vae", &part));
	TRY(autoencoder_config_read(&part, &vae));
	pipeline_scheduler_path(m, path);
	TRY(derive_read_file(path, read_shift, &shift));
	m->size_multiple = ZIMAGE_PATCH << (vae.n_blocks - 1);
	m->size_max = smaller(
		PNG_SIDE_MAX, m->size_multiple * (int64_t)smaller(transformer.axes_len[1], transformer.axes_len[2]));
	side = smaller(vae.sample_size, m->size_max) / m->size_multiple * m->size_multiple;
	if (side == 0)
		side = m->size_multiple;
	m->defaults = (struct model_defaults){ side, side, shift <= 3 ? 8 : 50, shift <= 3 ? 0 : 5 };
	return STATUS_OK;
}

static const struct setting settings[] = {
	{ "cfg_normalization", SETTING_NUMBER, 0, 1e6 },
	{ "cfg_truncation", SETTING_NUMBER, 0, 1e6 },
	{ "max_sequence_length", SETTING_INT, 1, 1000 },
	{ "text_encoder_file", SETTING_FILE, 0, 0 },
	{ "transformer_file", SETTING_FILE, 0, 0 },
	{ "vae_file", SETTING_FILE, 0, 0 },
};

static enum status zimage_resolve(const struct model *m, struct recipe *r)
{
	TRY(pipeline_check_size(m, r));
	TRY(pipeline_check_flow_sampler(m, r));
	return settings_check(settings, sizeof settings / sizeof settings[0], r, "Z-Image");
}

static enum status zimage_apply_cfg(const struct model *m, struct recipe *r, double cfg)
{
	r->guidance = cfg - 1;
	return STATUS_OK;
}

/* ---- loading ---- */

PART_FUNCTIONS(qwen3)
PART_FUNCTIONS(zimage_transformer)
PART_FUNCTIONS(autoencoder)

/* The autoencoder is small and stays beside the transformer. */
enum { PART_TEXT, PART_TRANSFORMER, PART_VAE, PART_COUNT };
static const struct part_kind part_kinds[PART_COUNT] = {
	[PART_TEXT] = { "text_encoder", "text encoder", 0, part_open_qwen3, part_close_qwen3 },
	[PART_TRANSFORMER] = { "transformer", "transformer", 1, part_open_zimage_transformer,
		part_close_zimage_transformer },
	[PART_VAE] = { "vae", "autoencoder", 1, part_open_autoencoder, part_close_autoencoder },
};

static enum status zimage_each_part(const struct model *m, part_visit *visit, void *context)
{
	return parts_each(m, part_kinds, PART_COUNT, visit, context);
}

static enum status read_parts(struct zimage *z, const struct model *m)
{
	char path[PATH_MAX + 64];
	struct component part;
	struct zimage_config transformer;
	struct autoencoder_config vae;

	TRY(model_component(m, "transformer", &part));
	TRY(zimage_config_read(&part, &transformer));
	TRY(model_component(m, "vae", &part));
	TRY(autoencoder_config_read(&part, &vae));
	if (transformer.channels != vae.latent_channels)
		return status_fail(STATUS_CORRUPT,
			"%s: transformer/config.json has in_channels %lld, vae/config.json latent_channels "
			"%lld: they do not belong together",
			m->path, (long long)transformer.channels, (long long)vae.latent_channels);
	z->base.latent_channels = vae.latent_channels;
	z->base.pixels_per_latent = (int64_t)1 << (vae.n_blocks - 1);
	z->base.vae = PART_VAE;
	pipeline_scheduler_path(m, z->base.scheduler);
	TRY(sampler_check(z->base.scheduler, "", 1));
	join(path, sizeof path, m->path, "tokenizer/tokenizer.json");
	return derive_open_tokenizer(path, &z->tokenizer);
}

static void zimage_close(void *state)
{
	struct zimage *z = state;

	if (!z)
		return;
	parts_close(z->base.parts);
	tokenizer_close(z->tokenizer);
	free(z);
}

static enum status zimage_open(
	const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	struct zimage *z = calloc(1, sizeof *z);
	enum status status;

	if (!z)
		return status_fail(STATUS_NO_MEMORY, "no memory for a model");
	z->k = k;
	status = read_parts(z, m);
	if (status == STATUS_OK)
		status = parts_open(m, k, memory, part_kinds, PART_COUNT, &z->base.parts);
	if (status != STATUS_OK) {
		zimage_close(z);
		return status;
	}
	*state = z;
	return STATUS_OK;
}

/* ---- text ---- */

/* The prompt in the chat frame of the pipeline (Qwen3's template for one user message), cut to the longest length. */
static enum status tokenize(struct zimage *z, const char *prompt, int64_t longest, struct token_ids *ids)
{
	static const char before[] = "<|im_start|>user\n", after[] = "<|im_end|>\n<|im_start|>assistant\n";
	struct bytes text = { 0 };
	enum status status;

	status = bytes_add(&text, before, sizeof before - 1);
	if (status == STATUS_OK)
		status = bytes_add(&text, prompt, strlen(prompt));
	if (status == STATUS_OK)
		status = bytes_add(&text, after, sizeof after - 1);
	if (status == STATUS_OK)
		status = tokenizer_encode(z->tokenizer, (char *)text.data, text.len, ids);
	bytes_free(&text);
	if (ids->count > longest)
		ids->count = longest;
	return status;
}

/* The trace holds the ids as the reference gives them to the encoder: padded on the right. */
static enum status trace_padded(
	struct zimage *z, struct run *run, const char *name, const struct token_ids *ids, int64_t longest)
{
	int64_t padding = tokenizer_find(z->tokenizer, "<|endoftext|>");
	int64_t *padded;
	enum status status;

	if (!run->trace)
		return STATUS_OK;
	padded = malloc((size_t)longest * sizeof *padded);
	if (!padded)
		return status_fail(STATUS_NO_MEMORY, "no memory for a trace");
	for (int64_t i = 0; i < longest; i++)
		padded[i] = i < ids->count ? ids->id[i] : padding;
	status = trace_ids(run->trace, name, padded, longest);
	free(padded);
	return status;
}

static enum status embed_ids(
	struct zimage *z, struct run *run, const char *sign, const struct token_ids *ids, struct tensor *embeds)
{
	int64_t longest = (int64_t)setting_number(run->recipe, "max_sequence_length", TOKENS_DEFAULT);
	char name[64];
	void *text;

	snprintf(name, sizeof name, "%sinput_ids.0", sign);
	TRY(trace_padded(z, run, name, ids, longest));
	TRY(parts_need(z->base.parts, PART_TEXT, run, &text));
	TRY(arena_take(run->arena, DTYPE_F32, 2, (int64_t[]){ ids->count, qwen3_hidden(text) }, embeds));
	TRY(qwen3_encode(text, run->arena, ids->id, ids->count, *embeds));
	return trace_tensor(run->trace, z->k, *embeds, "%sprompt_embeds", sign);
}

static enum status encode_prompt(struct zimage *z, struct run *run, int which, struct tensor *embeds)
{
	const struct recipe *r = run->recipe;
	const char *prompt = which == POSITIVE ? r->prompt : r->negative ? r->negative : "";
	struct token_ids ids = { 0 };
	enum status status =
		tokenize(z, prompt, (int64_t)setting_number(r, "max_sequence_length", TOKENS_DEFAULT), &ids);

	if (status == STATUS_OK)
		status = embed_ids(z, run, which == POSITIVE ? "" : "negative_", &ids, embeds);
	token_ids_free(&ids);
	return status;
}

static enum status embed_prompt(struct zimage *z, struct run *run, int which, struct tensor *embeds)
{
	bool found;

	TRY(memo_recall(parts_memo(z->base.parts), run, which, 1, embeds, &found));
	if (found)
		return STATUS_OK;
	TRY(encode_prompt(z, run, which, embeds));
	return memo_keep(parts_memo(z->base.parts), run, which, 1, embeds);
}

static bool guided(const struct recipe *r)
{
	return r->guidance > 0;
}

static enum status zimage_encode(void *state, struct run *run)
{
	struct zimage *z = state;
	struct tensor embeds[2];
	int64_t shape[3];
	void *transformer;
	int n = guided(run->recipe) ? 2 : 1;

	for (int i = 0; i < n; i++)
		TRY(embed_prompt(z, run, i, &embeds[i]));
	TRY(parts_need(z->base.parts, PART_TRANSFORMER, run, &transformer));
	z->transformer = transformer;
	pipeline_latent_shape(z, run->recipe, shape);
	for (int i = 0; i < n; i++)
		TRY(zimage_transformer_caption(
			z->transformer, run->arena, embeds[i], shape[1], shape[2], &z->caption[i]));
	z->calls.count = 0;
	return STATUS_OK;
}

/* ---- denoising ---- */

static void zimage_sampler(const void *state, const struct recipe *r, struct sampler_request *out)
{
	const struct zimage *z = state;
	int64_t side = ZIMAGE_PATCH * z->base.pixels_per_latent;

	out->config = z->base.scheduler;
	out->linspace_sigmas = true;
	out->image_tokens = (r->height / side) * (r->width / side);
}

/* 1 - sigma as the pipeline computes it. */
static float time_of(const struct sampler *s, int call)
{
	return (1000 - sampler_timestep(s, call)) / 1000;
}

static enum status need_modulation(struct zimage *z, struct run *run, const struct sampler *s, int call)
{
	float times[PIPELINE_CALLS_MAX];
	int n = pipeline_calls_start(&z->calls, s, call);

	if (n == 0)
		return STATUS_OK;
	for (int i = 0; i < n; i++)
		times[i] = time_of(s, call + i);
	return zimage_transformer_modulation(z->transformer, run->arena, n, times, &z->modulation);
}

static enum status l2_norm(struct kernels *k, struct tensor device, double *out)
{
	int64_t n = tensor_count(&device);
	struct tensor host = device;
	double sum = 0;
	enum status status;

	host.data = malloc((size_t)n * sizeof(float));
	if (!host.data)
		return status_fail(STATUS_NO_MEMORY, "no memory for guidance");
	status = kernels_download(k, device, &host);
	for (int64_t i = 0; status == STATUS_OK && i < n; i++)
		sum += (double)((float *)host.data)[i] * ((float *)host.data)[i];
	free(host.data);
	*out = sqrt(sum);
	return status;
}

/* positive := positive + scale (positive - negative), its length limited when cfg_normalization asks for it. */
static enum status guide(struct zimage *z, const struct recipe *r, struct tensor positive, struct tensor negative)
{
	double limit = setting_number(r, "cfg_normalization", 0), before = 0, after;
	float scale = (float)r->guidance;

	if (limit > 0)
		TRY(l2_norm(z->k, positive, &before));
	TRY(kernels_axpby(z->k, -scale, negative, 1 + scale, positive));
	if (limit > 0) {
		TRY(l2_norm(z->k, positive, &after));
		if (after > before * limit)
			TRY(kernels_axpby(z->k, 0, negative, (float)(before * limit / after), positive));
	}
	return STATUS_OK;
}

static enum status zimage_predict(
	void *state, struct run *run, const struct sampler *s, int call, struct tensor latents, struct tensor out)
{
	struct zimage *z = state;
	struct tensor negative;
	double truncation = setting_number(run->recipe, "cfg_truncation", 1);
	size_t mark;
	int64_t row;

	TRY(need_modulation(z, run, s, call));
	row = call - z->calls.first;
	TRY(zimage_transformer_predict(
		z->transformer, run->arena, &z->caption[POSITIVE], &z->modulation, row, latents, out));
	/* beyond cfg_truncation (compared with 1 - sigma, and only up to 1) guidance is off */
	if (!guided(run->recipe) || (truncation <= 1 && (double)time_of(s, call) > truncation))
		return STATUS_OK;
	mark = arena_mark(run->arena);
	TRY(arena_take(run->arena, DTYPE_F32, 3, out.dim, &negative));
	TRY(zimage_transformer_predict(
		z->transformer, run->arena, &z->caption[NEGATIVE], &z->modulation, row, latents, negative));
	TRY(guide(z, run->recipe, out, negative));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

const struct family zimage_family = {
	.name = "z-image",
	.pipeline = "ZImagePipeline",
	.describe = zimage_describe,
	.resolve = zimage_resolve,
	.apply_cfg = zimage_apply_cfg,
	.each_part = zimage_each_part,
	.open = zimage_open,
	.close = zimage_close,
	.encode = zimage_encode,
	.latent_shape = pipeline_latent_shape,
	.sampler = zimage_sampler,
	.predict = zimage_predict,
	.decode = pipeline_decode,
};

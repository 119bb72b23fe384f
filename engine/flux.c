/* flux: the family FLUX.1 (dev and schnell), as diffusers' FluxPipeline runs it.
 *
 * Paper: FLUX.1 Kontext, arXiv 2506.15742.  Reference: diffusers, pipelines/flux/pipeline_flux.py.
 *
 * Traps: guidance_scale is an input of the distilled network and no guidance in the usual sense; schnell has no such
 * input; true guidance needs both true_cfg_scale above 1 and a negative prompt; CLIP gives only its pooled row, T5 the
 * rows; padding is attended; sizes are floored to multiples of 16; the shift follows its line below 256 tokens too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/autoencoder.h"
#include "engine/clip_text.h"
#include "engine/derive.h"
#include "engine/family.h"
#include "engine/flux_transformer.h"
#include "engine/pipeline.h"
#include "engine/png.h"
#include "engine/prompt_weights.h"
#include "engine/settings.h"
#include "engine/t5.h"
#include "engine/text.h"
#include "engine/tokenizer.h"

enum { TOKENS_MAX = 512 };

enum { POSITIVE, NEGATIVE };

struct flux {
	struct pipeline base;
	struct kernels *k;
	struct tokenizer *tokenizer, *tokenizer_2;
	struct flux_transformer *transformer; /* borrowed from parts */
	struct flux_text text[2];             /* of the job under way */
	struct flux_modulation modulation[2];
	struct pipeline_calls calls; /* of modulation */
};

/* ---- description and recipes ---- */

static void join(char *out, size_t len, const char *dir, const char *name)
{
	snprintf(out, len, "%s/%s", dir, name);
}

static enum status read_configs(const struct model *m, struct flux_config *transformer, struct autoencoder_config *vae)
{
	struct component part;

	TRY(model_component(m, "transformer", &part));
	TRY(flux_config_read(&part, transformer));
	TRY(model_component(m, "vae", &part));
	TRY(autoencoder_config_read(&part, vae));
	if (transformer->channels != vae->latent_channels)
		return status_fail(STATUS_CORRUPT,
			"%s: transformer/config.json has in_channels %lld, vae/config.json latent_channels "
			"%lld: they do not belong together",
			m->path, (long long)transformer->channels * FLUX_PATCH * FLUX_PATCH,
			(long long)vae->latent_channels);
	return STATUS_OK;
}

/* What tells schnell from dev is that guidance is no input of it. */
static enum status flux_describe(struct model *m)
{
	struct flux_config transformer;
	struct autoencoder_config vae;
	int side;

	TRY(read_configs(m, &transformer, &vae));
	m->size_multiple = FLUX_PATCH << (vae.n_blocks - 1);
	m->size_max = PNG_SIDE_MAX / m->size_multiple * m->size_multiple;
	side = vae.sample_size < m->size_max ? (int)vae.sample_size / m->size_multiple * m->size_multiple : m->size_max;
	if (side == 0)
		side = m->size_multiple;
	m->defaults = transformer.guidance ? (struct model_defaults){ side, side, 28, 3.5 }
					   : (struct model_defaults){ side, side, 4, 0 };
	return STATUS_OK;
}

static void flux_round_size(const struct model *m, int *width, int *height)
{
	/* what is too small stays as it was written, for the message that refuses it */
	if (*width >= m->size_multiple)
		*width -= *width % m->size_multiple;
	if (*height >= m->size_multiple)
		*height -= *height % m->size_multiple;
}

static const struct setting settings[] = {
	{ "max_sequence_length", SETTING_INT, 1, TOKENS_MAX },
	{ "negative_prompt_2", SETTING_TEXT, 0, 0 },
	{ "prompt_2", SETTING_TEXT, 0, 0 },
	{ PROMPT_WEIGHTS_SETTING, SETTING_TEXT, 0, 0 },
	{ "text_encoder_2_file", SETTING_FILE, 0, 0 },
	{ "text_encoder_file", SETTING_FILE, 0, 0 },
	{ "transformer_file", SETTING_FILE, 0, 0 },
	{ "true_cfg_scale", SETTING_NUMBER, 0, 1e6 },
	{ "vae_file", SETTING_FILE, 0, 0 },
};

static enum status flux_resolve(const struct model *m, struct recipe *r)
{
	TRY(pipeline_check_size(m, r));
	TRY(pipeline_check_flow_sampler(m, r));
	TRY(settings_check(settings, sizeof settings / sizeof settings[0], r, "FLUX"));
	return prompt_weights_check(r);
}

/* A1111's CFG scale guides for real; what the network was distilled for is the Distilled CFG Scale. */
static enum status flux_apply_cfg(const struct model *m, struct recipe *r, double cfg)
{
	char text[TEXT_DOUBLE_LEN];

	if (cfg == 1)
		return STATUS_OK;
	text_print_double(cfg, text);
	return recipe_add_set(r, "true_cfg_scale", text);
}

static enum status flux_apply_distilled_cfg(const struct model *m, struct recipe *r, double cfg)
{
	r->guidance = cfg;
	return STATUS_OK;
}

/* ---- loading ---- */

PART_FUNCTIONS(clip_text)
PART_FUNCTIONS(t5)
PART_FUNCTIONS(flux_transformer)
PART_FUNCTIONS(autoencoder)

/* The autoencoder is small and stays beside the transformer. */
enum { PART_CLIP, PART_T5, PART_TRANSFORMER, PART_VAE, PART_COUNT };
static const struct part_kind part_kinds[PART_COUNT] = {
	[PART_CLIP] = { "text_encoder", "CLIP text encoder", 0, part_open_clip_text, part_close_clip_text },
	[PART_T5] = { "text_encoder_2", "T5 text encoder", 0, part_open_t5, part_close_t5 },
	[PART_TRANSFORMER] = { "transformer", "transformer", 1, part_open_flux_transformer,
		part_close_flux_transformer },
	[PART_VAE] = { "vae", "autoencoder", 1, part_open_autoencoder, part_close_autoencoder },
};

static enum status flux_each_part(const struct model *m, part_visit *visit, void *context)
{
	return parts_each(m, part_kinds, PART_COUNT, visit, context);
}

static enum status read_parts(struct flux *f, const struct model *m)
{
	char path[PATH_MAX + 64];
	struct flux_config transformer;
	struct autoencoder_config vae;

	TRY(read_configs(m, &transformer, &vae));
	f->base.latent_channels = vae.latent_channels;
	f->base.pixels_per_latent = (int64_t)1 << (vae.n_blocks - 1);
	f->base.vae = PART_VAE;
	pipeline_scheduler_path(m, f->base.scheduler);
	TRY(sampler_check(f->base.scheduler, "", 1));
	join(path, sizeof path, m->path, "tokenizer");
	TRY(derive_open_tokenizer(path, &f->tokenizer));
	join(path, sizeof path, m->path, "tokenizer_2");
	return derive_open_tokenizer(path, &f->tokenizer_2);
}

static void flux_close(void *state)
{
	struct flux *f = state;

	if (!f)
		return;
	parts_close(f->base.parts);
	tokenizer_close(f->tokenizer);
	tokenizer_close(f->tokenizer_2);
	free(f);
}

static enum status flux_open(const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	struct flux *f = calloc(1, sizeof *f);
	enum status status;

	if (!f)
		return status_fail(STATUS_NO_MEMORY, "no memory for a model");
	f->k = k;
	status = read_parts(f, m);
	if (status == STATUS_OK)
		status = parts_open(m, k, memory, part_kinds, PART_COUNT, &f->base.parts);
	if (status != STATUS_OK) {
		flux_close(f);
		return status;
	}
	*state = f;
	return STATUS_OK;
}

/* ---- text ---- */

/* Whether the negative prompt takes part. */
static bool guided(const struct recipe *r)
{
	return r->negative && setting_number(r, "true_cfg_scale", 1) > 1;
}

static const char *sign_of(int which)
{
	return which == POSITIVE ? "" : "negative_";
}

/* What text encoder 0 or 1 reads. */
static const char *prompt_of(const struct recipe *r, int which, int encoder)
{
	const char *first = which == POSITIVE ? r->prompt : r->negative;

	return encoder == 0 ? first : setting_text(r, which == POSITIVE ? "prompt_2" : "negative_prompt_2", first);
}

/* weights: as prompt_weights_encode gives them. */
static enum status tokenize(
	struct flux *f, struct run *run, int which, int encoder, int64_t length, struct token_ids *ids, float **weights)
{
	const char *prompt = prompt_of(run->recipe, which, encoder);
	char name[64];

	snprintf(name, sizeof name, "%sinput_ids.%d", sign_of(which), encoder);
	TRY(prompt_weights_encode(
		run->recipe, encoder == 0 ? f->tokenizer : f->tokenizer_2, prompt, length, ids, weights));
	return trace_ids(run->trace, name, ids->id, ids->count);
}

static enum status encode_pooled(struct flux *f, struct run *run, int which, struct tensor *pooled)
{
	struct token_ids ids = { 0 };
	float *weights = NULL; /* the pooled row has none */
	struct clip_text *clip;
	enum status status;
	void *part;
	int64_t width;

	TRY(parts_need(f->base.parts, PART_CLIP, run, &part));
	clip = part;
	width = clip_text_width(clip);
	TRY(arena_take(run->arena, DTYPE_F32, 1, &width, pooled));
	status = tokenize(f, run, which, 0, clip_text_positions(clip), &ids, &weights);
	if (status == STATUS_OK)
		status = clip_text_encode(clip, run->arena, ids.id, ids.count, 0, false, (struct tensor){ 0 }, *pooled);
	free(weights);
	token_ids_free(&ids);
	return status != STATUS_OK ? status
				   : trace_tensor(run->trace, f->k, *pooled, "%spooled_prompt_embeds", sign_of(which));
}

static enum status encode_rows(struct flux *f, struct run *run, int which, struct tensor *rows)
{
	int64_t length = (int64_t)setting_number(run->recipe, "max_sequence_length", TOKENS_MAX);
	struct token_ids ids = { 0 };
	float *weights = NULL;
	enum status status;
	void *t5;

	TRY(parts_need(f->base.parts, PART_T5, run, &t5));
	TRY(arena_take(run->arena, DTYPE_F32, 2, (int64_t[]){ length, t5_width(t5) }, rows));
	status = tokenize(f, run, which, 1, length, &ids, &weights);
	if (status == STATUS_OK)
		status = t5_encode(t5, run->arena, ids.id, ids.count, *rows);
	if (status == STATUS_OK && weights)
		status = prompt_weights_apply(f->k, *rows, weights);
	free(weights);
	token_ids_free(&ids);
	return status != STATUS_OK ? status : trace_tensor(run->trace, f->k, *rows, "%sprompt_embeds", sign_of(which));
}

/* rows, then pooled */
static enum status embed_prompt(struct flux *f, struct run *run, int which, struct tensor out[2])
{
	bool found;

	TRY(memo_recall(parts_memo(f->base.parts), run, which, 2, out, &found));
	if (found)
		return STATUS_OK;
	TRY(encode_pooled(f, run, which, &out[1]));
	TRY(encode_rows(f, run, which, &out[0]));
	return memo_keep(parts_memo(f->base.parts), run, which, 2, out);
}

static enum status flux_encode(void *state, struct run *run)
{
	struct flux *f = state;
	struct tensor text[2][2];
	int n = guided(run->recipe) ? 2 : 1;
	int64_t shape[3];
	void *transformer;

	for (int i = 0; i < n; i++)
		TRY(embed_prompt(f, run, i, text[i]));
	TRY(parts_need(f->base.parts, PART_TRANSFORMER, run, &transformer));
	f->transformer = transformer;
	pipeline_latent_shape(f, run->recipe, shape);
	for (int i = 0; i < n; i++)
		TRY(flux_transformer_text(f->transformer, run->arena, text[i][0], text[i][1],
			(float)run->recipe->guidance, shape[1], shape[2], &f->text[i]));
	f->calls.count = 0;
	return STATUS_OK;
}

/* ---- denoising ---- */

static void flux_sampler(const void *state, const struct recipe *r, struct sampler_request *out)
{
	const struct flux *f = state;
	int64_t side = FLUX_PATCH * f->base.pixels_per_latent;

	out->config = f->base.scheduler;
	out->linspace_sigmas = true;
	out->image_tokens = (r->height / side) * (r->width / side);
}

static enum status need_modulation(struct flux *f, struct run *run, const struct sampler *s, int call)
{
	float times[PIPELINE_CALLS_MAX];
	int n = pipeline_calls_start(&f->calls, s, call);

	if (n == 0)
		return STATUS_OK;
	for (int i = 0; i < n; i++)
		times[i] = sampler_timestep(s, call + i) / 1000 * 1000; /* as the pipeline and the network round it */
	for (int i = 0; i < (guided(run->recipe) ? 2 : 1); i++)
		TRY(flux_transformer_modulation(f->transformer, run->arena, &f->text[i], n, times, &f->modulation[i]));
	return STATUS_OK;
}

static enum status predict_one(
	struct flux *f, struct run *run, int which, int call, struct tensor latents, struct tensor out)
{
	return flux_transformer_predict(f->transformer, run->arena, &f->text[which], &f->modulation[which],
		call - f->calls.first, latents, out);
}

static enum status flux_predict(
	void *state, struct run *run, const struct sampler *s, int call, struct tensor latents, struct tensor out)
{
	struct flux *f = state;
	float scale = (float)setting_number(run->recipe, "true_cfg_scale", 1);
	struct tensor negative;
	size_t mark;

	TRY(need_modulation(f, run, s, call));
	TRY(predict_one(f, run, POSITIVE, call, latents, out));
	if (!guided(run->recipe))
		return STATUS_OK;
	mark = arena_mark(run->arena);
	TRY(arena_take(run->arena, DTYPE_F32, 3, out.dim, &negative));
	TRY(predict_one(f, run, NEGATIVE, call, latents, negative));
	TRY(kernels_axpby(f->k, 1 - scale, negative, scale, out));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

const struct family flux_family = {
	.name = "flux",
	.pipeline = "FluxPipeline",
	.describe = flux_describe,
	.resolve = flux_resolve,
	.round_size = flux_round_size,
	.apply_cfg = flux_apply_cfg,
	.apply_distilled_cfg = flux_apply_distilled_cfg,
	.each_part = flux_each_part,
	.open = flux_open,
	.close = flux_close,
	.encode = flux_encode,
	.latent_shape = pipeline_latent_shape,
	.sampler = flux_sampler,
	.predict = flux_predict,
	.decode = pipeline_decode,
};

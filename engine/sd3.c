/* sd3: the family Stable Diffusion 3 (SD3 medium, SD3.5 medium and large), as diffusers' StableDiffusion3Pipeline runs
 * it.
 *
 * Paper: arXiv 2403.03206.  Reference: diffusers, pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py.
 *
 * Traps: the text rows are hidden_states[-2] of CLIP-L and bigG side by side, zero-padded to T5's width, then T5's
 * rows, padding included; a model without T5 has zero rows there, attended like any; the pooled vector is [CLIP-L,
 * bigG]; guidance acts when it is above 1; the negative prompt ignores clip_skip, and a missing one is the empty text;
 * the scheduler's shift acts twice, because the pipeline leaves the sigmas to the scheduler.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/autoencoder.h"
#include "engine/clip_text.h"
#include "engine/family.h"
#include "engine/derive.h"
#include "engine/json.h"
#include "engine/pipeline.h"
#include "engine/png.h"
#include "engine/prompt_weights.h"
#include "engine/sd3_transformer.h"
#include "engine/settings.h"
#include "engine/t5.h"
#include "engine/text.h"
#include "engine/tokenizer.h"

enum { CLIPS = 2, T5 = 2, ENCODERS = 3 };
enum { T5_TOKENS = 256 };
enum { POSITIVE, NEGATIVE, SIGNS };

struct sd3 {
	struct pipeline base;
	struct kernels *k;
	bool has_t5;
	int64_t layers, text_dim;
	struct tokenizer *tokenizer[ENCODERS];
	struct sd3_transformer *transformer; /* borrowed from parts */
	/* of the job under way */
	struct sd3_prompt prompt[SIGNS];
	struct tensor positions;
	struct sd3_modulation modulation[SIGNS];
	struct pipeline_calls calls; /* of modulation */
};

/* A prompt as the text encoders give it. */
struct embedded {
	struct tensor rows;   /* [tokens, text_dim] F32 */
	struct tensor pooled; /* [1, pooled_dim] F32 */
};

/* ---- description and recipes ------------------------------------------------------------------------------------- */

static int smaller(int64_t a, int64_t b)
{
	return (int)(a < b ? a : b);
}

static enum status read_configs(const struct model *m, struct sd3_config *transformer, struct autoencoder_config *vae)
{
	struct component part;

	TRY(model_component(m, "transformer", &part));
	TRY(sd3_config_read(&part, transformer));
	TRY(model_component(m, "vae", &part));
	TRY(autoencoder_config_read(&part, vae));
	if (transformer->channels != vae->latent_channels)
		return status_fail(STATUS_CORRUPT,
			"%s: transformer/config.json has in_channels %lld, vae/config.json latent_channels "
			"%lld: they do not belong together",
			m->path, (long long)transformer->channels, (long long)vae->latent_channels);
	return STATUS_OK;
}

static enum status sd3_describe(struct model *m)
{
	struct sd3_config transformer;
	struct autoencoder_config vae;
	int side;

	TRY(read_configs(m, &transformer, &vae));
	m->size_multiple = SD3_PATCH << (vae.n_blocks - 1);
	m->size_max = smaller(PNG_SIDE_MAX, m->size_multiple * transformer.positions);
	m->size_max -= m->size_max % m->size_multiple;
	side = smaller(transformer.sample_size << (vae.n_blocks - 1), m->size_max);
	side = side < m->size_multiple ? m->size_multiple : side - side % m->size_multiple;
	m->defaults = (struct model_defaults){ side, side, 28, 7 };
	return STATUS_OK;
}

static const struct setting settings[] = {
	{ "clip_skip", SETTING_INT, 0, 1000 },
	{ "max_sequence_length", SETTING_INT, 1, 512 },
	{ "negative_prompt_2", SETTING_TEXT, 0, 0 },
	{ "negative_prompt_3", SETTING_TEXT, 0, 0 },
	{ "prompt_2", SETTING_TEXT, 0, 0 },
	{ "prompt_3", SETTING_TEXT, 0, 0 },
	{ PROMPT_WEIGHTS_SETTING, SETTING_TEXT, 0, 0 },
	{ "skip_guidance_layers", SETTING_TEXT, 0, 0 },
	{ "skip_layer_guidance_scale", SETTING_NUMBER, -1e6, 1e6 },
	{ "skip_layer_guidance_start", SETTING_NUMBER, 0, 1 },
	{ "skip_layer_guidance_stop", SETTING_NUMBER, 0, 1 },
	{ "text_encoder_2_file", SETTING_FILE, 0, 0 },
	{ "text_encoder_3_file", SETTING_FILE, 0, 0 },
	{ "text_encoder_file", SETTING_FILE, 0, 0 },
	{ "transformer_file", SETTING_FILE, 0, 0 },
	{ "vae_file", SETTING_FILE, 0, 0 },
};

/* "7, 8, 9", also in brackets: the layers that skip-layer guidance leaves out.  False: not such a list. */
static bool read_layers(const char *text, int64_t layers, bool skip[SD3_LAYERS_MAX])
{
	char word[16];
	int64_t layer;

	memset(skip, 0, SD3_LAYERS_MAX * sizeof *skip);
	for (text += strspn(text, " ["); *text; text += strspn(text, ", ]")) {
		size_t len = strcspn(text, ", ]");

		if (len == 0 || len >= sizeof word)
			return false;
		memcpy(word, text, len);
		word[len] = 0;
		if (!text_read_int(word, 0, layers - 1, &layer))
			return false;
		skip[layer] = true;
		text += len;
	}
	return true;
}

static enum status check_layers(const struct model *m, const struct recipe *r)
{
	const char *list = setting_text(r, "skip_guidance_layers", NULL);
	struct sd3_config transformer;
	struct autoencoder_config vae;
	bool skip[SD3_LAYERS_MAX];

	if (!list)
		return STATUS_OK;
	TRY(read_configs(m, &transformer, &vae));
	if (read_layers(list, transformer.layers, skip))
		return STATUS_OK;
	return status_fail(STATUS_INVALID,
		"Set: skip_guidance_layers=%.60s: must be layers from 0 to %lld, such as 7,8,9", list,
		(long long)transformer.layers - 1);
}

static enum status sd3_resolve(const struct model *m, struct recipe *r)
{
	TRY(pipeline_check_size(m, r));
	TRY(pipeline_check_flow_sampler(m, r));
	TRY(settings_check(settings, sizeof settings / sizeof settings[0], r, "Stable Diffusion 3"));
	TRY(check_layers(m, r));
	return prompt_weights_check(r);
}

static enum status sd3_apply_cfg(const struct model *m, struct recipe *r, double cfg)
{
	r->guidance = cfg;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

PART_FUNCTIONS(clip_text)
PART_FUNCTIONS(t5)
PART_FUNCTIONS(sd3_transformer)
PART_FUNCTIONS(autoencoder)

/* The autoencoder is small and stays beside the transformer; T5 comes last because not every model has one. */
enum { PART_CLIP, PART_CLIP_2, PART_TRANSFORMER, PART_VAE, PART_T5, PART_COUNT };
static const struct part_kind part_kinds[PART_COUNT] = {
	[PART_CLIP] = { "text_encoder", "text encoder", 0, part_open_clip_text, part_close_clip_text },
	[PART_CLIP_2] = { "text_encoder_2", "text encoder 2", 0, part_open_clip_text, part_close_clip_text },
	[PART_TRANSFORMER] = { "transformer", "transformer", 1, part_open_sd3_transformer, part_close_sd3_transformer },
	[PART_VAE] = { "vae", "autoencoder", 1, part_open_autoencoder, part_close_autoencoder },
	[PART_T5] = { "text_encoder_3", "text encoder 3", 0, part_open_t5, part_close_t5 },
};

/* model_index.json gives null for a text encoder that the model does without. */
static enum status read_index(const json_t *object, const char *path, void *out)
{
	const json_t *class = json_array_get(json_object_get(object, "text_encoder_3"), 1);

	*(bool *)out = json_is_string(class);
	return STATUS_OK;
}

static enum status count_parts(const struct model *m, int *n)
{
	char path[PATH_MAX + 64];
	bool has_t5 = false;

	snprintf(path, sizeof path, "%s/model_index.json", m->path);
	TRY(derive_read_file(path, read_index, &has_t5));
	*n = has_t5 || model_overrides(m, part_kinds[PART_T5].component) ? PART_COUNT : PART_T5;
	return STATUS_OK;
}

static enum status sd3_each_part(const struct model *m, part_visit *visit, void *context)
{
	int n;

	TRY(count_parts(m, &n));
	return parts_each(m, part_kinds, n, visit, context);
}

static enum status open_tokenizers(struct sd3 *s, const struct model *m)
{
	static const char *const names[ENCODERS] = { "tokenizer", "tokenizer_2", "tokenizer_3" };
	char path[PATH_MAX + 64];

	for (int i = 0; i < (s->has_t5 ? ENCODERS : CLIPS); i++) {
		snprintf(path, sizeof path, "%s/%s", m->path, names[i]);
		TRY(derive_open_tokenizer(path, &s->tokenizer[i]));
	}
	return STATUS_OK;
}

static enum status open_all(struct sd3 *s, const struct model *m, const struct memory_budget *memory)
{
	struct sd3_config transformer;
	struct autoencoder_config vae;
	int n;

	TRY(read_configs(m, &transformer, &vae));
	s->layers = transformer.layers;
	s->text_dim = transformer.text_dim;
	s->base.latent_channels = vae.latent_channels;
	s->base.pixels_per_latent = (int64_t)1 << (vae.n_blocks - 1);
	TRY(count_parts(m, &n));
	s->has_t5 = n == PART_COUNT;
	s->base.vae = PART_VAE;
	pipeline_scheduler_path(m, s->base.scheduler);
	TRY(sampler_check(s->base.scheduler, "", 1));
	TRY(open_tokenizers(s, m));
	return parts_open(m, s->k, memory, part_kinds, n, &s->base.parts);
}

static void sd3_close(void *state)
{
	struct sd3 *s = state;

	if (!s)
		return;
	parts_close(s->base.parts);
	for (int i = 0; i < ENCODERS; i++)
		tokenizer_close(s->tokenizer[i]);
	free(s);
}

static enum status sd3_open(const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	struct sd3 *s = calloc(1, sizeof *s);
	enum status status;

	if (!s)
		return status_fail(STATUS_NO_MEMORY, "no memory for a model");
	s->k = k;
	status = open_all(s, m, memory);
	if (status != STATUS_OK) {
		sd3_close(s);
		return status;
	}
	*state = s;
	return STATUS_OK;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* The text that encoder i reads: its own where one is given, else the first encoder's. */
static const char *text_of(const struct recipe *r, int sign, int i)
{
	static const char *const names[SIGNS][ENCODERS] = { { NULL, "prompt_2", "prompt_3" },
		{ NULL, "negative_prompt_2", "negative_prompt_3" } };
	const char *common = sign == POSITIVE ? r->prompt : r->negative ? r->negative : "";
	const char *own = i == 0 ? "" : setting_text(r, names[sign][i], "");

	return *own ? own : common;
}

static int64_t t5_tokens(const struct recipe *r)
{
	return (int64_t)setting_number(r, "max_sequence_length", T5_TOKENS);
}

/* weights: as prompt_weights_encode gives them. */
static enum status tokenize(
	struct sd3 *s, struct run *run, int sign, int i, int64_t length, struct token_ids *ids, float **weights)
{
	const char *text = text_of(run->recipe, sign, i);
	char name[64];

	TRY(prompt_weights_encode(run->recipe, s->tokenizer[i], text, length, ids, weights));
	snprintf(name, sizeof name, "%sinput_ids.%d", sign == POSITIVE ? "" : "negative_", i);
	return trace_ids(run->trace, name, ids->id, ids->count);
}

/* Encoder i's state into its columns of the first rows, its pooled row into its columns of the pooled one. */
static enum status embed_clip_ids(struct sd3 *s, struct run *run, struct clip_text *clip, const struct token_ids *ids,
	const float *weights, int skip, struct tensor rows, struct tensor pooled)
{
	struct tensor hidden;
	size_t mark = arena_mark(run->arena);

	TRY(arena_take(run->arena, DTYPE_F32, 2, rows.dim, &hidden));
	pooled = tensor_view(pooled.data, pooled.dtype, 1, &pooled.dim[1]);
	TRY(clip_text_encode(clip, run->arena, ids->id, ids->count, 1 + skip, false, hidden, pooled));
	if (weights)
		TRY(prompt_weights_apply(s->k, hidden, weights));
	TRY(kernels_unary(s->k, UNARY_COPY, hidden, rows));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

static enum status embed_clip(struct sd3 *s, struct run *run, int sign, int i, struct clip_text *clip,
	struct tensor rows, struct tensor pooled)
{
	int skip = sign == POSITIVE ? (int)setting_number(run->recipe, "clip_skip", 0) : 0;
	struct token_ids ids = { 0 };
	float *weights = NULL;
	enum status status = tokenize(s, run, sign, i, rows.dim[0], &ids, &weights);

	if (status == STATUS_OK)
		status = embed_clip_ids(s, run, clip, &ids, weights, skip, rows, pooled);
	free(weights);
	token_ids_free(&ids);
	return status;
}

static enum status embed_t5(struct sd3 *s, struct run *run, int sign, struct tensor rows)
{
	struct token_ids ids = { 0 };
	float *weights = NULL;
	enum status status;
	void *t5;

	if (!s->has_t5)
		return STATUS_OK;
	TRY(parts_need(s->base.parts, PART_T5, run, &t5));
	if (t5_width(t5) != s->text_dim)
		return status_fail(STATUS_CORRUPT,
			"text_encoder_3 gives %lld values a token, the transformer wants joint_attention_dim %lld",
			(long long)t5_width(t5), (long long)s->text_dim);
	status = tokenize(s, run, sign, T5, rows.dim[0], &ids, &weights);
	if (status == STATUS_OK)
		status = t5_encode(t5, run->arena, ids.id, ids.count, rows);
	if (status == STATUS_OK && weights)
		status = prompt_weights_apply(s->k, rows, weights);
	free(weights);
	token_ids_free(&ids);
	return status;
}

static enum status take_zeros(struct sd3 *s, struct arena *arena, int64_t rows, int64_t dim, struct tensor *out)
{
	struct tensor host =
		tensor_view(calloc((size_t)(rows * dim), sizeof(float)), DTYPE_F32, 2, (int64_t[]){ rows, dim });
	enum status status;

	if (!host.data)
		return status_fail(STATUS_NO_MEMORY, "no memory for a prompt");
	status = arena_take(arena, DTYPE_F32, 2, host.dim, out);
	if (status == STATUS_OK)
		status = kernels_upload(s->k, &host, *out);
	free(host.data);
	return status;
}

static enum status need_clips(struct sd3 *s, struct run *run, struct clip_text *clip[CLIPS])
{
	for (int i = 0; i < CLIPS; i++) {
		void *part;

		TRY(parts_need(s->base.parts, PART_CLIP + i, run, &part));
		clip[i] = part;
		if (clip_text_projection(clip[i]) == 0)
			return status_fail(STATUS_CORRUPT, "%s has no text_projection: Stable Diffusion 3 needs one",
				part_kinds[PART_CLIP + i].component);
	}
	if (clip_text_width(clip[0]) + clip_text_width(clip[1]) > s->text_dim)
		return status_fail(STATUS_CORRUPT,
			"text_encoder and text_encoder_2 give %lld values a token together, more than the "
			"transformer's "
			"joint_attention_dim %lld",
			(long long)(clip_text_width(clip[0]) + clip_text_width(clip[1])), (long long)s->text_dim);
	return STATUS_OK;
}

static enum status encode_prompt(struct sd3 *s, struct run *run, int sign, struct embedded *out)
{
	const char *prefix = sign == POSITIVE ? "" : "negative_";
	struct clip_text *clip[CLIPS];
	int64_t tokens, width = 0, pooled_width = 0;

	TRY(need_clips(s, run, clip));
	tokens = clip_text_positions(clip[0]);
	TRY(take_zeros(s, run->arena, tokens + t5_tokens(run->recipe), s->text_dim, &out->rows));
	TRY(arena_take(run->arena, DTYPE_F32, 2,
		(int64_t[]){ 1, clip_text_projection(clip[0]) + clip_text_projection(clip[1]) }, &out->pooled));
	for (int i = 0; i < CLIPS; i++) {
		struct tensor rows = tensor_slice(out->rows, 0, 0, tokens);

		TRY(embed_clip(s, run, sign, i, clip[i], tensor_slice(rows, 1, width, clip_text_width(clip[i])),
			tensor_slice(out->pooled, 1, pooled_width, clip_text_projection(clip[i]))));
		width += clip_text_width(clip[i]);
		pooled_width += clip_text_projection(clip[i]);
	}
	TRY(embed_t5(s, run, sign, tensor_slice(out->rows, 0, tokens, t5_tokens(run->recipe))));
	TRY(trace_tensor(run->trace, s->k, out->rows, "%sprompt_embeds", prefix));
	return trace_tensor(run->trace, s->k, tensor_view(out->pooled.data, DTYPE_F32, 1, &out->pooled.dim[1]),
		"%spooled_prompt_embeds", prefix);
}

static enum status embed_prompt(struct sd3 *s, struct run *run, int sign, struct embedded *out)
{
	struct tensor both[2];
	bool found;

	TRY(memo_recall(parts_memo(s->base.parts), run, sign, 2, both, &found));
	if (found) {
		*out = (struct embedded){ .rows = both[0], .pooled = both[1] };
		return STATUS_OK;
	}
	TRY(encode_prompt(s, run, sign, out));
	return memo_keep(parts_memo(s->base.parts), run, sign, 2, (struct tensor[]){ out->rows, out->pooled });
}

/* How many prompts there are to predict for. */
static int signs(const struct recipe *r)
{
	return r->guidance > 1 ? SIGNS : 1;
}

static enum status sd3_encode(void *state, struct run *run)
{
	struct sd3 *s = state;
	struct embedded text[SIGNS];
	int64_t shape[3];
	void *part;
	int n = signs(run->recipe);

	for (int i = 0; i < n; i++)
		TRY(embed_prompt(s, run, i, &text[i]));
	TRY(parts_need(s->base.parts, PART_TRANSFORMER, run, &part));
	s->transformer = part;
	for (int i = 0; i < n; i++) {
		TRY(sd3_transformer_prompt(s->transformer, run->arena, text[i].rows, text[i].pooled, &s->prompt[i]));
		s->modulation[i] = (struct sd3_modulation){ 0 }; /* that of the last job has left the arena */
	}
	s->calls.count = 0;
	pipeline_latent_shape(s, run->recipe, shape);
	return sd3_transformer_positions(s->transformer, run->arena, shape[1], shape[2], &s->positions);
}

/* ---- denoising --------------------------------------------------------------------------------------------------- */

static void sd3_sampler(const void *state, const struct recipe *r, struct sampler_request *out)
{
	const struct sd3 *s = state;
	int64_t side = SD3_PATCH * s->base.pixels_per_latent;

	out->config = s->base.scheduler;
	out->image_tokens = (r->height / side) * (r->width / side);
}

static enum status need_modulation(struct sd3 *s, struct run *run, const struct sampler *sampler, int call)
{
	float times[PIPELINE_CALLS_MAX];
	int n = pipeline_calls_start(&s->calls, sampler, call);

	if (n == 0)
		return STATUS_OK;
	for (int i = 0; i < n; i++)
		times[i] = sampler_timestep(sampler, call + i);
	for (int i = 0; i < signs(run->recipe); i++)
		TRY(sd3_transformer_modulation(s->transformer, run->arena, &s->prompt[i], n, times, &s->modulation[i]));
	return STATUS_OK;
}

static enum status predict_sign(
	struct sd3 *s, struct run *run, int sign, const bool *skip, int call, struct tensor latents, struct tensor out)
{
	return sd3_transformer_predict(s->transformer, run->arena,
		&(struct sd3_condition){ .prompt = &s->prompt[sign],
			.modulation = &s->modulation[sign],
			.row = call - s->calls.first,
			.positions = s->positions,
			.skip = skip },
		latents, out);
}

/* Whether skip-layer guidance acts at this call, and which layers it leaves out. */
static bool skips(const struct sd3 *s, const struct recipe *r, int call, bool skip[SD3_LAYERS_MAX])
{
	const char *list = setting_text(r, "skip_guidance_layers", NULL);
	double start = setting_number(r, "skip_layer_guidance_start", 0.01);
	double stop = setting_number(r, "skip_layer_guidance_stop", 0.2);

	return list && call > r->steps * start && call < r->steps * stop && read_layers(list, s->layers, skip);
}

/* out := negative + guidance (out - negative) + skip scale (out - out without some layers) */
static enum status guide(struct sd3 *s, struct run *run, int call, struct tensor latents, struct tensor out)
{
	const struct recipe *r = run->recipe;
	double scale = r->guidance, skip_scale = 0;
	bool skip[SD3_LAYERS_MAX], skipping = skips(s, r, call, skip);
	struct tensor other, without;

	TRY(arena_take(run->arena, DTYPE_F32, 3, out.dim, &other));
	TRY(arena_take(run->arena, DTYPE_F32, 3, out.dim, &without));
	if (skipping) {
		skip_scale = setting_number(r, "skip_layer_guidance_scale", 2.8);
		TRY(predict_sign(s, run, POSITIVE, skip, call, latents, without));
	}
	TRY(predict_sign(s, run, NEGATIVE, NULL, call, latents, other));
	TRY(kernels_axpby(s->k, (float)(1 - scale), other, (float)(scale + skip_scale), out));
	return skipping ? kernels_axpby(s->k, (float)-skip_scale, without, 1, out) : STATUS_OK;
}

static enum status sd3_predict(
	void *state, struct run *run, const struct sampler *sampler, int call, struct tensor latents, struct tensor out)
{
	struct sd3 *s = state;
	enum status status;
	size_t mark;

	TRY(need_modulation(s, run, sampler, call));
	TRY(predict_sign(s, run, POSITIVE, NULL, call, latents, out));
	if (signs(run->recipe) == 1)
		return STATUS_OK;
	mark = arena_mark(run->arena);
	status = guide(s, run, call, latents, out);
	arena_release(run->arena, mark);
	return status;
}

const struct family sd3_family = {
	.name = "sd3",
	.pipeline = "StableDiffusion3Pipeline",
	.describe = sd3_describe,
	.resolve = sd3_resolve,
	.apply_cfg = sd3_apply_cfg,
	.each_part = sd3_each_part,
	.open = sd3_open,
	.close = sd3_close,
	.encode = sd3_encode,
	.latent_shape = pipeline_latent_shape,
	.sampler = sd3_sampler,
	.predict = sd3_predict,
	.decode = pipeline_decode,
};

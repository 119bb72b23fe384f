/* sd: see sd.h. */
#include "engine/sd.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/autoencoder.h"
#include "engine/derive.h"
#include "engine/json.h"
#include "engine/prompt_weights.h"
#include "engine/png.h"

enum { SIZE_MULTIPLE = 8, STEPS_DEFAULT = 50 };

/* ---- description and recipes ---- */

static enum status read_configs(
	const struct sd_kind *kind, const struct model *m, struct unet_config *unet, struct autoencoder_config *vae)
{
	struct component part;

	TRY(model_component(m, "vae", &part));
	TRY(autoencoder_config_read(&part, vae));
	TRY(model_component(m, "unet", &part));
	TRY(unet_config_read(&part, unet));
	if (unet->in_channels == vae->latent_channels && unet->out_channels == vae->latent_channels &&
		unet->text_time == kind->text_time)
		return STATUS_OK;
	if (unet->text_time != kind->text_time)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: addition_embed_type is not that of %s", part.config, kind->label);
	return status_fail(STATUS_UNSUPPORTED,
		"%s: in_channels %lld and out_channels %lld where the autoencoder has %lld: only text to image is "
		"supported",
		part.config, (long long)unet->in_channels, (long long)unet->out_channels,
		(long long)vae->latent_channels);
}

static int64_t pixels_of(const struct autoencoder_config *vae)
{
	return (int64_t)1 << (vae->n_blocks - 1);
}

enum status sd_describe(const struct sd_kind *kind, struct model *m, double guidance)
{
	struct unet_config unet;
	struct autoencoder_config vae;
	int64_t pixels, side;

	TRY(read_configs(kind, m, &unet, &vae));
	pixels = pixels_of(&vae);
	m->size_multiple = (int)(pixels > SIZE_MULTIPLE ? pixels : SIZE_MULTIPLE);
	m->size_max = PNG_SIDE_MAX / m->size_multiple * m->size_multiple;
	side = unet.sample_size * pixels;
	if (side > m->size_max)
		side = m->size_max;
	side -= side % m->size_multiple;
	if (side == 0)
		side = m->size_multiple;
	m->defaults = (struct model_defaults){ (int)side, (int)side, STEPS_DEFAULT, guidance };
	return STATUS_OK;
}

enum status sd_resolve(const struct sd_kind *kind, const struct model *m, struct recipe *r)
{
	TRY(pipeline_check_size(m, r));
	TRY(pipeline_check_sampler(m, r));
	TRY(settings_check(kind->settings, kind->n_settings, r, kind->label));
	return prompt_weights_check(r);
}

enum status sd_apply_cfg(const struct model *m, struct recipe *r, double cfg)
{
	(void)m;
	r->guidance = cfg;
	return STATUS_OK;
}

/* ---- loading ---- */

#define PART(name)                                                                                                     \
	enum status sd_open_##name(struct kernels *k, const struct component *c, void **out)                           \
	{                                                                                                              \
		struct name *opened;                                                                                   \
                                                                                                                       \
		TRY(name##_open(k, c, &opened));                                                                       \
		*out = opened;                                                                                         \
		return STATUS_OK;                                                                                      \
	}                                                                                                              \
	void sd_close_##name(void *part)                                                                               \
	{                                                                                                              \
		name##_close(part);                                                                                    \
	}

PART(clip_text)
PART(unet)
PART(autoencoder)

static enum status read_index(const json_t *object, const char *path, void *out)
{
	return json_get_bool(object, path, "force_zeros_for_empty_prompt", out);
}

static enum status read_model(struct sd *sd, const struct model *m)
{
	struct autoencoder_config vae;
	char path[PATH_MAX + 64];

	TRY(read_configs(sd->kind, m, &sd->unet_config, &vae));
	sd->base.vae = sd->kind->n_texts + 1;
	sd->base.latent_channels = vae.latent_channels;
	sd->base.pixels_per_latent = pixels_of(&vae);
	pipeline_scheduler_path(m, sd->base.scheduler);
	TRY(sampler_check(sd->base.scheduler, "", STEPS_DEFAULT));
	sd->zeros_for_empty = true;
	snprintf(path, sizeof path, "%s/model_index.json", m->path);
	TRY(derive_read_file(path, read_index, &sd->zeros_for_empty));
	for (int i = 0; i < sd->kind->n_texts; i++) {
		snprintf(path, sizeof path, "%s/%s", m->path, sd->kind->tokenizer[i]);
		TRY(derive_open_tokenizer(path, &sd->tokenizer[i]));
	}
	return STATUS_OK;
}

void sd_close(void *state)
{
	struct sd *sd = state;

	if (!sd)
		return;
	parts_close(sd->base.parts);
	for (int i = 0; i < SD_TEXTS_MAX; i++)
		tokenizer_close(sd->tokenizer[i]);
	free(sd);
}

enum status sd_open(const struct sd_kind *kind, const struct model *m, struct kernels *k,
	const struct memory_budget *memory, void **state)
{
	struct sd *sd = calloc(1, sizeof *sd);
	enum status status;

	if (!sd)
		return status_fail(STATUS_NO_MEMORY, "no memory for a model");
	sd->kind = kind;
	sd->k = k;
	status = read_model(sd, m);
	if (status == STATUS_OK)
		status = parts_open(m, k, memory, kind->parts, kind->n_texts + 2, &sd->base.parts);
	if (status != STATUS_OK) {
		sd_close(sd);
		return status;
	}
	*state = sd;
	return STATUS_OK;
}

enum status sd_need_texts(struct sd *sd, struct run *run)
{
	void *text;

	for (int i = 0; i < sd->kind->n_texts; i++) {
		TRY(parts_need(sd->base.parts, i, run, &text));
		sd->text[i] = text;
	}
	return STATUS_OK;
}

enum status sd_need_unet(struct sd *sd, struct run *run)
{
	void *unet;

	TRY(parts_need(sd->base.parts, sd->kind->n_texts, run, &unet));
	sd->unet = unet;
	return STATUS_OK;
}

/* ---- text ---- */

bool sd_guided(const struct recipe *r)
{
	return r->guidance > 1;
}

static enum status encode_ids(struct sd *sd, struct run *run, int i, int which, const struct token_ids *ids, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled)
{
	char name[48];

	snprintf(name, sizeof name, "%sinput_ids.%d", which == SD_POSITIVE ? "" : "negative_", i);
	TRY(trace_ids(run->trace, name, ids->id, ids->count));
	return clip_text_encode(sd->text[i], run->arena, ids->id, ids->count, skip, final_norm, hidden, pooled);
}

enum status sd_encode_text(struct sd *sd, struct run *run, int i, int which, const char *text, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled)
{
	struct token_ids ids = { 0 };
	float *weights = NULL;
	enum status status = prompt_weights_encode(
		run->recipe, sd->tokenizer[i], text, clip_text_positions(sd->text[i]), &ids, &weights);

	if (status == STATUS_OK)
		status = encode_ids(sd, run, i, which, &ids, skip, final_norm, hidden, pooled);
	if (status == STATUS_OK && weights)
		status = prompt_weights_apply(sd->k, hidden, weights);
	free(weights);
	token_ids_free(&ids);
	return status;
}

/* ---- denoising ---- */

void sd_sampler(const void *state, const struct recipe *r, struct sampler_request *out)
{
	const struct sd *sd = state;

	out->config = sd->base.scheduler;
	out->eta = setting_number(r, "eta", 0);
}

/* The standard deviation of all values, with n - 1 as torch.std has it. */
static enum status deviation(struct kernels *k, struct tensor device, double *out)
{
	int64_t n = tensor_count(&device);
	struct tensor host = device;
	float *values = malloc((size_t)n * sizeof *values);
	double mean = 0, sum = 0;
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for guidance");
	host.data = values;
	status = kernels_download(k, device, &host);
	for (int64_t i = 0; status == STATUS_OK && i < n; i++)
		mean += (double)values[i] / (double)n;
	for (int64_t i = 0; status == STATUS_OK && i < n; i++)
		sum += ((double)values[i] - mean) * ((double)values[i] - mean);
	free(values);
	*out = sqrt(sum / (double)(n > 1 ? n - 1 : 1));
	return status;
}

/* positive := negative + scale (positive - negative), its contrast drawn to the positive one's by guidance_rescale:
 * arXiv 2305.08891, section 3.4. */
static enum status guide(struct sd *sd, const struct recipe *r, struct tensor positive, struct tensor negative)
{
	double rescale = setting_number(r, "guidance_rescale", 0), before = 0, after = 0;
	float scale = (float)r->guidance;

	if (rescale > 0)
		TRY(deviation(sd->k, positive, &before));
	TRY(kernels_axpby(sd->k, 1 - scale, negative, scale, positive));
	if (rescale <= 0)
		return STATUS_OK;
	TRY(deviation(sd->k, positive, &after));
	return kernels_axpby(sd->k, 0, negative, (float)(rescale * before / after + 1 - rescale), positive);
}

enum status sd_predict(
	void *state, struct run *run, const struct sampler *s, int call, struct tensor latents, struct tensor out)
{
	struct sd *sd = state;
	float t = sampler_timestep(s, call);
	struct tensor negative;
	size_t mark;

	TRY(unet_predict(sd->unet, run->arena, &sd->prompt[SD_POSITIVE], t, latents, out));
	if (!sd_guided(run->recipe))
		return STATUS_OK;
	mark = arena_mark(run->arena);
	TRY(arena_take(run->arena, DTYPE_F32, 3, out.dim, &negative));
	TRY(unet_predict(sd->unet, run->arena, &sd->prompt[SD_NEGATIVE], t, latents, negative));
	TRY(guide(sd, run->recipe, out, negative));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

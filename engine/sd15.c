/* sd15: the family Stable Diffusion 1.x, as diffusers' StableDiffusionPipeline runs it.
 *
 * Paper: arXiv 2112.10752.  Reference: diffusers, pipelines/stable_diffusion/pipeline_stable_diffusion.py.
 *
 * Traps: a missing negative prompt is the empty one; clip_skip n takes the state n layers before the last and still
 * applies the final norm, and the negative prompt ignores it.
 */
#include "engine/sd.h"

static const struct setting settings[] = {
	{ "clip_skip", SETTING_INT, 0, 47 },
	{ "eta", SETTING_NUMBER, 0, 1 },
	{ "guidance_rescale", SETTING_NUMBER, 0, 1 },
	{ "prompt_weights", SETTING_TEXT, 0, 0 },
	{ "text_encoder_file", SETTING_FILE, 0, 0 },
	{ "unet_file", SETTING_FILE, 0, 0 },
	{ "vae_file", SETTING_FILE, 0, 0 },
};

static const struct part_kind parts[] = { SD_PART_TEXT("text_encoder", "text encoder"), SD_PART_UNET, SD_PART_VAE };

static const struct sd_kind kind = {
	.label = "Stable Diffusion",
	.n_texts = 1,
	.parts = parts,
	.tokenizer = { "tokenizer" },
	.settings = settings,
	.n_settings = sizeof settings / sizeof settings[0],
};

static enum status sd15_describe(struct model *m)
{
	return sd_describe(&kind, m, 7.5);
}

static enum status sd15_resolve(const struct model *m, struct recipe *r)
{
	return sd_resolve(&kind, m, r);
}

static enum status sd15_each_part(const struct model *m, part_visit *visit, void *context)
{
	return parts_each(m, parts, sizeof parts / sizeof parts[0], visit, context);
}

static enum status sd15_open(const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	return sd_open(&kind, m, k, memory, state);
}

static enum status encode_prompt(struct sd *sd, struct run *run, int which, struct tensor *embeds)
{
	const struct recipe *r = run->recipe;
	const char *text = which == SD_POSITIVE ? r->prompt : r->negative ? r->negative : "";
	int64_t skip = which == SD_POSITIVE ? recipe_set_int(r, "clip_skip", 0) : 0, layers, dim[2];
	struct tensor none = { 0 };

	TRY(sd_need_texts(sd, run));
	layers = clip_text_layers(sd->text[0]);
	dim[0] = clip_text_positions(sd->text[0]);
	dim[1] = clip_text_width(sd->text[0]);
	if (skip > layers)
		return status_fail(STATUS_INVALID, "clip_skip %lld: the text encoder has %lld layers", (long long)skip,
			(long long)layers);
	TRY(arena_take(run->arena, DTYPE_F32, 2, dim, embeds));
	TRY(sd_encode_text(sd, run, 0, which, text, (int)skip, true, *embeds, none));
	return trace_tensor(run->trace, sd->k, *embeds, "%sprompt_embeds", which == SD_POSITIVE ? "" : "negative_");
}

static enum status embed_prompt(struct sd *sd, struct run *run, int which, struct tensor *embeds)
{
	bool found;

	TRY(memo_recall(parts_memo(sd->base.parts), run, which, 1, embeds, &found));
	if (found)
		return STATUS_OK;
	TRY(encode_prompt(sd, run, which, embeds));
	return memo_keep(parts_memo(sd->base.parts), run, which, 1, embeds);
}

static enum status sd15_encode(void *state, struct run *run)
{
	struct sd *sd = state;
	struct tensor embeds[2], none = { 0 };
	int n = sd_guided(run->recipe) ? 2 : 1;

	for (int i = 0; i < n; i++)
		TRY(embed_prompt(sd, run, i, &embeds[i]));
	TRY(sd_need_unet(sd, run));
	for (int i = 0; i < n; i++)
		TRY(unet_embed_prompt(sd->unet, run->arena, embeds[i], none, NULL, &sd->prompt[i]));
	return STATUS_OK;
}

const struct family sd15_family = {
	.name = "sd15",
	.pipeline = "StableDiffusionPipeline",
	.describe = sd15_describe,
	.resolve = sd15_resolve,
	.apply_cfg = sd_apply_cfg,
	.each_part = sd15_each_part,
	.open = sd15_open,
	.close = sd_close,
	.encode = sd15_encode,
	.latent_shape = pipeline_latent_shape,
	.sampler = sd_sampler,
	.predict = sd_predict,
	.decode = pipeline_decode,
};

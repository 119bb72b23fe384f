/* sdxl: the families SDXL and Playground v2.5, as diffusers' StableDiffusionXLPipeline runs them.
 *
 * Papers: arXiv 2307.01952, 2402.17245 (Playground v2.5).  Reference: diffusers,
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py.
 *
 * Traps: a missing negative prompt is zeros (model_index.json: force_zeros_for_empty_prompt), an empty one is encoded;
 * sizes go height first; the negative sizes need both negative_original_size and negative_target_size, else they are
 * the positive ones; the rows are those before the last layer, without the final norm; the pooled row is the second
 * encoder's.  Playground differs by its files: an EDM schedule, and latents_mean and latents_std in its autoencoder.
 */
#include <stdio.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/sd.h"

static const struct setting settings[] = {
	{ "clip_skip", SETTING_INT, 0, 46 },
	{ "crops_coords_top_left", SETTING_PAIR, -65536, 65536 },
	{ "eta", SETTING_NUMBER, 0, 1 },
	{ "guidance_rescale", SETTING_NUMBER, 0, 1 },
	{ "negative_crops_coords_top_left", SETTING_PAIR, -65536, 65536 },
	{ "negative_original_size", SETTING_PAIR, 1, 65536 },
	{ "negative_prompt_2", SETTING_TEXT, 0, 0 },
	{ "negative_target_size", SETTING_PAIR, 1, 65536 },
	{ "original_size", SETTING_PAIR, 1, 65536 },
	{ "prompt_2", SETTING_TEXT, 0, 0 },
	{ "prompt_weights", SETTING_TEXT, 0, 0 },
	{ "target_size", SETTING_PAIR, 1, 65536 },
	{ "text_encoder_2_file", SETTING_FILE, 0, 0 },
	{ "text_encoder_file", SETTING_FILE, 0, 0 },
	{ "unet_file", SETTING_FILE, 0, 0 },
	{ "vae_file", SETTING_FILE, 0, 0 },
};

static const struct part_kind parts[] = { SD_PART_TEXT("text_encoder", "text encoder"),
	SD_PART_TEXT("text_encoder_2", "second text encoder"), SD_PART_UNET, SD_PART_VAE };

static const struct sd_kind kind = {
	.label = "SDXL",
	.n_texts = 2,
	.parts = parts,
	.tokenizer = { "tokenizer", "tokenizer_2" },
	.settings = settings,
	.n_settings = sizeof settings / sizeof settings[0],
	.text_time = true,
};

/* Playground's card asks for a guidance of 3; its schedule tells it from SDXL. */
static enum status read_edm(const json_t *object, const char *path, void *out)
{
	const char *class_name = "";

	TRY(json_get_string(object, path, "_class_name", &class_name));
	*(bool *)out = strncmp(class_name, "EDM", 3) == 0;
	return STATUS_OK;
}

static enum status sdxl_describe(struct model *m)
{
	char path[PATH_MAX + 64];
	bool edm = false;

	pipeline_scheduler_path(m, path);
	TRY(derive_read_file(path, read_edm, &edm));
	return sd_describe(&kind, m, edm ? 3 : 5);
}

static enum status sdxl_resolve(const struct model *m, struct recipe *r)
{
	return sd_resolve(&kind, m, r);
}

static enum status sdxl_each_part(const struct model *m, part_visit *visit, void *context)
{
	return parts_each(m, parts, sizeof parts / sizeof parts[0], visit, context);
}

static enum status sdxl_open(const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	return sd_open(&kind, m, k, memory, state);
}

/* ---- text ---- */

struct conditioning {
	struct tensor embeds; /* [tokens, both widths] F32 */
	struct tensor pooled; /* [projection] F32 */
};

static const char *text_of(const struct recipe *r, int which, int encoder)
{
	const char *first = which == SD_POSITIVE ? r->prompt : r->negative ? r->negative : "", *second;

	if (encoder == 0)
		return first;
	second = setting_text(r, which == SD_POSITIVE ? "prompt_2" : "negative_prompt_2", "");
	return second[0] ? second : first;
}

/* One encoder's rows beside the other's, in columns of embeds. */
static enum status embed_with(
	struct sd *sd, struct run *run, int which, int encoder, int64_t column, struct conditioning *c)
{
	const struct recipe *r = run->recipe;
	struct clip_text *text = sd->text[encoder];
	int64_t skip = 1 + (which == SD_POSITIVE ? recipe_set_int(r, "clip_skip", 0) : 0),
		width = clip_text_width(text);
	size_t mark = arena_mark(run->arena);
	struct tensor hidden, none = { 0 };

	if (skip > clip_text_layers(text))
		return status_fail(STATUS_INVALID, "clip_skip %lld: text encoder %d has %lld layers",
			(long long)skip - 1, encoder + 1, (long long)clip_text_layers(text));
	TRY(arena_take(run->arena, DTYPE_F32, 2, (int64_t[]){ clip_text_positions(text), width }, &hidden));
	TRY(sd_encode_text(sd, run, encoder, which, text_of(r, which, encoder), (int)skip, false, hidden,
		encoder == 1 ? c->pooled : none));
	TRY(kernels_unary(sd->k, UNARY_COPY, hidden, tensor_slice(c->embeds, 1, column, width)));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

static enum status set_zero(struct kernels *k, struct tensor t)
{
	int64_t n = tensor_count(&t);
	float zero = 0;
	struct tensor host = tensor_view(&zero, DTYPE_F32, 1, (int64_t[]){ 1 });

	t = tensor_view(t.data, t.dtype, 2, (int64_t[]){ n, 1 });
	TRY(kernels_upload(k, &host, tensor_view(t.data, t.dtype, 1, (int64_t[]){ 1 })));
	return n > 1 ? kernels_fill_rows(
			       k, tensor_view(t.data, t.dtype, 1, (int64_t[]){ 1 }), tensor_slice(t, 0, 1, n - 1))
		     : STATUS_OK;
}

static enum status take_conditioning(struct sd *sd, struct run *run, struct conditioning *c)
{
	int64_t pooled = clip_text_projection(sd->text[1]);
	int64_t dim[2] = { clip_text_positions(sd->text[0]),
		clip_text_width(sd->text[0]) + clip_text_width(sd->text[1]) };

	if (pooled == 0 || clip_text_positions(sd->text[1]) != dim[0])
		return status_fail(
			STATUS_CORRUPT, "text_encoder_2 must have a projection and as many positions as text_encoder");
	TRY(arena_take(run->arena, DTYPE_F32, 2, dim, &c->embeds));
	return arena_take(run->arena, DTYPE_F32, 1, &pooled, &c->pooled);
}

static enum status encode_prompt(struct sd *sd, struct run *run, int which, struct conditioning *c)
{
	const char *sign = which == SD_POSITIVE ? "" : "negative_";

	TRY(sd_need_texts(sd, run));
	TRY(take_conditioning(sd, run, c));
	if (which == SD_NEGATIVE && !run->recipe->negative && sd->zeros_for_empty) {
		TRY(set_zero(sd->k, c->embeds));
		TRY(set_zero(sd->k, c->pooled));
	} else {
		TRY(embed_with(sd, run, which, 0, 0, c));
		TRY(embed_with(sd, run, which, 1, clip_text_width(sd->text[0]), c));
	}
	TRY(trace_tensor(run->trace, sd->k, c->embeds, "%sprompt_embeds", sign));
	return trace_tensor(run->trace, sd->k, c->pooled, "%spooled_prompt_embeds", sign);
}

static enum status embed_prompt(struct sd *sd, struct run *run, int which, struct conditioning *c)
{
	struct tensor both[2];
	bool found;

	TRY(memo_recall(parts_memo(sd->base.parts), run, which, 2, both, &found));
	if (found) {
		*c = (struct conditioning){ .embeds = both[0], .pooled = both[1] };
		return STATUS_OK;
	}
	TRY(encode_prompt(sd, run, which, c));
	return memo_keep(parts_memo(sd->base.parts), run, which, 2, (struct tensor[]){ c->embeds, c->pooled });
}

/* ---- sizes ---- */

static void put_pair(
	const struct recipe *r, const char *name, int64_t height, int64_t width, float sizes[UNET_SIZES], int at)
{
	int64_t pair[2] = { height, width };

	setting_pair(r, name, pair);
	sizes[at] = (float)pair[0];
	sizes[at + 1] = (float)pair[1];
}

static void find_sizes(const struct recipe *r, int which, float sizes[UNET_SIZES])
{
	int64_t unused[2];

	if (which == SD_NEGATIVE && setting_pair(r, "negative_original_size", unused) &&
		setting_pair(r, "negative_target_size", unused)) {
		put_pair(r, "negative_original_size", 0, 0, sizes, 0);
		put_pair(r, "negative_crops_coords_top_left", 0, 0, sizes, 2);
		put_pair(r, "negative_target_size", 0, 0, sizes, 4);
		return;
	}
	put_pair(r, "original_size", r->height, r->width, sizes, 0);
	put_pair(r, "crops_coords_top_left", 0, 0, sizes, 2);
	put_pair(r, "target_size", r->height, r->width, sizes, 4);
}

static enum status sdxl_encode(void *state, struct run *run)
{
	struct sd *sd = state;
	struct conditioning c[2];
	float sizes[UNET_SIZES];
	int n = sd_guided(run->recipe) ? 2 : 1;

	for (int i = 0; i < n; i++)
		TRY(embed_prompt(sd, run, i, &c[i]));
	TRY(sd_need_unet(sd, run));
	for (int i = 0; i < n; i++) {
		find_sizes(run->recipe, i, sizes);
		TRY(unet_embed_prompt(sd->unet, run->arena, c[i].embeds, c[i].pooled, sizes, &sd->prompt[i]));
	}
	return STATUS_OK;
}

const struct family sdxl_family = {
	.name = "sdxl",
	.pipeline = "StableDiffusionXLPipeline",
	.describe = sdxl_describe,
	.resolve = sdxl_resolve,
	.apply_cfg = sd_apply_cfg,
	.each_part = sdxl_each_part,
	.open = sdxl_open,
	.close = sd_close,
	.encode = sdxl_encode,
	.latent_shape = pipeline_latent_shape,
	.sampler = sd_sampler,
	.predict = sd_predict,
	.decode = pipeline_decode,
};

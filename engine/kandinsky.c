/* kandinsky: the family Kandinsky 2.2, as diffusers' KandinskyV22CombinedPipeline runs it: a prior makes an image
 * embedding of the text, a UNet paints from that embedding, MoVQ decodes.
 *
 * Paper: arXiv 2310.03502.  Reference: diffusers, pipelines/kandinsky2_2/pipeline_kandinsky2_2_combined.py,
 * .._prior.py, pipeline_kandinsky2_2.py.
 *
 * Layouts: all in one folder, the prior's parts with the prefix prior_; or the decoder's folder, whose README.md names
 * the prior's (a folder beside it); `Set: prior_model=` names another one.
 *
 * Traps: a negative prompt makes the prior run a second row, whose result is the negative embedding; without one that
 * is the image encoder's embedding of a zero picture; one generator serves the prior and then the decoder; guidance
 * acts above 1, in the decoder on the noise alone, the learned variance being that of the conditional half.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/clip_text.h"
#include "engine/clip_vision.h"
#include "engine/family.h"
#include "engine/kandinsky_prior.h"
#include "engine/kandinsky_unet.h"
#include "engine/movq.h"
#include "engine/pipeline.h"
#include "engine/png.h"
#include "engine/settings.h"
#include "engine/tokenizer.h"

enum { PRIOR_STEPS = 25, README_MAX = 1 << 16 };
static const double PRIOR_GUIDANCE = 4;

enum { POSITIVE, NEGATIVE };

/* Where a prior lies: its parts are path/PREFIXtext_encoder and so on. */
struct prior_place {
	char path[PATH_MAX];
	bool prefixed;                 /* "prior_" */
	char scheduler[PATH_MAX + 64]; /* its scheduler_config.json */
};

struct prior {
	struct prior_place place;
	char identity[MODEL_HASH_LEN + 1]; /* of its files */
	struct tokenizer *tokenizer;
	struct parts *parts;
	float *zero; /* embedding of the zero picture, once it was wanted */
};

struct kandinsky {
	struct pipeline base; /* the decoder's parts */
	struct kernels *k;
	struct model model;
	struct memory_budget memory;
	struct prior prior; /* the one last used; parts NULL: none open */
	int64_t outputs, image_dim;
	struct kandinsky_image image[2]; /* of the job under way */
};

/* ---- description and recipes ------------------------------------------------------------------------------------- */

static enum status read_configs(const struct model *m, struct kandinsky_unet_config *unet, struct movq_config *movq)
{
	struct component part;

	TRY(model_component(m, "unet", &part));
	TRY(kandinsky_unet_config_read(part.config, unet));
	TRY(model_component(m, "movq", &part));
	TRY(movq_config_read(part.config, movq));
	if (unet->in != movq->vq_channels || (unet->out != unet->in && unet->out != 2 * unet->in))
		return status_fail(STATUS_CORRUPT,
			"%s: unet/config.json has in_channels %lld and out_channels %lld, movq/config.json "
			"vq_embed_dim %lld: they do not belong together",
			m->path, (long long)unet->in, (long long)unet->out, (long long)movq->vq_channels);
	return STATUS_OK;
}

/* The pipeline makes latents of scale * ceil(side / scale^2). */
static enum status kandinsky_describe(struct model *m)
{
	struct kandinsky_unet_config unet;
	struct movq_config movq;
	int scale, multiple;

	TRY(read_configs(m, &unet, &movq));
	scale = 1 << (movq.n_blocks - 1);
	multiple = scale * scale;
	for (int i = 0; i < unet.n_blocks - 1; i++) /* every level halves the latents */
		while (multiple / scale % (1 << (unet.n_blocks - 1)) != 0)
			multiple *= 2;
	m->size_multiple = multiple;
	m->size_max = PNG_SIDE_MAX / multiple * multiple;
	m->defaults = (struct model_defaults){ 512, 512, 100, 4 };
	return STATUS_OK;
}

static void kandinsky_round_size(const struct model *m, int *width, int *height)
{
	int *sides[] = { width, height };

	for (int i = 0; i < 2; i++)
		if (*sides[i] > 0 && *sides[i] <= m->size_max)
			*sides[i] = (*sides[i] + m->size_multiple - 1) / m->size_multiple * m->size_multiple;
}

static const struct setting settings[] = {
	{ "movq_file", SETTING_FILE, 0, 0 },
	{ "prior_guidance_scale", SETTING_NUMBER, 0, 1e6 },
	{ "prior_model", SETTING_FILE, 0, 0 },
	{ "prior_num_inference_steps", SETTING_INT, 2, RECIPE_STEPS_MAX },
	{ "prior_steps", SETTING_INT, 2, RECIPE_STEPS_MAX }, /* the same, shorter */
	{ "unet_file", SETTING_FILE, 0, 0 },
};

static int prior_steps(const struct recipe *r)
{
	return (int)setting_number(
		r, "prior_steps", setting_number(r, "prior_num_inference_steps", (double)PRIOR_STEPS));
}

/* ---- finding the prior ------------------------------------------------------------------------------------------- */

/* The line after "prior:" in the front matter of README.md: "- kandinsky-community/kandinsky-2-2-prior". */
static bool prior_in_readme(const struct model *m, char *out, size_t size)
{
	char path[PATH_MAX + 16], line[512];
	bool next = false, found = false;
	FILE *f;

	snprintf(path, sizeof path, "%s/README.md", m->path);
	f = fopen(path, "re");
	for (int i = 0; f && !found && i < 200 && fgets(line, sizeof line, f); i++) {
		line[strcspn(line, "\r\n")] = '\0';
		found = next && strncmp(line, "- ", 2) == 0 && line[2];
		next = strcmp(line, "prior:") == 0;
	}
	if (f)
		fclose(f);
	if (found) {
		const char *slash = strrchr(line + 2, '/');

		snprintf(out, size, "%s", slash ? slash + 1 : line + 2);
	}
	return found;
}

static bool has_prior(const char *path, bool prefixed)
{
	char config[PATH_MAX + 64];

	snprintf(config, sizeof config, "%s/%sprior/config.json", path, prefixed ? "prior_" : "");
	return access(config, R_OK) == 0;
}

/* A name is that of a folder beside the model's. */
static bool place_prior(const struct model *m, const char *name, struct prior_place *out)
{
	int parent = (int)(strrchr(m->path, '/') ? strrchr(m->path, '/') - m->path : 0), len;

	if (name[0] == '/')
		len = snprintf(out->path, sizeof out->path, "%s", name);
	else
		len = snprintf(out->path, sizeof out->path, "%.*s/%s", parent, m->path, name);
	out->prefixed = has_prior(out->path, true);
	return len < (int)sizeof out->path && (out->prefixed || has_prior(out->path, false));
}

static enum status find_prior(const struct model *m, const struct recipe *r, struct prior_place *out)
{
	const char *name = setting_text(r, "prior_model", NULL);
	char readme[512];

	*out = (struct prior_place){ .prefixed = true };
	if (name && !place_prior(m, name, out))
		return status_fail(STATUS_INVALID,
			"Set: prior_model=%.200s: no Kandinsky prior there (a folder beside the model's, or a path)",
			name);
	if (!name && has_prior(m->path, true))
		snprintf(out->path, sizeof out->path, "%s", m->path);
	else if (!name && (!prior_in_readme(m, readme, sizeof readme) || !place_prior(m, readme, out)))
		return status_fail(STATUS_INVALID,
			"%s is only Kandinsky's decoder: its prior is not beside it; say where with Set: "
			"prior_model=PATH",
			m->path);
	snprintf(out->scheduler, sizeof out->scheduler, "%s/%sscheduler/scheduler_config.json", out->path,
		out->prefixed ? "prior_" : "");
	return STATUS_OK;
}

/* The prior that is used where no prompt asks for another one. */
static void kandinsky_find_beside(const struct model *m, char path[PATH_MAX])
{
	struct recipe none = { .n_sets = 0 };
	struct prior_place place;

	if (find_prior(m, &none, &place) == STATUS_OK && strcmp(place.path, m->path) != 0)
		snprintf(path, PATH_MAX, "%s", place.path);
}

static enum status kandinsky_resolve(const struct model *m, struct recipe *r)
{
	struct prior_place place;

	TRY(pipeline_check_size(m, r));
	TRY(pipeline_check_sampler(m, r));
	TRY(settings_check(settings, sizeof settings / sizeof settings[0], r, "Kandinsky"));
	TRY(find_prior(m, r, &place));
	TRY(sampler_check(place.scheduler, "", prior_steps(r)));
	return setting_text(r, "prior_model", NULL) ? recipe_add_file(r, "prior_model", place.path) : STATUS_OK;
}

static enum status kandinsky_apply_cfg(const struct model *m, struct recipe *r, double cfg)
{
	r->guidance = cfg;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

PART_FUNCTIONS(clip_text)
PART_FUNCTIONS(clip_vision)
PART_FUNCTIONS(kandinsky_prior)
PART_FUNCTIONS(kandinsky_unet)
PART_FUNCTIONS(movq)

enum { PART_TEXT, PART_VISION, PART_PRIOR, PRIOR_PARTS };
enum { PART_UNET, PART_MOVQ, DECODER_PARTS };

#define PRIOR_KINDS(prefix)                                                                                            \
	{                                                                                                              \
		[PART_TEXT] = { prefix "text_encoder", "text encoder", 0, part_open_clip_text, part_close_clip_text }, \
		[PART_VISION] = { prefix "image_encoder", "image encoder", 1, part_open_clip_vision,                   \
			part_close_clip_vision },                                                                      \
		[PART_PRIOR] = {                                                                                       \
			prefix "prior",                                                                                \
			"prior",                                                                                       \
			2,                                                                                             \
			part_open_kandinsky_prior,                                                                     \
			part_close_kandinsky_prior                                                                     \
		}                                                                                                      \
	}

static const struct part_kind prior_kinds[2][PRIOR_PARTS] = { PRIOR_KINDS(""), PRIOR_KINDS("prior_") };
static const struct part_kind decoder_kinds[DECODER_PARTS] = {
	[PART_UNET] = { "unet", "UNet", 0, part_open_kandinsky_unet, part_close_kandinsky_unet },
	[PART_MOVQ] = { "movq", "autoencoder", 0, part_open_movq, part_close_movq },
};

static enum status kandinsky_each_part(const struct model *m, part_visit *visit, void *context)
{
	struct recipe none = { 0 };
	struct prior_place place;
	struct model prior = *m;

	TRY(parts_each(m, decoder_kinds, DECODER_PARTS, visit, context));
	TRY(find_prior(m, &none, &place));
	snprintf(prior.path, sizeof prior.path, "%s", place.path);
	memset(prior.override, 0, sizeof prior.override);
	return parts_each(&prior, prior_kinds[place.prefixed], PRIOR_PARTS, visit, context);
}

static void close_prior(struct prior *p)
{
	parts_close(p->parts);
	tokenizer_close(p->tokenizer);
	free(p->zero);
	*p = (struct prior){ .parts = NULL };
}

static void kandinsky_close(void *state)
{
	struct kandinsky *z = state;

	if (!z)
		return;
	close_prior(&z->prior);
	parts_close(z->base.parts);
	free(z);
}

static enum status read_parts(struct kandinsky *z, const struct model *m)
{
	struct kandinsky_unet_config unet;
	struct movq_config movq;

	TRY(read_configs(m, &unet, &movq));
	z->base.latent_channels = unet.in;
	z->outputs = unet.out;
	z->image_dim = unet.image_dim;
	z->base.pixels_per_latent = (int64_t)1 << (movq.n_blocks - 1);
	pipeline_scheduler_path(m, z->base.scheduler);
	return parts_open(m, z->k, &z->memory, decoder_kinds, DECODER_PARTS, &z->base.parts);
}

static enum status kandinsky_open(
	const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	struct kandinsky *z = calloc(1, sizeof *z);
	enum status status;

	if (!z)
		return status_fail(STATUS_NO_MEMORY, "no memory for a model");
	z->k = k;
	z->model = *m;
	z->memory = *memory;
	status = read_parts(z, m);
	if (status != STATUS_OK) {
		kandinsky_close(z);
		return status;
	}
	*state = z;
	return STATUS_OK;
}

static enum status need_prior(struct kandinsky *z, const struct recipe *r)
{
	struct model m = z->model;
	struct prior_place place;
	char path[PATH_MAX + 64], identity[MODEL_HASH_LEN + 1];

	TRY(find_prior(&z->model, r, &place));
	TRY(content_identify(1, (const char *[]){ place.path }, identity, NULL));
	if (z->prior.parts && strcmp(z->prior.place.path, place.path) == 0 && strcmp(z->prior.identity, identity) == 0)
		return STATUS_OK;
	close_prior(&z->prior);
	z->prior.place = place;
	snprintf(z->prior.identity, sizeof z->prior.identity, "%s", identity);
	snprintf(m.path, sizeof m.path, "%s", place.path);
	memset(m.override, 0, sizeof m.override);
	snprintf(path, sizeof path, "%s/%stokenizer", place.path, place.prefixed ? "prior_" : "");
	TRY(tokenizer_open(path, &z->prior.tokenizer));
	TRY(parts_open(&m, z->k, &z->memory, prior_kinds[place.prefixed], PRIOR_PARTS, &z->prior.parts));
	TRY(parts_beside(z->prior.parts, &z->model, decoder_kinds, DECODER_PARTS));
	return parts_beside(z->base.parts, &m, prior_kinds[place.prefixed], PRIOR_PARTS);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static enum status tokenize(
	struct kandinsky *z, const char *text, int64_t length, struct token_ids *ids, int64_t *not_padding)
{
	struct token_ids bare = { 0 };
	enum status status = tokenizer_encode(z->prior.tokenizer, text, strlen(text), &bare);

	*not_padding = bare.count + 2 < length ? bare.count + 2 : length; /* with those that begin and end it */
	token_ids_free(&bare);
	TRY(status);
	return tokenizer_encode_padded(z->prior.tokenizer, text, strlen(text), length, ids);
}

static const char *text_of(const struct recipe *r, int which)
{
	return which == POSITIVE ? r->prompt : r->negative ? r->negative : "";
}

static enum status need_clip(struct kandinsky *z, struct run *run, struct clip_text **out)
{
	struct clip_text *clip;
	void *part;

	TRY(parts_need(z->prior.parts, PART_TEXT, run, &part));
	clip = part;
	if (clip_text_width(clip) != z->image_dim || clip_text_projection(clip) != z->image_dim)
		return status_fail(STATUS_CORRUPT,
			"%s: the text encoder makes embeddings of %lld and %lld values, the UNet wants %lld",
			z->prior.place.path, (long long)clip_text_width(clip), (long long)clip_text_projection(clip),
			(long long)z->image_dim);
	*out = clip;
	return STATUS_OK;
}

/* both: hidden [tokens, width], pooled [width] */
static enum status encode_ids(
	struct kandinsky *z, struct run *run, int which, struct tensor both[2], int64_t *not_padding)
{
	struct clip_text *clip = NULL;
	struct token_ids ids = { 0 };
	char name[64];
	enum status status;

	TRY(need_clip(z, run, &clip));
	TRY(arena_take(
		run->arena, DTYPE_F32, 2, (int64_t[]){ clip_text_positions(clip), clip_text_width(clip) }, &both[0]));
	TRY(arena_take(run->arena, DTYPE_F32, 1, (int64_t[]){ clip_text_projection(clip) }, &both[1]));
	snprintf(name, sizeof name, "%sinput_ids.0", which == POSITIVE ? "" : "negative_");
	status = tokenize(z, text_of(run->recipe, which), both[0].dim[0], &ids, not_padding);
	if (status == STATUS_OK)
		status = trace_ids(run->trace, name, ids.id, ids.count);
	if (status == STATUS_OK)
		status = clip_text_encode(clip, run->arena, ids.id, ids.count, 0, false, both[0], both[1]);
	token_ids_free(&ids);
	return status;
}

/* The decoder's memo outlasts the prior, which may have to leave memory. */
static enum status encode_text(struct kandinsky *z, struct run *run, int which, struct kandinsky_text *out)
{
	const char *sign = which == POSITIVE ? "" : "negative_";
	struct token_ids ids = { 0 };
	struct tensor both[2];
	enum status status;
	bool found;

	TRY(memo_recall(parts_memo(z->base.parts), run, which, 2, both, &found));
	if (found) {
		status = tokenize(z, text_of(run->recipe, which), both[0].dim[0], &ids, &out->tokens);
		token_ids_free(&ids);
		TRY(status);
	} else {
		TRY(encode_ids(z, run, which, both, &out->tokens));
		TRY(memo_keep(parts_memo(z->base.parts), run, which, 2, both));
	}
	TRY(trace_tensor(run->trace, z->k, both[0], "%sprompt_embeds", sign));
	TRY(trace_tensor(run->trace, z->k, both[1], "%spooled_prompt_embeds", sign));
	out->hidden = both[0];
	out->pooled = tensor_view(both[1].data, both[1].dtype, 2, (int64_t[]){ 1, both[1].dim[0] });
	return STATUS_OK;
}

static enum status encode_texts(struct kandinsky *z, struct run *run, int n, struct kandinsky_text out[2])
{
	for (int i = 0; i < n; i++)
		TRY(encode_text(z, run, i, &out[i]));
	return STATUS_OK;
}

/* ---- the prior --------------------------------------------------------------------------------------------------- */

struct prior_run {
	struct kandinsky *z;
	struct run *run;
	struct kandinsky_prior *prior;
	const struct kandinsky_text *text; /* [2]; the second where it is wanted */
	int rows;                          /* 2: a negative prompt has an embedding of its own */
	double guidance;
	struct tensor latents, scaled, prediction; /* [rows, width] F32 */
};

static enum status trace_rows(const struct prior_run *p, struct tensor rows, const char *what)
{
	for (int i = 0; i < p->rows; i++) {
		const struct tensor row = tensor_slice(rows, 0, i, 1);

		TRY(trace_tensor(p->run->trace, p->z->k, tensor_view(row.data, row.dtype, 1, &row.dim[1]), "prior.%s%s",
			i == POSITIVE ? "" : "negative_", what));
	}
	return STATUS_OK;
}

/* The row of the negative prompt is guided against itself, which changes nothing. */
static enum status predict_row(const struct prior_run *p, int row, float timestep)
{
	struct arena *arena = p->run->arena;
	const struct tensor x = tensor_slice(p->scaled, 0, row, 1), out = tensor_slice(p->prediction, 0, row, 1);
	const size_t mark = arena_mark(arena);
	struct tensor negative;

	TRY(kandinsky_prior_predict(p->prior, arena, &p->text[row], timestep, x, out));
	if (row == NEGATIVE || !(p->guidance > 1))
		return STATUS_OK;
	TRY(arena_take(arena, DTYPE_F32, 2, out.dim, &negative));
	TRY(kandinsky_prior_predict(p->prior, arena, &p->text[NEGATIVE], timestep, x, negative));
	TRY(kernels_axpby(p->z->k, (float)(1 - p->guidance), negative, (float)p->guidance, out));
	arena_release(arena, mark);
	return STATUS_OK;
}

static enum status denoise_prior(const struct prior_run *p, struct sampler *s)
{
	struct kernels *k = p->z->k;
	const float *timesteps;
	char name[48];
	int n;

	timesteps = sampler_timesteps(s, &n);
	TRY(trace_floats(p->run->trace, "prior.timesteps", timesteps, n));
	TRY(rng_fill(&p->run->rng, k, 1, 0, p->latents));
	TRY(kernels_axpby(k, 0, p->latents, sampler_init_sigma(s), p->latents));
	TRY(trace_rows(p, p->latents, "latents.init"));
	for (int call = 0; call < sampler_calls(s); call++) {
		TRY(sampler_input(s, call, p->latents, p->scaled));
		for (int row = 0; row < p->rows; row++)
			TRY(predict_row(p, row, sampler_timestep(s, call)));
		snprintf(name, sizeof name, "noise_pred.%d", call);
		TRY(trace_rows(p, p->prediction, name));
		TRY(sampler_step(s, call, p->prediction, p->latents, &p->run->rng));
		snprintf(name, sizeof name, "latents.%d", call);
		TRY(trace_rows(p, p->latents, name));
	}
	return STATUS_OK;
}

/* latents: the embeddings [rows, width], which live on in the arena. */
static enum status run_prior(struct prior_run *p)
{
	const struct sampler_request request = {
		.config = p->z->prior.place.scheduler, .name = "", .steps = prior_steps(p->run->recipe)
	};
	const int64_t dim[2] = { p->rows, kandinsky_prior_width(p->prior) };
	struct sampler *s;
	enum status status;

	if (dim[1] != p->z->image_dim || kandinsky_prior_tokens(p->prior) != p->text[POSITIVE].hidden.dim[0])
		return status_fail(STATUS_CORRUPT, "%s: the prior does not fit the text encoder or the UNet",
			p->z->prior.place.path);
	TRY(arena_take(p->run->arena, DTYPE_F32, 2, dim, &p->latents));
	TRY(arena_take(p->run->arena, DTYPE_F32, 2, dim, &p->scaled));
	TRY(arena_take(p->run->arena, DTYPE_F32, 2, dim, &p->prediction));
	TRY(sampler_open(p->z->k, p->run->arena, &request, 2, dim, &s));
	status = denoise_prior(p, s);
	sampler_close(s);
	TRY(status);
	for (int i = 0; i < p->rows; i++)
		TRY(kandinsky_prior_finish(p->prior, tensor_slice(p->latents, 0, i, 1)));
	return STATUS_OK;
}

/* The embedding [1, width] of the zero picture; it is the same for every job. */
static enum status zero_embedding(struct kandinsky *z, struct run *run, struct tensor *out)
{
	const int64_t dim[2] = { 1, z->image_dim };
	struct tensor host = tensor_view(z->prior.zero, DTYPE_F32, 2, dim);
	void *vision;

	TRY(arena_take(run->arena, DTYPE_F32, 2, dim, out));
	if (z->prior.zero)
		return kernels_upload(z->k, &host, *out);
	TRY(parts_need(z->prior.parts, PART_VISION, run, &vision));
	if (clip_vision_projection(vision) != z->image_dim)
		return status_fail(STATUS_CORRUPT, "%s: the image encoder does not fit the UNet", z->prior.place.path);
	TRY(clip_vision_embed_zero(vision, run->arena, *out));
	z->prior.zero = malloc((size_t)dim[1] * sizeof *z->prior.zero);
	if (!z->prior.zero)
		return status_fail(STATUS_NO_MEMORY, "no memory for an embedding");
	host.data = z->prior.zero;
	return kernels_download(z->k, *out, &host);
}

static enum status trace_embedding(struct kandinsky *z, struct run *run, struct tensor row, const char *name)
{
	return trace_tensor(run->trace, z->k, tensor_view(row.data, row.dtype, 1, &row.dim[1]), "%s", name);
}

static bool guided(const struct recipe *r)
{
	return r->guidance > 1;
}

/* The image embeddings of the prompt and, where the decoder is guided, of what it is guided away from. */
static enum status embed(struct kandinsky *z, struct run *run, struct tensor out[2])
{
	const struct recipe *r = run->recipe;
	struct kandinsky_text text[2];
	struct prior_run p = { .z = z, .run = run, .text = text, .rows = r->negative ? 2 : 1 };
	void *prior;

	p.guidance = setting_number(r, "prior_guidance_scale", PRIOR_GUIDANCE);
	TRY(encode_texts(z, run, r->negative || p.guidance > 1 ? 2 : 1, text));
	TRY(parts_need(z->prior.parts, PART_PRIOR, run, &prior));
	p.prior = prior;
	TRY(run_prior(&p));
	out[POSITIVE] = tensor_slice(p.latents, 0, 0, 1);
	TRY(trace_embedding(z, run, out[POSITIVE], "image_embeds"));
	if (!guided(r))
		return STATUS_OK;
	if (r->negative)
		out[NEGATIVE] = tensor_slice(p.latents, 0, 1, 1);
	else
		TRY(zero_embedding(z, run, &out[NEGATIVE]));
	return trace_embedding(z, run, out[NEGATIVE], "negative_image_embeds");
}

static enum status kandinsky_encode(void *state, struct run *run)
{
	struct kandinsky *z = state;
	struct tensor embedding[2];
	void *unet;

	TRY(need_prior(z, run->recipe));
	TRY(embed(z, run, embedding));
	if (kernels_memory(z->k) > z->memory.resident / 2) { /* the decoder takes about as much */
		parts_close(z->prior.parts);
		z->prior.parts = NULL;
	}
	TRY(parts_need(z->base.parts, PART_UNET, run, &unet));
	for (int i = 0; i < (guided(run->recipe) ? 2 : 1); i++)
		TRY(kandinsky_unet_image(unet, run->arena, embedding[i], &z->image[i]));
	return STATUS_OK;
}

/* ---- denoising --------------------------------------------------------------------------------------------------- */

static void kandinsky_sampler(const void *state, const struct recipe *r, struct sampler_request *out)
{
	const struct kandinsky *z = state;

	out->config = z->base.scheduler;
}

/* all [outputs, h, w]: the noise, then the variance where there is one; only the noise is guided. */
static enum status predict_all(
	struct kandinsky *z, struct run *run, float timestep, struct tensor latents, struct tensor all)
{
	const float scale = (float)run->recipe->guidance;
	struct tensor negative;
	void *unet;

	TRY(parts_need(z->base.parts, PART_UNET, run, &unet));
	TRY(kandinsky_unet_predict(unet, run->arena, &z->image[POSITIVE], timestep, latents, all));
	if (!guided(run->recipe))
		return STATUS_OK;
	TRY(arena_take(run->arena, DTYPE_F32, 3, all.dim, &negative));
	TRY(kandinsky_unet_predict(unet, run->arena, &z->image[NEGATIVE], timestep, latents, negative));
	return kernels_axpby(z->k, 1 - scale, tensor_slice(negative, 0, 0, z->base.latent_channels), scale,
		tensor_slice(all, 0, 0, z->base.latent_channels));
}

static struct tensor as_row(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 2, (int64_t[]){ 1, tensor_count(&t) });
}

/* out holds the variance as well where the sampler uses it. */
static enum status kandinsky_predict(
	void *state, struct run *run, const struct sampler *s, int call, struct tensor latents, struct tensor out)
{
	struct kandinsky *z = state;
	const int64_t dim[3] = { z->outputs, latents.dim[1], latents.dim[2] };
	const size_t mark = arena_mark(run->arena);
	struct tensor all;

	if (out.dim[0] > z->outputs)
		return status_fail(STATUS_CORRUPT, "%s: a learned variance is wanted, but the UNet predicts none",
			z->base.scheduler);
	TRY(arena_take(run->arena, DTYPE_F32, 3, dim, &all));
	TRY(predict_all(z, run, sampler_timestep(s, call), latents, all));
	TRY(kernels_unary(z->k, UNARY_COPY, as_row(tensor_slice(all, 0, 0, out.dim[0])), as_row(out)));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

static enum status kandinsky_decode(void *state, struct run *run, struct tensor latents, struct tensor *picture)
{
	struct kandinsky *z = state;
	void *movq;

	TRY(parts_need(z->base.parts, PART_MOVQ, run, &movq));
	return movq_decode(movq, run->arena, latents, picture);
}

#define KANDINSKY(class_name)                                                                                          \
	{                                                                                                              \
		.name = "kandinsky-2.2", .pipeline = class_name, .describe = kandinsky_describe,                       \
		.find_beside = kandinsky_find_beside, .resolve = kandinsky_resolve,                                    \
		.round_size = kandinsky_round_size, .apply_cfg = kandinsky_apply_cfg,                                  \
		.each_part = kandinsky_each_part, .open = kandinsky_open, .close = kandinsky_close,                    \
		.encode = kandinsky_encode, .latent_shape = pipeline_latent_shape, .sampler = kandinsky_sampler,       \
		.predict = kandinsky_predict, .decode = kandinsky_decode,                                              \
	}

const struct family kandinsky_family = KANDINSKY("KandinskyV22CombinedPipeline");
const struct family kandinsky_decoder_family = KANDINSKY("KandinskyV22Pipeline");

/* derive: see derive.h.
 *
 * Sources of the published values: the configurations in tests/reference/configs.
 */
#include "engine/derive.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/content.h"
#include "engine/json.h"
#include "engine/tokenizer.h"
#include "engine/weights.h"

/* ---- sizes of one part ------------------------------------------------------------------------------------------- */

enum { COUNT = -1, PRESENT = -2, LEVELS_MAX = 16, LIST_MAX = 1000 };

/* A number of a configuration: the length of a tensor along an axis, divided by a number or by that of another tensor;
 * COUNT: how many tensors there are of which # is the number; PRESENT: whether it is there. */
struct field {
	const char *key, *tensor;
	int axis, divisor;
	const char *by;
	int by_axis;
};

enum arch { ZIMAGE, FLUX, SD3, UNET_XL, UNET, VAE, QWEN3, T5, CLIP, CLIP_BIG, ARCHES };

struct arch_kind {
	const char *mark; /* a tensor that tells it from the others */
	const char *base; /* its configuration but for the fields */
	const struct field *fields;
	void (*rest)(const struct weights *w, json_t *config); /* NULL: there is none */
};

/* The tensor under this name, or with the prefix that text encoders may have; false if it is not there. */
static bool find_shape(const struct weights *w, const char *name, int *rank, int64_t dim[TENSOR_RANK_MAX])
{
	static const char *const prefixes[] = { "", "text_model.", "model." };
	char full[300];

	for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
		snprintf(full, sizeof full, "%s%s", prefixes[i], name);
		if (weights_has(w, full))
			return weights_shape(w, full, rank, dim) == STATUS_OK;
	}
	return false;
}

static bool has(const struct weights *w, const char *name)
{
	int64_t dim[TENSOR_RANK_MAX];
	int rank;

	return find_shape(w, name, &rank, dim);
}

/* 0: no such tensor or axis. */
static int64_t size_of(const struct weights *w, const char *name, int axis)
{
	int64_t dim[TENSOR_RANK_MAX];
	int rank;

	return find_shape(w, name, &rank, dim) && axis < rank ? dim[axis] : 0;
}

/* "a.#.b" with a number in the place of #. */
static void put_number(const char *pattern, int64_t i, char out[300])
{
	int before = (int)strcspn(pattern, "#");

	snprintf(out, 300, "%.*s%lld%s", before, pattern, (long long)i, pattern[before] ? pattern + before + 1 : "");
}

static int64_t count_of(const struct weights *w, const char *pattern)
{
	char name[300];
	int64_t n = 0;

	for (; n < LIST_MAX; n++) {
		put_number(pattern, n, name);
		if (!has(w, name))
			break;
	}
	return n;
}

static int64_t size_at(const struct weights *w, const char *pattern, int64_t i, int axis)
{
	char name[300];

	put_number(pattern, i, name);
	return size_of(w, name, axis);
}

static bool has_at(const struct weights *w, const char *pattern, int64_t i)
{
	return size_at(w, pattern, i, 0) > 0;
}

static json_t *value_of(const struct weights *w, const struct field *f)
{
	int64_t divisor = f->by ? size_of(w, f->by, f->by_axis) : f->divisor;

	if (f->axis == PRESENT)
		return json_boolean(has(w, f->tensor));
	if (f->axis == COUNT)
		return json_integer(count_of(w, f->tensor));
	return json_integer(size_of(w, f->tensor, f->axis) / (divisor > 0 ? divisor : 1));
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static const struct field zimage_fields[] = {
	{ "dim", "all_x_embedder.2-1.weight", 0, 0, NULL, 0 },
	{ "in_channels", "all_x_embedder.2-1.weight", 1, 4, NULL, 0 },
	{ "n_heads", "all_x_embedder.2-1.weight", 0, 0, "layers.0.attention.norm_q.weight", 0 },
	{ "n_layers", "layers.#.attention.norm_q.weight", COUNT, 0, NULL, 0 },
	{ "n_refiner_layers", "noise_refiner.#.attention.norm_q.weight", COUNT, 0, NULL, 0 },
	{ "cap_feat_dim", "cap_embedder.1.weight", 1, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

static const struct field flux_fields[] = {
	{ "in_channels", "x_embedder.weight", 1, 0, NULL, 0 },
	{ "num_layers", "transformer_blocks.#.attn.norm_q.weight", COUNT, 0, NULL, 0 },
	{ "num_single_layers", "single_transformer_blocks.#.attn.norm_q.weight", COUNT, 0, NULL, 0 },
	{ "attention_head_dim", "transformer_blocks.0.attn.norm_q.weight", 0, 0, NULL, 0 },
	{ "num_attention_heads", "x_embedder.weight", 0, 0, "transformer_blocks.0.attn.norm_q.weight", 0 },
	{ "joint_attention_dim", "context_embedder.weight", 1, 0, NULL, 0 },
	{ "pooled_projection_dim", "time_text_embed.text_embedder.linear_1.weight", 1, 0, NULL, 0 },
	{ "guidance_embeds", "time_text_embed.guidance_embedder.linear_1.weight", PRESENT, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

enum { HEAD = 64 }; /* of SD3's transformers, SDXL's UNet, and CLIP */

static const struct field sd3_fields[] = {
	{ "in_channels", "pos_embed.proj.weight", 1, 0, NULL, 0 },
	{ "out_channels", "pos_embed.proj.weight", 1, 0, NULL, 0 },
	{ "num_layers", "transformer_blocks.#.attn.to_q.weight", COUNT, 0, NULL, 0 },
	{ "num_attention_heads", "context_embedder.weight", 0, HEAD, NULL, 0 },
	{ "caption_projection_dim", "context_embedder.weight", 0, 0, NULL, 0 },
	{ "joint_attention_dim", "context_embedder.weight", 1, 0, NULL, 0 },
	{ "pooled_projection_dim", "time_text_embed.text_embedder.linear_1.weight", 1, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

static void sd3_rest(const struct weights *w, json_t *config)
{
	json_t *dual = json_array();
	int64_t positions = size_of(w, "pos_embed.pos_embed", 1);

	for (int64_t i = 0; i < LIST_MAX; i++)
		if (has_at(w, "transformer_blocks.#.attn2.to_q.weight", i))
			json_array_append_new(dual, json_integer(i));
	json_object_set_new(config, "dual_attention_layers", dual);
	json_object_set_new(config, "pos_embed_max_size", json_integer(llround(sqrt((double)positions))));
	if (has(w, "transformer_blocks.0.attn.norm_q.weight"))
		json_object_set_new(config, "qk_norm", json_string("rms_norm"));
}

static const struct field unet_fields[] = {
	{ "in_channels", "conv_in.weight", 1, 0, NULL, 0 },
	{ "out_channels", "conv_out.weight", 0, 0, NULL, 0 },
	{ "layers_per_block", "down_blocks.0.resnets.#.conv1.weight", COUNT, 0, NULL, 0 },
	{ "cross_attention_dim", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

/* Levels: their widths, whether they attend, and how deep; the middle tells how deep the last one is. */
static void unet_rest(const struct weights *w, json_t *config)
{
	json_t *channels = json_array(), *down = json_array(), *up = json_array(), *depth = json_array();
	int64_t n = count_of(w, "down_blocks.#.resnets.0.conv1.weight"), dim[TENSOR_RANK_MAX];
	char blocks[300];
	int rank = 0;

	for (int64_t i = 0; i < n && i < LEVELS_MAX; i++) {
		bool attends = has_at(w, "down_blocks.#.attentions.0.norm.weight", i);
		bool attends_up = has_at(w, "up_blocks.#.attentions.0.norm.weight", i);

		snprintf(blocks, sizeof blocks,
			i < n - 1 && attends ? "down_blocks.%d.attentions.0.transformer_blocks.#.norm1.weight"
					     : "mid_block.attentions.0.transformer_blocks.#.norm1.weight",
			(int)i);
		json_array_append_new(channels, json_integer(size_at(w, "down_blocks.#.resnets.0.conv1.weight", i, 0)));
		json_array_append_new(down, json_string(attends ? "CrossAttnDownBlock2D" : "DownBlock2D"));
		json_array_append_new(up, json_string(attends_up ? "CrossAttnUpBlock2D" : "UpBlock2D"));
		json_array_append_new(depth, json_integer(i < n - 1 && !attends ? 1 : count_of(w, blocks)));
	}
	json_object_set_new(config, "block_out_channels", channels);
	json_object_set_new(config, "down_block_types", down);
	json_object_set_new(config, "up_block_types", up);
	json_object_set_new(config, "transformer_layers_per_block", depth);
	find_shape(w, "mid_block.attentions.0.proj_in.weight", &rank, dim);
	json_object_set_new(config, "use_linear_projection", json_boolean(rank == 2));
}

static void unet_xl_rest(const struct weights *w, json_t *config)
{
	json_t *heads = json_array(), *width;
	size_t i;

	unet_rest(w, config);
	json_array_foreach (json_object_get(config, "block_out_channels"), i, width)
		json_array_append_new(heads, json_integer(json_integer_value(width) / HEAD));
	json_object_set_new(config, "attention_head_dim", heads);
	json_object_set_new(config, "projection_class_embeddings_input_dim",
		json_integer(size_of(w, "add_embedding.linear_1.weight", 1)));
}

static const struct field vae_fields[] = {
	{ "latent_channels", "decoder.conv_in.weight", 1, 0, NULL, 0 },
	{ "use_post_quant_conv", "post_quant_conv.weight", PRESENT, 0, NULL, 0 },
	{ "mid_block_add_attention", "decoder.mid_block.attentions.0.group_norm.weight", PRESENT, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

static void vae_rest(const struct weights *w, json_t *config)
{
	json_t *channels = json_array();

	for (int64_t i = count_of(w, "decoder.up_blocks.#.resnets.0.conv1.weight"); i-- > 0;)
		json_array_append_new(
			channels, json_integer(size_at(w, "decoder.up_blocks.#.resnets.0.conv1.weight", i, 0)));
	json_object_set_new(config, "block_out_channels", channels);
	json_object_set_new(config, "layers_per_block",
		json_integer(count_of(w, "decoder.up_blocks.0.resnets.#.conv1.weight") - 1));
}

static const struct field qwen3_fields[] = {
	{ "vocab_size", "embed_tokens.weight", 0, 0, NULL, 0 },
	{ "hidden_size", "embed_tokens.weight", 1, 0, NULL, 0 },
	{ "intermediate_size", "layers.0.mlp.gate_proj.weight", 0, 0, NULL, 0 },
	{ "num_hidden_layers", "layers.#.self_attn.q_norm.weight", COUNT, 0, NULL, 0 },
	{ "head_dim", "layers.0.self_attn.q_norm.weight", 0, 0, NULL, 0 },
	{ "num_attention_heads", "layers.0.self_attn.q_proj.weight", 0, 0, "layers.0.self_attn.q_norm.weight", 0 },
	{ "num_key_value_heads", "layers.0.self_attn.k_proj.weight", 0, 0, "layers.0.self_attn.q_norm.weight", 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

#define T5_LAYER "encoder.block.0.layer."
#define T5_BIAS T5_LAYER "0.SelfAttention.relative_attention_bias.weight"

static const struct field t5_fields[] = {
	{ "vocab_size", "shared.weight", 0, 0, NULL, 0 },
	{ "d_model", T5_LAYER "0.SelfAttention.q.weight", 1, 0, NULL, 0 },
	{ "d_ff", T5_LAYER "1.DenseReluDense.wi_0.weight", 0, 0, NULL, 0 },
	{ "num_layers", "encoder.block.#.layer.0.SelfAttention.q.weight", COUNT, 0, NULL, 0 },
	{ "num_heads", T5_BIAS, 1, 0, NULL, 0 },
	{ "d_kv", T5_LAYER "0.SelfAttention.q.weight", 0, 0, T5_BIAS, 1 },
	{ "relative_attention_num_buckets", T5_BIAS, 0, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

#define CLIP_TOKENS "embeddings.token_embedding.weight"

static const struct field clip_fields[] = {
	{ "vocab_size", CLIP_TOKENS, 0, 0, NULL, 0 },
	{ "hidden_size", CLIP_TOKENS, 1, 0, NULL, 0 },
	{ "num_attention_heads", CLIP_TOKENS, 1, HEAD, NULL, 0 },
	{ "intermediate_size", "encoder.layers.0.mlp.fc1.weight", 0, 0, NULL, 0 },
	{ "num_hidden_layers", "encoder.layers.#.mlp.fc1.weight", COUNT, 0, NULL, 0 },
	{ "max_position_embeddings", "embeddings.position_embedding.weight", 0, 0, NULL, 0 },
	{ NULL, NULL, 0, 0, NULL, 0 },
};

static void clip_rest(const struct weights *w, json_t *config)
{
	int64_t projection = size_of(w, "text_projection.weight", 0);

	if (projection)
		json_object_set_new(config, "projection_dim", json_integer(projection));
}

static const struct arch_kind arches[ARCHES] = {
	[ZIMAGE] = { "cap_embedder.1.weight",
		"{\"axes_dims\":[32,48,48],\"axes_lens\":[1536,512,512],\"all_patch_size\":[2],\"all_f_patch_size\":[1]"
		","
		"\"rope_theta\":256.0,\"t_scale\":1000.0,\"norm_eps\":1e-5,\"qk_norm\":true}",
		zimage_fields, NULL },
	[FLUX] = { "single_transformer_blocks.0.attn.norm_q.weight", "{}", flux_fields, NULL },
	[SD3] = { "pos_embed.pos_embed", "{\"attention_head_dim\":64,\"patch_size\":2,\"sample_size\":128}", sd3_fields,
		sd3_rest },
	[UNET_XL] = { "add_embedding.linear_1.weight",
		"{\"addition_embed_type\":\"text_time\",\"addition_time_embed_dim\":256,\"sample_size\":128}",
		unet_fields, unet_xl_rest },
	[UNET] = { "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
		"{\"attention_head_dim\":8,\"sample_size\":64}", unet_fields, unet_rest },
	[VAE] = { "decoder.mid_block.resnets.0.conv1.weight", "{}", vae_fields, vae_rest },
	[QWEN3] = { "layers.0.self_attn.q_norm.weight", "{\"rope_theta\":1000000,\"rms_norm_eps\":1e-6}", qwen3_fields,
		NULL },
	[T5] = { T5_BIAS, "{\"feed_forward_proj\":\"gated-gelu\"}", t5_fields, NULL },
	[CLIP] = { "encoder.layers.0.mlp.fc1.weight", "{\"eos_token_id\":2,\"hidden_act\":\"quick_gelu\"}", clip_fields,
		clip_rest },
	[CLIP_BIG] = { NULL, "{\"eos_token_id\":2,\"hidden_act\":\"gelu\"}", clip_fields, clip_rest },
};

/* ARCHES: of none. */
static enum arch recognise(const struct weights *w)
{
	enum { CLIP_WIDTH = 768 }; /* OpenCLIP's are wider */

	for (int i = 0; i < ARCHES; i++)
		if (arches[i].mark && has(w, arches[i].mark))
			return i == CLIP && size_of(w, CLIP_TOKENS, 1) > CLIP_WIDTH ? CLIP_BIG : i;
	return ARCHES;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

enum { KIND_PARTS = 5 };

struct kind {
	enum arch network;
	const char *mark; /* a tensor of the network, or of the whole file; NULL: none is asked for */
	const char *pipeline;
	struct {
		const char *name;
		enum arch arch;
	} part[KIND_PARTS];          /* the network first; name NULL ends the list */
	const char *scheduler, *vae; /* configurations; the latter but for what its tensors tell */
	bool projection;             /* CLIP's is used */
};

#define FLOW(rest) "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"num_train_timesteps\":1000," rest "}"
#define BETAS                                                                                                          \
	"\"beta_start\":0.00085,\"beta_end\":0.012,\"beta_schedule\":\"scaled_linear\",\"num_train_timesteps\":1000,"  \
	"\"steps_offset\":1,\"clip_sample\":false,\"set_alpha_to_one\":false,\"skip_prk_steps\":true,"                 \
	"\"prediction_type\":\"epsilon\""
#define FLUX_LINE "\"base_image_seq_len\":256,\"base_shift\":0.5,\"max_image_seq_len\":4096,\"max_shift\":1.15,"
#define FLUX_PARTS                                                                                                     \
	{                                                                                                              \
		{ "transformer", FLUX }, { "text_encoder", CLIP }, { "text_encoder_2", T5 },                           \
		{                                                                                                      \
			"vae", VAE                                                                                     \
		}                                                                                                      \
	}
#define FLUX_VAE "{\"sample_size\":1024,\"scaling_factor\":0.3611,\"shift_factor\":0.1159}"
#define SDXL_PARTS                                                                                                     \
	{                                                                                                              \
		{ "unet", UNET_XL }, { "text_encoder", CLIP }, { "text_encoder_2", CLIP_BIG },                         \
		{                                                                                                      \
			"vae", VAE                                                                                     \
		}                                                                                                      \
	}

/* The first that fits. */
static const struct kind kinds[] = {
	{ ZIMAGE, NULL, "ZImagePipeline", { { "transformer", ZIMAGE }, { "text_encoder", QWEN3 }, { "vae", VAE } },
		FLOW("\"shift\":3.0"), FLUX_VAE, false },
	{ FLUX, "time_text_embed.guidance_embedder.linear_1.weight", "FluxPipeline", FLUX_PARTS,
		FLOW(FLUX_LINE "\"shift\":3.0,\"use_dynamic_shifting\":true"), FLUX_VAE, false },
	{ FLUX, NULL, "FluxPipeline", FLUX_PARTS, FLOW(FLUX_LINE "\"shift\":1.0,\"use_dynamic_shifting\":false"),
		FLUX_VAE, false },
	{ SD3, NULL, "StableDiffusion3Pipeline",
		{ { "transformer", SD3 }, { "text_encoder", CLIP }, { "text_encoder_2", CLIP_BIG }, { "vae", VAE },
			{ "text_encoder_3", T5 } },
		FLOW("\"shift\":3.0"), "{\"sample_size\":1024,\"scaling_factor\":1.5305,\"shift_factor\":0.0609}",
		true },
	{ UNET_XL, "edm_mean", "StableDiffusionXLPipeline", SDXL_PARTS,
		"{\"_class_name\":\"EDMDPMSolverMultistepScheduler\",\"algorithm_type\":\"dpmsolver++\",\"rho\":7.0,"
		"\"sigma_data\":0.5,\"sigma_max\":80.0,\"sigma_min\":0.002,\"num_train_timesteps\":1000,"
		"\"prediction_type\":\"epsilon\",\"solver_order\":2,\"solver_type\":\"midpoint\","
		"\"lower_order_final\":true,\"final_sigmas_type\":\"zero\"}",
		"{\"sample_size\":1024,\"scaling_factor\":0.5,\"latents_mean\":[-1.6574,1.886,-1.383,2.5155],"
		"\"latents_std\":[8.4927,5.9022,6.5498,5.2299]}",
		false },
	{ UNET_XL, NULL, "StableDiffusionXLPipeline", SDXL_PARTS,
		"{\"_class_name\":\"EulerDiscreteScheduler\",\"timestep_spacing\":\"leading\"," BETAS "}",
		"{\"sample_size\":1024,\"scaling_factor\":0.13025}", false },
	{ UNET, NULL, "StableDiffusionPipeline", { { "unet", UNET }, { "text_encoder", CLIP }, { "vae", VAE } },
		"{\"_class_name\":\"PNDMScheduler\"," BETAS "}", "{\"sample_size\":512,\"scaling_factor\":0.18215}",
		false },
};

/* ---- where parts lie --------------------------------------------------------------------------------------------- */

/* A model's path without its last slash. */
static void cut_root(const char *root, char out[PATH_MAX])
{
	size_t len = strlen(root);

	while (len > 1 && root[len - 1] == '/')
		len--;
	snprintf(out, PATH_MAX, "%.*s", (int)len, root);
}

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The folder of a path, in place. */
static void go_up(char path[PATH_MAX])
{
	char *slash = strrchr(path, '/');

	if (slash)
		slash[slash == path] = 0;
}

static enum status open_part(const char *path, const char *part, struct weights **out)
{
	struct component c = { .loras = NULL };

	snprintf(c.name, sizeof c.name, "%s", part);
	snprintf(c.weights, sizeof c.weights, "%s", path);
	return weights_open_component(&c, out);
}

/* Whether a file of another model would be taken apart for this: a checkpoint of all parts. */
static bool is_checkpoint(const char *path)
{
	static const char *const marks[] = { "model.diffusion_model.input_blocks.0.0.weight",
		"first_stage_model.decoder.conv_in.weight" };
	struct weights *w;
	bool found = false;

	if (weights_open_file(path, &w) != STATUS_OK)
		return false;
	for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
		found |= weights_has(w, marks[i]);
	weights_close(w);
	return found;
}

/* What is looked for, and what was found. */
struct search {
	const char *part;
	enum arch arch;
	bool network; /* any network will do */
	char path[PATH_MAX];
	bool found;
};

static bool fits(const struct search *s, const char *path)
{
	struct weights *w;
	enum arch arch;

	if (open_part(path, s->part, &w) != STATUS_OK)
		return false;
	arch = recognise(w);
	weights_close(w);
	return s->network ? arch <= UNET : arch == s->arch;
}

static enum status take(struct search *s, const char *path)
{
	if (strlen(path) >= PATH_MAX || !fits(s, path) || (!s->network && !is_folder(path) && is_checkpoint(path)))
		return STATUS_OK;
	if (s->found)
		return status_fail(STATUS_INVALID,
			"%s and %s could both be the model's %s: give the file of a network as the model, or choose by "
			"Set: %s_file=FILE",
			s->path, path, s->part, s->part);
	s->found = true;
	snprintf(s->path, sizeof s->path, "%s", path);
	return STATUS_OK;
}

static int is_weights(const struct dirent *entry)
{
	static const char *const suffixes[] = { ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".sft" };
	size_t len = strlen(entry->d_name);

	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
		if (entry->d_name[0] != '.' && len > strlen(suffixes[i]) &&
			strcmp(entry->d_name + len - strlen(suffixes[i]), suffixes[i]) == 0)
			return 1;
	return 0;
}

static enum status search_folder(struct search *s, const char *base, const char *folder)
{
	char dir[2 * PATH_MAX], path[3 * PATH_MAX];
	struct dirent **entries = NULL;
	enum status status = STATUS_OK;
	int n;

	snprintf(dir, sizeof dir, "%s%s%s", base, *folder ? "/" : "", folder);
	n = scandir(dir, &entries, is_weights, alphasort);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
		if (status == STATUS_OK)
			status = take(s, path);
		free(entries[i]);
	}
	free(entries);
	return status;
}

/* The part's own folder, those of ComfyUI, and the folder itself; the first that has it wins. */
static enum status search_base(struct search *s, const char *base)
{
	static const struct {
		const char *beginning, *folder;
	} places[] = { { "transformer", "diffusion_models" }, { "transformer", "unet" }, { "unet", "diffusion_models" },
		{ "text_encoder", "text_encoders" }, { "text_encoder", "clip" }, { "", "" } };
	char own[2 * PATH_MAX];

	snprintf(own, sizeof own, "%s/%s", base, s->part);
	if (is_folder(own))
		TRY(take(s, own));
	if (!s->found)
		TRY(search_folder(s, base, s->part));
	for (size_t i = 0; i < sizeof places / sizeof places[0] && !s->found; i++)
		if (strncmp(s->part, places[i].beginning, strlen(places[i].beginning)) == 0)
			TRY(search_folder(s, base, places[i].folder));
	return STATUS_OK;
}

/* A file is looked into first, then around: what it lacks may lie in its folder, or in one beside it. */
static enum status search_all(struct search *s, const char *root)
{
	char base[PATH_MAX];

	cut_root(root, base);
	if (is_folder(base))
		return search_base(s, base);
	s->found = fits(s, base);
	snprintf(s->path, sizeof s->path, "%s", base);
	for (int i = 0; i < 2 && !s->found && !s->network; i++) {
		go_up(base);
		TRY(search_base(s, base));
	}
	return STATUS_OK;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static bool file_has(const char *path, const char *name)
{
	struct weights *w;
	bool found;

	if (is_folder(path) || weights_open_file(path, &w) != STATUS_OK)
		return false;
	found = weights_has(w, name);
	weights_close(w);
	return found;
}

static const struct kind *kind_of(const char *path, const char *part)
{
	const struct kind *found = NULL;
	struct weights *w;
	enum arch arch;

	if (open_part(path, part, &w) != STATUS_OK)
		return NULL;
	arch = recognise(w);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && !found; i++)
		if (kinds[i].network == arch &&
			(!kinds[i].mark || weights_has(w, kinds[i].mark) || file_has(path, kinds[i].mark)))
			found = &kinds[i];
	weights_close(w);
	return found;
}

/* What looks like Stable Diffusion 1.x but reads the text of 2.x. */
static enum status refuse_sd2(const char *path, const char *part)
{
	enum { SD2_WIDTH = 1024 };
	struct weights *w;
	int64_t width;

	TRY(open_part(path, part, &w));
	width = size_of(w, arches[UNET].mark, 1);
	weights_close(w);
	return width == SD2_WIDTH ? status_fail(STATUS_UNSUPPORTED,
					    "%s: Stable Diffusion 2 is not supported by this version", path)
				  : STATUS_OK;
}

static enum status search_kind(const char *root, const struct kind **out)
{
	static const char *const networks[] = { "transformer", "unet" };
	struct weights *w;
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
		struct search s = { .part = networks[i], .network = true };

		TRY(search_all(&s, root));
		*out = s.found ? kind_of(s.path, s.part) : NULL;
		if (*out)
			return (*out)->network == UNET ? refuse_sd2(s.path, s.part) : STATUS_OK;
	}
	cut_root(root, path);
	if (is_folder(path))
		return status_fail(STATUS_NO_MODEL,
			"%s: no model: neither model_index.json nor the weights of a known network are there (in "
			"transformer, "
			"unet, diffusion_models or the folder itself)",
			path);
	TRY(weights_open_file(path, &w)); /* says what is wrong with the file */
	weights_close(w);
	return status_fail(STATUS_UNSUPPORTED, "%s: its tensors are those of no network that this version knows", path);
}

/* Of the model asked for last: every prompt asks what its scheduler is, and headers of checkpoints take milliseconds.
 */
static struct {
	pthread_mutex_t lock;
	char root[PATH_MAX], identity[CONTENT_LEN + 1];
	const struct kind *kind;
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

static enum status find_kind(const char *root, const struct kind **out)
{
	char path[PATH_MAX], identity[CONTENT_LEN + 1];
	bool found;

	cut_root(root, path);
	if (content_identify(1, (const char *[]){ path }, identity, NULL) != STATUS_OK)
		return search_kind(root, out); /* which says why */
	pthread_mutex_lock(&known.lock);
	found = strcmp(known.root, path) == 0 && strcmp(known.identity, identity) == 0;
	if (found)
		*out = known.kind;
	pthread_mutex_unlock(&known.lock);
	if (found)
		return STATUS_OK;
	TRY(search_kind(root, out));
	pthread_mutex_lock(&known.lock);
	strcpy(known.root, path);
	strcpy(known.identity, identity);
	known.kind = *out;
	pthread_mutex_unlock(&known.lock);
	return STATUS_OK;
}

static enum status find_in(const struct kind *kind, const char *root, const char *part, struct search *out)
{
	*out = (struct search){ .part = part };
	for (int i = 0; i < KIND_PARTS && kind->part[i].name; i++)
		if (strcmp(kind->part[i].name, part) == 0) {
			out->arch = kind->part[i].arch;
			out->network = i == 0;
			return search_all(out, root);
		}
	return STATUS_OK;
}

enum status derive_find_part(const char *root, const char *part, char out[PATH_MAX])
{
	const struct kind *kind;
	struct search s;

	TRY(find_kind(root, &kind));
	TRY(find_in(kind, root, part, &s));
	if (!s.found)
		return status_fail(STATUS_NO_MODEL,
			"%s: it holds no %s, and none is beside it: say where its file is with Set: %s_file=FILE", root,
			part, part);
	snprintf(out, PATH_MAX, "%s", s.path);
	return STATUS_OK;
}

/* The root in a path below a model without index; false: it is below another one. */
static bool take_root(const char *path, char out[PATH_MAX])
{
	const char *below = strstr(path, "//");

	snprintf(out, PATH_MAX, "%.*s", below ? (int)(below - path) : 0, path);
	return below != NULL;
}

enum status derive_fail_missing(const struct component *c)
{
	char root[PATH_MAX], unused[PATH_MAX];
	enum status status = take_root(c->config, root) ? derive_find_part(root, c->name, unused) : STATUS_OK;

	return status != STATUS_OK ? status : status_fail(STATUS_NO_MODEL, "%s: no weights are there", c->config);
}

enum status derive_find_tokenizer(const char *path, char out[PATH_MAX])
{
	const char *below = strstr(path, "//");
	char base[PATH_MAX], found[2 * PATH_MAX];

	snprintf(out, PATH_MAX, "%s", path);
	if (!below || access(path, F_OK) == 0)
		return STATUS_OK;
	snprintf(base, sizeof base, "%.*s", (int)(below - path), path);
	for (int i = 0; i < 2 && !is_folder(base) + i > 0; i++) {
		go_up(base);
		snprintf(found, sizeof found, "%s/%s", base, below + 2);
		if (access(found, F_OK) == 0 && strlen(found) < PATH_MAX) {
			snprintf(out, PATH_MAX, "%s", found);
			return STATUS_OK;
		}
	}
	return status_fail(STATUS_NO_MODEL,
		"%.*s: weights hold no tokenizer: put this model's published folder %s there or beside it",
		(int)(below - path), path, below + 2);
}

enum status derive_open_tokenizer(const char *path, struct tokenizer **out)
{
	char found[PATH_MAX];

	TRY(derive_find_tokenizer(path, found));
	return tokenizer_open(found, out);
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static enum status give(json_t *object, const char *path, derive_reader *read, void *out)
{
	enum status status =
		object ? read(object, path, out) : status_fail(STATUS_NO_MEMORY, "no memory for a configuration");

	json_decref(object);
	return status;
}

/* model_index.json: the parts that there are. */
static json_t *make_index(const struct kind *kind, const char *root)
{
	json_t *index = json_pack("{s:s}", "_class_name", kind->pipeline);

	for (int i = 0; i < KIND_PARTS && kind->part[i].name && index; i++) {
		struct search s;

		if (find_in(kind, root, kind->part[i].name, &s) == STATUS_OK && s.found)
			json_object_set_new(index, kind->part[i].name, json_pack("[s, s]", "promptfs", "derived"));
	}
	return index;
}

enum status derive_read_file(const char *path, derive_reader *read, void *out)
{
	const struct kind *kind;
	char root[PATH_MAX];

	if (!take_root(path, root) || access(path, F_OK) == 0)
		return json_read_with(path, read, out);
	TRY(find_kind(root, &kind));
	if (strcmp(strstr(path, "//") + 2, "model_index.json") == 0)
		return give(make_index(kind, root), path, read, out);
	return give(json_loads(kind->scheduler, 0, NULL), path, read, out);
}

/* An autoencoder that is somewhere else: as it was published. */
static json_t *published_vae(const struct kind *kind)
{
	json_t *config = json_loads(kind->vae, 0, NULL);
	bool old = kind->network == UNET || kind->network == UNET_XL;

	json_object_update_new(
		config, json_pack("{s:[i,i,i,i], s:i, s:i, s:b}", "block_out_channels", 128, 256, 512, 512,
				"layers_per_block", 2, "latent_channels", old ? 4 : 16, "use_post_quant_conv", old));
	return config;
}

static json_t *make_config(const struct weights *w, enum arch arch, const struct kind *kind)
{
	const struct arch_kind *a = &arches[arch];
	json_t *config = json_loads(arch == VAE ? kind->vae : a->base, 0, NULL);

	for (const struct field *f = a->fields; config && f->key; f++)
		json_object_set_new(config, f->key, value_of(w, f));
	if (config && a->rest)
		a->rest(w, config);
	if (arch == CLIP && !kind->projection)
		json_object_set_new(config, "architectures", json_pack("[s]", "CLIPTextModel"));
	return config;
}

static enum status derive_config(const struct component *c, const struct kind *kind, json_t **out)
{
	struct weights *w;
	enum arch arch;

	if (!*c->weights && strcmp(c->name, "vae") == 0) {
		*out = published_vae(kind);
		return STATUS_OK;
	}
	TRY(open_part(c->weights, c->name, &w));
	arch = recognise(w);
	*out = arch == ARCHES ? NULL : make_config(w, arch, kind);
	weights_close(w);
	return arch == ARCHES
		       ? status_fail(STATUS_UNSUPPORTED, "%s: its tensors are those of no %s that this version knows",
				 c->weights, c->name)
		       : STATUS_OK;
}

enum status derive_read_config(const struct component *c, derive_reader *read, void *out)
{
	const struct kind *kind;
	char root[PATH_MAX], beside[PATH_MAX + 16];
	json_t *config;

	snprintf(beside, sizeof beside, "%s/config.json", c->weights);
	if (!take_root(c->config, root) || access(c->config, F_OK) == 0)
		return json_read_with(c->config, read, out);
	if (access(beside, F_OK) == 0)
		return json_read_with(beside, read, out);
	TRY(find_kind(root, &kind));
	if (!*c->weights && strcmp(c->name, "vae") != 0)
		return derive_fail_missing(c);
	TRY(derive_config(c, kind, &config));
	return give(config, c->config, read, out);
}

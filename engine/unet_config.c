/* unet_config: reading a UNet's config.json; what would change numbers and is not computed here is refused by name. */
#include "engine/unet.h"

#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"

/* Keys that may be missing, null or false, or hold the one value that is computed. */
static const struct fixed {
	const char *key, *text;
	double number;
} fixed[] = {
	{ "act_fn", "silu", 0 },
	{ "attention_type", "default", 0 },
	{ "center_input_sample", NULL, 0 },
	{ "class_embed_type", NULL, 0 },
	{ "class_embeddings_concat", NULL, 0 },
	{ "conv_in_kernel", NULL, 3 },
	{ "conv_out_kernel", NULL, 3 },
	{ "cross_attention_norm", NULL, 0 },
	{ "downsample_padding", NULL, 1 },
	{ "dual_cross_attention", NULL, 0 },
	{ "encoder_hid_dim", NULL, 0 },
	{ "encoder_hid_dim_type", NULL, 0 },
	{ "mid_block_only_cross_attention", NULL, 0 },
	{ "mid_block_scale_factor", NULL, 1 },
	{ "mid_block_type", "UNetMidBlock2DCrossAttn", 0 },
	{ "num_attention_heads", NULL, 0 },
	{ "num_class_embeds", NULL, 0 },
	{ "only_cross_attention", NULL, 0 },
	{ "resnet_out_scale_factor", NULL, 1 },
	{ "resnet_skip_time_act", NULL, 0 },
	{ "resnet_time_scale_shift", "default", 0 },
	{ "reverse_transformer_layers_per_block", NULL, 0 },
	{ "time_cond_proj_dim", NULL, 0 },
	{ "time_embedding_act_fn", NULL, 0 },
	{ "time_embedding_dim", NULL, 0 },
	{ "time_embedding_type", "positional", 0 },
	{ "timestep_post_act", NULL, 0 },
};

static bool holds(const struct fixed *f, const json_t *value)
{
	if (!value || json_is_null(value) || json_is_false(value))
		return true;
	if (json_is_string(value))
		return f->text && strcmp(json_string_value(value), f->text) == 0;
	return f->number > 0 && json_is_number(value) && json_number_value(value) >= f->number &&
	       json_number_value(value) <= f->number;
}

static enum status check_fixed(const json_t *object, const char *path)
{
	const char *class_name = "UNet2DConditionModel";

	TRY(json_get_string(object, path, "_class_name", &class_name));
	if (strcmp(class_name, "UNet2DConditionModel") != 0)
		return status_fail(STATUS_UNSUPPORTED, "%s: network %s is not supported", path, class_name);
	for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
		if (!holds(&fixed[i], json_object_get(object, fixed[i].key)))
			return status_fail(
				STATUS_UNSUPPORTED, "%s: this value of %s is not supported", path, fixed[i].key);
	return STATUS_OK;
}

/* A number for all levels, or a list with one for each. */
static enum status read_per_level(const json_t *object, const char *path, const char *key, int64_t high, int n_levels,
	int64_t fallback, int64_t out[UNET_LEVELS_MAX])
{
	int count;

	for (int i = 0; i < n_levels; i++)
		out[i] = fallback;
	if (!json_is_array(json_object_get(object, key))) {
		TRY(json_get_int(object, path, key, 1, high, &fallback));
		for (int i = 0; i < n_levels; i++)
			out[i] = fallback;
		return STATUS_OK;
	}
	TRY(json_need_ints(object, path, key, 1, high, UNET_LEVELS_MAX, out, &count));
	return count == n_levels ? STATUS_OK
				 : status_fail(STATUS_CORRUPT, "%s: %s must have as many entries as block_out_channels",
					   path, key);
}

/* Which levels have transformers. */
static enum status read_types(const json_t *object, const char *path, const char *key, const char *plain,
	const char *attention, int n_levels, bool out[UNET_LEVELS_MAX])
{
	const json_t *types = json_object_get(object, key);

	if (json_array_size(types) != (size_t)n_levels)
		return status_fail(
			STATUS_CORRUPT, "%s: %s must be a list with as many entries as block_out_channels", path, key);
	for (int i = 0; i < n_levels; i++) {
		const char *type = json_string_value(json_array_get(types, (size_t)i));

		if (!type || (strcmp(type, plain) != 0 && strcmp(type, attention) != 0))
			return status_fail(STATUS_UNSUPPORTED, "%s: %s may only hold %s and %s, not %.60s", path, key,
				plain, attention, type ? type : "other things than names");
		out[i] = strcmp(type, attention) == 0;
	}
	return STATUS_OK;
}

static enum status check_level(const struct unet_config *c, const char *path, const struct unet_level_config *l)
{
	if (l->channels % c->groups != 0)
		return status_fail(STATUS_CORRUPT,
			"%s: norm_num_groups %lld does not divide %lld of block_out_channels", path,
			(long long)c->groups, (long long)l->channels);
	if (l->channels % l->heads != 0)
		return status_fail(STATUS_CORRUPT,
			"%s: attention_head_dim (the number of heads) %lld does not divide %lld of block_out_channels",
			path, (long long)l->heads, (long long)l->channels);
	return STATUS_OK;
}

static enum status read_levels(const json_t *object, const char *path, struct unet_config *c)
{
	int64_t channels[UNET_LEVELS_MAX], layers[UNET_LEVELS_MAX], heads[UNET_LEVELS_MAX], blocks[UNET_LEVELS_MAX];
	bool down[UNET_LEVELS_MAX], up[UNET_LEVELS_MAX];
	int n;

	TRY(json_need_ints(object, path, "block_out_channels", 1, 1 << 14, UNET_LEVELS_MAX, channels, &n));
	TRY(read_per_level(object, path, "layers_per_block", UNET_LAYERS_MAX, n, 2, layers));
	TRY(read_per_level(object, path, "attention_head_dim", 1 << 14, n, 8, heads));
	TRY(read_per_level(object, path, "transformer_layers_per_block", 64, n, 1, blocks));
	TRY(read_types(object, path, "down_block_types", "DownBlock2D", "CrossAttnDownBlock2D", n, down));
	TRY(read_types(object, path, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", n, up));
	c->n_levels = n;
	for (int i = 0; i < n; i++) {
		c->level[i] = (struct unet_level_config){ .channels = channels[i],
			.layers = layers[i],
			.heads = heads[i],
			.blocks = blocks[i],
			.attention = down[i],
			.attention_up = up[n - 1 - i] };
		TRY(check_level(c, path, &c->level[i]));
	}
	if (channels[0] % 2 != 0)
		return status_fail(STATUS_CORRUPT, "%s: block_out_channels must begin with an even number", path);
	return STATUS_OK;
}

static enum status read_added(const json_t *object, const char *path, struct unet_config *c)
{
	const char *type = "";

	TRY(json_get_string(object, path, "addition_embed_type", &type));
	if (!type[0])
		return STATUS_OK;
	if (strcmp(type, "text_time") != 0)
		return status_fail(STATUS_UNSUPPORTED, "%s: addition_embed_type %.60s is not supported", path, type);
	c->text_time = true;
	TRY(json_need_int(object, path, "addition_time_embed_dim", 2, 1 << 14, &c->size_width));
	TRY(json_need_int(object, path, "projection_class_embeddings_input_dim", 1, 1 << 18, &c->added_width));
	if (c->size_width % 2 != 0 || c->added_width <= UNET_SIZES * c->size_width)
		return status_fail(STATUS_CORRUPT,
			"%s: addition_time_embed_dim must be even and projection_class_embeddings_input_dim above %d "
			"times "
			"it",
			path, UNET_SIZES);
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct unet_config *c = out;

	TRY(check_fixed(object, path));
	c->in_channels = c->out_channels = 4;
	TRY(json_get_int(object, path, "in_channels", 1, 1024, &c->in_channels));
	TRY(json_get_int(object, path, "out_channels", 1, 1024, &c->out_channels));
	c->cross = 1280;
	TRY(json_get_int(object, path, "cross_attention_dim", 1, 1 << 16, &c->cross));
	c->groups = 32;
	TRY(json_get_int(object, path, "norm_num_groups", 1, 1 << 14, &c->groups));
	c->sample_size = 64;
	TRY(json_get_int(object, path, "sample_size", 1, 1 << 14, &c->sample_size));
	c->norm_eps = 1e-5;
	TRY(json_get_number(object, path, "norm_eps", 1e-12, 1, &c->norm_eps));
	TRY(json_get_number(object, path, "freq_shift", 0, 1, &c->freq_shift));
	c->cos_first = true;
	TRY(json_get_bool(object, path, "flip_sin_to_cos", &c->cos_first));
	TRY(json_get_bool(object, path, "use_linear_projection", &c->linear_projection));
	TRY(read_levels(object, path, c));
	return read_added(object, path, c);
}

enum status unet_config_read(const struct component *part, struct unet_config *out)
{
	struct unet_config c = { 0 };

	TRY(derive_read_config(part, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* clip_vision: see clip_vision.h. */
#include "engine/clip_vision.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/clip_layers.h"

struct config {
	int64_t image, patch, projection;
};

struct ends {
	struct weight *positions, *projection, *class_embedding, *norm_in, *norm_in_bias, *norm_out, *norm_out_bias;
};

enum { D_ONE, D_WIDTH, D_POSITIONS, D_PROJECTION, D_COUNT };

#define END(member, name) LOAD_ONE(ends, member, LOAD_VECTOR, name, D_WIDTH, D_ONE)

#define PATCHES "embeddings.patch_embedding.weight"
#define POSITIONS "embeddings.position_embedding.weight"

static const struct load_entry projection_table[] = {
	LOAD_ONE(ends, projection, LOAD_LINEAR, "visual_projection.weight", D_PROJECTION, D_WIDTH),
};

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, positions, LOAD_TABLE, POSITIONS, D_POSITIONS, D_WIDTH),
	END(class_embedding, "embeddings.class_embedding"),
	END(norm_in, "pre_layrnorm.weight"),
	END(norm_in_bias, "pre_layrnorm.bias"),
	END(norm_out, "post_layernorm.weight"),
	END(norm_out_bias, "post_layernorm.bias"),
};

struct clip_vision {
	struct kernels *k;
	struct config config;
	struct weights *weights; /* while loading */
	const char *prefix;
	struct ends ends;
	struct clip_layers layers;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct clip_vision *c = out;
	struct config *own = &c->config;
	const char *type = "clip_vision_model";

	TRY(json_get_string(object, path, "model_type", &type));
	if (strcmp(type, "clip_vision_model") != 0)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: model_type %.40s is not supported as image encoder", path, type);
	TRY(clip_layers_config_read(object, path, &c->layers.config));
	TRY(json_need_int(object, path, "image_size", 1, 4096, &own->image));
	TRY(json_need_int(object, path, "patch_size", 1, 4096, &own->patch));
	TRY(json_need_int(object, path, "projection_dim", 1, 1 << 14, &own->projection));
	if (own->patch > own->image)
		return status_fail(STATUS_CORRUPT, "%s: patch_size is above image_size", path);
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum status load(struct clip_vision *c, const struct component *component)
{
	int64_t dims[D_COUNT];
	struct loader loader = { c->k, NULL, dims };
	static const char *const unused[] = { "logit_scale", "embeddings.position_ids",
		"vision_model.embeddings.position_ids", NULL };
	char prefix[64];
	struct tensor patches;
	int64_t side;

	TRY(json_read_with(component->config, read_config, c));
	TRY(weights_open_component(component, &c->weights));
	dims[D_ONE] = 1;
	dims[D_WIDTH] = c->layers.config.width;
	side = c->config.image / c->config.patch;
	dims[D_POSITIONS] = side * side + 1;
	dims[D_PROJECTION] = c->config.projection;
	loader.weights = c->weights;
	c->prefix = weights_has(c->weights, POSITIONS) ? "" : "vision_model.";
	snprintf(prefix, sizeof prefix, "%s" PATCHES, c->prefix); /* for its shape alone */
	TRY(weights_find(c->weights, prefix, 4,
		(int64_t[]){ c->layers.config.width, 3, c->config.patch, c->config.patch }, &patches));
	TRY(load_table(&loader, "", projection_table, LOAD_COUNT(projection_table), &c->ends));
	snprintf(prefix, sizeof prefix, "%sencoder.layers.", c->prefix);
	TRY(clip_layers_load(c->k, c->weights, prefix, &c->layers));
	TRY(load_table(&loader, c->prefix, ends_table, LOAD_COUNT(ends_table), &c->ends));
	return weights_check_read(c->weights, unused);
}

enum status clip_vision_open(struct kernels *k, const struct component *component, struct clip_vision **out)
{
	struct clip_vision *c = calloc(1, sizeof *c);
	enum status status;

	if (!c)
		return status_fail(STATUS_NO_MEMORY, "no memory for an image encoder");
	c->k = k;
	status = load(c, component);
	weights_close(c->weights);
	c->weights = NULL;
	if (status != STATUS_OK) {
		clip_vision_close(c);
		return status;
	}
	*out = c;
	return STATUS_OK;
}

void clip_vision_close(struct clip_vision *c)
{
	if (!c)
		return;
	clip_layers_free(c->k, &c->layers);
	load_free(c->k, ends_table, LOAD_COUNT(ends_table), &c->ends);
	load_free(c->k, projection_table, LOAD_COUNT(projection_table), &c->ends);
	free(c);
}

int64_t clip_vision_projection(const struct clip_vision *c)
{
	return c->config.projection;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

static enum status embed(struct clip_vision *c, struct arena *arena, struct tensor out)
{
	struct clip_pass p = { .k = c->k, .layers = &c->layers };
	struct tensor first, normed;

	TRY(clip_pass_take(&p, arena, weight_table(c->ends.positions)->dim[0]));
	first = tensor_slice(p.stream, 0, 0, 1);
	normed = tensor_slice(p.operand, 0, 0, 1);
	TRY(kernels_unary(c->k, UNARY_COPY, *weight_table(c->ends.positions), p.stream));
	TRY(kernels_add_row(c->k, *weight_table(c->ends.class_embedding), first));
	TRY(clip_pass_norm(&p, p.stream, c->ends.norm_in, c->ends.norm_in_bias, p.stream));
	for (int64_t i = 0; i < c->layers.config.layers; i++)
		TRY(clip_pass_run(&p, i));
	TRY(clip_pass_norm(&p, first, c->ends.norm_out, c->ends.norm_out_bias, normed));
	return kernels_linear(c->k, &(struct linear){ .x = normed, .w = c->ends.projection, .y = out });
}

enum status clip_vision_embed_zero(struct clip_vision *c, struct arena *arena, struct tensor out)
{
	size_t mark = arena_mark(arena);
	enum status status = embed(c, arena, out);

	arena_release(arena, mark);
	return status;
}

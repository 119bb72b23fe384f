/* clip_vision: see clip_vision.h. */
#include "engine/clip_vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/load.h"

struct config {
	int64_t width, intermediate, layers, heads, image, patch, projection;
	double eps;
	enum activation activation;
};

struct layer {
	struct weight *norm1, *norm1_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
	struct weight *norm2, *norm2_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
};

struct ends {
	struct weight *positions, *projection, *class_embedding, *norm_in, *norm_in_bias, *norm_out, *norm_out_bias;
};

enum { D_ONE, D_WIDTH, D_FFN, D_POSITIONS, D_PROJECTION, D_COUNT };

#define ROW(member, name, rows) LOAD_ONE(layer, member, LOAD_VECTOR, name, rows, D_ONE)
#define MATRIX(member, name, rows, columns) LOAD_ONE(layer, member, LOAD_LINEAR, name, rows, columns)

static const struct load_entry layer_table[] = {
	ROW(norm1, "layer_norm1.weight", D_WIDTH),
	ROW(norm1_bias, "layer_norm1.bias", D_WIDTH),
	MATRIX(q, "self_attn.q_proj.weight", D_WIDTH, D_WIDTH),
	ROW(q_bias, "self_attn.q_proj.bias", D_WIDTH),
	MATRIX(k, "self_attn.k_proj.weight", D_WIDTH, D_WIDTH),
	ROW(k_bias, "self_attn.k_proj.bias", D_WIDTH),
	MATRIX(v, "self_attn.v_proj.weight", D_WIDTH, D_WIDTH),
	ROW(v_bias, "self_attn.v_proj.bias", D_WIDTH),
	MATRIX(out, "self_attn.out_proj.weight", D_WIDTH, D_WIDTH),
	ROW(out_bias, "self_attn.out_proj.bias", D_WIDTH),
	ROW(norm2, "layer_norm2.weight", D_WIDTH),
	ROW(norm2_bias, "layer_norm2.bias", D_WIDTH),
	MATRIX(fc1, "mlp.fc1.weight", D_FFN, D_WIDTH),
	ROW(fc1_bias, "mlp.fc1.bias", D_FFN),
	MATRIX(fc2, "mlp.fc2.weight", D_WIDTH, D_FFN),
	ROW(fc2_bias, "mlp.fc2.bias", D_WIDTH),
};

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
	struct layer *layers;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status read_activation(const json_t *object, const char *path, enum activation *out)
{
	const char *name = "quick_gelu";

	TRY(json_get_string(object, path, "hidden_act", &name));
	if (!strcmp(name, "quick_gelu"))
		*out = ACTIVATION_QUICK_GELU;
	else if (!strcmp(name, "gelu"))
		*out = ACTIVATION_GELU;
	else
		return status_fail(STATUS_UNSUPPORTED, "%s: hidden_act %.40s is not supported", path, name);
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct config *c = out;
	const char *type = "clip_vision_model";

	TRY(json_get_string(object, path, "model_type", &type));
	if (strcmp(type, "clip_vision_model") != 0)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: model_type %.40s is not supported as image encoder", path, type);
	TRY(read_activation(object, path, &c->activation));
	TRY(json_need_int(object, path, "hidden_size", 1, 1 << 14, &c->width));
	TRY(json_need_int(object, path, "intermediate_size", 1, 1 << 16, &c->intermediate));
	TRY(json_need_int(object, path, "num_hidden_layers", 1, 1000, &c->layers));
	TRY(json_need_int(object, path, "num_attention_heads", 1, 1024, &c->heads));
	TRY(json_need_int(object, path, "image_size", 1, 4096, &c->image));
	TRY(json_need_int(object, path, "patch_size", 1, 4096, &c->patch));
	TRY(json_need_int(object, path, "projection_dim", 1, 1 << 14, &c->projection));
	c->eps = 1e-5;
	TRY(json_get_number(object, path, "layer_norm_eps", 0, 1, &c->eps));
	if (c->width % c->heads != 0)
		return status_fail(STATUS_CORRUPT, "%s: num_attention_heads does not divide hidden_size", path);
	if (c->patch > c->image)
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

	TRY(json_read_with(component->config, read_config, &c->config));
	TRY(weights_open_component(component, &c->weights));
	dims[D_ONE] = 1;
	dims[D_WIDTH] = c->config.width;
	dims[D_FFN] = c->config.intermediate;
	side = c->config.image / c->config.patch;
	dims[D_POSITIONS] = side * side + 1;
	dims[D_PROJECTION] = c->config.projection;
	loader.weights = c->weights;
	c->prefix = weights_has(c->weights, POSITIONS) ? "" : "vision_model.";
	snprintf(prefix, sizeof prefix, "%s" PATCHES, c->prefix); /* for its shape alone */
	TRY(weights_find(
		c->weights, prefix, 4, (int64_t[]){ c->config.width, 3, c->config.patch, c->config.patch }, &patches));
	TRY(load_table(&loader, "", projection_table, LOAD_COUNT(projection_table), &c->ends));
	c->layers = calloc((size_t)c->config.layers, sizeof *c->layers);
	if (!c->layers)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld layers", (long long)c->config.layers);
	for (int64_t i = 0; i < c->config.layers; i++) {
		snprintf(prefix, sizeof prefix, "%sencoder.layers.%lld.", c->prefix, (long long)i);
		TRY(load_table(&loader, prefix, layer_table, LOAD_COUNT(layer_table), &c->layers[i]));
	}
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
	for (int64_t i = 0; c->layers && i < c->config.layers; i++)
		load_free(c->k, layer_table, LOAD_COUNT(layer_table), &c->layers[i]);
	load_free(c->k, ends_table, LOAD_COUNT(ends_table), &c->ends);
	load_free(c->k, projection_table, LOAD_COUNT(projection_table), &c->ends);
	free(c->layers);
	free(c);
}

int64_t clip_vision_projection(const struct clip_vision *c)
{
	return c->config.projection;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

struct pass {
	struct clip_vision *c;
	struct tensor stream;              /* [n, width] F32 */
	struct tensor operand, q, k, v;    /* [n, width] */
	struct tensor heads, feed_forward; /* [n, width], [n, intermediate] */
};

static struct tensor heads_view(const struct pass *p, struct tensor x)
{
	int64_t heads = p->c->config.heads;

	return tensor_view(x.data, x.dtype, 3, (int64_t[]){ x.dim[0], heads, x.dim[1] / heads });
}

static enum status norm(
	const struct pass *p, struct tensor x, const struct weight *weight, const struct weight *bias, struct tensor y)
{
	return kernels_norm(p->c->k,
		&(struct norm){ .x = x, .weight = weight, .bias = bias, .eps = (float)p->c->config.eps, .y = y });
}

static enum status linear(
	const struct pass *p, struct tensor x, const struct weight *w, const struct weight *bias, struct tensor y)
{
	return kernels_linear(p->c->k, &(struct linear){ .x = x, .w = w, .bias = bias, .y = y });
}

static enum status run_layer(struct pass *p, const struct layer *l)
{
	struct kernels *k = p->c->k;

	TRY(norm(p, p->stream, l->norm1, l->norm1_bias, p->operand));
	TRY(linear(p, p->operand, l->q, l->q_bias, p->q));
	TRY(linear(p, p->operand, l->k, l->k_bias, p->k));
	TRY(linear(p, p->operand, l->v, l->v_bias, p->v));
	TRY(kernels_attention(k, &(struct attention){ .q = heads_view(p, p->q),
					 .k = heads_view(p, p->k),
					 .v = heads_view(p, p->v),
					 .scale = 1 / sqrtf((float)(p->c->config.width / p->c->config.heads)),
					 .out = heads_view(p, p->heads) }));
	TRY(kernels_linear(
		k, &(struct linear){
			   .x = p->heads, .w = l->out, .bias = l->out_bias, .accumulate = true, .y = p->stream }));
	TRY(norm(p, p->stream, l->norm2, l->norm2_bias, p->operand));
	TRY(kernels_linear(k, &(struct linear){ .x = p->operand,
				      .w = l->fc1,
				      .bias = l->fc1_bias,
				      .activation = p->c->config.activation,
				      .y = p->feed_forward }));
	return kernels_linear(k,
		&(struct linear){
			.x = p->feed_forward, .w = l->fc2, .bias = l->fc2_bias, .accumulate = true, .y = p->stream });
}

static enum status take_buffers(struct pass *p, struct arena *arena)
{
	const struct config *c = &p->c->config;
	struct tensor *operands[] = { &p->operand, &p->q, &p->k, &p->v, &p->heads };
	int64_t n = weight_table(p->c->ends.positions)->dim[0];
	enum dtype dtype = kernels_dtype(p->c->k);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ n, c->width }, &p->stream));
	for (size_t i = 0; i < sizeof operands / sizeof operands[0]; i++)
		TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, c->width }, operands[i]));
	return arena_take(arena, dtype, 2, (int64_t[]){ n, c->intermediate }, &p->feed_forward);
}

static enum status embed(struct pass *p, struct tensor out)
{
	struct clip_vision *c = p->c;
	struct tensor first = tensor_slice(p->stream, 0, 0, 1), normed = tensor_slice(p->operand, 0, 0, 1);

	TRY(kernels_unary(c->k, UNARY_COPY, *weight_table(c->ends.positions), p->stream));
	TRY(kernels_add_row(c->k, *weight_table(c->ends.class_embedding), first));
	TRY(norm(p, p->stream, c->ends.norm_in, c->ends.norm_in_bias, p->stream));
	for (int64_t i = 0; i < c->config.layers; i++)
		TRY(run_layer(p, &c->layers[i]));
	TRY(norm(p, first, c->ends.norm_out, c->ends.norm_out_bias, normed));
	return linear(p, normed, c->ends.projection, NULL, out);
}

enum status clip_vision_embed_zero(struct clip_vision *c, struct arena *arena, struct tensor out)
{
	struct pass p = { .c = c };
	size_t mark = arena_mark(arena);
	enum status status = take_buffers(&p, arena);

	if (status == STATUS_OK)
		status = embed(&p, out);
	arena_release(arena, mark);
	return status;
}

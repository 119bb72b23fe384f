/* clip_text: see clip_text.h. */
#include "engine/clip_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/clip_layers.h"
#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"
#include "engine/token_table.h"

struct config {
	int64_t vocab, positions, projection, eos;
	bool no_projection; /* the class is CLIPTextModel */
};

enum { D_ONE, D_WIDTH, D_POSITIONS, D_PROJECTION, D_COUNT };

#define TOKENS "embeddings.token_embedding.weight"
#define PROJECTION "text_projection.weight"

struct ends {
	struct weight *positions, *norm, *norm_bias;
	struct weight *projection; /* NULL: none */
};

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, positions, LOAD_TABLE, "embeddings.position_embedding.weight", D_POSITIONS, D_WIDTH),
	LOAD_ONE(ends, norm, LOAD_VECTOR, "final_layer_norm.weight", D_WIDTH, D_ONE),
	LOAD_ONE(ends, norm_bias, LOAD_VECTOR, "final_layer_norm.bias", D_WIDTH, D_ONE),
};

static const struct load_entry projection_table[] = {
	LOAD_ONE(ends, projection, LOAD_LINEAR, PROJECTION, D_PROJECTION, D_WIDTH),
};

struct clip_text {
	struct kernels *k;
	struct config config;
	struct weights *weights; /* stays open for the token table */
	struct token_table tokens;
	const char *prefix;
	struct ends ends;
	struct clip_layers layers;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static enum status check_type(const json_t *object, const char *path, struct config *c)
{
	const char *type = "clip_text_model", *class;

	TRY(json_get_string(object, path, "model_type", &type));
	if (strcmp(type, "clip_text_model") != 0)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: model_type %.40s is not supported as text encoder", path, type);
	class = json_string_value(json_array_get(json_object_get(object, "architectures"), 0));
	c->no_projection = class && !strcmp(class, "CLIPTextModel");
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct clip_text *c = out;
	struct config *own = &c->config;

	TRY(check_type(object, path, own));
	TRY(clip_layers_config_read(object, path, &c->layers.config));
	TRY(json_need_int(object, path, "vocab_size", 1, 1 << 24, &own->vocab));
	own->positions = 77;
	TRY(json_get_int(object, path, "max_position_embeddings", 1, 1 << 16, &own->positions));
	own->projection = c->layers.config.width;
	TRY(json_get_int(object, path, "projection_dim", 1, 1 << 14, &own->projection));
	own->eos = 49407;
	return json_get_int(object, path, "eos_token_id", 0, 1 << 24, &own->eos);
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static void describe_dims(const struct clip_text *c, int64_t out[D_COUNT])
{
	const int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_WIDTH] = c->layers.config.width,
		[D_POSITIONS] = c->config.positions,
		[D_PROJECTION] = c->config.projection };

	memcpy(out, dims, sizeof dims);
}

/* Files without configuration of their own tell by this tensor; a survey has only the configuration. */
static bool has_projection(const struct clip_text *c)
{
	return !c->config.no_projection && (weights_has(c->weights, PROJECTION) || weights_count(c->weights) == 0);
}

static enum status load_all(struct clip_text *c)
{
	int64_t dims[D_COUNT];
	struct loader loader = { c->k, c->weights, dims };
	char prefix[64];

	describe_dims(c, dims);
	snprintf(prefix, sizeof prefix, "%sencoder.layers.", c->prefix);
	TRY(clip_layers_load(c->k, c->weights, prefix, &c->layers));
	if (has_projection(c))
		TRY(load_table(&loader, "", projection_table, LOAD_COUNT(projection_table), &c->ends));
	return load_table(&loader, c->prefix, ends_table, LOAD_COUNT(ends_table), &c->ends);
}

static enum status load(struct clip_text *c, const struct component *component)
{
	static const char *const unused[] = { PROJECTION, "logit_scale", "embeddings.position_ids",
		"text_model.embeddings.position_ids", NULL };
	char name[64];

	TRY(derive_read_config(component, read_config, c));
	TRY(weights_open_component(component, &c->weights));
	c->prefix = weights_has(c->weights, TOKENS) ? "" : "text_model.";
	snprintf(name, sizeof name, "%s" TOKENS, c->prefix);
	TRY(token_table_find(c->weights, name, c->config.vocab, c->layers.config.width, &c->tokens));
	TRY(load_all(c));
	return weights_check_read(c->weights, unused);
}

enum status clip_text_open(struct kernels *k, const struct component *component, struct clip_text **out)
{
	struct clip_text *c = calloc(1, sizeof *c);
	enum status status;

	if (!c)
		return status_fail(STATUS_NO_MEMORY, "no memory for a text encoder");
	c->k = k;
	status = load(c, component);
	if (status != STATUS_OK) {
		clip_text_close(c);
		return status;
	}
	*out = c;
	return STATUS_OK;
}

void clip_text_close(struct clip_text *c)
{
	if (!c)
		return;
	clip_layers_free(c->k, &c->layers);
	load_free(c->k, ends_table, LOAD_COUNT(ends_table), &c->ends);
	load_free(c->k, projection_table, LOAD_COUNT(projection_table), &c->ends);
	weights_close(c->weights);
	free(c);
}

int64_t clip_text_width(const struct clip_text *c)
{
	return c->layers.config.width;
}

int64_t clip_text_projection(const struct clip_text *c)
{
	return c->ends.projection ? c->config.projection : 0;
}

int64_t clip_text_positions(const struct clip_text *c)
{
	return c->config.positions;
}

int64_t clip_text_layers(const struct clip_text *c)
{
	return c->layers.config.layers;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

/* The position whose state stands for the whole text. */
static int64_t pooled_position(const struct config *c, const int64_t *ids, int64_t n)
{
	int64_t best = 0;

	for (int64_t i = 0; i < n; i++) {
		if (c->eos != 2 && ids[i] == c->eos)
			return i;
		if (c->eos == 2 && ids[i] > ids[best])
			best = i;
	}
	return best;
}

static enum status pool(struct clip_text *c, struct clip_pass *p, int64_t position, struct tensor pooled)
{
	struct tensor row = tensor_slice(p->stream, 0, position, 1), normed = tensor_slice(p->operand, 0, 0, 1);
	struct tensor out = tensor_view(pooled.data, pooled.dtype, 2, (int64_t[]){ 1, pooled.dim[0] });

	if (!c->ends.projection)
		return clip_pass_norm(p, row, c->ends.norm, c->ends.norm_bias, out);
	TRY(clip_pass_norm(p, row, c->ends.norm, c->ends.norm_bias, normed));
	return kernels_linear(c->k, &(struct linear){ .x = normed, .w = c->ends.projection, .y = out });
}

static enum status embed(struct clip_text *c, const int64_t *ids, int64_t n, struct tensor stream)
{
	TRY(token_table_rows(c->k, &c->tokens, ids, n, stream));
	return kernels_unary(c->k, UNARY_ADD, tensor_slice(*weight_table(c->ends.positions), 0, 0, n), stream);
}

/* The layers, and what is wanted of their states. */
static enum status run_layers(
	struct clip_text *c, struct clip_pass *p, int skip, bool final_norm, struct tensor hidden, bool all)
{
	int64_t wanted = clip_text_layers(c) - skip, count = all ? clip_text_layers(c) : wanted;

	for (int64_t i = 0; i <= count; i++) {
		if (i == wanted && hidden.data) {
			if (skip == 0 || final_norm)
				TRY(clip_pass_norm(p, p->stream, c->ends.norm, c->ends.norm_bias, hidden));
			else
				TRY(kernels_unary(c->k, UNARY_COPY, p->stream, hidden));
		}
		if (i < count)
			TRY(clip_pass_run(p, i));
	}
	return STATUS_OK;
}

static enum status encode(struct clip_text *c, struct arena *arena, const int64_t *ids, int64_t n, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled)
{
	struct clip_pass p = { .k = c->k, .layers = &c->layers, .causal = true };

	TRY(clip_pass_take(&p, arena, n));
	TRY(embed(c, ids, n, p.stream));
	TRY(run_layers(c, &p, skip, final_norm, hidden, pooled.data != NULL));
	return pooled.data ? pool(c, &p, pooled_position(&c->config, ids, n), pooled) : STATUS_OK;
}

enum status clip_text_encode(struct clip_text *c, struct arena *arena, const int64_t *ids, int64_t n, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled)
{
	size_t mark = arena_mark(arena);
	enum status status;

	if (n < 1 || n > c->config.positions)
		return status_fail(STATUS_INVALID, "%lld tokens: CLIP takes 1 to %lld", (long long)n,
			(long long)c->config.positions);
	if (skip < 0 || skip > clip_text_layers(c))
		return status_fail(
			STATUS_INVALID, "cannot skip %d of CLIP's %lld layers", skip, (long long)clip_text_layers(c));
	status = encode(c, arena, ids, n, skip, final_norm, hidden, pooled);
	arena_release(arena, mark);
	return status;
}

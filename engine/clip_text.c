/* clip_text: the text half of CLIP; the stream stays in F32. */
#include "engine/clip_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"
#include "engine/token_table.h"

struct config {
	int64_t vocab, width, intermediate, layers, heads, positions, projection, eos;
	double eps;
	enum activation activation;
	bool no_projection; /* the class is CLIPTextModel */
};

struct layer {
	struct weight *norm1, *norm1_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
	struct weight *norm2, *norm2_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
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
	struct config *c = out;

	TRY(check_type(object, path, c));
	TRY(read_activation(object, path, &c->activation));
	TRY(json_need_int(object, path, "vocab_size", 1, 1 << 24, &c->vocab));
	TRY(json_need_int(object, path, "hidden_size", 1, 1 << 14, &c->width));
	TRY(json_need_int(object, path, "intermediate_size", 1, 1 << 16, &c->intermediate));
	TRY(json_need_int(object, path, "num_hidden_layers", 1, 1000, &c->layers));
	TRY(json_need_int(object, path, "num_attention_heads", 1, 1024, &c->heads));
	c->positions = 77;
	TRY(json_get_int(object, path, "max_position_embeddings", 1, 1 << 16, &c->positions));
	c->projection = c->width;
	TRY(json_get_int(object, path, "projection_dim", 1, 1 << 14, &c->projection));
	c->eos = 49407;
	TRY(json_get_int(object, path, "eos_token_id", 0, 1 << 24, &c->eos));
	c->eps = 1e-5;
	TRY(json_get_number(object, path, "layer_norm_eps", 0, 1, &c->eps));
	if (c->width % c->heads != 0)
		return status_fail(STATUS_CORRUPT, "%s: num_attention_heads does not divide hidden_size", path);
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static void describe_dims(const struct clip_text *c, int64_t out[D_COUNT])
{
	const int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_WIDTH] = c->config.width,
		[D_FFN] = c->config.intermediate,
		[D_POSITIONS] = c->config.positions,
		[D_PROJECTION] = c->config.projection };

	memcpy(out, dims, sizeof dims);
}

/* Files without configuration of their own tell by this tensor; a survey has only the configuration. */
static bool has_projection(const struct clip_text *c)
{
	return !c->config.no_projection && (weights_has(c->weights, PROJECTION) || weights_count(c->weights) == 0);
}

static enum status load_layers(struct clip_text *c)
{
	int64_t dims[D_COUNT];
	struct loader loader = { c->k, c->weights, dims };
	char prefix[64];

	describe_dims(c, dims);
	c->layers = calloc((size_t)c->config.layers, sizeof *c->layers);
	if (!c->layers)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld layers", (long long)c->config.layers);
	for (int64_t i = 0; i < c->config.layers; i++) {
		snprintf(prefix, sizeof prefix, "%sencoder.layers.%lld.", c->prefix, (long long)i);
		TRY(load_table(&loader, prefix, layer_table, LOAD_COUNT(layer_table), &c->layers[i]));
	}
	if (has_projection(c))
		TRY(load_table(&loader, "", projection_table, LOAD_COUNT(projection_table), &c->ends));
	return load_table(&loader, c->prefix, ends_table, LOAD_COUNT(ends_table), &c->ends);
}

static enum status load(struct clip_text *c, const struct component *component)
{
	static const char *const unused[] = { PROJECTION, "logit_scale", "embeddings.position_ids",
		"text_model.embeddings.position_ids", NULL };
	char name[64];

	TRY(derive_read_config(component, read_config, &c->config));
	TRY(weights_open_component(component, &c->weights));
	c->prefix = weights_has(c->weights, TOKENS) ? "" : "text_model.";
	snprintf(name, sizeof name, "%s" TOKENS, c->prefix);
	TRY(token_table_find(c->weights, name, c->config.vocab, c->config.width, &c->tokens));
	TRY(load_layers(c));
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
	for (int64_t i = 0; c->layers && i < c->config.layers; i++)
		load_free(c->k, layer_table, LOAD_COUNT(layer_table), &c->layers[i]);
	load_free(c->k, ends_table, LOAD_COUNT(ends_table), &c->ends);
	load_free(c->k, projection_table, LOAD_COUNT(projection_table), &c->ends);
	free(c->layers);
	weights_close(c->weights);
	free(c);
}

int64_t clip_text_width(const struct clip_text *c)
{
	return c->config.width;
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
	return c->config.layers;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

/* What every layer works with; n is the number of tokens. */
struct pass {
	struct clip_text *c;
	struct tensor stream;      /* [n, width] F32 */
	struct tensor operand;     /* [n, width] */
	struct tensor q, k, v;     /* [n, width] */
	struct tensor heads;       /* [n, width] */
	struct tensor feedforward; /* [n, intermediate] */
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

static enum status self_attention(struct pass *p, const struct layer *l)
{
	struct kernels *k = p->c->k;
	int64_t head_dim = p->c->config.width / p->c->config.heads;

	TRY(norm(p, p->stream, l->norm1, l->norm1_bias, p->operand));
	TRY(linear(p, p->operand, l->q, l->q_bias, p->q));
	TRY(linear(p, p->operand, l->k, l->k_bias, p->k));
	TRY(linear(p, p->operand, l->v, l->v_bias, p->v));
	TRY(kernels_attention(k, &(struct attention){ .q = heads_view(p, p->q),
					 .k = heads_view(p, p->k),
					 .v = heads_view(p, p->v),
					 .scale = 1 / sqrtf((float)head_dim),
					 .causal = true,
					 .out = heads_view(p, p->heads) }));
	return kernels_linear(
		k, &(struct linear){
			   .x = p->heads, .w = l->out, .bias = l->out_bias, .accumulate = true, .y = p->stream });
}

static enum status feed_forward(struct pass *p, const struct layer *l)
{
	struct kernels *k = p->c->k;

	TRY(norm(p, p->stream, l->norm2, l->norm2_bias, p->operand));
	TRY(kernels_linear(k, &(struct linear){ .x = p->operand,
				      .w = l->fc1,
				      .bias = l->fc1_bias,
				      .activation = p->c->config.activation,
				      .y = p->feedforward }));
	return kernels_linear(
		k, &(struct linear){
			   .x = p->feedforward, .w = l->fc2, .bias = l->fc2_bias, .accumulate = true, .y = p->stream });
}

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

static enum status pool(struct pass *p, int64_t position, struct tensor pooled)
{
	struct clip_text *c = p->c;
	struct tensor row = tensor_slice(p->stream, 0, position, 1), normed = tensor_slice(p->operand, 0, 0, 1);
	struct tensor out = tensor_view(pooled.data, pooled.dtype, 2, (int64_t[]){ 1, pooled.dim[0] });

	if (!c->ends.projection)
		return norm(p, row, c->ends.norm, c->ends.norm_bias, out);
	TRY(norm(p, row, c->ends.norm, c->ends.norm_bias, normed));
	return linear(p, normed, c->ends.projection, NULL, out);
}

static enum status take_buffers(struct pass *p, struct arena *arena, int64_t n)
{
	const struct config *c = &p->c->config;
	struct tensor *operands[] = { &p->operand, &p->q, &p->k, &p->v, &p->heads };
	enum dtype dtype = kernels_dtype(p->c->k);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ n, c->width }, &p->stream));
	for (size_t i = 0; i < sizeof operands / sizeof operands[0]; i++)
		TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, c->width }, operands[i]));
	return arena_take(arena, dtype, 2, (int64_t[]){ n, c->intermediate }, &p->feedforward);
}

static enum status embed(struct pass *p, const int64_t *ids, int64_t n)
{
	TRY(token_table_rows(p->c->k, &p->c->tokens, ids, n, p->stream));
	return kernels_unary(p->c->k, UNARY_ADD, tensor_slice(*weight_table(p->c->ends.positions), 0, 0, n), p->stream);
}

/* The layers, and what is wanted of their states. */
static enum status run_layers(struct pass *p, int skip, bool final_norm, struct tensor hidden, bool all)
{
	struct clip_text *c = p->c;
	int64_t wanted = c->config.layers - skip, count = all ? c->config.layers : wanted;

	for (int64_t i = 0; i <= count; i++) {
		if (i == wanted && hidden.data) {
			if (skip == 0 || final_norm)
				TRY(norm(p, p->stream, c->ends.norm, c->ends.norm_bias, hidden));
			else
				TRY(kernels_unary(c->k, UNARY_COPY, p->stream, hidden));
		}
		if (i < count) {
			TRY(self_attention(p, &c->layers[i]));
			TRY(feed_forward(p, &c->layers[i]));
		}
	}
	return STATUS_OK;
}

static enum status encode(struct pass *p, struct arena *arena, const int64_t *ids, int64_t n, int skip, bool final_norm,
	struct tensor hidden, struct tensor pooled)
{
	TRY(take_buffers(p, arena, n));
	TRY(embed(p, ids, n));
	TRY(run_layers(p, skip, final_norm, hidden, pooled.data != NULL));
	return pooled.data ? pool(p, pooled_position(&p->c->config, ids, n), pooled) : STATUS_OK;
}

enum status clip_text_encode(struct clip_text *c, struct arena *arena, const int64_t *ids, int64_t n, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled)
{
	struct pass pass = { .c = c };
	size_t mark = arena_mark(arena);
	enum status status;

	if (n < 1 || n > c->config.positions)
		return status_fail(STATUS_INVALID, "%lld tokens: CLIP takes 1 to %lld", (long long)n,
			(long long)c->config.positions);
	if (skip < 0 || skip > c->config.layers)
		return status_fail(
			STATUS_INVALID, "cannot skip %d of CLIP's %lld layers", skip, (long long)c->config.layers);
	status = encode(&pass, arena, ids, n, skip, final_norm, hidden, pooled);
	arena_release(arena, mark);
	return status;
}

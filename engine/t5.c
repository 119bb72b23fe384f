/* t5: the encoder half of T5 1.1; the stream stays in F32. */
#include "engine/t5.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"
#include "engine/token_table.h"

struct config {
	int64_t vocab, width, intermediate, layers, heads, head_dim, buckets, max_distance;
	double eps;
};

struct layer {
	struct weight *norm1, *qkv, *out, *norm2, *gate_up, *down;
};

enum { D_ONE, D_WIDTH, D_INNER, D_FFN, D_COUNT };

static const struct load_entry layer_table[] = {
	LOAD_ONE(layer, norm1, LOAD_VECTOR, "layer.0.layer_norm.weight", D_WIDTH, D_ONE),
	{ offsetof(struct layer, qkv), LOAD_LINEAR, D_WIDTH,
		{ { "layer.0.SelfAttention.q.weight", D_INNER }, { "layer.0.SelfAttention.k.weight", D_INNER },
			{ "layer.0.SelfAttention.v.weight", D_INNER } } },
	LOAD_ONE(layer, out, LOAD_LINEAR, "layer.0.SelfAttention.o.weight", D_WIDTH, D_INNER),
	LOAD_ONE(layer, norm2, LOAD_VECTOR, "layer.1.layer_norm.weight", D_WIDTH, D_ONE),
	{ offsetof(struct layer, gate_up), LOAD_LINEAR, D_WIDTH,
		{ { "layer.1.DenseReluDense.wi_0.weight", D_FFN }, { "layer.1.DenseReluDense.wi_1.weight", D_FFN } } },
	LOAD_ONE(layer, down, LOAD_LINEAR, "layer.1.DenseReluDense.wo.weight", D_WIDTH, D_FFN),
};

struct ends {
	struct weight *norm;
};

static const struct load_entry ends_table[] = {
	LOAD_ONE(ends, norm, LOAD_VECTOR, "encoder.final_layer_norm.weight", D_WIDTH, D_ONE),
};

#define SHARED "shared.weight"
#define EMBED "encoder.embed_tokens.weight"
#define BIAS "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

struct t5 {
	struct kernels *k;
	struct config config;
	struct weights *weights; /* stays open for the token table */
	struct token_table tokens;
	float *bias; /* [buckets, heads], host memory */
	struct ends ends;
	struct layer *layers;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

/* Some published files name the gate as feed_forward_proj, some as is_gated_act and dense_act_fn. */
static enum status check_variant(const json_t *object, const char *path)
{
	const char *type = "t5", *projection = NULL, *activation = "relu";
	bool gated = false;

	TRY(json_get_string(object, path, "model_type", &type));
	if (strcmp(type, "t5") != 0)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: model_type %.40s is not supported as text encoder", path, type);
	TRY(json_get_string(object, path, "feed_forward_proj", &projection));
	TRY(json_get_bool(object, path, "is_gated_act", &gated));
	TRY(json_get_string(object, path, "dense_act_fn", &activation));
	if (projection ? !strcmp(projection, "gated-gelu")
		       : gated && (!strcmp(activation, "gelu_new") || !strcmp(activation, "gelu_pytorch_tanh")))
		return STATUS_OK;
	return status_fail(STATUS_UNSUPPORTED, "%s: feed_forward_proj %.40s is not supported: gated-gelu is", path,
		projection ? projection : activation);
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct config *c = out;

	TRY(check_variant(object, path));
	TRY(json_need_int(object, path, "vocab_size", 1, 1 << 24, &c->vocab));
	TRY(json_need_int(object, path, "d_model", 1, 1 << 16, &c->width));
	TRY(json_need_int(object, path, "d_ff", 1, 1 << 18, &c->intermediate));
	TRY(json_need_int(object, path, "num_layers", 1, 1000, &c->layers));
	TRY(json_need_int(object, path, "num_heads", 1, 1024, &c->heads));
	TRY(json_need_int(object, path, "d_kv", 1, 1024, &c->head_dim));
	c->buckets = 32;
	TRY(json_get_int(object, path, "relative_attention_num_buckets", 4, 4096, &c->buckets));
	c->max_distance = 128;
	TRY(json_get_int(object, path, "relative_attention_max_distance", 2, 1 << 20, &c->max_distance));
	c->eps = 1e-6;
	TRY(json_get_number(object, path, "layer_norm_epsilon", 0, 1, &c->eps));
	if (c->buckets % 4 != 0 || c->max_distance <= c->buckets / 4)
		return status_fail(STATUS_CORRUPT,
			"%s: relative_attention_num_buckets must be a multiple of 4, and "
			"relative_attention_max_distance above a quarter of it",
			path);
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static float value_at(const struct tensor *t, int64_t i)
{
	switch (t->dtype) {
	case DTYPE_BF16:
		return bf16_to_f32(((const uint16_t *)t->data)[i]);
	case DTYPE_F16:
		return f16_to_f32(((const uint16_t *)t->data)[i]);
	default:
		return ((const float *)t->data)[i];
	}
}

static enum status load_bias(struct t5 *t)
{
	int64_t count = t->config.buckets * t->config.heads;
	struct tensor table;

	TRY(weights_find(t->weights, BIAS, 2, (int64_t[]){ t->config.buckets, t->config.heads }, &table));
	if (!table.data)
		return STATUS_OK; /* a survey */
	t->bias = malloc((size_t)count * sizeof *t->bias);
	if (!t->bias)
		return status_fail(STATUS_NO_MEMORY, "no memory for a table of %lld values", (long long)count);
	for (int64_t i = 0; i < count; i++) {
		t->bias[i] = value_at(&table, i);
		if (!isfinite(t->bias[i]))
			return status_fail(
				STATUS_CORRUPT, "%s: " BIAS " holds NaN or infinity", weights_path(t->weights, BIAS));
	}
	weights_release(t->weights, &table);
	return STATUS_OK;
}

static enum status load_layers(struct t5 *t)
{
	const struct config *c = &t->config;
	int64_t dims[D_COUNT] = {
		[D_ONE] = 1, [D_WIDTH] = c->width, [D_INNER] = c->heads * c->head_dim, [D_FFN] = c->intermediate
	};
	struct loader loader = { t->k, t->weights, dims };
	char prefix[64];

	t->layers = calloc((size_t)c->layers, sizeof *t->layers);
	if (!t->layers)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld layers", (long long)c->layers);
	for (int64_t i = 0; i < c->layers; i++) {
		snprintf(prefix, sizeof prefix, "encoder.block.%lld.", (long long)i);
		TRY(load_table(&loader, prefix, layer_table, LOAD_COUNT(layer_table), &t->layers[i]));
	}
	return load_table(&loader, "", ends_table, LOAD_COUNT(ends_table), &t->ends);
}

static enum status load(struct t5 *t, const struct component *c)
{
	static const char *const unused[] = { SHARED, EMBED, "lm_head.weight", "decoder.", NULL };
	const char *table;

	TRY(derive_read_config(c, read_config, &t->config));
	TRY(weights_open_component(c, &t->weights));
	table = weights_has(t->weights, SHARED) ? SHARED : EMBED;
	TRY(token_table_find(t->weights, table, t->config.vocab, t->config.width, &t->tokens));
	TRY(load_bias(t));
	TRY(load_layers(t));
	return weights_check_read(t->weights, unused);
}

enum status t5_open(struct kernels *k, const struct component *c, struct t5 **out)
{
	struct t5 *t = calloc(1, sizeof *t);
	enum status status;

	if (!t)
		return status_fail(STATUS_NO_MEMORY, "no memory for a text encoder");
	t->k = k;
	status = load(t, c);
	if (status != STATUS_OK) {
		t5_close(t);
		return status;
	}
	*out = t;
	return STATUS_OK;
}

void t5_close(struct t5 *t)
{
	if (!t)
		return;
	for (int64_t i = 0; t->layers && i < t->config.layers; i++)
		load_free(t->k, layer_table, LOAD_COUNT(layer_table), &t->layers[i]);
	load_free(t->k, ends_table, LOAD_COUNT(ends_table), &t->ends);
	free(t->layers);
	free(t->bias);
	weights_close(t->weights);
	free(t);
}

int64_t t5_width(const struct t5 *t)
{
	return t->config.width;
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

/* The bucket of a key `distance` tokens after the query: the half for keys after it, then single distances, then ranges
 * that grow with the logarithm, in float as the reference computes them. */
static int64_t bucket(const struct config *c, int64_t distance)
{
	int64_t half = c->buckets / 2, exact = half / 2, first = distance > 0 ? half : 0;
	float range;

	distance = llabs(distance);
	if (distance < exact)
		return first + distance;
	range = logf((float)distance / (float)exact) / (float)log((double)c->max_distance / (double)exact) *
		(float)(half - exact);
	return first + (range < (float)(half - exact) ? exact + (int64_t)range : half - 1);
}

/* [heads, n, n] from a table that depends on the distance alone. */
static void fill_bias(const struct t5 *t, int64_t n, float *values)
{
	int64_t heads = t->config.heads;

	for (int64_t distance = 1 - n; distance < n; distance++) {
		const float *row = &t->bias[bucket(&t->config, distance) * heads];
		int64_t first = distance < 0 ? -distance : 0, end = distance < 0 ? n : n - distance;

		for (int64_t h = 0; h < heads; h++)
			for (int64_t query = first; query < end; query++)
				values[(h * n + query) * n + query + distance] = row[h];
	}
}

static enum status upload_bias(const struct t5 *t, int64_t n, struct tensor out)
{
	float *values = malloc((size_t)(t->config.heads * n * n) * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 3, (int64_t[]){ t->config.heads, n, n });
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld positions", (long long)n);
	fill_bias(t, n, values);
	status = kernels_upload(t->k, &host, out);
	free(values);
	return status;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

/* What every layer works with; n is the number of tokens. */
struct pass {
	struct t5 *t;
	struct tensor stream;  /* [n, width] F32 */
	struct tensor operand; /* [n, width] */
	struct tensor qkv;     /* [n, 3 inner] */
	struct tensor heads;   /* [n, heads, head_dim] */
	struct tensor gate_up; /* [n, 2 intermediate] */
	struct tensor hidden;  /* [n, intermediate] */
	struct tensor bias;    /* [heads, n, n] F32 */
};

/* The `part`-th third of q, k and v, as [n, heads, head_dim]. */
static struct tensor heads_view(const struct pass *p, int part)
{
	const struct config *c = &p->t->config;
	int64_t inner = c->heads * c->head_dim;
	struct tensor t = tensor_slice(p->qkv, 1, part * inner, inner);

	t.rank = 3;
	t.dim[1] = c->heads;
	t.dim[2] = c->head_dim;
	t.stride[1] = c->head_dim;
	t.stride[2] = 1;
	return t;
}

static enum status norm(const struct pass *p, const struct weight *weight, struct tensor y)
{
	return kernels_norm(p->t->k,
		&(struct norm){
			.rms = true, .x = p->stream, .weight = weight, .eps = (float)p->t->config.eps, .y = y });
}

static enum status self_attention(struct pass *p, const struct layer *l)
{
	struct kernels *k = p->t->k;
	struct tensor joined = tensor_view(
		p->heads.data, p->heads.dtype, 2, (int64_t[]){ p->heads.dim[0], p->heads.dim[1] * p->heads.dim[2] });

	TRY(norm(p, l->norm1, p->operand));
	TRY(kernels_linear(k, &(struct linear){ .x = p->operand, .w = l->qkv, .y = p->qkv }));
	TRY(kernels_attention(k, &(struct attention){ .q = heads_view(p, 0),
					 .k = heads_view(p, 1),
					 .v = heads_view(p, 2),
					 .scale = 1,
					 .bias = p->bias,
					 .out = p->heads }));
	return kernels_linear(k, &(struct linear){ .x = joined, .w = l->out, .accumulate = true, .y = p->stream });
}

static enum status feed_forward(struct pass *p, const struct layer *l)
{
	int64_t width = p->t->config.intermediate;
	struct kernels *k = p->t->k;
	struct tensor gate = tensor_slice(p->gate_up, 1, 0, width), up = tensor_slice(p->gate_up, 1, width, width);

	TRY(norm(p, l->norm2, p->operand));
	TRY(kernels_linear(k, &(struct linear){ .x = p->operand, .w = l->gate_up, .y = p->gate_up }));
	TRY(kernels_glu(k, ACTIVATION_GELU_TANH, gate, up, p->hidden));
	return kernels_linear(k, &(struct linear){ .x = p->hidden, .w = l->down, .accumulate = true, .y = p->stream });
}

static enum status take_buffers(struct pass *p, struct arena *arena, int64_t n)
{
	const struct config *c = &p->t->config;
	enum dtype dtype = kernels_dtype(p->t->k);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ n, c->width }, &p->stream));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, c->width }, &p->operand));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, 3 * c->heads * c->head_dim }, &p->qkv));
	TRY(arena_take(arena, dtype, 3, (int64_t[]){ n, c->heads, c->head_dim }, &p->heads));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, 2 * c->intermediate }, &p->gate_up));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, c->intermediate }, &p->hidden));
	return arena_take(arena, DTYPE_F32, 3, (int64_t[]){ c->heads, n, n }, &p->bias);
}

static enum status encode(struct pass *p, struct arena *arena, const int64_t *ids, int64_t n, struct tensor out)
{
	struct t5 *t = p->t;

	TRY(take_buffers(p, arena, n));
	TRY(upload_bias(t, n, p->bias));
	TRY(token_table_rows(t->k, &t->tokens, ids, n, p->stream));
	for (int64_t i = 0; i < t->config.layers; i++) {
		TRY(self_attention(p, &t->layers[i]));
		TRY(feed_forward(p, &t->layers[i]));
	}
	return norm(p, t->ends.norm, out);
}

enum status t5_encode(struct t5 *t, struct arena *arena, const int64_t *ids, int64_t n, struct tensor out)
{
	enum { TOKENS_MAX = 1 << 14 };
	struct pass pass = { .t = t };
	size_t mark = arena_mark(arena);
	enum status status;

	if (n < 1 || n > TOKENS_MAX)
		return status_fail(STATUS_INVALID, "%lld tokens: T5 takes 1 to %d", (long long)n, TOKENS_MAX);
	status = encode(&pass, arena, ids, n, out);
	arena_release(arena, mark);
	return status;
}

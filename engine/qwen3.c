/* qwen3: text encoder.  One pass over the tokens of a prompt, layer by layer; the stream stays in F32. */
#include "engine/qwen3.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/load.h"
#include "engine/token_table.h"

struct layer {
	struct weight *input_norm, *qkv, *q_norm, *k_norm, *out, *post_norm, *gate_up, *down;
};

enum { D_ONE, D_HIDDEN, D_FFN, D_Q, D_KV, D_HEAD, D_COUNT };

static const struct load_entry layer_table[] = {
	{ offsetof(struct layer, input_norm), LOAD_VECTOR, D_ONE, { { "input_layernorm.weight", D_HIDDEN } } },
	{ offsetof(struct layer, qkv), LOAD_LINEAR, D_HIDDEN,
		{ { "self_attn.q_proj.weight", D_Q }, { "self_attn.k_proj.weight", D_KV },
			{ "self_attn.v_proj.weight", D_KV } } },
	{ offsetof(struct layer, q_norm), LOAD_VECTOR, D_ONE, { { "self_attn.q_norm.weight", D_HEAD } } },
	{ offsetof(struct layer, k_norm), LOAD_VECTOR, D_ONE, { { "self_attn.k_norm.weight", D_HEAD } } },
	{ offsetof(struct layer, out), LOAD_LINEAR, D_Q, { { "self_attn.o_proj.weight", D_HIDDEN } } },
	{ offsetof(struct layer, post_norm), LOAD_VECTOR, D_ONE, { { "post_attention_layernorm.weight", D_HIDDEN } } },
	{ offsetof(struct layer, gate_up), LOAD_LINEAR, D_HIDDEN,
		{ { "mlp.gate_proj.weight", D_FFN }, { "mlp.up_proj.weight", D_FFN } } },
	{ offsetof(struct layer, down), LOAD_LINEAR, D_FFN, { { "mlp.down_proj.weight", D_HIDDEN } } },
};

struct qwen3 {
	struct kernels *k;
	struct qwen3_config config;
	struct weights *weights; /* stays open for the token table */
	struct token_table table;
	const char *prefix; /* "model." in files written as a causal language model, else "" */
	int64_t n_layers;   /* that are run: all but the last */
	struct layer *layers;
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

/* Settings that would change the computation must have the values that Qwen3 was published with. */
static enum status check_variant(const json_t *object, const char *path)
{
	const char *type = "qwen3", *activation = "silu";
	bool bias = false, sliding = false;
	const json_t *scaling = json_object_get(object, "rope_scaling");

	TRY(json_get_string(object, path, "model_type", &type));
	if (strcmp(type, "qwen3") != 0)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: model_type %s is not supported as text encoder", path, type);
	TRY(json_get_string(object, path, "hidden_act", &activation));
	if (strcmp(activation, "silu") != 0)
		return status_fail(STATUS_UNSUPPORTED, "%s: hidden_act %s is not supported", path, activation);
	TRY(json_get_bool(object, path, "attention_bias", &bias));
	TRY(json_get_bool(object, path, "use_sliding_window", &sliding));
	if (bias || sliding || (scaling && !json_is_null(scaling)))
		return status_fail(STATUS_UNSUPPORTED,
			"%s: attention_bias, use_sliding_window and rope_scaling are not supported", path);
	return STATUS_OK;
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct qwen3_config *c = out;
	/* newer files keep rope_theta in an object of its own */
	const json_t *rope = json_object_get(object, "rope_parameters");

	TRY(check_variant(object, path));
	TRY(json_need_int(object, path, "vocab_size", 1, 1 << 24, &c->vocab));
	TRY(json_need_int(object, path, "hidden_size", 1, 1 << 16, &c->hidden));
	TRY(json_need_int(object, path, "intermediate_size", 1, 1 << 18, &c->intermediate));
	TRY(json_need_int(object, path, "num_hidden_layers", 2, 1000, &c->layers));
	TRY(json_need_int(object, path, "num_attention_heads", 1, 1024, &c->heads));
	c->kv_heads = c->heads;
	TRY(json_get_int(object, path, "num_key_value_heads", 1, 1024, &c->kv_heads));
	c->head_dim = c->hidden / c->heads;
	TRY(json_get_int(object, path, "head_dim", 2, 1024, &c->head_dim));
	c->eps = 1e-6;
	TRY(json_get_number(object, path, "rms_norm_eps", 0, 1, &c->eps));
	c->rope_theta = 10000;
	TRY(json_get_number(object, path, "rope_theta", 1, 1e12, &c->rope_theta));
	if (json_is_object(rope))
		TRY(json_get_number(rope, path, "rope_theta", 1, 1e12, &c->rope_theta));
	if (c->heads % c->kv_heads != 0)
		return status_fail(STATUS_CORRUPT, "%s: num_key_value_heads does not divide num_attention_heads", path);
	if (c->head_dim % 2 != 0)
		return status_fail(STATUS_CORRUPT, "%s: head_dim must be even", path);
	return STATUS_OK;
}

enum status qwen3_config_read(const struct component *part, struct qwen3_config *out)
{
	struct qwen3_config c = { 0 };

	TRY(derive_read_config(part, read_config, &c));
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum status load_layers(struct qwen3 *q)
{
	const struct qwen3_config *c = &q->config;
	int64_t dims[D_COUNT] = { [D_ONE] = 1,
		[D_HIDDEN] = c->hidden,
		[D_FFN] = c->intermediate,
		[D_Q] = c->heads * c->head_dim,
		[D_KV] = c->kv_heads * c->head_dim,
		[D_HEAD] = c->head_dim };
	struct loader loader = { q->k, q->weights, dims };
	char prefix[64];

	for (int64_t i = 0; i < q->n_layers; i++) {
		snprintf(prefix, sizeof prefix, "%slayers.%lld.", q->prefix, (long long)i);
		TRY(load_table(&loader, prefix, layer_table, LOAD_COUNT(layer_table), &q->layers[i]));
	}
	return STATUS_OK;
}

/* The embedding is what comes out of the last layer but one. */
static enum status check_rest(const struct qwen3 *q)
{
	char last[64], norm[64];
	const char *const unused[] = { last, norm, "lm_head.", NULL };

	snprintf(last, sizeof last, "%slayers.%lld.", q->prefix, (long long)q->config.layers - 1);
	snprintf(norm, sizeof norm, "%snorm.", q->prefix);
	return weights_check_read(q->weights, unused);
}

static enum status open_weights(struct qwen3 *q, const struct component *c)
{
	char name[64];

	TRY(qwen3_config_read(c, &q->config));
	TRY(weights_open_component(c, &q->weights));
	q->prefix = weights_has(q->weights, "embed_tokens.weight") ? "" : "model.";
	snprintf(name, sizeof name, "%sembed_tokens.weight", q->prefix);
	TRY(token_table_find(q->weights, name, q->config.vocab, q->config.hidden, &q->table));
	q->n_layers = q->config.layers - 1;
	q->layers = calloc((size_t)q->n_layers, sizeof *q->layers);
	if (!q->layers)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld layers", (long long)q->n_layers);
	TRY(load_layers(q));
	return check_rest(q);
}

enum status qwen3_open(struct kernels *k, const struct component *c, struct qwen3 **out)
{
	struct qwen3 *q = calloc(1, sizeof *q);
	enum status status;

	if (!q)
		return status_fail(STATUS_NO_MEMORY, "no memory for a text encoder");
	q->k = k;
	status = open_weights(q, c);
	if (status != STATUS_OK) {
		qwen3_close(q);
		return status;
	}
	*out = q;
	return STATUS_OK;
}

void qwen3_close(struct qwen3 *q)
{
	if (!q)
		return;
	for (int64_t i = 0; q->layers && i < q->n_layers; i++)
		load_free(q->k, layer_table, LOAD_COUNT(layer_table), &q->layers[i]);
	free(q->layers);
	weights_close(q->weights);
	free(q);
}

int64_t qwen3_hidden(const struct qwen3 *q)
{
	return q->config.hidden;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

/* What every layer works with; rows is the number of tokens. */
struct pass {
	struct qwen3 *q;
	struct tensor stream;  /* [rows, hidden] F32 */
	struct tensor operand; /* [rows, hidden] */
	struct tensor qkv;     /* [rows, (heads + 2 kv_heads) * head_dim] */
	struct tensor heads;   /* [rows, heads, head_dim] */
	struct tensor gate_up; /* [rows, 2 intermediate] */
	struct tensor hidden;  /* [rows, intermediate] */
	struct tensor rope;    /* [rows, head_dim / 2, 2] F32 */
};

/* A range of columns of x seen as [rows, n_heads, head_dim]. */
static struct tensor heads_view(struct tensor x, int64_t first_column, int64_t n_heads, int64_t head_dim)
{
	struct tensor t = tensor_slice(x, 1, first_column, n_heads * head_dim);

	t.rank = 3;
	t.dim[1] = n_heads;
	t.dim[2] = head_dim;
	t.stride[1] = head_dim;
	t.stride[2] = 1;
	return t;
}

static enum status self_attention(struct pass *p, const struct layer *l)
{
	const struct qwen3_config *c = &p->q->config;
	struct kernels *k = p->q->k;
	int64_t rows = p->stream.dim[0], width = c->heads * c->head_dim;
	struct tensor query = heads_view(p->qkv, 0, c->heads, c->head_dim);
	struct tensor key = heads_view(p->qkv, width, c->kv_heads, c->head_dim);
	struct tensor value = heads_view(p->qkv, width + c->kv_heads * c->head_dim, c->kv_heads, c->head_dim);
	struct tensor joined = tensor_view(p->heads.data, p->heads.dtype, 2, (int64_t[]){ rows, width });

	TRY(kernels_norm(k,
		&(struct norm){
			.rms = true, .x = p->stream, .weight = l->input_norm, .eps = (float)c->eps, .y = p->operand }));
	TRY(kernels_linear(k, &(struct linear){ .x = p->operand, .w = l->qkv, .y = p->qkv }));
	TRY(kernels_qk_rope(
		k, &(struct qk_rope){ .x = query, .weight = l->q_norm, .eps = (float)c->eps, .table = p->rope }));
	TRY(kernels_qk_rope(
		k, &(struct qk_rope){ .x = key, .weight = l->k_norm, .eps = (float)c->eps, .table = p->rope }));
	TRY(kernels_attention(k, &(struct attention){ .q = query,
					 .k = key,
					 .v = value,
					 .scale = 1 / sqrtf((float)c->head_dim),
					 .causal = true,
					 .out = p->heads }));
	return kernels_linear(k, &(struct linear){ .x = joined, .w = l->out, .accumulate = true, .y = p->stream });
}

static enum status feed_forward(struct pass *p, const struct layer *l)
{
	const struct qwen3_config *c = &p->q->config;
	struct kernels *k = p->q->k;
	struct tensor gate = tensor_slice(p->gate_up, 1, 0, c->intermediate);
	struct tensor up = tensor_slice(p->gate_up, 1, c->intermediate, c->intermediate);

	TRY(kernels_norm(k,
		&(struct norm){
			.rms = true, .x = p->stream, .weight = l->post_norm, .eps = (float)c->eps, .y = p->operand }));
	TRY(kernels_linear(k, &(struct linear){ .x = p->operand, .w = l->gate_up, .y = p->gate_up }));
	TRY(kernels_glu(k, ACTIVATION_SILU, gate, up, p->hidden));
	return kernels_linear(k, &(struct linear){ .x = p->hidden, .w = l->down, .accumulate = true, .y = p->stream });
}

/* cos and sin of position * theta^(-2i/head_dim), in float as the reference computes them. */
static enum status upload_rope(struct pass *p)
{
	const struct qwen3_config *c = &p->q->config;
	int64_t rows = p->stream.dim[0], half = c->head_dim / 2;
	float *values = malloc((size_t)(rows * half * 2) * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 3, (int64_t[]){ rows, half, 2 });
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld positions", (long long)rows);
	for (int64_t i = 0; i < half; i++) {
		float frequency = 1.0f / powf((float)c->rope_theta, (float)(2 * i) / (float)c->head_dim);

		for (int64_t row = 0; row < rows; row++) {
			float angle = (float)row * frequency;

			values[(row * half + i) * 2] = cosf(angle);
			values[(row * half + i) * 2 + 1] = sinf(angle);
		}
	}
	status = kernels_upload(p->q->k, &host, p->rope);
	free(values);
	return status;
}

static enum status take_buffers(struct pass *p, struct arena *arena)
{
	const struct qwen3_config *c = &p->q->config;
	enum dtype dtype = kernels_dtype(p->q->k);
	int64_t rows = p->stream.dim[0], width = (c->heads + 2 * c->kv_heads) * c->head_dim;

	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, c->hidden }, &p->operand));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, width }, &p->qkv));
	TRY(arena_take(arena, dtype, 3, (int64_t[]){ rows, c->heads, c->head_dim }, &p->heads));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, 2 * c->intermediate }, &p->gate_up));
	TRY(arena_take(arena, dtype, 2, (int64_t[]){ rows, c->intermediate }, &p->hidden));
	return arena_take(arena, DTYPE_F32, 3, (int64_t[]){ rows, c->head_dim / 2, 2 }, &p->rope);
}

static enum status run_layers(struct pass *p, struct arena *arena)
{
	TRY(take_buffers(p, arena));
	TRY(upload_rope(p));
	for (int64_t i = 0; i < p->q->n_layers; i++) {
		TRY(self_attention(p, &p->q->layers[i]));
		TRY(feed_forward(p, &p->q->layers[i]));
	}
	return STATUS_OK;
}

enum status qwen3_encode(struct qwen3 *q, struct arena *arena, const int64_t *ids, int64_t count, struct tensor out)
{
	struct pass pass = { .q = q, .stream = out };
	size_t mark = arena_mark(arena);
	enum status status;

	TRY(token_table_rows(q->k, &q->table, ids, count, out));
	status = run_layers(&pass, arena);
	arena_release(arena, mark);
	return status;
}

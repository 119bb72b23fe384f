/* clip_layers: see clip_layers.h. */
#include "engine/clip_layers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct clip_layer {
	struct weight *norm1, *norm1_bias, *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
	struct weight *norm2, *norm2_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
};

enum { D_ONE, D_WIDTH, D_FFN, D_COUNT };

#define ROW(member, name, rows) LOAD_ONE(clip_layer, member, LOAD_VECTOR, name, rows, D_ONE)
#define MATRIX(member, name, rows, columns) LOAD_ONE(clip_layer, member, LOAD_LINEAR, name, rows, columns)

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

enum status clip_layers_config_read(const json_t *object, const char *path, struct clip_layers_config *out)
{
	struct clip_layers_config c = { .eps = 1e-5 };

	TRY(read_activation(object, path, &c.activation));
	TRY(json_need_int(object, path, "hidden_size", 1, 1 << 14, &c.width));
	TRY(json_need_int(object, path, "intermediate_size", 1, 1 << 16, &c.intermediate));
	TRY(json_need_int(object, path, "num_hidden_layers", 1, 1000, &c.layers));
	TRY(json_need_int(object, path, "num_attention_heads", 1, 1024, &c.heads));
	TRY(json_get_number(object, path, "layer_norm_eps", 0, 1, &c.eps));
	if (c.width % c.heads != 0)
		return status_fail(STATUS_CORRUPT, "%s: num_attention_heads does not divide hidden_size", path);
	*out = c;
	return STATUS_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

enum status clip_layers_load(struct kernels *k, const struct weights *w, const char *prefix, struct clip_layers *l)
{
	const int64_t dims[D_COUNT] = { [D_ONE] = 1, [D_WIDTH] = l->config.width, [D_FFN] = l->config.intermediate };
	const struct loader loader = { k, w, dims };
	char name[96];

	l->layer = calloc((size_t)l->config.layers, sizeof *l->layer);
	if (!l->layer)
		return status_fail(STATUS_NO_MEMORY, "no memory for %lld layers", (long long)l->config.layers);
	for (int64_t i = 0; i < l->config.layers; i++) {
		snprintf(name, sizeof name, "%s%lld.", prefix, (long long)i);
		TRY(load_table(&loader, name, layer_table, LOAD_COUNT(layer_table), &l->layer[i]));
	}
	return STATUS_OK;
}

void clip_layers_free(struct kernels *k, struct clip_layers *l)
{
	for (int64_t i = 0; l->layer && i < l->config.layers; i++)
		load_free(k, layer_table, LOAD_COUNT(layer_table), &l->layer[i]);
	free(l->layer);
	l->layer = NULL;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

enum status clip_pass_take(struct clip_pass *p, struct arena *arena, int64_t n)
{
	const struct clip_layers_config *c = &p->layers->config;
	struct tensor *operands[] = { &p->operand, &p->q, &p->key, &p->value, &p->heads };
	enum dtype dtype = kernels_dtype(p->k);

	TRY(arena_take(arena, DTYPE_F32, 2, (int64_t[]){ n, c->width }, &p->stream));
	for (size_t i = 0; i < sizeof operands / sizeof operands[0]; i++)
		TRY(arena_take(arena, dtype, 2, (int64_t[]){ n, c->width }, operands[i]));
	return arena_take(arena, dtype, 2, (int64_t[]){ n, c->intermediate }, &p->feed_forward);
}

static struct tensor heads_view(const struct clip_pass *p, struct tensor x)
{
	int64_t heads = p->layers->config.heads;

	return tensor_view(x.data, x.dtype, 3, (int64_t[]){ x.dim[0], heads, x.dim[1] / heads });
}

enum status clip_pass_norm(const struct clip_pass *p, struct tensor x, const struct weight *weight,
	const struct weight *bias, struct tensor y)
{
	return kernels_norm(p->k,
		&(struct norm){ .x = x, .weight = weight, .bias = bias, .eps = (float)p->layers->config.eps, .y = y });
}

static enum status linear(const struct clip_pass *p, const struct weight *w, const struct weight *bias, struct tensor y)
{
	return kernels_linear(p->k, &(struct linear){ .x = p->operand, .w = w, .bias = bias, .y = y });
}

/* stream += w x + bias */
static enum status add_linear(
	const struct clip_pass *p, struct tensor x, const struct weight *w, const struct weight *bias)
{
	return kernels_linear(
		p->k, &(struct linear){ .x = x, .w = w, .bias = bias, .accumulate = true, .y = p->stream });
}

static enum status self_attention(struct clip_pass *p, const struct clip_layer *l)
{
	const struct clip_layers_config *c = &p->layers->config;

	TRY(clip_pass_norm(p, p->stream, l->norm1, l->norm1_bias, p->operand));
	TRY(linear(p, l->q, l->q_bias, p->q));
	TRY(linear(p, l->k, l->k_bias, p->key));
	TRY(linear(p, l->v, l->v_bias, p->value));
	TRY(kernels_attention(p->k, &(struct attention){ .q = heads_view(p, p->q),
					    .k = heads_view(p, p->key),
					    .v = heads_view(p, p->value),
					    .scale = 1 / sqrtf((float)(c->width / c->heads)),
					    .causal = p->causal,
					    .out = heads_view(p, p->heads) }));
	return add_linear(p, p->heads, l->out, l->out_bias);
}

static enum status feed_forward(struct clip_pass *p, const struct clip_layer *l)
{
	TRY(clip_pass_norm(p, p->stream, l->norm2, l->norm2_bias, p->operand));
	TRY(kernels_linear(p->k, &(struct linear){ .x = p->operand,
					 .w = l->fc1,
					 .bias = l->fc1_bias,
					 .activation = p->layers->config.activation,
					 .y = p->feed_forward }));
	return add_linear(p, p->feed_forward, l->fc2, l->fc2_bias);
}

enum status clip_pass_run(struct clip_pass *p, int64_t layer)
{
	TRY(self_attention(p, &p->layers->layer[layer]));
	return feed_forward(p, &p->layers->layer[layer]);
}

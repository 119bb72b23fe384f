/* graph: see graph.h.
 *
 * The builder below keeps the first failure and skips what comes after it, so that a graph reads as its operations; and
 * it owns every descriptor, which may go once a plan is made.
 */
#include "kernels/cuda/graph.h"

#include <stdio.h>
#include <string.h>

enum { DESCRIPTORS_MAX = 128, OPERATIONS_MAX = 16, CONFIGS_MAX = 16, RANK = 4 };

typedef cudnnBackendDescriptor_t descriptor;

struct builder {
	const struct graph_target *target;
	cudnnStatus_t status;
	const char *failed; /* what */
	int n, n_operations;
	int64_t next; /* name of the next virtual tensor */
	descriptor all[DESCRIPTORS_MAX], operations[OPERATIONS_MAX];
};

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static descriptor create(struct builder *b, cudnnBackendDescriptorType_t type)
{
	descriptor d = NULL;

	if (b->status)
		return NULL;
	b->failed = "creating a descriptor";
	b->status = b->n < DESCRIPTORS_MAX ? cudnnBackendCreateDescriptor(type, &d) : CUDNN_STATUS_INTERNAL_ERROR;
	if (!b->status)
		b->all[b->n++] = d;
	return d;
}

static void set(struct builder *b, descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
	int64_t count, const void *value)
{
	if (!b->status)
		b->status = cudnnBackendSetAttribute(d, name, type, count, value);
}

static void set_int(struct builder *b, descriptor d, cudnnBackendAttributeName_t name, int64_t value)
{
	set(b, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void set_descriptor(struct builder *b, descriptor d, cudnnBackendAttributeName_t name, descriptor value)
{
	set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_type(struct builder *b, descriptor d, cudnnBackendAttributeName_t name, cudnnDataType_t value)
{
	set(b, d, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static descriptor finish(struct builder *b, descriptor d, const char *what)
{
	if (!b->status) {
		b->failed = what;
		b->status = cudnnBackendFinalize(d);
	}
	return d;
}

static void finish_operation(struct builder *b, descriptor d, const char *what)
{
	finish(b, d, what);
	if (!b->status && b->n_operations == OPERATIONS_MAX)
		b->status = CUDNN_STATUS_INTERNAL_ERROR;
	if (!b->status)
		b->operations[b->n_operations++] = d;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

enum kind { KIND_MEMORY, KIND_VIRTUAL, KIND_VALUE /* a number on the host */ };

static descriptor tensor(struct builder *b, enum kind kind, int64_t name, cudnnDataType_t type, const int64_t dim[RANK],
	const int64_t stride[RANK])
{
	descriptor d = create(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	const bool yes = true;

	set_type(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
	set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, RANK, dim);
	set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, RANK, stride);
	set_int(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, name);
	set_int(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
	if (kind == KIND_VIRTUAL)
		set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
	if (kind == KIND_VALUE)
		set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
	return finish(b, d, "a tensor");
}

static descriptor scalar(struct builder *b, int64_t name)
{
	const int64_t one[RANK] = { 1, 1, 1, 1 };

	return tensor(b, KIND_VALUE, name, CUDNN_DATA_FLOAT, one, one);
}

/* What one operation hands to the next: [1, a, m, n], dense. */
static descriptor between(struct builder *b, cudnnDataType_t type, int64_t a, int64_t m, int64_t n)
{
	const int64_t dim[RANK] = { 1, a, m, n }, stride[RANK] = { a * m * n, m * n, n, 1 };

	return tensor(b, KIND_VIRTUAL, b->next++, type, dim, stride);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* y = mode(x, other), or mode(x); with `mask`, x where it is true, else other. */
static descriptor pointwise(
	struct builder *b, cudnnPointwiseMode_t mode, descriptor x, descriptor other, descriptor mask, descriptor y)
{
	descriptor how = create(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), op;

	set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
	set_type(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
	finish(b, how, "a pointwise operation");
	op = create(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
	if (other)
		set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other);
	if (mask)
		set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, mask);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
	finish_operation(b, op, "a pointwise operation");
	return y;
}

/* The number of every element along `axis`. */
static descriptor positions(struct builder *b, descriptor x, int64_t axis, descriptor y)
{
	descriptor how = create(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), op;
	const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_GEN_INDEX;

	set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
	set_type(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_INT32);
	set_int(b, how, CUDNN_ATTR_POINTWISE_AXIS, axis);
	finish(b, how, "positions");
	op = create(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
	finish_operation(b, op, "positions");
	return y;
}

static descriptor reduce(struct builder *b, cudnnReduceTensorOp_t mode, descriptor x, descriptor y)
{
	descriptor how = create(b, CUDNN_BACKEND_REDUCTION_DESCRIPTOR), op;

	set(b, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
	set_type(b, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
	finish(b, how, "a reduction");
	op = create(b, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
	finish_operation(b, op, "a reduction");
	return y;
}

static descriptor multiply(struct builder *b, descriptor x, descriptor w, descriptor y)
{
	descriptor how = create(b, CUDNN_BACKEND_MATMUL_DESCRIPTOR), op;

	set_type(b, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
	finish(b, how, "a product");
	op = create(b, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, x);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, w);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
	finish_operation(b, op, "a product");
	return y;
}

static void convolve(struct builder *b, const struct graph_conv *s, descriptor x, descriptor w, descriptor y)
{
	const int64_t stride[2] = { s->stride, s->stride }, pad[2] = { s->pad_h, s->pad_w }, dilation[2] = { 1, 1 };
	const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
	const float one = 1, zero = 0;
	descriptor how = create(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR), op;

	set_type(b, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
	set(b, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
	set_int(b, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
	set(b, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
	set(b, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
	set(b, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
	set(b, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
	finish(b, how, "a convolution");
	op = create(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
	set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
	set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
	set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
	finish_operation(b, op, "a convolution");
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

/* [1, channels, h, w] of a picture whose channels lie together; rows are `row` elements apart. */
static descriptor picture(struct builder *b, enum kind kind, int64_t name, cudnnDataType_t type, int64_t h, int64_t w,
	int64_t channels, int64_t row)
{
	const int64_t dim[RANK] = { 1, channels, h, w }, stride[RANK] = { h * row, 1, row, channels };

	return tensor(b, kind, name, type, dim, stride);
}

static void build_conv(struct builder *b, const struct graph_conv *s)
{
	const cudnnDataType_t out = s->f32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
	const int64_t w_dim[RANK] = { s->out, s->in, s->kernel, s->kernel };
	const int64_t w_stride[RANK] = { s->kernel * s->kernel * s->in, 1, s->kernel * s->in, s->in };
	const int64_t bias_dim[RANK] = { 1, s->out, 1, 1 }, bias_stride[RANK] = { s->out, 1, s->out, s->out };
	descriptor x = picture(b, KIND_MEMORY, GRAPH_X, CUDNN_DATA_BFLOAT16, s->h, s->w, s->in, s->x_row);
	descriptor w = tensor(b, KIND_MEMORY, GRAPH_W, CUDNN_DATA_BFLOAT16, w_dim, w_stride);
	descriptor y = picture(b, KIND_MEMORY, GRAPH_Y, out, s->y_h, s->y_w, s->out, s->y_w * s->out), sum, bias;

	if (!s->bias) {
		convolve(b, s, x, w, y);
		return;
	}
	sum = picture(b, KIND_VIRTUAL, b->next++, CUDNN_DATA_FLOAT, s->y_h, s->y_w, s->out, s->y_w * s->out);
	bias = tensor(b, KIND_MEMORY, GRAPH_BIAS, CUDNN_DATA_FLOAT, bias_dim, bias_stride);
	convolve(b, s, x, w, sum);
	pointwise(b, CUDNN_POINTWISE_ADD, sum, bias, NULL, y);
}

/* [1, heads, rows, head_dim] of rows that hold heads side by side. */
static descriptor heads(
	struct builder *b, int64_t name, int64_t n, int64_t rows, int64_t head_dim, int64_t head, int64_t row)
{
	const int64_t dim[RANK] = { 1, n, rows, head_dim }, stride[RANK] = { rows * row, head, row, 1 };

	return tensor(b, KIND_MEMORY, name, CUDNN_DATA_BFLOAT16, dim, stride);
}

/* Row i sees keys 0..i: elsewhere the score becomes -infinity. */
static descriptor mask(struct builder *b, const struct graph_attention *s, descriptor scores)
{
	descriptor row = between(b, CUDNN_DATA_INT32, s->heads, s->rows, s->keys);
	descriptor key = between(b, CUDNN_DATA_INT32, s->heads, s->rows, s->keys);
	descriptor seen = between(b, CUDNN_DATA_BOOLEAN, s->heads, s->rows, s->keys);
	descriptor masked = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, s->keys);

	positions(b, scores, 2, row);
	positions(b, scores, 3, key);
	pointwise(b, CUDNN_POINTWISE_CMP_GE, row, key, NULL, seen);
	return pointwise(b, CUDNN_POINTWISE_BINARY_SELECT, scores, scalar(b, GRAPH_MINUS), seen, masked);
}

/* Nothing reads the logarithm of the sum, but by it cuDNN knows flash attention. */
static descriptor softmax(struct builder *b, const struct graph_attention *s, descriptor scores)
{
	descriptor most = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, 1);
	descriptor less = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, s->keys);
	descriptor power = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, s->keys);
	descriptor sum = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, 1);
	descriptor log = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, 1);
	descriptor share = between(b, CUDNN_DATA_BFLOAT16, s->heads, s->rows, s->keys);

	reduce(b, CUDNN_REDUCE_TENSOR_MAX, scores, most);
	pointwise(b, CUDNN_POINTWISE_SUB, scores, most, NULL, less);
	pointwise(b, CUDNN_POINTWISE_EXP, less, NULL, NULL, power);
	reduce(b, CUDNN_REDUCE_TENSOR_ADD, power, sum);
	pointwise(b, CUDNN_POINTWISE_LOG, sum, NULL, NULL, log);
	pointwise(b, CUDNN_POINTWISE_ADD, most, log, NULL, between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, 1));
	return pointwise(b, CUDNN_POINTWISE_DIV, power, sum, NULL, share);
}

static void build_attention(struct builder *b, const struct graph_attention *s)
{
	const int64_t k_dim[RANK] = { 1, s->kv_heads, s->head_dim, s->keys };
	const int64_t k_stride[RANK] = { s->keys * s->k_row, s->k_head, 1, s->k_row };
	const int64_t bias_dim[RANK] = { 1, s->bias_heads, s->rows, s->keys };
	const int64_t bias_stride[RANK] = { s->bias_heads * s->bias_head, s->bias_head, s->bias_row, 1 };
	descriptor q = heads(b, GRAPH_Q, s->heads, s->rows, s->head_dim, s->q_head, s->q_row);
	descriptor k = tensor(b, KIND_MEMORY, GRAPH_K, CUDNN_DATA_BFLOAT16, k_dim, k_stride);
	descriptor v = heads(b, GRAPH_V, s->kv_heads, s->keys, s->head_dim, s->v_head, s->v_row);
	descriptor out = heads(b, GRAPH_OUT, s->heads, s->rows, s->head_dim, s->out_head, s->out_row);
	descriptor scores = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, s->keys), scaled;

	multiply(b, q, k, scores);
	scaled = between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, s->keys);
	scores = pointwise(b, CUDNN_POINTWISE_MUL, scores, scalar(b, GRAPH_SCALE), NULL, scaled);
	if (s->bias_heads) {
		descriptor bias = tensor(b, KIND_MEMORY, GRAPH_BIAS, CUDNN_DATA_FLOAT, bias_dim, bias_stride);

		scores = pointwise(b, CUDNN_POINTWISE_ADD, scores, bias, NULL,
			between(b, CUDNN_DATA_FLOAT, s->heads, s->rows, s->keys));
	}
	if (s->causal)
		scores = mask(b, s, scores);
	multiply(b, softmax(b, s, scores), v, out);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static descriptor finish_graph(struct builder *b)
{
	descriptor d = create(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);

	set(b, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, b->n_operations, b->operations);
	if (b->target->handle)
		set(b, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->target->handle);
	return finish(b, d, "the graph");
}

/* cuDNN's engines for the graph, its favourite first; their number. */
static int64_t ask(struct builder *b, descriptor graph, cudnnBackendHeurMode_t mode, descriptor config[CONFIGS_MAX])
{
	descriptor d = create(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
	int64_t found = 0;

	set_descriptor(b, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
	set(b, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
	if (b->target->property)
		set_descriptor(b, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, b->target->property);
	finish(b, d, "asking for engines");
	for (int i = 0; i < CONFIGS_MAX; i++)
		config[i] = create(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	if (!b->status)
		b->status = cudnnBackendGetAttribute(
			d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS_MAX, &found, config);
	return b->status ? 0 : found;
}

/* A plan with this engine; false where it has none or needs too much memory. */
static bool try_engine(struct builder *b, descriptor config, int64_t workspace, struct graph_plan *out)
{
	descriptor plan;
	cudnnStatus_t s = cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
	int64_t n, needed = 0;

	if (s)
		return false;
	if (b->target->handle)
		s = cudnnBackendSetAttribute(
			plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->target->handle);
	else
		s = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
			1, &b->target->property);
	if (!s)
		s = cudnnBackendSetAttribute(
			plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
	if (!s)
		s = cudnnBackendFinalize(plan);
	if (!s)
		s = cudnnBackendGetAttribute(
			plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &needed);
	if (s || needed > workspace) {
		cudnnBackendDestroyDescriptor(plan);
		b->failed = s ? "making a plan" : "a plan within the workspace";
		return false;
	}
	*out = (struct graph_plan){ plan, needed };
	return true;
}

static void choose(struct builder *b, int64_t workspace, struct graph_plan *out)
{
	static const cudnnBackendHeurMode_t modes[] = { CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK };
	descriptor graph = finish_graph(b), config[CONFIGS_MAX];

	for (int mode = 0; mode < 2 && !b->status && !out->plan; mode++) {
		int64_t n = ask(b, graph, modes[mode], config);

		if (b->status == CUDNN_STATUS_NOT_SUPPORTED)
			b->status = CUDNN_STATUS_SUCCESS; /* the other mode may know more */
		for (int64_t i = 0; i < n && !out->plan; i++)
			try_engine(b, config[i], workspace, out);
	}
}

static void end(struct builder *b, const struct graph_plan *out, char *why, int why_size)
{
	char text[256] = "";

	if (!out->plan) {
		cudnnGetLastErrorString(text, sizeof text);
		snprintf(why, (size_t)why_size, "cuDNN: %s: %s %.160s", b->failed,
			b->status ? cudnnGetErrorString(b->status) : "not supported", text);
	}
	for (int i = b->n - 1; i >= 0; i--)
		cudnnBackendDestroyDescriptor(b->all[i]);
}

void graph_plan_conv(const struct graph_target *t, const struct graph_conv *shape, int64_t workspace,
	struct graph_plan *out, char *why, int why_size)
{
	struct builder b = { .target = t, .next = 100 };

	*out = (struct graph_plan){ NULL };
	build_conv(&b, shape);
	choose(&b, workspace, out);
	end(&b, out, why, why_size);
}

void graph_plan_attention(const struct graph_target *t, const struct graph_attention *shape, int64_t workspace,
	struct graph_plan *out, char *why, int why_size)
{
	struct builder b = { .target = t, .next = 100 };

	*out = (struct graph_plan){ NULL };
	build_attention(&b, shape);
	choose(&b, workspace, out);
	end(&b, out, why, why_size);
}

cudnnStatus_t graph_run(
	cudnnHandle_t handle, const struct graph_plan *plan, int n, const int64_t *names, void **data, void *workspace)
{
	cudnnBackendDescriptor_t pack;
	cudnnStatus_t s = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);

	if (s)
		return s;
	s = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, names);
	if (!s)
		s = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, data);
	if (!s)
		s = cudnnBackendSetAttribute(
			pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
	if (!s)
		s = cudnnBackendFinalize(pack);
	if (!s)
		s = cudnnBackendExecute(handle, plan->plan, pack);
	cudnnBackendDestroyDescriptor(pack);
	return s;
}

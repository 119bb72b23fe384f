/* dnn: convolutions and attention by cuDNN, in bf16; a plan for each shape, kept.
 *
 * The filter of a packed convolution is [out, kernel, kernel, in] already.  cuDNN adds the bias; a sum into y goes
 * through scratch, since cuDNN does not promise that a result may overwrite what it adds.  An enlarged picture is made
 * in bands of rows with the halo that the kernel needs: whole, the largest of a decoder takes half a gigabyte.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/graph.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 512, NEIGHBOURS = 16, ALIGN = 16 };

static const int64_t WORKSPACE_MAX = (int64_t)256 << 20;
static const size_t BAND_LEN = (size_t)128 << 20;

union shape {
	struct graph_conv conv;
	struct graph_attention attention;
};

struct slot {
	bool used;
	union shape shape;
	struct graph_plan plan;
};

struct dnn {
	struct graph_target target;
	struct slot conv[SLOTS], attention[SLOTS];
};

void dnn_open(struct cuda *c, struct dnn **out)
{
	struct dnn *dnn = calloc(1, sizeof *dnn);
	cudnnStatus_t s = dnn ? cudnnCreate(&dnn->target.handle) : CUDNN_STATUS_ALLOC_FAILED;

	if (!s)
		s = cudnnSetStream(dnn->target.handle, c->stream);
	if (s) {
		snprintf(c->dnn_missing, sizeof c->dnn_missing, "cuDNN: %s", cudnnGetErrorString(s));
		dnn_close(dnn);
		dnn = NULL;
	}
	*out = dnn;
}

static void forget(struct slot *slots)
{
	for (int i = 0; i < SLOTS; i++)
		if (slots[i].plan.plan)
			cudnnBackendDestroyDescriptor(slots[i].plan.plan);
}

void dnn_close(struct dnn *dnn)
{
	if (!dnn)
		return;
	forget(dnn->conv);
	forget(dnn->attention);
	if (dnn->target.handle)
		cudnnDestroy(dnn->target.handle);
	free(dnn);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

typedef void make_plan(const struct graph_target *t, const union shape *shape, struct graph_plan *out);

static void make_conv(const struct graph_target *t, const union shape *shape, struct graph_plan *out)
{
	char why[256];

	graph_plan_conv(t, &shape->conv, WORKSPACE_MAX, out, why, sizeof why);
}

static void make_attention(const struct graph_target *t, const union shape *shape, struct graph_plan *out)
{
	char why[256];

	graph_plan_attention(t, &shape->attention, WORKSPACE_MAX, out, why, sizeof why);
}

/* Where the plan of a shape is, or goes: one whose neighbours are all taken replaces the first. */
static struct slot *find_slot(struct slot *slots, const union shape *shape, size_t size)
{
	const uint64_t first = cuda_hash(shape, size);

	for (uint64_t i = 0; i < NEIGHBOURS; i++) {
		struct slot *slot = &slots[(first + i) % SLOTS];

		if (!slot->used || memcmp(&slot->shape, shape, size) == 0)
			return slot;
	}
	return &slots[first % SLOTS];
}

/* The plan of a shape, {NULL} where cuDNN has none; that too is kept. */
static enum status find_plan(struct cuda *c, struct slot *slots, const union shape *shape, size_t size, make_plan *make,
	const struct graph_plan **out)
{
	struct slot *slot = find_slot(slots, shape, size);

	if (!slot->used || memcmp(&slot->shape, shape, size) != 0) {
		TRY(cuda_not_recorded(c, "making a plan"));
		if (slot->plan.plan) {
			cuda_forget_recordings(c); /* they may run its code */
			cudnnBackendDestroyDescriptor(slot->plan.plan);
		}
		slot->used = true;
		memcpy(&slot->shape, shape, size);
		make(&c->dnn->target, shape, &slot->plan);
	}
	*out = &slot->plan;
	return STATUS_OK;
}

static enum status run(
	struct cuda *c, const struct graph_plan *plan, int n, const int64_t *names, void **data, const char *operation)
{
	void *workspace = NULL;
	cudnnStatus_t s;

	if (plan->workspace > 0)
		TRY(cuda_scratch(c, SCRATCH_WORKSPACE, (size_t)plan->workspace, &workspace));
	s = graph_run(c->dnn->target.handle, plan, n, names, data, workspace);
	return s ? status_fail(STATUS_DEVICE, "%s: %s: %s (cuDNN)", c->k->device, operation, cudnnGetErrorString(s))
		 : STATUS_OK;
}

static bool aligned(const void *p)
{
	return (uintptr_t)p % ALIGN == 0;
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

/* y = conv(x) + bias as described by `shape`. */
static enum status convolve(
	struct cuda *c, const struct conv *op, const struct graph_conv *shape, const void *x, void *y, bool *done)
{
	const int64_t names[] = { GRAPH_X, GRAPH_W, GRAPH_Y, GRAPH_BIAS };
	void *data[] = { (void *)(uintptr_t)x, op->w->data, y, op->bias ? op->bias->data : NULL };
	union shape key;
	const struct graph_plan *plan;

	memset(&key, 0, sizeof key);
	key.conv = *shape;
	TRY(find_plan(c, c->dnn->conv, &key, sizeof key.conv, make_conv, &plan));
	*done = plan->plan != NULL && aligned(x) && aligned(y);
	return *done ? run(c, plan, op->bias ? 4 : 3, names, data, "a convolution") : STATUS_OK;
}

static struct graph_conv shape_of(const struct conv *op, enum dtype y)
{
	const int32_t pad = op->w->kernel / 2;

	return (struct graph_conv){ .h = op->x.dim[0],
		.w = op->x.dim[1],
		.in = op->w->k,
		.y_h = op->y.dim[0],
		.y_w = op->y.dim[1],
		.out = op->w->n,
		.x_row = op->x.dim[1] * op->w->k,
		.kernel = op->w->kernel,
		.stride = op->stride > 1 ? op->stride : 1,
		.pad_h = pad,
		.pad_w = pad,
		.bias = op->bias != NULL,
		.f32 = y == DTYPE_F32 };
}

/* Rows first - 2 .. first + n + 2 of x enlarged twice, of which those outside it are zeros; `first` is even. */
static enum status enlarge(struct cuda *c, const struct tensor *x, int64_t first, int64_t n, char *to)
{
	const int64_t h = x->dim[0], w = x->dim[1], channels = x->dim[2];
	const int64_t from = first / 2 > 0 ? first / 2 - 1 : 0, above = first / 2 > 0 ? 0 : 2;
	const int64_t wanted = (first + n + 1) / 2 + 1, end = wanted < h ? wanted : h;
	const size_t row = (size_t)(2 * w * channels) * dtype_size(x->dtype);
	const int64_t filled = 2 * (end - from), all = n + 4;
	struct tensor source = tensor_slice(*x, 0, from, end - from);
	struct tensor y = tensor_view(to + (size_t)above * row, x->dtype, 3, (int64_t[]){ filled, 2 * w, channels });

	if (above)
		TRY(cuda_result(c, cudaMemsetAsync(to, 0, (size_t)above * row, c->stream), "clearing rows"));
	if (above + filled < all)
		TRY(cuda_result(c,
			cudaMemsetAsync(to + (size_t)(above + filled) * row, 0, (size_t)(all - above - filled) * row,
				c->stream),
			"clearing rows"));
	return cuda_result(c, cuda_resize_nearest(c->stream, &source, &y), "enlarging a picture");
}

/* A picture one row or column short of twice x ends there: what is beyond is no picture but padding. */
static enum status convolve_enlarged(struct cuda *c, const struct conv *op, const struct tensor *y, bool *done)
{
	const int64_t height = y->dim[0], halo = op->w->kernel / 2, x_row = 2 * op->x.dim[1] * op->w->k;
	const size_t row = (size_t)x_row * dtype_size(op->x.dtype);
	const size_t y_row = (size_t)(y->dim[1] * y->dim[2]) * dtype_size(y->dtype);
	const int64_t most = (int64_t)(BAND_LEN / row) / 2 * 2;
	const int64_t band = most < 8 ? 8 : most < height ? most : (height + 1) / 2 * 2;
	struct graph_conv shape = shape_of(op, y->dtype);
	void *rows;

	TRY(cuda_scratch(c, SCRATCH_ENLARGED, (size_t)(band + 6) * row, &rows));
	shape.w = y->dim[1];
	shape.x_row = x_row;
	shape.pad_h = 0;
	*done = true;
	for (int64_t first = 0; first < height && *done; first += band) {
		const int64_t n = height - first < band ? height - first : band;

		TRY(enlarge(c, &op->x, first, n, rows));
		if (first + n == height && height % 2)
			TRY(cuda_result(c, cudaMemsetAsync((char *)rows + (size_t)(n + 2) * row, 0, row, c->stream),
				"clearing rows"));
		shape.h = n + 2 * halo;
		shape.y_h = n;
		TRY(convolve(c, op, &shape, (char *)rows + (size_t)(2 - halo) * row,
			(char *)y->data + (size_t)first * y_row, done));
	}
	return STATUS_OK;
}

static enum status convolve_any(struct cuda *c, const struct conv *op, const struct tensor *y, bool *done)
{
	struct graph_conv shape;

	if (op->upsample)
		return convolve_enlarged(c, op, y, done);
	shape = shape_of(op, y->dtype);
	return convolve(c, op, &shape, op->x.data, y->data, done);
}

static struct tensor places(const struct tensor *t)
{
	return tensor_view(t->data, t->dtype, 2, (int64_t[]){ t->dim[0] * t->dim[1], t->dim[2] });
}

enum status dnn_conv(struct cuda *c, const struct conv *op, bool *done)
{
	struct tensor y = op->y, from, to = places(&op->y);
	void *data;

	*done = false;
	if (!c->dnn || op->x.dtype != DTYPE_BF16)
		return STATUS_OK;
	if (!op->accumulate)
		return convolve_any(c, op, &op->y, done);
	TRY(cuda_scratch(c, SCRATCH_RESULT, (size_t)tensor_count(&y) * sizeof(float), &data));
	y.data = data;
	TRY(convolve_any(c, op, &y, done));
	from = places(&y);
	return *done ? cuda_result(c, cuda_gated_add(c->stream, &from, NULL, &to), "adding a convolution") : STATUS_OK;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* Of a dimension of one the tensor may say anything. */
static int64_t stride(const struct tensor *t, int axis, int64_t dense)
{
	return t->dim[axis] > 1 ? t->stride[axis] : dense;
}

static int64_t row_stride(const struct tensor *t)
{
	return stride(t, 0, t->dim[1] * t->dim[2]);
}

static int64_t head_stride(const struct tensor *t)
{
	return stride(t, 1, t->dim[2]);
}

static struct graph_attention attention_shape(const struct attention *op)
{
	struct graph_attention s = { .rows = op->q.dim[0],
		.keys = op->k.dim[0],
		.heads = op->q.dim[1],
		.kv_heads = op->k.dim[1],
		.head_dim = op->q.dim[2],
		.q_row = row_stride(&op->q),
		.q_head = head_stride(&op->q),
		.k_row = row_stride(&op->k),
		.k_head = head_stride(&op->k),
		.v_row = row_stride(&op->v),
		.v_head = head_stride(&op->v),
		.out_row = row_stride(&op->out),
		.out_head = head_stride(&op->out),
		.causal = op->causal };

	if (op->bias.data) {
		s.bias_heads = op->bias.dim[0];
		s.bias_row = stride(&op->bias, 1, op->bias.dim[2]);
		s.bias_head = stride(&op->bias, 0, op->bias.dim[1] * s.bias_row);
	}
	return s;
}

static bool fits(const struct tensor *t)
{
	const int64_t unit = ALIGN / (int64_t)dtype_size(t->dtype);

	return aligned(t->data) && (t->dim[0] < 2 || t->stride[0] % unit == 0) &&
	       (t->dim[1] < 2 || t->stride[1] % unit == 0);
}

enum status dnn_attention(struct cuda *c, const struct attention *op, bool *done)
{
	static const int64_t names[] = { GRAPH_Q, GRAPH_K, GRAPH_V, GRAPH_OUT, GRAPH_SCALE, GRAPH_MINUS, GRAPH_BIAS };
	float scale = op->scale, minus = cudnnGetVersion() < 91000 ? -FLT_MAX : -INFINITY; /* what its kernels expect */
	int64_t bound[7];
	void *data[7] = { op->q.data, op->k.data, op->v.data, op->out.data, &scale };
	int n = 5;
	union shape key;
	const struct graph_plan *plan;

	*done = false;
	if (!c->dnn || op->q.dtype != DTYPE_BF16 || op->q.dim[2] % 8 || !fits(&op->q) || !fits(&op->k) ||
		!fits(&op->v) || !fits(&op->out) || (op->bias.data && !aligned(op->bias.data)))
		return STATUS_OK;
	memset(&key, 0, sizeof key);
	key.attention = attention_shape(op);
	TRY(find_plan(c, c->dnn->attention, &key, sizeof key.attention, make_attention, &plan));
	*done = plan->plan != NULL;
	if (!*done)
		return STATUS_OK;
	memcpy(bound, names, sizeof bound);
	if (op->causal) {
		data[n] = &minus;
		bound[n++] = GRAPH_MINUS;
	}
	if (op->bias.data) {
		data[n] = op->bias.data;
		bound[n++] = GRAPH_BIAS;
	}
	return run(c, plan, n, bound, data, "attention");
}

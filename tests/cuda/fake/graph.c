/* graph: in place of kernels/cuda/graph.c, plans that loops on the host carry out as the shapes say.  Whether cuDNN has
 * plans for these shapes is tests/unit/cudnn.c's matter; FAKE_CUDA_NO_CUDNN=1: it has none. */
#include "kernels/cuda/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/cuda/fake/fake.h"

struct plan {
	bool conv;
	struct graph_conv c;
	struct graph_attention a;
};

cudnnStatus_t cudnnCreate(cudnnHandle_t *out)
{
	*out = malloc(1);
	return getenv("FAKE_CUDA_NO_CUDNN") ? CUDNN_STATUS_NOT_INITIALIZED : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
	free(handle);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
	return CUDNN_STATUS_SUCCESS;
}

size_t cudnnGetVersion(void)
{
	return 91900;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
	return "an error of the fake";
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t plan)
{
	free(plan);
	return CUDNN_STATUS_SUCCESS;
}

void graph_plan_conv(const struct graph_target *t, const struct graph_conv *shape, int64_t workspace,
	struct graph_plan *out, char *why, int why_size)
{
	struct plan *p = calloc(1, sizeof *p);

	p->conv = true;
	p->c = *shape;
	*out = (struct graph_plan){ p, 1000 };
}

void graph_plan_attention(const struct graph_target *t, const struct graph_attention *shape, int64_t workspace,
	struct graph_plan *out, char *why, int why_size)
{
	struct plan *p = calloc(1, sizeof *p);

	p->a = *shape;
	*out = (struct graph_plan){ p, 256 };
}

static float at(const void *data, int64_t i)
{
	return bf16_to_f32(((const uint16_t *)data)[i]);
}

/* ---- convolutions */

static double conv_place(
	const struct graph_conv *s, const void *x, const void *w, int64_t row, int64_t column, int64_t out)
{
	const int64_t side = s->kernel;
	double sum = 0;

	for (int64_t dy = 0; dy < side; dy++)
		for (int64_t dx = 0; dx < side; dx++) {
			const int64_t i = row * s->stride + dy - s->pad_h, j = column * s->stride + dx - s->pad_w;

			if (i < 0 || j < 0 || i >= s->h || j >= s->w)
				continue;
			for (int64_t in = 0; in < s->in; in++)
				sum += (double)at(x, i * s->x_row + j * s->in + in) *
				       (double)at(w, ((out * side + dy) * side + dx) * s->in + in);
		}
	return sum;
}

static void run_conv(const struct graph_conv *s, void *const *of)
{
	int64_t to = 0;

	if ((s->h + 2 * s->pad_h - s->kernel) / s->stride + 1 != s->y_h ||
		(s->w + 2 * s->pad_w - s->kernel) / s->stride + 1 != s->y_w)
		abort(); /* cuDNN refuses such a graph */
	for (int64_t i = 0; i < s->y_h; i++)
		for (int64_t j = 0; j < s->y_w; j++)
			for (int64_t o = 0; o < s->out; o++, to++) {
				const double sum = conv_place(s, of[GRAPH_X], of[GRAPH_W], i, j, o) +
						   (s->bias ? (double)((const float *)of[GRAPH_BIAS])[o] : 0);

				if (s->f32)
					((float *)of[GRAPH_Y])[to] = (float)sum;
				else
					((uint16_t *)of[GRAPH_Y])[to] = bf16_from_f32((float)sum);
			}
}

/* ---- attention */

/* The scores of a row, its largest first subtracted, and their sum. */
static double score_row(const struct graph_attention *s, void *const *of, int64_t head, int64_t row, double *scores)
{
	const int64_t kv = head / (s->heads / s->kv_heads), bias_head = s->bias_heads > 1 ? head : 0;
	double most = -INFINITY, sum = 0;

	for (int64_t key = 0; key < s->keys; key++) {
		double dot = 0;

		for (int64_t i = 0; i < s->head_dim; i++)
			dot += (double)at(of[GRAPH_Q], row * s->q_row + head * s->q_head + i) *
			       (double)at(of[GRAPH_K], key * s->k_row + kv * s->k_head + i);
		scores[key] = dot * (double)*(const float *)of[GRAPH_SCALE];
		if (s->bias_heads)
			scores[key] += (double)((
				const float *)of[GRAPH_BIAS])[bias_head * s->bias_head + row * s->bias_row + key];
		if (s->causal && key > row)
			scores[key] = (double)*(const float *)of[GRAPH_MINUS];
		most = fmax(most, scores[key]);
	}
	for (int64_t key = 0; key < s->keys; key++)
		sum += scores[key] = exp(scores[key] - most);
	return sum;
}

static void run_attention(const struct graph_attention *s, void *const *of)
{
	double *scores = malloc((size_t)s->keys * sizeof *scores);

	for (int64_t head = 0; head < s->heads; head++)
		for (int64_t row = 0; row < s->rows; row++) {
			const int64_t kv = head / (s->heads / s->kv_heads);
			const double sum = score_row(s, of, head, row, scores);

			for (int64_t i = 0; i < s->head_dim; i++) {
				double value = 0;

				for (int64_t key = 0; key < s->keys; key++)
					value += scores[key] *
						 (double)at(of[GRAPH_V], key * s->v_row + kv * s->v_head + i);
				((uint16_t *)of[GRAPH_OUT])[row * s->out_row + head * s->out_head + i] =
					bf16_from_f32((float)(value / sum));
			}
		}
	free(scores);
}

/* Numbers of the host are read when the plan is enqueued. */
struct call {
	struct plan plan;
	size_t workspace_len;
	void *workspace;
	void *of[GRAPH_OUT + 1];
	float scale, minus;
};

static void run_call(const void *data)
{
	struct call c = *(const struct call *)data;

	c.of[GRAPH_SCALE] = &c.scale;
	c.of[GRAPH_MINUS] = &c.minus;
	memset(c.workspace, 0xee, c.workspace_len);
	if (c.plan.conv)
		run_conv(&c.plan.c, c.of);
	else
		run_attention(&c.plan.a, c.of);
}

cudnnStatus_t graph_run(
	cudnnHandle_t handle, const struct graph_plan *plan, int n, const int64_t *names, void **data, void *workspace)
{
	struct call c = { .plan = *(const struct plan *)plan->plan,
		.workspace_len = (size_t)plan->workspace,
		.workspace = workspace };

	for (int i = 0; i < n; i++)
		c.of[names[i]] = data[i];
	if (c.of[GRAPH_SCALE])
		c.scale = *(const float *)c.of[GRAPH_SCALE];
	if (c.of[GRAPH_MINUS])
		c.minus = *(const float *)c.of[GRAPH_MINUS];
	fake_enqueue(run_call, &c, sizeof c);
	return CUDNN_STATUS_SUCCESS;
}

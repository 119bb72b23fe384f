/* graph: convolutions and attention as cuDNN graphs, and an execution plan for each.
 *
 * A target is a cuDNN handle, or only the description of a device: then plans can be made but not run, on a machine
 * without one (tests/unit/cudnn.c).
 */
#ifndef PROMPTFS_KERNELS_CUDA_GRAPH_H
#define PROMPTFS_KERNELS_CUDA_GRAPH_H

#include <cudnn_graph.h>
#include <stdbool.h>
#include <stdint.h>

struct graph_target {
	cudnnHandle_t handle;              /* NULL: no device here */
	cudnnBackendDescriptor_t property; /* CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR; NULL with a handle */
};

/* The names by which a run binds memory to a plan's tensors. */
enum graph_tensor {
	GRAPH_X = 1,
	GRAPH_W,
	GRAPH_BIAS,
	GRAPH_Y,
	GRAPH_Q,
	GRAPH_K,
	GRAPH_V,
	GRAPH_SCALE,
	GRAPH_MINUS,
	GRAPH_OUT
};

/* A picture x [h, w, in] bf16, rows x_row elements apart, y [y_h, y_w, out] dense.  No field is padding. */
struct graph_conv {
	int64_t h, w, in, y_h, y_w, out, x_row;
	int32_t kernel, stride, pad_h, pad_w;
	int32_t bias; /* [out] f32 */
	int32_t f32;  /* y is f32, else bf16 */
};

struct graph_attention {
	int64_t rows, keys, heads, kv_heads, head_dim;
	int64_t q_row, q_head, k_row, k_head, v_row, v_head, out_row, out_head;
	int64_t bias_heads, bias_row, bias_head; /* bias_heads 0: none */
	int32_t causal, zero;
};

struct graph_plan {
	cudnnBackendDescriptor_t plan; /* NULL: cuDNN has none */
	int64_t workspace;             /* bytes */
};

/* The first plan of cuDNN's choice that needs at most `workspace` bytes; *out is {NULL} where there is none, with the
 * reason in `why`. */
void graph_plan_conv(const struct graph_target *t, const struct graph_conv *shape, int64_t workspace,
	struct graph_plan *out, char *why, int why_size);
void graph_plan_attention(const struct graph_target *t, const struct graph_attention *shape, int64_t workspace,
	struct graph_plan *out, char *why, int why_size);

/* Enqueues the plan on the handle's stream. */
cudnnStatus_t graph_run(
	cudnnHandle_t handle, const struct graph_plan *plan, int n, const int64_t *names, void **data, void *workspace);

#endif

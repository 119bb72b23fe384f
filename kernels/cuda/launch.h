/* launch: the own CUDA kernels, a launcher for each.
 *
 *     error = cuda_norm(stream, op);                     // 0, or a cudaError_t
 *
 * A launcher enqueues on `stream` and returns; nothing here allocates, copies to the host or waits, so that every call
 * may be captured in a CUDA graph.  Operations and tensors are those of kernels.h, checked by kernels.c before; every
 * pointer in them, a weight's `data` and `table.data` too, is device memory.  The .cu files also compile for the host
 * (shim.h), where the "device" is host memory and a launch is over when it returns.
 */
#ifndef PROMPTFS_KERNELS_CUDA_LAUNCH_H
#define PROMPTFS_KERNELS_CUDA_LAUNCH_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *cuda_stream; /* cudaStream_t, without its header */

/* ---- norms and positions (norms.cu) ------------------------------------------------------------------------------ */

int cuda_norm(cuda_stream stream, const struct norm *op);
int cuda_norm_residual(cuda_stream stream, const struct norm_residual *op);
int cuda_qk_rope(cuda_stream stream, const struct qk_rope *op);

/* Two passes: sums of parts of the picture into scratch, then the picture itself.  The parts and the order of their
 * sums depend on the shape only. */
size_t cuda_group_norm_scratch(const struct group_norm *op); /* bytes */
int cuda_group_norm(cuda_stream stream, const struct group_norm *op, void *scratch);

/* ---- element by element (elements.cu) ---------------------------------------------------------------------------- */

int cuda_glu(cuda_stream stream, enum activation f, const struct tensor *gate, const struct tensor *up,
	const struct tensor *y);
int cuda_unary(cuda_stream stream, enum unary f, const struct tensor *x, const struct tensor *y);
int cuda_gated_add(cuda_stream stream, const struct tensor *x, const float *gate, const struct tensor *sum);
int cuda_add_row(cuda_stream stream, const struct tensor *row, const struct tensor *y);
int cuda_clamp(cuda_stream stream, float low, float high, const struct tensor *y);
int cuda_axpby(cuda_stream stream, float a, const struct tensor *x, float b, const struct tensor *y);
int cuda_fill_rows(cuda_stream stream, const struct tensor *row, const struct tensor *y);

/* What a matrix product without a fitting epilogue leaves to do: y = f(x + bias) (+ y).  x [rows, dim] any, rows may be
 * strided; bias [dim] or NULL; y may be x. */
int cuda_epilogue(cuda_stream stream, enum activation f, const struct tensor *x, const float *bias, bool accumulate,
	const struct tensor *y);

/* Sets *found to 1 where a value of x (F32 or BF16, dense) is NaN or infinite; else leaves it. */
int cuda_find_not_finite(cuda_stream stream, const struct tensor *x, int32_t *found);

/* The same shape in another dtype: F32, BF16 or F16 to F32 or BF16; rank 1..4, any strides. */
int cuda_convert(cuda_stream stream, const struct tensor *from, const struct tensor *to);

/* ---- pictures and latents (pictures.cu) -------------------------------------------------------------------------- */

int cuda_resize_nearest(cuda_stream stream, const struct tensor *x, const struct tensor *y);
int cuda_halve(cuda_stream stream, const struct tensor *x, const struct tensor *y);
int cuda_patchify(cuda_stream stream, const struct tensor *latents, int patch, const struct tensor *rows);
int cuda_unpatchify(
	cuda_stream stream, const struct tensor *rows, int patch, float scale, const struct tensor *latents);
int cuda_to_nhwc(cuda_stream stream, const struct tensor *x, float scale, float shift, const struct tensor *y);
int cuda_to_rgb8(cuda_stream stream, const struct tensor *x, uint8_t *rgb); /* rgb: device memory */

/* A draw of n normal numbers as PyTorch's CUDA generator with `seed`, its offset and
 * `threads` threads gives them (engine/rng.h: struct rng has all three); f32. */
int cuda_philox_normal(cuda_stream stream, uint64_t seed, uint64_t offset, uint64_t threads, int64_t n, float *out);

/* ---- products (products.cu): where the libraries have none, and for parity --------------------------------------- */

/* w->data is [n, k] row by row in the dtype of x. */
int cuda_linear(cuda_stream stream, const struct linear *op);

/* w->data is [n, kernel, kernel, k] (cuDNN's filter of an NHWC convolution) in the dtype of x. */
int cuda_conv(cuda_stream stream, const struct conv *op);

/* From [n, k, kernel * kernel] to that layout, both in device memory; size: bytes of a value, 2 or 4. */
int cuda_conv_layout(cuda_stream stream, const void *from, int64_t n, int64_t k, int kernel, size_t size, void *to);

/* Keys of any number, head_dim up to 512; f32 arithmetic. */
int cuda_attention(cuda_stream stream, const struct attention *op);

/* ---- 8-bit operands (quantize.cu) --------------------------------------------------------------------------------
 *
 * Codes and scales as kernels.h has them: value = code * scale.
 * x [rows, dim] F32 or BF16, rows may be strided; codes [rows, dim] dense. */

enum quantized { QUANTIZED_E4M3, QUANTIZED_I8 };

/* A scale for each row. */
int cuda_quantize_rows(cuda_stream stream, enum quantized to, const struct tensor *x, void *codes, float *scale);

/* Sums of products of codes [m, n], S32 for I8, F32 for E4M3, where the library has no product for their shapes:
 * x [m, k], w [n, k]. */
int cuda_multiply_codes(cuda_stream stream, enum quantized from, const void *x, const void *w, int64_t m, int64_t n,
	int64_t k, void *sums);

/* What is left to do then: y = f(sums * row_scale[i] * column_scale[j] + bias[j]) (+ y); sums dense, bias [n] or NULL.
 */
int cuda_scale_sums(cuda_stream stream, enum activation f, enum quantized from, const void *sums,
	const float *row_scale, const float *column_scale, const float *bias, bool accumulate, const struct tensor *y);

#ifdef __cplusplus
}
#endif
#endif

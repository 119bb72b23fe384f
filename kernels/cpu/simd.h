/* simd: the cpu backend's own loops.  simd_ops.inc and simd_attention.inc are compiled once for every level of vector
 * instructions (simd_base.c, simd_avx2.c, ...); cpu.c chooses one level when a handle opens, so that one binary runs on
 * every processor.  Function attributes that do the same (target_clones) need ifunc, which breaks under sanitizers.
 *
 * Arguments are checked already and outputs are not empty; see kernels.h for what each operation means.
 */
#ifndef PROMPTFS_KERNELS_CPU_SIMD_H
#define PROMPTFS_KERNELS_CPU_SIMD_H

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/backend.h"

struct simd {
	const char *name;
	/* scratch: 64-byte aligned, as many bytes as its function says for so many OpenMP threads */
	size_t (*attention_scratch)(const struct attention *op, int threads);
	void (*attention)(const struct attention *op, void *scratch);
	size_t (*group_norm_scratch)(const struct group_norm *op, int threads);
	void (*group_norm)(const struct group_norm *op, void *scratch);
	void (*norm)(const struct norm *op);
	void (*norm_residual)(const struct norm_residual *op);
	void (*qk_rope)(const struct qk_rope *op);
	void (*glu)(enum activation f, const struct tensor *gate, const struct tensor *up, const struct tensor *y);
	void (*gated_add)(const struct tensor *x, const float *gate, const struct tensor *stream);
	void (*add_row)(const float *row, const struct tensor *y);
	void (*unary)(enum unary f, const struct tensor *x, const struct tensor *y);
	void (*to_rgb8)(const struct tensor *x, uint8_t *rgb);
	/* weights in I8: bytes of w->data (zeroed), rows in, products */
	size_t (*i8_len)(const struct weight *w);
	void (*i8_pack)(const struct weight *w, enum dtype dtype, int64_t first, int64_t count, const void *rows);
	size_t (*i8_scratch)(const struct linear *op);
	void (*i8_linear)(const struct linear *op, void *scratch);
};

extern const struct simd simd_base; /* what the compiler's target has: SSE2 on x86-64, NEON on arm64 */
#if defined(__x86_64__)
extern const struct simd simd_avx2;
extern const struct simd simd_avx512;
extern const struct simd simd_avx512vnni;
/* operands in bf16; the others compute attention in f32 only */
extern const struct simd simd_avx512bf16;
extern const struct simd simd_amx;
#endif

#endif

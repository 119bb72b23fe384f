/* simd_avx2: the loops with avx2. */
#include "kernels/cpu/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,fma")
#if !defined(__AVX2__)
#error "this compiler ignores #pragma GCC target; build with gcc"
#endif

#define SIMD_LEVEL simd_avx2
#define SIMD_NAME "avx2"
#include "kernels/cpu/simd_ops.inc"
#endif

/* simd_avx512: the loops with avx512. */
#include "kernels/cpu/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")
#if !defined(__AVX512F__)
#error "this compiler ignores #pragma GCC target; build with gcc"
#endif

#define SIMD_LEVEL simd_avx512
#define SIMD_NAME "avx512"
#include "kernels/cpu/simd_ops.inc"
#endif

/* simd_amx: the loops with AMX's tiles for attention and products in 8 bits, and with avx512bf16. */
#include "kernels/cpu/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target(                                                                                                    \
	"amx-tile,amx-bf16,amx-int8,avx512bf16,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")
#if !defined(__AMX_BF16__)
#error "this compiler ignores #pragma GCC target; build with gcc"
#endif

#define SIMD_LEVEL simd_amx
#define SIMD_NAME "amx"
#include "kernels/cpu/simd_ops.inc"
#endif

/* simd_base: the loops for the compiler's own target. */
#include "kernels/cpu/simd.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#define SIMD_LEVEL simd_base
#define SIMD_NAME "base"
#include "kernels/cpu/simd_ops.inc"

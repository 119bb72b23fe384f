/* shim: enough of CUDA to run kernels on the host, one thread of the host after another.
 *
 * Every CUDA thread is a fibre; a fibre runs until it waits for others (a barrier, a shuffle) and then the next one
 * does. What is wrong on a device is an error here: a barrier that some threads never reach, a shuffle without all
 * lanes, shared memory read before it is written (it starts as NaN).  Under AddressSanitizer every access outside an
 * array stops the program, under ThreadSanitizer every pair of accesses that no barrier orders.
 */
#ifndef PROMPTFS_TESTS_CUDA_SHIM_H
#define PROMPTFS_TESTS_CUDA_SHIM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cuda/launch.h"

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define DEVICE inline

struct dim3 {
	unsigned x, y, z;

	__attribute__((always_inline)) dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z)
	{
	}
};

extern dim3 gridDim, blockDim, blockIdx, threadIdx;

enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9, cudaErrorNotSupported = 801 };

/* ---- launches ---------------------------------------------------------------------------------------------------- */

/* cudaLaunchKernel needs the types of the arguments on the host, so launch() of device.h is replaced whole. */
int shim_launch(dim3 grid, dim3 block, void (*run)(const void *), const void *closure, size_t size);

template <typename T> struct same {
	using type = T;
};

template <typename... P>
int launch(cuda_stream, void (*kernel)(P...), dim3 grid, dim3 block, typename same<P>::type... args)
{
	const auto closure = [=] { kernel(args...); };

	return shim_launch(
		grid, block, [](const void *p) { (*static_cast<decltype(&closure)>(p))(); }, &closure, sizeof closure);
}

/* Who keeps launches for later instead (tests/cuda/fake); NULL: nobody, and they run at once. */
extern "C" void (*shim_enqueue)(void (*run)(const void *data), const void *data, size_t size);

/* A shared array: its memory, made anew (and NaN) when the first thread of a block comes to it. */
struct shim_array {
	void *data;
	unsigned block;
};

void *shim_shared(struct shim_array *array, size_t len);

#define SHARED(type, name, count)                                                                                      \
	static shim_array name##_array;                                                                                \
	type *const name = static_cast<type *>(shim_shared(&name##_array, (count) * sizeof(type)))

/* ---- what threads do together ------------------------------------------------------------------------------------ */

void shim_barrier(void);      /* of the block */
void shim_warp_barrier(void); /* of the warp */
/* What lane `from` of this warp gives; len at most 8, and all lanes must come. */
void shim_exchange(unsigned mask, const void *give, void *take, size_t len, unsigned from);
unsigned shim_lane(void);

inline void __syncthreads(void)
{
	shim_barrier();
}

inline void __syncwarp(void)
{
	shim_warp_barrier();
}

template <typename T> T __shfl_xor_sync(unsigned mask, T x, unsigned lanes)
{
	T taken;

	shim_exchange(mask, &x, &taken, sizeof x, shim_lane() ^ lanes);
	return taken;
}

template <typename T> T __shfl_sync(unsigned mask, T x, unsigned lane)
{
	T taken;

	shim_exchange(mask, &x, &taken, sizeof x, lane);
	return taken;
}

inline int atomicOr(int *p, int x)
{
	return __atomic_fetch_or(p, x, __ATOMIC_RELAXED);
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

inline float __uint_as_float(uint32_t x)
{
	float f;

	memcpy(&f, &x, sizeof f);
	return f;
}

inline uint32_t __float_as_uint(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	return bits;
}

inline unsigned __umulhi(unsigned a, unsigned b)
{
	return (unsigned)((uint64_t)a * b >> 32);
}

/* What the compiler may not join into one operation. */
inline float __fadd_rn(float a, float b)
{
	return a + b;
}

inline float __fmul_rn(float a, float b)
{
	return a * b;
}

template <typename T> T max(T a, T b)
{
	return a < b ? b : a;
}

template <typename T> T min(T a, T b)
{
	return b < a ? b : a;
}

uint16_t bf16_from_f32_bits(float x);
float f16_bits_to_f32(uint16_t bits);
uint8_t e4m3_from_f32_bits(float x);
float e4m3_bits_to_f32(uint8_t bits);

#endif

/* device: what the own kernels share: numbers, vectors of 8, reductions, launches.
 *
 * nvcc compiles the .cu files for the device; a C++ compiler with -Itests/cuda compiles them for the host, where shim.h
 * stands in for CUDA.  Kernels therefore say SHARED for shared memory and launch() for <<<>>>.
 */
#ifndef PROMPTFS_KERNELS_CUDA_DEVICE_H
#define PROMPTFS_KERNELS_CUDA_DEVICE_H

#include "kernels/cuda/launch.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#define SHARED(type, name, count) __shared__ type name[count]
#define DEVICE __device__ __forceinline__

template <typename T> struct same {
	using type = T;
};

/* kernel<<<grid, block, 0, stream>>>(args...) */
template <typename... P>
int launch(cuda_stream stream, void (*kernel)(P...), dim3 grid, dim3 block, typename same<P>::type... args)
{
	void *list[] = { (void *)&args... };

	return (int)cudaLaunchKernel((const void *)kernel, grid, block, list, 0, stream);
}

DEVICE uint16_t bf16_from_f32_bits(float x)
{
	return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

DEVICE float f16_bits_to_f32(uint16_t bits)
{
	return __half2float(__ushort_as_half(bits));
}

DEVICE uint8_t e4m3_from_f32_bits(float x)
{
	return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

DEVICE float e4m3_bits_to_f32(uint8_t bits)
{
	return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}
#else
#include "shim.h"
#endif

enum { WARP = 32, BLOCK_MAX = 256, WARPS_MAX = BLOCK_MAX / WARP, GRID_Y_MAX = 65535 };
enum { VECTOR = 8, WIDE = 16 /* bytes of the widest load */ };

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

struct bf16 {
	uint16_t bits;
};

struct f16 {
	uint16_t bits;
};

struct e4m3 {
	uint8_t bits;
};

DEVICE float get(float x)
{
	return x;
}

DEVICE float get(bf16 x)
{
	return __uint_as_float((uint32_t)x.bits << 16);
}

DEVICE float get(f16 x)
{
	return f16_bits_to_f32(x.bits);
}

DEVICE float get(e4m3 x)
{
	return e4m3_bits_to_f32(x.bits);
}

DEVICE float get(int8_t x)
{
	return x;
}

DEVICE float get(int32_t x)
{
	return (float)x;
}

DEVICE void set(float &to, float x)
{
	to = x;
}

DEVICE void set(bf16 &to, float x)
{
	to.bits = bf16_from_f32_bits(x);
}

DEVICE void set(e4m3 &to, float x)
{
	to.bits = e4m3_from_f32_bits(x);
}

DEVICE void set(int8_t &to, float x)
{
	to = (int8_t)rintf(fminf(fmaxf(x, -127), 127));
}

/* ---- vectors: N adjacent values at p; N is 1, 2, 4 or 8, and p is aligned to N values or 16 bytes, the less --------
 */

template <typename T, int N> struct alignas(sizeof(T) * N < WIDE ? sizeof(T) * N : (size_t)WIDE) vector {
	T at[N];
};

template <int N, typename T> DEVICE void load(const T *p, float out[N])
{
	const vector<T, N> v = *reinterpret_cast<const vector<T, N> *>(p);

#pragma unroll
	for (int i = 0; i < N; i++)
		out[i] = get(v.at[i]);
}

template <int N, typename T> DEVICE void store(T *p, const float in[N])
{
	vector<T, N> v;

#pragma unroll
	for (int i = 0; i < N; i++)
		set(v.at[i], in[i]);
	*reinterpret_cast<vector<T, N> *>(p) = v;
}

/* Values of F32 or BF16, which of them is known when the kernel runs: for what would else be compiled many times. */
struct either {
	void *data;
	int64_t stride; /* of rows */
	bool wide;      /* F32 */

	either(const struct tensor *t) : data(t->data), stride(t->stride[0]), wide(t->dtype == DTYPE_F32)
	{
	}
};

template <int N> DEVICE void load(const either &t, int64_t row, int64_t at, float out[N])
{
	if (t.wide)
		load<N>((const float *)t.data + row * t.stride + at, out);
	else
		load<N>((const bf16 *)t.data + row * t.stride + at, out);
}

template <int N> DEVICE void store(const either &t, int64_t row, int64_t at, const float in[N])
{
	if (t.wide)
		store<N>((float *)t.data + row * t.stride + at, in);
	else
		store<N>((bf16 *)t.data + row * t.stride + at, in);
}

/* N values of a vector that may be missing. */
template <int N> DEVICE void load_or(const float *p, int64_t at, float otherwise, float out[N])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		out[i] = otherwise;
	if (p)
		load<N>(p + at, out);
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

DEVICE float sigmoid_times(float x, float slope)
{
	return x / (1 + expf(-slope * x)); /* expf becomes infinite, never NaN: the result goes to -0 */
}

DEVICE float gelu_erf(float x)
{
	return 0.5f * x * erfcf(-x * 0.70710678118654752440f);
}

DEVICE float gelu_tanh(float x)
{
	return 0.5f * x * (1 + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
}

DEVICE float activate(enum activation f, float x)
{
	switch (f) {
	case ACTIVATION_NONE:
		break;
	case ACTIVATION_SILU:
		return sigmoid_times(x, 1);
	case ACTIVATION_GELU:
		return gelu_erf(x);
	case ACTIVATION_GELU_TANH:
		return gelu_tanh(x);
	case ACTIVATION_QUICK_GELU:
		return sigmoid_times(x, 1.702f);
	}
	return x;
}

/* ---- reductions -------------------------------------------------------------------------------------------------- */

struct sum {
	DEVICE float operator()(float a, float b) const
	{
		return a + b;
	}
};

/* Of values >= 0, whose bits are ordered as they are; NaN is above all of them and stays. */
struct largest {
	DEVICE float operator()(float a, float b) const
	{
		return __uint_as_float(max(__float_as_uint(a), __float_as_uint(b)));
	}
};

template <typename F> DEVICE float warp_reduce(F f, float x)
{
#pragma unroll
	for (int lane = WARP / 2; lane; lane /= 2)
		x = f(x, __shfl_xor_sync(0xffffffffu, x, lane));
	return x;
}

/* Over the block (whole warps, at most BLOCK_MAX threads), the same for every thread.  0 must be neutral.  `shared` has
 * a place a warp; it may be used again after the next barrier, so reductions in a row alternate between two. */
template <typename F> DEVICE float block_reduce(F f, float x, float *shared)
{
	x = warp_reduce(f, x);
	if (blockDim.x == WARP)
		return x;
	if (threadIdx.x % WARP == 0)
		shared[threadIdx.x / WARP] = x;
	__syncthreads();
	x = threadIdx.x % WARP < blockDim.x / WARP ? shared[threadIdx.x % WARP] : 0;
	return warp_reduce(f, x);
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

inline int64_t ceil_div(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

inline int64_t at_most(int64_t n, int64_t limit)
{
	return n < limit ? n : limit;
}

/* Whether this tensor of F32, BF16 or F16 may be read in vectors of n values along its last dimension. */
inline bool vectors_fit(const struct tensor *t, int n)
{
	const int64_t bytes = at_most((t->dtype == DTYPE_F32 ? 4 : 2) * n, (int64_t)WIDE);

	for (int i = 0; i + 1 < t->rank; i++)
		if (t->dim[i] > 1 && t->stride[i] % n)
			return false;
	return t->dim[t->rank - 1] % n == 0 && (uintptr_t)t->data % (uintptr_t)bytes == 0;
}

/* The same of a vector of floats; NULL fits. */
inline bool vectors_fit(const float *p)
{
	return (uintptr_t)p % WIDE == 0;
}

/* f(T()) where T is the type of a tensor of F32 or BF16. */
template <typename F> int with_type(enum dtype dtype, F f)
{
	return dtype == DTYPE_F32 ? f(float()) : f(bf16());
}

template <int N> struct constant {
	static constexpr int value = N;
};

/* f(constant<N>()) where N is the length of the vectors. */
template <typename F> int with_vector(bool wide, F f)
{
	return wide ? f(constant<VECTOR>()) : f(constant<1>());
}

inline const float *table_data(const struct weight *w)
{
	return w ? (const float *)w->table.data : NULL;
}

/* ---- 8-bit codes ------------------------------------------------------------------------------------------------- */

/* As kernels.h has it: value = code * scale, code = value * factor, rounded. */
struct code_scale {
	float scale, factor;
};

/* `most`: the largest magnitude. */
DEVICE code_scale code_scale_of(float most, float range)
{
	if (__float_as_uint(most) >= 0x7f800000u)
		return code_scale{ NAN, 0 };
	return most < 1e-30f ? code_scale{ 0, 0 } : code_scale{ most / range, range / most };
}

DEVICE code_scale code_scale_for(e4m3, float most)
{
	return code_scale_of(most, 448);
}

DEVICE code_scale code_scale_for(int8_t, float most)
{
	return code_scale_of(most, 127);
}

template <typename F> int with_code(enum quantized q, F f)
{
	return q == QUANTIZED_E4M3 ? f(e4m3()) : f(int8_t());
}

#endif

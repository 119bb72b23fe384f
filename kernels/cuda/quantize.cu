/* quantize: values as 8-bit codes with a scale for each row, or one for all.
 *
 * A row is a block.  Magnitudes are compared by their bits, so that a NaN becomes the scale and with it every value of
 * its row: it is found at the end, as in bf16.
 */
#include "kernels/cuda/device.h"

/* Reads a row of N-vectors: f(at, values). */
template <int N, typename X, typename F> DEVICE void each_in_row(const X *x, int64_t dim, F f)
{
	for (int64_t at = (int64_t)threadIdx.x * N; at < dim; at += (int64_t)blockDim.x * N) {
		float v[N];

		load<N>(x + at, v);
		f(at, v);
	}
}

template <int N> DEVICE float largest_of(const float *v, float most)
{
#pragma unroll
	for (int j = 0; j < N; j++)
		most = largest()(most, fabsf(v[j]));
	return most;
}

template <int N, typename Q> DEVICE void codes_store(Q *to, float *v, float factor)
{
#pragma unroll
	for (int j = 0; j < N; j++)
		v[j] *= factor;
	store<N>(to, v);
}

static unsigned threads_for(int64_t vectors)
{
	return (unsigned)at_most(ceil_div(vectors, WARP) * WARP, BLOCK_MAX);
}

static bool codes_fit(const void *codes, int64_t dim)
{
	return (uintptr_t)codes % VECTOR == 0 && dim % VECTOR == 0;
}

/* ---- a scale for each row ---------------------------------------------------------------------------------------- */

struct plain {
	either x;

	template <int N> DEVICE void read(int64_t row, int64_t at, float *v) const
	{
		load<N>(x, row, at, v);
	}
};

struct gated {
	enum activation f;
	either gate, up;

	template <int N> DEVICE void read(int64_t row, int64_t at, float *v) const
	{
		float u[N];

		load<N>(gate, row, at, v);
		load<N>(up, row, at, u);
#pragma unroll
		for (int j = 0; j < N; j++)
			v[j] = activate(f, v[j]) * u[j];
	}
};

/* The row is computed twice: it is in a cache the second time. */
template <typename Q, int N, typename S>
__global__ void __launch_bounds__(BLOCK_MAX) scaled_rows_kernel(S source, int64_t dim, Q *codes, float *scales)
{
	SHARED(float, shared, WARPS_MAX);
	const int64_t row = blockIdx.x, first = (int64_t)threadIdx.x * N, step = (int64_t)blockDim.x * N;
	float most = 0, v[N];

	for (int64_t at = first; at < dim; at += step) {
		source.template read<N>(row, at, v);
		most = largest_of<N>(v, most);
	}
	const code_scale c = code_scale_for(Q(), block_reduce(largest(), most, shared));

	if (threadIdx.x == 0)
		scales[row] = c.scale;
	for (int64_t at = first; at < dim; at += step) {
		source.template read<N>(row, at, v);
		codes_store<N>(codes + row * dim + at, v, c.factor);
	}
}

template <typename S>
static int rows_launch(cuda_stream stream, enum quantized to, bool wide, int64_t rows, int64_t dim, const S &source,
	void *codes, float *scale)
{
	return with_code(to, [&](auto code) {
		return with_vector(wide && codes_fit(codes, dim), [&](auto n) {
			using Q = decltype(code);
			constexpr int N = decltype(n)::value;

			return launch(stream, scaled_rows_kernel<Q, N, S>, (unsigned)rows, threads_for(dim / N), source,
				dim, (Q *)codes, scale);
		});
	});
}

int cuda_quantize_rows(cuda_stream stream, enum quantized to, const struct tensor *x, void *codes, float *scale)
{
	return rows_launch(stream, to, vectors_fit(x, VECTOR), x->dim[0], x->dim[1], plain{ x }, codes, scale);
}

int cuda_glu_quantized(cuda_stream stream, enum activation f, const struct tensor *gate, const struct tensor *up,
	enum quantized to, void *codes, float *scale)
{
	const bool wide = vectors_fit(gate, VECTOR) && vectors_fit(up, VECTOR);

	return rows_launch(stream, to, wide, gate->dim[0], gate->dim[1], gated{ f, gate, up }, codes, scale);
}

/* ---- one scale --------------------------------------------------------------------------------------------------- */

template <typename X, int N>
__global__ void __launch_bounds__(BLOCK_MAX)
	largest_kernel(const X *x, int64_t stride, int64_t rows, int64_t dim, float *result)
{
	SHARED(float, shared, WARPS_MAX);
	float most = 0;

	for (int64_t row = blockIdx.x; row < rows; row += gridDim.x)
		each_in_row<N>(x + row * stride, dim, [&](int64_t, const float *v) { most = largest_of<N>(v, most); });
	most = block_reduce(largest(), most, shared);
	if (threadIdx.x == 0)
		atomicMax((unsigned *)result, __float_as_uint(most));
}

int cuda_largest(cuda_stream stream, const struct tensor *x, float *result)
{
	enum { BLOCKS = 1024 };

	return with_type(x->dtype, [&](auto from) {
		return with_vector(vectors_fit(x, VECTOR), [&](auto n) {
			using X = decltype(from);
			constexpr int N = decltype(n)::value;

			return launch(stream, largest_kernel<X, N>, (unsigned)at_most(x->dim[0], BLOCKS),
				threads_for(x->dim[1] / N), (const X *)x->data, x->stride[0], x->dim[0], x->dim[1],
				result);
		});
	});
}

template <typename X, typename Q, int N>
__global__ void __launch_bounds__(BLOCK_MAX)
	quantize_kernel(const X *x, int64_t stride, int64_t dim, const float *most, Q *codes, float *scale)
{
	const int64_t row = blockIdx.x;
	const code_scale c = code_scale_for(Q(), *most);

	if (row == 0 && threadIdx.x == 0)
		*scale = c.scale;
	each_in_row<N>(x + row * stride, dim,
		[&](int64_t at, float *v) { codes_store<N>(codes + row * dim + at, v, c.factor); });
}

int cuda_quantize(
	cuda_stream stream, enum quantized to, const struct tensor *x, const float *largest, void *codes, float *scale)
{
	const bool wide = vectors_fit(x, VECTOR) && codes_fit(codes, x->dim[1]);

	return with_type(x->dtype, [&](auto from) {
		return with_code(to, [&](auto code) {
			return with_vector(wide, [&](auto n) {
				using X = decltype(from);
				using Q = decltype(code);
				constexpr int N = decltype(n)::value;

				return launch(stream, quantize_kernel<X, Q, N>, (unsigned)x->dim[0],
					threads_for(x->dim[1] / N), (const X *)x->data, x->stride[0], x->dim[1],
					largest, (Q *)codes, scale);
			});
		});
	});
}

/* ---- after a product of codes ------------------------------------------------------------------------------------ */

/* y = f(sum * row_scale * column_scale + bias) (+ y) */
template <typename S, int N>
__global__ void __launch_bounds__(BLOCK_MAX) scale_kernel(enum activation f, const S *sums, const float *row_scale,
	const float *column_scale, const float *bias, bool accumulate, int64_t dim, either y)
{
	const int64_t row = blockIdx.x;
	const float s = row_scale[row];

	each_in_row<N>(sums + row * dim, dim, [&](int64_t at, float *v) {
		float by[N], add[N], old[N] = {};

		load<N>(column_scale + at, by);
		load_or<N>(bias, at, 0, add);
		if (accumulate)
			load<N>(y, row, at, old);
#pragma unroll
		for (int j = 0; j < N; j++)
			v[j] = activate(f, v[j] * s * by[j] + add[j]) + old[j];
		store<N>(y, row, at, v);
	});
}

int cuda_scale_sums(cuda_stream stream, enum activation f, enum quantized from, const void *sums,
	const float *row_scale, const float *column_scale, const float *bias, bool accumulate, const struct tensor *y)
{
	const bool wide = vectors_fit(y, VECTOR) && vectors_fit((const float *)sums) && vectors_fit(column_scale) &&
			  vectors_fit(bias);

	return with_vector(wide, [&](auto n) {
		constexpr int N = decltype(n)::value;
		const auto run = [&](auto sum) {
			using S = decltype(sum);

			return launch(stream, scale_kernel<S, N>, (unsigned)y->dim[0], threads_for(y->dim[1] / N), f,
				(const S *)sums, row_scale, column_scale, bias, accumulate, y->dim[1], either(y));
		};

		return from == QUANTIZED_I8 ? run(int32_t()) : run(float());
	});
}

/* ---- back -------------------------------------------------------------------------------------------------------- */

template <typename Q, typename Y, int N>
__global__ void __launch_bounds__(BLOCK_MAX)
	dequantize_kernel(const Q *codes, const float *scale, bool by_row, int64_t dim, Y *y, int64_t stride)
{
	const int64_t row = blockIdx.x;
	const float s = scale[by_row ? row : 0];

	each_in_row<N>(codes + row * dim, dim, [&](int64_t at, float *v) {
#pragma unroll
		for (int j = 0; j < N; j++)
			v[j] *= s;
		store<N>(y + row * stride + at, v);
	});
}

int cuda_dequantize(cuda_stream stream, enum quantized from, const void *codes, const float *scale, bool by_row,
	const struct tensor *y)
{
	const bool wide = vectors_fit(y, VECTOR) && codes_fit(codes, y->dim[1]);

	return with_code(from, [&](auto code) {
		return with_type(y->dtype, [&](auto to) {
			return with_vector(wide, [&](auto n) {
				using Q = decltype(code);
				using Y = decltype(to);
				constexpr int N = decltype(n)::value;

				return launch(stream, dequantize_kernel<Q, Y, N>, (unsigned)y->dim[0],
					threads_for(y->dim[1] / N), (const Q *)codes, scale, by_row, y->dim[1],
					(Y *)y->data, y->stride[0]);
			});
		});
	});
}

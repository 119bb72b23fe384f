/* quantize: values as 8-bit codes with a scale for each row.
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

/* The row is read twice: it is in a cache the second time. */
template <typename Q, int N>
__global__ void __launch_bounds__(BLOCK_MAX) scaled_rows_kernel(either x, int64_t dim, Q *codes, float *scales)
{
	SHARED(float, shared, WARPS_MAX);
	const int64_t row = blockIdx.x, first = (int64_t)threadIdx.x * N, step = (int64_t)blockDim.x * N;
	float most = 0, v[N];

	for (int64_t at = first; at < dim; at += step) {
		load<N>(x, row, at, v);
		most = largest_of<N>(v, most);
	}
	const code_scale c = code_scale_for(Q(), block_reduce(largest(), most, shared));

	if (threadIdx.x == 0)
		scales[row] = c.scale;
	for (int64_t at = first; at < dim; at += step) {
		load<N>(x, row, at, v);
		codes_store<N>(codes + row * dim + at, v, c.factor);
	}
}

int cuda_quantize_rows(cuda_stream stream, enum quantized to, const struct tensor *x, void *codes, float *scale)
{
	const int64_t dim = x->dim[1];
	const bool wide = vectors_fit(x, VECTOR) && codes_fit(codes, dim);

	return with_code(to, [&](auto code) {
		return with_vector(wide, [&](auto n) {
			using Q = decltype(code);
			constexpr int N = decltype(n)::value;

			return launch(stream, scaled_rows_kernel<Q, N>, (unsigned)x->dim[0], threads_for(dim / N),
				either(x), dim, (Q *)codes, scale);
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

/* elements: what is done element by element.
 *
 * A thread takes N adjacent values of a row; tensors whose rows lie end to end are taken as one long row.
 */
#include "kernels/cuda/device.h"

/* f(row, at) for every vector of [rows, vectors * N]. */
template <int N, typename F>
__global__ void __launch_bounds__(BLOCK_MAX) rows_kernel(int64_t rows, int64_t vectors, F f)
{
	const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

	if (at >= vectors)
		return;
	for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows;
		row += (int64_t)gridDim.y * blockDim.y)
		f(row, at * N);
}

template <int N, typename F> static int each_vector(cuda_stream stream, int64_t rows, int64_t dim, F f)
{
	const int64_t vectors = dim / N;
	unsigned width = WARP;

	while (width < BLOCK_MAX && width < vectors)
		width *= 2;
	const dim3 block(width, BLOCK_MAX / width);
	const dim3 grid((unsigned)ceil_div(vectors, width), (unsigned)at_most(ceil_div(rows, block.y), GRID_Y_MAX));

	return launch(stream, rows_kernel<N, F>, grid, block, rows, vectors, f);
}

/* A matrix of the kernels: where its rows are. */
template <typename T> struct matrix {
	T *data;
	int64_t stride;

	matrix(const struct tensor *t) : data((T *)t->data), stride(t->stride[0])
	{
	}

	DEVICE T *at(int64_t row, int64_t column) const
	{
		return data + row * stride + column;
	}
};

template <int N, typename T> DEVICE void load(const matrix<T> &m, int64_t row, int64_t at, float out[N])
{
	load<N>(m.at(row, at), out);
}

template <int N, typename T> DEVICE void store(const matrix<T> &m, int64_t row, int64_t at, const float in[N])
{
	store<N>(m.at(row, at), in);
}

/* ---- functions of one or two matrices ---------------------------------------------------------------------------- */

template <typename X, typename Y, int N> struct glu {
	enum activation f;
	X gate, up;
	Y y;

	DEVICE void operator()(int64_t row, int64_t at) const
	{
		float a[N], b[N];

		load<N>(gate, row, at, a);
		load<N>(up, row, at, b);
#pragma unroll
		for (int i = 0; i < N; i++)
			a[i] = activate(f, a[i]) * b[i];
		store<N>(y, row, at, a);
	}
};

/* The feed-forward of every block in bf16 has a kernel of its own. */
int cuda_glu(cuda_stream stream, enum activation f, const struct tensor *gate, const struct tensor *up,
	const struct tensor *y)
{
	const bool fits = vectors_fit(gate, VECTOR) && vectors_fit(up, VECTOR) && vectors_fit(y, VECTOR);
	const bool narrow = gate->dtype == DTYPE_BF16 && up->dtype == DTYPE_BF16 && y->dtype == DTYPE_BF16;

	if (fits && narrow)
		return each_vector<VECTOR>(
			stream, y->dim[0], y->dim[1], glu<matrix<const bf16>, matrix<bf16>, VECTOR>{ f, gate, up, y });
	return with_vector(fits, [&](auto n) {
		constexpr int N = decltype(n)::value;

		return each_vector<N>(stream, y->dim[0], y->dim[1], glu<either, either, N>{ f, gate, up, y });
	});
}

DEVICE float unary_of(enum unary f, float x, float y)
{
	switch (f) {
	case UNARY_COPY:
		break;
	case UNARY_SILU:
		return sigmoid_times(x, 1);
	case UNARY_TANH:
		return tanhf(x);
	case UNARY_GELU:
		return gelu_erf(x);
	case UNARY_QUICK_GELU:
		return sigmoid_times(x, 1.702f);
	case UNARY_ADD:
		return x + y;
	case UNARY_MULTIPLY:
		return x * y;
	}
	return x;
}

template <int N> struct unary_rows {
	enum unary f;
	either x, y;

	DEVICE void operator()(int64_t row, int64_t at) const
	{
		float a[N], b[N] = {};

		load<N>(x, row, at, a);
		if (f >= UNARY_ADD)
			load<N>(y, row, at, b);
#pragma unroll
		for (int i = 0; i < N; i++)
			a[i] = unary_of(f, a[i], b[i]);
		store<N>(y, row, at, a);
	}
};

int cuda_unary(cuda_stream stream, enum unary f, const struct tensor *x, const struct tensor *y)
{
	return with_vector(vectors_fit(x, VECTOR) && vectors_fit(y, VECTOR), [&](auto n) {
		constexpr int N = decltype(n)::value;

		return each_vector<N>(stream, y->dim[0], y->dim[1], unary_rows<N>{ f, x, y });
	});
}

/* y = f(x + bias) (+ y) */
template <int N> struct epilogue {
	enum activation f;
	bool accumulate;
	const float *bias;
	either x, y;

	DEVICE void operator()(int64_t row, int64_t at) const
	{
		float a[N], add[N], old[N] = {};

		load<N>(x, row, at, a);
		load_or<N>(bias, at, 0, add);
		if (accumulate)
			load<N>(y, row, at, old);
#pragma unroll
		for (int i = 0; i < N; i++)
			a[i] = activate(f, a[i] + add[i]) + old[i];
		store<N>(y, row, at, a);
	}
};

int cuda_epilogue(cuda_stream stream, enum activation f, const struct tensor *x, const float *bias, bool accumulate,
	const struct tensor *y)
{
	return with_vector(vectors_fit(x, VECTOR) && vectors_fit(y, VECTOR) && vectors_fit(bias), [&](auto n) {
		constexpr int N = decltype(n)::value;

		return each_vector<N>(stream, y->dim[0], y->dim[1], epilogue<N>{ f, accumulate, bias, x, y });
	});
}

/* y += factor * x; factor or x may be missing, for 1. */
template <typename X, typename Y, int N> struct add_product {
	matrix<const X> x;
	bool has_x;
	const float *factor;
	matrix<Y> y;

	DEVICE void operator()(int64_t row, int64_t at) const
	{
		float a[N], g[N], v[N];

		load_or<N>(factor, at, 1, g);
		load<N>(y.at(row, at), v);
#pragma unroll
		for (int i = 0; i < N; i++)
			a[i] = 1;
		if (has_x)
			load<N>(x.at(row, at), a);
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] += g[i] * a[i];
		store<N>(y.at(row, at), v);
	}
};

int cuda_gated_add(cuda_stream stream, const struct tensor *x, const float *gate, const struct tensor *sum)
{
	const bool wide = vectors_fit(x, VECTOR) && vectors_fit(sum, VECTOR) && vectors_fit(gate);

	return with_type(x->dtype, [&](auto from) {
		return with_vector(wide, [&](auto n) {
			constexpr int N = decltype(n)::value;

			return each_vector<N>(stream, x->dim[0], x->dim[1],
				add_product<decltype(from), float, N>{ x, true, gate, sum });
		});
	});
}

int cuda_add_row(cuda_stream stream, const struct tensor *row, const struct tensor *y)
{
	const float *add = (const float *)row->data;
	const bool wide = vectors_fit(y, VECTOR) && vectors_fit(add);

	return with_type(y->dtype, [&](auto to) {
		return with_vector(wide, [&](auto n) {
			constexpr int N = decltype(n)::value;

			return each_vector<N>(stream, y->dim[0], y->dim[1],
				add_product<float, decltype(to), N>{ row, false, add, y });
		});
	});
}

struct fill_row {
	const float *row;
	matrix<float> y;

	DEVICE void operator()(int64_t i, int64_t at) const
	{
		*y.at(i, at) = row[at];
	}
};

int cuda_fill_rows(cuda_stream stream, const struct tensor *row, const struct tensor *y)
{
	return each_vector<1>(stream, y->dim[0], y->dim[1], fill_row{ (const float *)row->data, y });
}

/* ---- dense floats ------------------------------------------------------------------------------------------------ */

static int64_t count_of(const struct tensor *t)
{
	int64_t count = 1;

	for (int i = 0; i < t->rank; i++)
		count *= t->dim[i];
	return count;
}

/* Whether the values of a dense tensor may be taken in vectors. */
static bool dense_fits(const struct tensor *t)
{
	return count_of(t) % VECTOR == 0 && vectors_fit((const float *)t->data);
}

template <int N> struct clamp_values {
	float low, high;
	float *y;

	DEVICE void operator()(int64_t, int64_t at) const
	{
		float v[N];

		load<N>(y + at, v);
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] = v[i] < low ? low : v[i] > high ? high : v[i];
		store<N>(y + at, v);
	}
};

int cuda_clamp(cuda_stream stream, float low, float high, const struct tensor *y)
{
	return with_vector(dense_fits(y), [&](auto n) {
		constexpr int N = decltype(n)::value;

		return each_vector<N>(stream, 1, count_of(y), clamp_values<N>{ low, high, (float *)y->data });
	});
}

template <int N> struct weighted_sum {
	float a, b;
	const float *x;
	float *y;

	DEVICE void operator()(int64_t, int64_t at) const
	{
		float u[N], v[N];

		load<N>(x + at, u);
		load<N>(y + at, v);
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] = a * u[i] + b * v[i];
		store<N>(y + at, v);
	}
};

int cuda_axpby(cuda_stream stream, float a, const struct tensor *x, float b, const struct tensor *y)
{
	return with_vector(dense_fits(x) && dense_fits(y), [&](auto n) {
		constexpr int N = decltype(n)::value;

		return each_vector<N>(
			stream, 1, count_of(y), weighted_sum<N>{ a, b, (const float *)x->data, (float *)y->data });
	});
}

template <typename X, int N> struct find_not_finite {
	const X *x;
	int32_t *found;

	DEVICE void operator()(int64_t, int64_t at) const
	{
		float v[N];
		bool finite = true;

		load<N>(x + at, v);
#pragma unroll
		for (int i = 0; i < N; i++)
			finite = finite && fabsf(v[i]) <= 3.40282347e38f;
		if (!finite)
			atomicOr(found, 1);
	}
};

int cuda_find_not_finite(cuda_stream stream, const struct tensor *x, int32_t *found)
{
	if (count_of(x) == 0)
		return cudaSuccess;
	return with_type(x->dtype, [&](auto from) {
		return with_vector(dense_fits(x), [&](auto n) {
			using X = decltype(from);
			constexpr int N = decltype(n)::value;

			return each_vector<N>(
				stream, 1, count_of(x), find_not_finite<X, N>{ (const X *)x->data, found });
		});
	});
}

/* ---- conversion -------------------------------------------------------------------------------------------------- */

struct strides {
	int64_t at[3]; /* of the first three of four dimensions */
};

template <typename X, typename Y> struct convert {
	const X *x;
	Y *y;
	int64_t dim[2]; /* the second and third of four */
	strides from, to;
	int64_t last_from, last_to;

	DEVICE int64_t offset(const strides &s, int64_t row) const
	{
		return row / dim[1] / dim[0] * s.at[0] + row / dim[1] % dim[0] * s.at[1] + row % dim[1] * s.at[2];
	}

	DEVICE void operator()(int64_t row, int64_t at) const
	{
		set(y[offset(to, row) + at * last_to], get(x[offset(from, row) + at * last_from]));
	}
};

/* The tensor as one of four dimensions, the missing ones first. */
static struct tensor as_rank_4(const struct tensor *t)
{
	struct tensor r = *t;

	for (int i = 0; i < TENSOR_RANK_MAX; i++) {
		const int j = i - (TENSOR_RANK_MAX - t->rank);

		r.dim[i] = j < 0 ? 1 : t->dim[j];
		r.stride[i] = j < 0 ? 0 : t->stride[j];
	}
	r.rank = TENSOR_RANK_MAX;
	return r;
}

template <typename X, typename Y>
static int convert_launch(cuda_stream stream, const struct tensor &from, const struct tensor &to)
{
	const convert<X, Y> f = { (const X *)from.data, (Y *)to.data, { to.dim[1], to.dim[2] },
		{ { from.stride[0], from.stride[1], from.stride[2] } },
		{ { to.stride[0], to.stride[1], to.stride[2] } }, from.stride[3], to.stride[3] };

	return each_vector<1>(stream, to.dim[0] * to.dim[1] * to.dim[2], to.dim[3], f);
}

int cuda_convert(cuda_stream stream, const struct tensor *from, const struct tensor *to)
{
	const struct tensor x = as_rank_4(from), y = as_rank_4(to);

	if (count_of(to) == 0)
		return cudaSuccess;
	return with_type(to->dtype, [&](auto out) {
		if (from->dtype == DTYPE_F16)
			return convert_launch<f16, decltype(out)>(stream, x, y);
		return with_type(from->dtype,
			[&](auto in) { return convert_launch<decltype(in), decltype(out)>(stream, x, y); });
	});
}

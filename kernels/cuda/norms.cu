/* norms: RMSNorm and LayerNorm with what belongs to them, group norm, rotary positions.
 *
 * A row is a block: each thread holds the vectors i * blockDim.x + threadIdx.x of it, in registers if there are at most
 * KEEP; with KEEP 0 it reads them again every time (the row is in a cache by then).
 */
#include "kernels/cuda/device.h"

/* ---- rows -------------------------------------------------------------------------------------------------------- */

template <typename X, int N, int KEEP> struct row_reader {
	const X *x;
	int dim;
	float kept[KEEP ? KEEP : 1][N];

	DEVICE row_reader(const X *x, int dim) : x(x), dim(dim)
	{
#pragma unroll
		for (int i = 0; i < KEEP; i++) {
			const int at = (i * (int)blockDim.x + (int)threadIdx.x) * N;

			if (at < dim)
				load<N>(x + at, kept[i]);
		}
	}

	/* f(at, v): every vector of this thread. */
	template <typename F> DEVICE void each(F f)
	{
		if constexpr (KEEP > 0) {
#pragma unroll
			for (int i = 0; i < KEEP; i++) {
				const int at = (i * (int)blockDim.x + (int)threadIdx.x) * N;

				if (at < dim)
					f(at, kept[i]);
			}
		} else {
			for (int at = (int)threadIdx.x * N; at < dim; at += (int)blockDim.x * N) {
				load<N>(x + at, kept[0]);
				f(at, kept[0]);
			}
		}
	}
};

struct row_statistics {
	float mean, scale; /* scale: 1 / sqrt(variance + eps) */
};

template <int N, typename R> DEVICE row_statistics row_measure(R &row, bool rms, float eps, float *shared)
{
	float total = 0, mean = 0;

	if (!rms) {
		row.each([&](int, const float *v) {
#pragma unroll
			for (int j = 0; j < N; j++)
				total += v[j];
		});
		mean = block_reduce(sum(), total, shared) / (float)row.dim;
		total = 0;
	}
	row.each([&](int, const float *v) {
#pragma unroll
		for (int j = 0; j < N; j++)
			total += (v[j] - mean) * (v[j] - mean);
	});
	total = block_reduce(sum(), total, shared + WARPS_MAX);
	return row_statistics{ mean, 1 / sqrtf(total / (float)row.dim + eps) };
}

/* ---- norm -------------------------------------------------------------------------------------------------------- */

struct norm_tables {
	const float *weight, *bias, *scale, *shift; /* each may be NULL */
};

template <int N> DEVICE void norm_apply(const norm_tables &t, const row_statistics &s, int at, const float *x, float *y)
{
	float weight[N], bias[N], scale[N], shift[N];

	load_or<N>(t.weight, at, 1, weight);
	load_or<N>(t.bias, at, 0, bias);
	load_or<N>(t.scale, at, 0, scale);
	load_or<N>(t.shift, at, 0, shift);
#pragma unroll
	for (int j = 0; j < N; j++)
		y[j] = (x[j] - s.mean) * s.scale * weight[j] * (1 + scale[j]) + bias[j] + shift[j];
}

template <typename X, typename Y, int N, int KEEP>
__global__ void __launch_bounds__(BLOCK_MAX)
	norm_kernel(const X *x, int64_t x_stride, Y *y, int64_t y_stride, int dim, bool rms, float eps, norm_tables t)
{
	SHARED(float, shared, 2 * WARPS_MAX);
	row_reader<X, N, KEEP> row(x + blockIdx.x * x_stride, dim);
	const row_statistics s = row_measure<N>(row, rms, eps, shared);

	y += blockIdx.x * y_stride;
	row.each([&](int at, const float *v) {
		float out[N];

		norm_apply<N>(t, s, at, v, out);
		store<N>(y + at, out);
	});
}

/* Threads that leave the fewest without a vector: a multiple of the warp, in as many turns as 256 threads take. */
static unsigned row_threads(int64_t vectors)
{
	const int64_t turns = ceil_div(vectors, BLOCK_MAX);

	return (unsigned)(ceil_div(ceil_div(vectors, turns), WARP) * WARP);
}

/* f(constant<KEEP>()) for rows of so many vectors of N; single values, a rare case, are read again. */
template <int N, typename F> static int with_keep(int64_t vectors, F f)
{
	if constexpr (N == 1) {
		return f(constant<0>());
	} else {
		const int64_t turns = ceil_div(vectors, row_threads(vectors));

		return turns <= 2 ? f(constant<2>()) : turns <= 6 ? f(constant<6>()) : f(constant<0>());
	}
}

static norm_tables tables_of(const struct norm *op)
{
	return norm_tables{ table_data(op->weight), table_data(op->bias), op->scale, op->shift };
}

static bool tables_fit(const norm_tables &t)
{
	return vectors_fit(t.weight) && vectors_fit(t.bias) && vectors_fit(t.scale) && vectors_fit(t.shift);
}

int cuda_norm(cuda_stream stream, const struct norm *op)
{
	const norm_tables t = tables_of(op);
	const bool wide = vectors_fit(&op->x, VECTOR) && vectors_fit(&op->y, VECTOR) && tables_fit(t);
	const int dim = (int)op->x.dim[1];

	return with_type(op->x.dtype, [&](auto x) {
		return with_type(op->y.dtype, [&](auto y) {
			return with_vector(wide, [&](auto n) {
				return with_keep<decltype(n)::value>(dim / n.value, [&](auto keep) {
					using X = decltype(x);
					using Y = decltype(y);
					constexpr int N = decltype(n)::value, KEEP = decltype(keep)::value;

					return launch(stream, norm_kernel<X, Y, N, KEEP>, (unsigned)op->x.dim[0],
						row_threads(dim / N), (const X *)op->x.data, op->x.stride[0],
						(Y *)op->y.data, op->y.stride[0], dim, op->rms, op->eps, t);
				});
			});
		});
	});
}

/* ---- norm and gated residual ------------------------------------------------------------------------------------- */

template <typename X, int N, int KEEP>
__global__ void __launch_bounds__(BLOCK_MAX) norm_residual_kernel(const X *x, int64_t x_stride, float *stream,
	int64_t stream_stride, int dim, float eps, const float *weight, const float *gate)
{
	SHARED(float, shared, 2 * WARPS_MAX);
	row_reader<X, N, KEEP> row(x + blockIdx.x * x_stride, dim);
	const row_statistics s = row_measure<N>(row, true, eps, shared);

	stream += blockIdx.x * stream_stride;
	row.each([&](int at, const float *v) {
		float w[N], g[N], y[N];

		load<N>(weight + at, w);
		load_or<N>(gate, at, 1, g);
		load<N>(stream + at, y);
#pragma unroll
		for (int j = 0; j < N; j++)
			y[j] += v[j] * s.scale * w[j] * g[j];
		store<N>(stream + at, y);
	});
}

int cuda_norm_residual(cuda_stream stream, const struct norm_residual *op)
{
	const float *weight = table_data(op->weight);
	const bool wide = vectors_fit(&op->x, VECTOR) && vectors_fit(&op->stream, VECTOR) && vectors_fit(weight) &&
			  vectors_fit(op->gate);
	const int dim = (int)op->x.dim[1];

	return with_type(op->x.dtype, [&](auto x) {
		return with_vector(wide, [&](auto n) {
			return with_keep<decltype(n)::value>(dim / n.value, [&](auto keep) {
				using X = decltype(x);
				constexpr int N = decltype(n)::value, KEEP = decltype(keep)::value;

				return launch(stream, norm_residual_kernel<X, N, KEEP>, (unsigned)op->x.dim[0],
					row_threads(dim / N), (const X *)op->x.data, op->x.stride[0],
					(float *)op->stream.data, op->stream.stride[0], dim, op->eps, weight, op->gate);
			});
		});
	});
}

/* ---- rotary positions -------------------------------------------------------------------------------------------- */

/* N pairs of a head, from pair `at` on: neighbours, or values `half` apart. */
template <bool INTERLEAVED, int N, typename T> DEVICE void pairs_load(const T *x, int half, int at, float *a, float *b)
{
	if constexpr (INTERLEAVED) {
		float both[2 * N];

		load<2 * N>(x + 2 * at, both);
#pragma unroll
		for (int j = 0; j < N; j++) {
			a[j] = both[2 * j];
			b[j] = both[2 * j + 1];
		}
	} else {
		load<N>(x + at, a);
		load<N>(x + half + at, b);
	}
}

template <bool INTERLEAVED, int N, typename T>
DEVICE void pairs_store(T *x, int half, int at, const float *a, const float *b)
{
	if constexpr (INTERLEAVED) {
		float both[2 * N];

#pragma unroll
		for (int j = 0; j < N; j++) {
			both[2 * j] = a[j];
			both[2 * j + 1] = b[j];
		}
		store<2 * N>(x + 2 * at, both);
	} else {
		store<N>(x + at, a);
		store<N>(x + half + at, b);
	}
}

struct rope {
	int64_t row_stride, head_stride;
	int rows, heads, half;
	const float *weight; /* [2 * half] or NULL */
	const float *table;  /* [rows, half, 2] */
	float eps;
};

/* A warp for each head; a lane holds at most KEEP times N pairs. */
template <typename T, bool INTERLEAVED, int N, int KEEP>
__global__ void __launch_bounds__(BLOCK_MAX) rope_kernel(T *x, rope op)
{
	const int first = (int)threadIdx.x % WARP * N, step = WARP * N;
	const int64_t index = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP, row = index / op.heads;
	float a[KEEP][N], b[KEEP][N], scale = 1, squares = 0;

	if (row >= op.rows)
		return; /* the whole warp */
	x += row * op.row_stride + index % op.heads * op.head_stride;
#pragma unroll
	for (int i = 0; i < KEEP; i++) {
		if (first + i * step >= op.half)
			continue;
		pairs_load<INTERLEAVED, N>(x, op.half, first + i * step, a[i], b[i]);
#pragma unroll
		for (int j = 0; j < N; j++)
			squares += a[i][j] * a[i][j] + b[i][j] * b[i][j];
	}
	if (op.weight)
		scale = 1 / sqrtf(warp_reduce(sum(), squares) / (float)(2 * op.half) + op.eps);
#pragma unroll
	for (int i = 0; i < KEEP; i++) {
		const int at = first + i * step;
		float wa[N], wb[N], turn[2 * N];

		if (at >= op.half)
			continue;
		if (op.weight)
			pairs_load<INTERLEAVED, N>(op.weight, op.half, at, wa, wb);
		load<2 * N>(op.table + (row * op.half + at) * 2, turn);
#pragma unroll
		for (int j = 0; j < N; j++) {
			const float u = a[i][j] * scale * (op.weight ? wa[j] : 1);
			const float v = b[i][j] * scale * (op.weight ? wb[j] : 1);

			a[i][j] = u * turn[2 * j] - v * turn[2 * j + 1];
			b[i][j] = v * turn[2 * j] + u * turn[2 * j + 1];
		}
		pairs_store<INTERLEAVED, N>(x, op.half, at, a[i], b[i]);
	}
}

template <typename T, bool INTERLEAVED> static int rope_launch(cuda_stream stream, T *x, const rope &op, bool pairs)
{
	const unsigned blocks = (unsigned)ceil_div((int64_t)op.rows * op.heads, WARPS_MAX);

	if (!pairs)
		return launch(
			stream, rope_kernel<T, INTERLEAVED, 1, HEAD_DIM_MAX / 2 / WARP>, blocks, BLOCK_MAX, x, op);
	if (op.half <= 2 * WARP)
		return launch(stream, rope_kernel<T, INTERLEAVED, 2, 1>, blocks, BLOCK_MAX, x, op);
	return launch(stream, rope_kernel<T, INTERLEAVED, 2, HEAD_DIM_MAX / 4 / WARP>, blocks, BLOCK_MAX, x, op);
}

int cuda_qk_rope(cuda_stream stream, const struct qk_rope *op)
{
	const rope args = { op->x.stride[0], op->x.stride[1], (int)op->x.dim[0], (int)op->x.dim[1],
		(int)op->x.dim[2] / 2, table_data(op->weight), (const float *)op->table.data, op->eps };
	const bool pairs = vectors_fit(&op->x, 4) && vectors_fit(args.weight) && vectors_fit(args.table);

	return with_type(op->x.dtype, [&](auto x) {
		using T = decltype(x);
		T *data = (T *)op->x.data;

		return op->interleaved ? rope_launch<T, true>(stream, data, args, pairs)
				       : rope_launch<T, false>(stream, data, args, pairs);
	});
}

/* ---- group norm --------------------------------------------------------------------------------------------------
 *
 * A thread belongs to N adjacent channels of one group ("a lane" of `lanes`), and takes every depth-th place of its
 * block's.  It gives the count, mean and sum of squared distances of what it saw; group_join joins those of a group in
 * a fixed order; group_apply reads the picture once more. */

struct group_shape {
	int64_t places, per_block; /* places of a block */
	int channels, groups;
	int n;            /* values of a vector: 8, 4, 2 or 1, dividing the channels of a group */
	int lanes;        /* channels / n */
	dim3 grid, block; /* x: lanes, y: places */
};

struct moments {
	float count, mean, squares;
};

static bool group_vectors_fit(const struct group_norm *op, int n)
{
	const int channels = (int)op->x.dim[2];

	return channels / op->groups % n == 0 && vectors_fit(&op->x, n) && (!op->y.data || vectors_fit(&op->y, n)) &&
	       vectors_fit(table_data(op->weight)) && vectors_fit(table_data(op->bias)) && vectors_fit(op->scale) &&
	       vectors_fit(op->shift);
}

static group_shape group_shape_of(const struct group_norm *op)
{
	enum { TURNS = 16, BLOCKS_MAX = 1024 };
	group_shape s = {};
	unsigned width;

	s.places = op->x.dim[0] * op->x.dim[1];
	s.channels = (int)op->x.dim[2];
	s.groups = op->groups;
	s.n = VECTOR;
	while (s.n > 1 && !group_vectors_fit(op, s.n))
		s.n /= 2;
	s.lanes = s.channels / s.n;
	width = (unsigned)at_most(s.lanes, BLOCK_MAX);
	s.block = dim3(width, BLOCK_MAX / width);
	s.grid = dim3((unsigned)ceil_div(s.lanes, width),
		(unsigned)at_most(ceil_div(s.places, (int64_t)s.block.y * TURNS), BLOCKS_MAX));
	s.per_block = ceil_div(s.places, s.grid.y);
	return s;
}

static size_t group_parts(const group_shape &s)
{
	return (size_t)s.grid.y * s.block.y;
}

size_t cuda_group_norm_scratch(const struct group_norm *op)
{
	const group_shape s = group_shape_of(op);

	return group_parts(s) * (size_t)s.lanes * sizeof(moments) + (size_t)s.groups * 2 * sizeof(float);
}

/* Of two sets of values, one of which may be empty. */
DEVICE void moments_join(moments &a, const moments &b)
{
	const float count = a.count + b.count, apart = b.mean - a.mean, share = count > 0 ? b.count / count : 0;

	a.squares += b.squares + apart * apart * a.count * share;
	a.mean += apart * share;
	a.count = count;
}

template <typename X, int N>
__global__ void __launch_bounds__(BLOCK_MAX) group_sum_kernel(const X *x, group_shape s, moments *out)
{
	const int lane = (int)(blockIdx.x * blockDim.x + threadIdx.x);
	const int64_t end = min((blockIdx.y + 1) * s.per_block, s.places);
	float shift[N], total[N] = {}, squares[N] = {};
	moments m = {};
	int count = 0;

	if (lane >= s.lanes)
		return;
	x += (int64_t)lane * N;
	for (int64_t place = blockIdx.y * s.per_block + threadIdx.y; place < end; place += blockDim.y, count++) {
		float v[N];

		load<N>(x + place * s.channels, v);
#pragma unroll
		for (int j = 0; j < N; j++) {
			if (count == 0)
				shift[j] = v[j]; /* near the mean: sums of differences keep their digits */
			v[j] -= shift[j];
			total[j] += v[j];
			squares[j] += v[j] * v[j];
		}
	}
	if (count) {
#pragma unroll
		for (int j = 0; j < N; j++) {
			const float mean = total[j] / (float)count;

			moments_join(
				m, moments{ (float)count, shift[j] + mean, fmaxf(squares[j] - total[j] * mean, 0) });
		}
	}
	out[((int64_t)blockIdx.y * blockDim.y + threadIdx.y) * s.lanes + lane] = m;
}

/* statistics[group] = mean, variance; a block for each group. */
__global__ void __launch_bounds__(BLOCK_MAX)
	group_join_kernel(const moments *parts, int64_t count, group_shape s, float *statistics)
{
	SHARED(moments, shared, BLOCK_MAX);
	const int group = (int)blockIdx.x, lanes = s.lanes / s.groups;
	moments m = {};

	for (int64_t i = threadIdx.x; i < count * lanes; i += BLOCK_MAX)
		moments_join(m, parts[i / lanes * s.lanes + group * lanes + i % lanes]);
	shared[threadIdx.x] = m;
	for (unsigned half = BLOCK_MAX / 2; half; half /= 2) {
		__syncthreads();
		if (threadIdx.x < half)
			moments_join(shared[threadIdx.x], shared[threadIdx.x + half]);
	}
	if (threadIdx.x == 0) {
		statistics[2 * group] = shared[0].mean;
		statistics[2 * group + 1] = shared[0].squares / shared[0].count;
	}
}

template <typename X, typename Y, int N>
__global__ void __launch_bounds__(BLOCK_MAX) group_apply_kernel(
	const X *x, Y *y, group_shape s, norm_tables t, float eps, bool silu, const float *statistics)
{
	const int lane = (int)(blockIdx.x * blockDim.x + threadIdx.x), channel = lane * N;
	const int64_t end = min((blockIdx.y + 1) * s.per_block, s.places);
	float factor[N], add[N], scale[N], shift[N];

	if (lane >= s.lanes)
		return;
	const int group = channel / (s.channels / s.groups);
	const float mean = statistics[2 * group], deviation = 1 / sqrtf(statistics[2 * group + 1] + eps);

	load<N>(t.weight + channel, factor);
	load<N>(t.bias + channel, add);
	load_or<N>(t.scale, channel, 0, scale);
	load_or<N>(t.shift, channel, 0, shift);
#pragma unroll
	for (int j = 0; j < N; j++) {
		factor[j] *= deviation * (1 + scale[j]);
		add[j] = add[j] * (1 + scale[j]) + shift[j];
	}
	for (int64_t place = blockIdx.y * s.per_block + threadIdx.y; place < end; place += blockDim.y) {
		float v[N];

		load<N>(x + place * s.channels + channel, v);
#pragma unroll
		for (int j = 0; j < N; j++) {
			v[j] = (v[j] - mean) * factor[j] + add[j];
			if (silu)
				v[j] = sigmoid_times(v[j], 1);
		}
		store<N>(y + place * s.channels + channel, v);
	}
}

/* The moments of the picture, where they are not given. */
template <int N>
static int group_sum(
	cuda_stream stream, const struct group_norm *op, const group_shape &s, moments *parts, float *statistics)
{
	const int error = with_type(op->x.dtype, [&](auto x) {
		using X = decltype(x);

		return launch(stream, group_sum_kernel<X, N>, s.grid, s.block, (const X *)op->x.data, s, parts);
	});

	return error != cudaSuccess ? error
				    : launch(stream, group_join_kernel, (unsigned)s.groups, BLOCK_MAX, parts,
					      (int64_t)group_parts(s), s, statistics);
}

template <int N>
static int group_launch(cuda_stream stream, const struct group_norm *op, const group_shape &s, void *scratch)
{
	const norm_tables t = { table_data(op->weight), table_data(op->bias), op->scale, op->shift };
	moments *parts = (moments *)scratch;
	float *statistics =
		op->moments.data ? (float *)op->moments.data : (float *)(parts + group_parts(s) * (size_t)s.lanes);
	int error = cudaSuccess;

	if (!op->moments.data || !op->y.data)
		error = group_sum<N>(stream, op, s, parts, statistics);
	if (error != cudaSuccess || !op->y.data)
		return error;
	return with_type(op->x.dtype, [&](auto x) {
		return with_type(op->y.dtype, [&](auto y) {
			using X = decltype(x);
			using Y = decltype(y);

			return launch(stream, group_apply_kernel<X, Y, N>, s.grid, s.block, (const X *)op->x.data,
				(Y *)op->y.data, s, t, op->eps, op->silu, statistics);
		});
	});
}

int cuda_group_norm(cuda_stream stream, const struct group_norm *op, void *scratch)
{
	const group_shape s = group_shape_of(op);

	switch (s.n) {
	case 8:
		return group_launch<8>(stream, op, s, scratch);
	case 4:
		return group_launch<4>(stream, op, s, scratch);
	case 2:
		return group_launch<2>(stream, op, s, scratch);
	default:
		return group_launch<1>(stream, op, s, scratch);
	}
}

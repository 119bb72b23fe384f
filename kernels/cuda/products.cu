/* products: matrix products, convolutions and attention in plain f32 arithmetic, for what the libraries do not take.
 *
 * A block of 16 x 16 threads makes TILE x TILE values, PER x PER a thread, of two strips that pass through shared
 * memory DEPTH values at a time.  A convolution is the product of the picture's neighbourhoods and the kernels.
 */
#include "kernels/cuda/device.h"

enum {
	SIDE = 16,
	PER = 4,
	TILE = SIDE * PER,
	DEPTH = 16,
	ROW = TILE + 4 /* apart in shared memory: fewer conflicts */
};

/* ---- products ---------------------------------------------------------------------------------------------------- */

template <typename T> struct rows_of {
	const T *data;
	int64_t stride;

	DEVICE float operator()(int64_t row, int depth) const
	{
		return get(data[row * stride + depth]);
	}
};

struct codes_of {
	const int8_t *data;
	int64_t stride;

	DEVICE int32_t operator()(int64_t row, int depth) const
	{
		return data[row * stride + depth];
	}
};

/* Rows: places of the output.  Depth: [dy][dx][in] of the (enlarged, cropped) picture around them. */
template <typename T> struct neighbourhoods {
	const T *data;
	int width, in, kernel, stride, shrink; /* width: of x; shrink: 2 where it is enlarged */
	int seen_h, seen_w, out_w;             /* seen: the picture that the kernel goes over */

	DEVICE float operator()(int64_t row, int depth) const
	{
		const int tap = depth / in, channel = depth % in, half = kernel / 2;
		const int y = (int)row / out_w * stride + tap / kernel - half;
		const int x = (int)row % out_w * stride + tap % kernel - half;

		if (y < 0 || y >= seen_h || x < 0 || x >= seen_w)
			return 0;
		return get(data[((int64_t)(y / shrink) * width + x / shrink) * in + channel]);
	}
};

/* y = activation(sum + bias) (+ y) */
template <typename Y> struct result {
	Y *data;
	int64_t stride;
	const float *bias;
	enum activation activation;
	bool accumulate;

	DEVICE void operator()(int64_t row, int64_t column, float x) const
	{
		Y &y = data[row * stride + column];

		x = activate(activation, bias ? x + bias[column] : x);
		set(y, accumulate ? x + get(y) : x);
	}
};

template <typename S> struct plain_sums {
	S *data;
	int64_t stride;

	DEVICE void operator()(int64_t row, int64_t column, S x) const
	{
		data[row * stride + column] = x;
	}
};

/* One strip: shared[depth][row] of TILE rows from `first` on; zeros outside. */
template <typename F, typename S>
DEVICE void strip_load(const F &from, int64_t first, int64_t rows, int start, int depth, S *shared)
{
#pragma unroll 1
	for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += SIDE * SIDE) {
		const int row = i / DEPTH, d = i % DEPTH;
		const bool inside = first + row < rows && start + d < depth;

		shared[d * ROW + row] = inside ? from(first + row, start + d) : 0;
	}
}

/* S: what sums are made of, float or int32_t. */
template <typename S, typename A, typename B, typename C>
__global__ void __launch_bounds__(SIDE *SIDE) product_kernel(A a, B b, C c, int64_t m, int64_t n, int depth)
{
	SHARED(S, left, DEPTH * ROW);
	SHARED(S, right, DEPTH * ROW);
	const int64_t first_row = (int64_t)blockIdx.x * TILE, first_column = (int64_t)blockIdx.y * TILE;
	const int ty = (int)threadIdx.x / SIDE, tx = (int)threadIdx.x % SIDE;
	S sums[PER][PER] = {};

	for (int start = 0; start < depth; start += DEPTH) {
		strip_load(a, first_row, m, start, depth, left);
		strip_load(b, first_column, n, start, depth, right);
		__syncthreads();
#pragma unroll 4
		for (int d = 0; d < DEPTH; d++) {
			const vector<S, PER> u = *(const vector<S, PER> *)(left + d * ROW + ty * PER);
			const vector<S, PER> v = *(const vector<S, PER> *)(right + d * ROW + tx * PER);

#pragma unroll
			for (int i = 0; i < PER; i++)
#pragma unroll
				for (int j = 0; j < PER; j++)
					sums[i][j] += u.at[i] * v.at[j];
		}
		__syncthreads();
	}
#pragma unroll
	for (int i = 0; i < PER; i++)
#pragma unroll
		for (int j = 0; j < PER; j++) {
			const int64_t row = first_row + ty * PER + i, column = first_column + tx * PER + j;

			if (row < m && column < n)
				c(row, column, sums[i][j]);
		}
}

template <typename S, typename A, typename B, typename C>
static int product_launch(cuda_stream stream, A a, B b, C c, int64_t m, int64_t n, int64_t depth)
{
	const dim3 grid((unsigned)ceil_div(m, TILE), (unsigned)ceil_div(n, TILE));

	return launch(stream, product_kernel<S, A, B, C>, grid, SIDE * SIDE, a, b, c, m, n, (int)depth);
}

int cuda_linear(cuda_stream stream, const struct linear *op)
{
	return with_type(op->x.dtype, [&](auto x) {
		return with_type(op->y.dtype, [&](auto y) {
			using X = decltype(x);
			using Y = decltype(y);
			const rows_of<X> a = { (const X *)op->x.data, op->x.stride[0] };
			const rows_of<X> b = { (const X *)op->w->data, op->w->k };
			const result<Y> c = { (Y *)op->y.data, op->y.stride[0], table_data(op->bias), op->activation,
				op->accumulate };

			return product_launch<float>(stream, a, b, c, op->x.dim[0], op->w->n, op->w->k);
		});
	});
}

int cuda_multiply_codes(cuda_stream stream, enum quantized from, const void *x, const void *w, int64_t m, int64_t n,
	int64_t k, void *sums)
{
	if (from == QUANTIZED_I8)
		return product_launch<int32_t>(stream, codes_of{ (const int8_t *)x, k },
			codes_of{ (const int8_t *)w, k }, plain_sums<int32_t>{ (int32_t *)sums, n }, m, n, k);
	return product_launch<float>(stream, rows_of<e4m3>{ (const e4m3 *)x, k }, rows_of<e4m3>{ (const e4m3 *)w, k },
		plain_sums<float>{ (float *)sums, n }, m, n, k);
}

template <typename X> static neighbourhoods<X> neighbourhoods_of(const struct conv *op)
{
	const struct tensor *seen = op->upsample ? &op->y : &op->x;
	neighbourhoods<X> a = {};

	a.data = (const X *)op->x.data;
	a.width = (int)op->x.dim[1];
	a.in = (int)op->w->k;
	a.kernel = op->w->kernel;
	a.stride = op->stride == 2 ? 2 : 1;
	a.shrink = op->upsample ? 2 : 1;
	a.seen_h = (int)seen->dim[0];
	a.seen_w = (int)seen->dim[1];
	a.out_w = (int)op->y.dim[1];
	return a;
}

int cuda_conv(cuda_stream stream, const struct conv *op)
{
	const int64_t depth = op->w->k * op->w->kernel * op->w->kernel;

	return with_type(op->x.dtype, [&](auto x) {
		return with_type(op->y.dtype, [&](auto y) {
			using X = decltype(x);
			using Y = decltype(y);
			const rows_of<X> b = { (const X *)op->w->data, depth };
			const result<Y> c = { (Y *)op->y.data, op->w->n, table_data(op->bias), ACTIVATION_NONE,
				op->accumulate };

			return product_launch<float>(
				stream, neighbourhoods_of<X>(op), b, c, op->y.dim[0] * op->y.dim[1], op->w->n, depth);
		});
	});
}

/* ---- the layout of convolution kernels --------------------------------------------------------------------------- */

/* to[n][tap][k] = from[n][k][tap] */
template <typename T>
__global__ void __launch_bounds__(BLOCK_MAX) conv_layout_kernel(const T *from, int64_t count, int k, int taps, T *to)
{
	const int64_t at = (int64_t)blockIdx.x * BLOCK_MAX + threadIdx.x;

	if (at < count)
		to[at] = from[(at / k / taps * k + at % k) * taps + at / k % taps];
}

template <typename T>
static int conv_layout_launch(cuda_stream stream, const void *from, int64_t n, int64_t k, int kernel, void *to)
{
	const int64_t count = n * k * kernel * kernel;

	return launch(stream, conv_layout_kernel<T>, (unsigned)ceil_div(count, BLOCK_MAX), BLOCK_MAX, (const T *)from,
		count, (int)k, kernel * kernel, (T *)to);
}

int cuda_conv_layout(cuda_stream stream, const void *from, int64_t n, int64_t k, int kernel, size_t size, void *to)
{
	return size == 4 ? conv_layout_launch<uint32_t>(stream, from, n, k, kernel, to)
			 : conv_layout_launch<uint16_t>(stream, from, n, k, kernel, to);
}

/* ---- attention ---------------------------------------------------------------------------------------------------
 *
 * A block makes QUERIES rows of one head and goes over the keys KEYS at a time, with the running maximum and sum of
 * softmax.  16 threads share a row: thread c of them has the scores of keys c and c + 16 of the group, and values c,
 * c + 16, .. of the output.  K and V pass through shared memory CHUNK values of a head at a time. */

enum { QUERIES = 16, SHARE = 16, KEYS = 32, CHUNK = 32, PAD = CHUNK + 1 };

struct attention_args {
	int64_t q_stride[2], k_stride[2], v_stride[2], out_stride[2], bias_stride[2]; /* rows, heads; bias: head, row */
	int rows, keys, head_dim, share; /* share: query heads of a key head */
	float scale;
	bool causal;
	const float *bias;
};

/* shared[key][value] of one chunk of KEYS heads; zeros outside. */
template <typename T>
DEVICE void chunk_load(const T *from, int64_t stride, int first, int keys, int start, int head_dim, float *shared)
{
#pragma unroll 1
	for (int i = (int)threadIdx.x; i < KEYS * CHUNK; i += QUERIES * SHARE) {
		const int key = i / CHUNK, d = i % CHUNK;
		const bool inside = first + key < keys && start + d < head_dim;

		shared[key * PAD + d] = inside ? get(from[(first + key) * stride + start + d]) : 0;
	}
}

template <typename F> DEVICE float row_reduce(F f, float x)
{
#pragma unroll
	for (int lane = SHARE / 2; lane; lane /= 2)
		x = f(x, __shfl_xor_sync(0xffffffffu, x, lane));
	return x;
}

struct maximum {
	DEVICE float operator()(float a, float b) const
	{
		return fmaxf(a, b);
	}
};

template <typename T, int DIM>
__global__ void __launch_bounds__(QUERIES *SHARE)
	attention_kernel(const T *q, const T *k, const T *v, T *out, attention_args op)
{
	SHARED(float, query, QUERIES *(DIM + 1));
	SHARED(float, chunk, KEYS *PAD);
	SHARED(float, weight, QUERIES *(KEYS + 1));
	const int head = (int)blockIdx.y, r = (int)threadIdx.x / SHARE, c = (int)threadIdx.x % SHARE;
	const int first_row = (int)blockIdx.x * QUERIES, row = first_row + r;
	const int last = op.causal ? min(op.keys, first_row + QUERIES) : op.keys;
	float values[DIM / SHARE] = {}, most = -INFINITY, total = 0;

	q += head * op.q_stride[1];
	k += head / op.share * op.k_stride[1];
	v += head / op.share * op.v_stride[1];
	for (int i = (int)threadIdx.x; i < QUERIES * DIM; i += QUERIES * SHARE) {
		const bool inside = first_row + i / DIM < op.rows && i % DIM < op.head_dim;

		query[i / DIM * (DIM + 1) + i % DIM] =
			inside ? get(q[(first_row + i / DIM) * op.q_stride[0] + i % DIM]) : 0;
	}
	for (int first = 0; first < last; first += KEYS) {
		float scores[2] = {}, highest, factor;

		for (int start = 0; start < op.head_dim; start += CHUNK) {
			__syncthreads();
			chunk_load(k, op.k_stride[0], first, op.keys, start, op.head_dim, chunk);
			__syncthreads();
#pragma unroll 4
			for (int d = 0; d < CHUNK; d++) {
				const float x = query[r * (DIM + 1) + start + d];

				scores[0] += x * chunk[c * PAD + d];
				scores[1] += x * chunk[(c + SHARE) * PAD + d];
			}
		}
#pragma unroll
		for (int i = 0; i < 2; i++) {
			const int key = first + c + i * SHARE;

			scores[i] *= op.scale;
			if (op.bias && key < op.keys && row < op.rows)
				scores[i] += op.bias[head * op.bias_stride[0] + row * op.bias_stride[1] + key];
			if (key >= op.keys || (op.causal && key > row))
				scores[i] = -INFINITY;
		}
		highest = fmaxf(most, row_reduce(maximum(), fmaxf(scores[0], scores[1])));
		/* a row whose keys are all forbidden so far has no maximum to take off */
		factor = most == -INFINITY ? 0 : expf(most - highest);
#pragma unroll
		for (int i = 0; i < 2; i++) {
			scores[i] = scores[i] == -INFINITY ? 0 : expf(scores[i] - highest);
			weight[r * (KEYS + 1) + c + i * SHARE] = scores[i];
		}
		total = total * factor + row_reduce(sum(), scores[0] + scores[1]);
		most = highest;
#pragma unroll
		for (int i = 0; i < DIM / CHUNK; i++) {
			if (i * CHUNK >= op.head_dim)
				break;
			__syncthreads();
			chunk_load(v, op.v_stride[0], first, op.keys, i * CHUNK, op.head_dim, chunk);
			__syncthreads();
			values[2 * i] *= factor;
			values[2 * i + 1] *= factor;
#pragma unroll 4
			for (int key = 0; key < KEYS; key++) {
				const float p = weight[r * (KEYS + 1) + key];

				values[2 * i] += p * chunk[key * PAD + c];
				values[2 * i + 1] += p * chunk[key * PAD + c + SHARE];
			}
		}
	}
	if (row >= op.rows)
		return;
	out += row * op.out_stride[0] + head * op.out_stride[1];
#pragma unroll
	for (int i = 0; i < DIM / SHARE; i++)
		if (i * SHARE + c < op.head_dim)
			set(out[i * SHARE + c], values[i] / total);
}

template <typename T, int DIM>
static int attention_launch(cuda_stream stream, const struct attention *op, const attention_args &args)
{
	const dim3 grid((unsigned)ceil_div(op->q.dim[0], QUERIES), (unsigned)op->q.dim[1]);

	return launch(stream, attention_kernel<T, DIM>, grid, QUERIES * SHARE, (const T *)op->q.data,
		(const T *)op->k.data, (const T *)op->v.data, (T *)op->out.data, args);
}

static attention_args attention_args_of(const struct attention *op)
{
	attention_args a = {};

	for (int i = 0; i < 2; i++) {
		a.q_stride[i] = op->q.stride[i];
		a.k_stride[i] = op->k.stride[i];
		a.v_stride[i] = op->v.stride[i];
		a.out_stride[i] = op->out.stride[i];
	}
	a.bias_stride[0] = op->bias.dim[0] == 1 ? 0 : op->bias.stride[0];
	a.bias_stride[1] = op->bias.stride[1];
	a.rows = (int)op->q.dim[0];
	a.keys = (int)op->k.dim[0];
	a.head_dim = (int)op->q.dim[2];
	a.share = (int)(op->q.dim[1] / op->k.dim[1]);
	a.scale = op->scale;
	a.causal = op->causal;
	a.bias = (const float *)op->bias.data;
	return a;
}

int cuda_attention(cuda_stream stream, const struct attention *op)
{
	const attention_args args = attention_args_of(op);

	return with_type(op->q.dtype, [&](auto q) {
		using T = decltype(q);

		if (args.head_dim <= 64)
			return attention_launch<T, 64>(stream, op, args);
		if (args.head_dim <= 128)
			return attention_launch<T, 128>(stream, op, args);
		if (args.head_dim <= 512)
			return attention_launch<T, 512>(stream, op, args);
		return (int)cudaErrorNotSupported;
	});
}

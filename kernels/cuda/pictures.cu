/* pictures: sizes, layouts, pixels, patches, and the noise that pictures begin with.  A thread makes one value. */
#include "kernels/cuda/device.h"

template <typename F> __global__ void __launch_bounds__(BLOCK_MAX) values_kernel(int64_t count, F f)
{
	const int64_t at = (int64_t)blockIdx.x * BLOCK_MAX + threadIdx.x;

	if (at < count)
		f(at);
}

template <typename F> static int each_value(cuda_stream stream, int64_t count, F f)
{
	return launch(stream, values_kernel<F>, (unsigned)ceil_div(count, BLOCK_MAX), BLOCK_MAX, count, f);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

/* The place that PyTorch's "nearest" takes place i of n from, of `from` ones; its arithmetic is in f32. */
DEVICE int nearest(int i, int from, int n)
{
	const int at = (int)((float)i * ((float)from / (float)n));

	if (n == 2 * from)
		return i / 2;
	return n == from ? i : at < from ? at : from - 1;
}

template <typename X, typename Y> struct resize {
	const X *x;
	Y *y;
	int from_h, from_w, h, w, channels;

	DEVICE void operator()(int64_t at) const
	{
		const int c = (int)(at % channels), column = (int)(at / channels % w), row = (int)(at / channels / w);
		const int64_t place = (int64_t)nearest(row, from_h, h) * from_w + nearest(column, from_w, w);

		set(y[at], get(x[place * channels + c]));
	}
};

int cuda_resize_nearest(cuda_stream stream, const struct tensor *x, const struct tensor *y)
{
	return with_type(x->dtype, [&](auto from) {
		return with_type(y->dtype, [&](auto to) {
			using X = decltype(from);
			using Y = decltype(to);
			const resize<X, Y> f = { (const X *)x->data, (Y *)y->data, (int)x->dim[0], (int)x->dim[1],
				(int)y->dim[0], (int)y->dim[1], (int)y->dim[2] };

			return each_value(stream, y->dim[0] * y->dim[1] * y->dim[2], f);
		});
	});
}

template <typename X, typename Y> struct halve {
	const X *x;
	Y *y;
	int from_w, w, channels;

	DEVICE void operator()(int64_t at) const
	{
		const int c = (int)(at % channels), column = (int)(at / channels % w), row = (int)(at / channels / w);
		const X *corner = x + ((int64_t)2 * row * from_w + 2 * column) * channels + c;
		const int64_t below = (int64_t)from_w * channels;
		const float upper = get(corner[0]) + get(corner[channels]);
		const float lower = get(corner[below]) + get(corner[below + channels]);

		set(y[at], (upper + lower) / 4);
	}
};

int cuda_halve(cuda_stream stream, const struct tensor *x, const struct tensor *y)
{
	return with_type(x->dtype, [&](auto from) {
		return with_type(y->dtype, [&](auto to) {
			using X = decltype(from);
			using Y = decltype(to);
			const halve<X, Y> f = { (const X *)x->data, (Y *)y->data, (int)x->dim[1], (int)y->dim[1],
				(int)y->dim[2] };

			return each_value(stream, y->dim[0] * y->dim[1] * y->dim[2], f);
		});
	});
}

/* ---- latents ----------------------------------------------------------------------------------------------------- */

/* Where value `at` of rows of patches lies in latents [c, h, w]. */
struct patches {
	int channels, h, w, patch;

	DEVICE int64_t latent_of(int64_t row, int column) const
	{
		const int c = column % channels, dx = column / channels % patch, dy = column / channels / patch;
		const int64_t y = row / (w / patch) * patch + dy, x = row % (w / patch) * patch + dx;

		return (c * (int64_t)h + y) * w + x;
	}
};

template <typename T> struct patchify {
	const float *latents;
	T *rows;
	int64_t stride;
	int dim;
	patches p;

	DEVICE void operator()(int64_t at) const
	{
		set(rows[at / dim * stride + at % dim], latents[p.latent_of(at / dim, (int)(at % dim))]);
	}
};

template <typename T> struct unpatchify {
	const T *rows;
	float *latents;
	int64_t stride;
	int dim;
	float scale;
	patches p;

	DEVICE void operator()(int64_t at) const
	{
		latents[p.latent_of(at / dim, (int)(at % dim))] = scale * get(rows[at / dim * stride + at % dim]);
	}
};

static patches patches_of(const struct tensor *latents, int patch)
{
	return patches{ (int)latents->dim[0], (int)latents->dim[1], (int)latents->dim[2], patch };
}

int cuda_patchify(cuda_stream stream, const struct tensor *latents, int patch, const struct tensor *rows)
{
	return with_type(rows->dtype, [&](auto to) {
		using T = decltype(to);
		const patchify<T> f = { (const float *)latents->data, (T *)rows->data, rows->stride[0],
			(int)rows->dim[1], patches_of(latents, patch) };

		return each_value(stream, rows->dim[0] * rows->dim[1], f);
	});
}

int cuda_unpatchify(cuda_stream stream, const struct tensor *rows, int patch, float scale, const struct tensor *latents)
{
	return with_type(rows->dtype, [&](auto from) {
		using T = decltype(from);
		const unpatchify<T> f = { (const T *)rows->data, (float *)latents->data, rows->stride[0],
			(int)rows->dim[1], scale, patches_of(latents, patch) };

		return each_value(stream, rows->dim[0] * rows->dim[1], f);
	});
}

template <typename Y> struct to_nhwc {
	const float *x;
	Y *y;
	int64_t places;
	int channels;
	float scale, shift;

	DEVICE void operator()(int64_t at) const
	{
		set(y[at], x[at % channels * places + at / channels] * scale + shift);
	}
};

int cuda_to_nhwc(cuda_stream stream, const struct tensor *x, float scale, float shift, const struct tensor *y)
{
	return with_type(y->dtype, [&](auto to) {
		using Y = decltype(to);
		const to_nhwc<Y> f = { (const float *)x->data, (Y *)y->data, y->dim[0] * y->dim[1], (int)y->dim[2],
			scale, shift };

		return each_value(stream, f.places * f.channels, f);
	});
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

/* In f32, each operation rounded by itself, as the reference pipeline does it: the halves that round to even depend on
 * it. */
template <typename X> struct to_rgb8 {
	const X *x;
	uint8_t *rgb;

	DEVICE void operator()(int64_t at) const
	{
		const float unit = __fadd_rn(get(x[at]) / 2, 0.5f);

		/* NaN too becomes 0: all_finite is the place to find it */
		rgb[at] = unit > 0 ? (uint8_t)rintf(__fmul_rn(fminf(unit, 1), 255)) : 0;
	}
};

int cuda_to_rgb8(cuda_stream stream, const struct tensor *x, uint8_t *rgb)
{
	return with_type(x->dtype, [&](auto from) {
		using X = decltype(from);

		return each_value(stream, x->dim[0] * x->dim[1] * x->dim[2], to_rgb8<X>{ (const X *)x->data, rgb });
	});
}

/* ---- noise ------------------------------------------------------------------------------------------------------- */

/* Philox4x32-10 of one counter. */
DEVICE void philox(uint64_t low, uint64_t high, uint64_t key, uint32_t out[4])
{
	uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
	uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);

#pragma unroll
	for (int round = 0; round < 10; round++) {
		const uint32_t a = 0xd2511f53u * c0, b = 0xcd9e8d57u * c2;
		const uint32_t a_high = __umulhi(0xd2511f53u, c0), b_high = __umulhi(0xcd9e8d57u, c2);

		c0 = b_high ^ c1 ^ k0;
		c1 = b;
		c2 = a_high ^ c3 ^ k1;
		c3 = a;
		k0 += 0x9e3779b9u;
		k1 += 0xbb67ae85u;
	}
	out[0] = c0;
	out[1] = c1;
	out[2] = c2;
	out[3] = c3;
}

/* One call of one of PyTorch's threads: four values, `threads` apart. */
struct philox_normal {
	uint64_t seed, offset, threads;
	int64_t n;
	float *out;

	/* As engine/rng.c: float, but logarithm, sine and cosine in double, rounded once. */
	static DEVICE float normal(uint32_t a, uint32_t b, bool cosine)
	{
		const float u = __fadd_rn(__fmul_rn((float)a, 0x1p-32f), 0x1p-33f);
		const float angle = __fadd_rn(
			__fmul_rn((float)b, 0x1p-32f * 6.28318530717958647692f), 0x1p-33f * 6.28318530717958647692f);
		const float radius = sqrtf(__fmul_rn(-2, (float)log((double)u)));

		return __fmul_rn(radius, (float)(cosine ? cos((double)angle) : sin((double)angle)));
	}

	DEVICE void operator()(int64_t at) const
	{
		const uint64_t thread = (uint64_t)at % threads, call = (uint64_t)at / threads;
		uint32_t x[4];

		philox(offset / 4 + call, thread, seed, x);
		for (int i = 0; i < 4; i++) {
			const uint64_t to = thread + (call * 4 + (uint64_t)i) * threads;

			if (to < (uint64_t)n)
				out[to] = normal(x[i & 2], x[i | 1], i & 1);
		}
	}
};

int cuda_philox_normal(cuda_stream stream, uint64_t seed, uint64_t offset, uint64_t threads, int64_t n, float *out)
{
	const int64_t needed = ceil_div(n, 256) * 256, used = at_most(needed, (int64_t)threads);

	if (n <= 0)
		return cudaSuccess;
	return each_value(stream, ceil_div(n, 4 * used) * used, philox_normal{ seed, offset, (uint64_t)used, n, out });
}

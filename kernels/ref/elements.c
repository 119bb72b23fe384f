/* element by element operations of the reference backend. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

static double silu(double x)
{
	return x / (1 + exp(-x));
}

static double gelu(double x)
{
	return 0.5 * x * erfc(-x * 0.70710678118654752440);
}

static double gelu_tanh(double x)
{
	const double root = 0.79788456080286535588; /* sqrt(2 / pi) */

	return 0.5 * x * (1 + tanh(root * (x + 0.044715 * x * x * x)));
}

double ref_activate(enum activation f, double x)
{
	switch (f) {
	case ACTIVATION_NONE:
		break;
	case ACTIVATION_SILU:
		return silu(x);
	case ACTIVATION_GELU:
		return gelu(x);
	case ACTIVATION_GELU_TANH:
		return gelu_tanh(x);
	case ACTIVATION_QUICK_GELU:
		return x / (1 + exp(-1.702 * x));
	}
	return x;
}

enum status ref_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	for (int64_t i = 0; i < y.dim[0]; i++)
		for (int64_t j = 0; j < y.dim[1]; j++)
			ref_set(&y, i, j, 0, (float)(ref_activate(f, ref_get(&gate, i, j, 0)) * ref_get(&up, i, j, 0)));
	return STATUS_OK;
}

static double unary(enum unary f, double x, double y)
{
	switch (f) {
	case UNARY_COPY:
		break;
	case UNARY_SILU:
		return silu(x);
	case UNARY_TANH:
		return tanh(x);
	case UNARY_GELU:
		return gelu(x);
	case UNARY_QUICK_GELU:
		return ref_activate(ACTIVATION_QUICK_GELU, x);
	case UNARY_ADD:
		return x + y;
	case UNARY_MULTIPLY:
		return x * y;
	}
	return x;
}

enum status ref_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	for (int64_t i = 0; i < y.dim[0]; i++)
		for (int64_t j = 0; j < y.dim[1]; j++) {
			const double old = f >= UNARY_ADD ? ref_get(&y, i, j, 0) : 0;

			ref_set(&y, i, j, 0, (float)unary(f, ref_get(&x, i, j, 0), old));
		}
	return STATUS_OK;
}

enum status ref_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	for (int64_t i = 0; i < x.dim[0]; i++)
		for (int64_t j = 0; j < x.dim[1]; j++) {
			const double add = (gate ? (double)gate[j] : 1) * ref_get(&x, i, j, 0);

			ref_set(&stream, i, j, 0, (float)(ref_get(&stream, i, j, 0) + add));
		}
	return STATUS_OK;
}

enum status ref_add_row(struct kernels *k, struct tensor row, struct tensor y)
{
	for (int64_t i = 0; i < y.dim[0]; i++)
		for (int64_t j = 0; j < y.dim[1]; j++)
			ref_set(&y, i, j, 0, ref_get(&y, i, j, 0) + ((const float *)row.data)[j]);
	return STATUS_OK;
}

enum status ref_clamp(struct kernels *k, float low, float high, struct tensor y)
{
	float *to = y.data;

	for (int64_t i = 0; i < tensor_count(&y); i++)
		to[i] = to[i] < low ? low : to[i] > high ? high : to[i];
	return STATUS_OK;
}

/* The place that PyTorch's "nearest" takes place i of n from, of `from` ones; its arithmetic is in f32. */
static int64_t nearest(int64_t i, int64_t from, int64_t n)
{
	const float scale = (float)from / (float)n;
	const int64_t at = (int64_t)((float)i * scale);

	if (n == 2 * from)
		return i / 2;
	return n == from ? i : at < from ? at : from - 1;
}

enum status ref_resize_nearest(struct kernels *k, struct tensor x, struct tensor y)
{
	const size_t size = (size_t)y.dim[2] * dtype_size(y.dtype);

#pragma omp parallel for schedule(static) if (tensor_count(&y) > 1 << 16)
	for (int64_t i = 0; i < y.dim[0]; i++)
		for (int64_t j = 0; j < y.dim[1]; j++) {
			const int64_t row = nearest(i, x.dim[0], y.dim[0]), column = nearest(j, x.dim[1], y.dim[1]);

			if (x.dtype == y.dtype)
				memcpy((char *)y.data + (size_t)(i * y.dim[1] + j) * size,
					(const char *)x.data + (size_t)(row * x.dim[1] + column) * size, size);
			else
				for (int64_t c = 0; c < y.dim[2]; c++)
					ref_set(&y, i, j, c, ref_get(&x, row, column, c));
		}
	return STATUS_OK;
}

enum status ref_halve(struct kernels *k, struct tensor x, struct tensor y)
{
#pragma omp parallel for schedule(static) if (tensor_count(&y) > 1 << 14)
	for (int64_t i = 0; i < y.dim[0]; i++)
		for (int64_t j = 0; j < y.dim[1]; j++)
			for (int64_t c = 0; c < y.dim[2]; c++) {
				const float upper = ref_get(&x, 2 * i, 2 * j, c) + ref_get(&x, 2 * i, 2 * j + 1, c);
				const float lower =
					ref_get(&x, 2 * i + 1, 2 * j, c) + ref_get(&x, 2 * i + 1, 2 * j + 1, c);

				ref_set(&y, i, j, c, (upper + lower) / 4);
			}
	return STATUS_OK;
}

enum status ref_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y)
{
	const float *from = x.data;
	float *to = y.data;

	for (int64_t i = 0; i < tensor_count(&y); i++)
		to[i] = (float)((double)a * from[i] + (double)b * to[i]);
	return STATUS_OK;
}

enum status ref_fill_rows(struct kernels *k, struct tensor row, struct tensor y)
{
	for (int64_t i = 0; i < y.dim[0]; i++)
		memcpy((float *)y.data + i * y.stride[0], row.data, (size_t)row.dim[0] * sizeof(float));
	return STATUS_OK;
}

/* Where latents [c, h, w] lie in rows of patches. */
static void place_in_rows(
	const struct tensor *latents, int patch, int64_t channel, int64_t y, int64_t x, int64_t *row, int64_t *column)
{
	*row = y / patch * (latents->dim[2] / patch) + x / patch;
	*column = (y % patch * patch + x % patch) * latents->dim[0] + channel;
}

enum status ref_patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows)
{
	for (int64_t c = 0; c < latents.dim[0]; c++)
		for (int64_t y = 0; y < latents.dim[1]; y++)
			for (int64_t x = 0; x < latents.dim[2]; x++) {
				int64_t row, column;

				place_in_rows(&latents, patch, c, y, x, &row, &column);
				ref_set(&rows, row, column, 0, ref_get(&latents, c, y, x));
			}
	return STATUS_OK;
}

enum status ref_unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents)
{
	for (int64_t c = 0; c < latents.dim[0]; c++)
		for (int64_t y = 0; y < latents.dim[1]; y++)
			for (int64_t x = 0; x < latents.dim[2]; x++) {
				int64_t row, column;

				place_in_rows(&latents, patch, c, y, x, &row, &column);
				ref_set(&latents, c, y, x, scale * ref_get(&rows, row, column, 0));
			}
	return STATUS_OK;
}

enum status ref_to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y)
{
	for (int64_t row = 0; row < y.dim[0]; row++)
		for (int64_t column = 0; column < y.dim[1]; column++)
			for (int64_t c = 0; c < y.dim[2]; c++)
				ref_set(&y, row, column, c,
					(float)((double)ref_get(&x, c, row, column) * scale + shift));
	return STATUS_OK;
}

/* In f32, as the reference pipeline does it: the halves that round to even depend on it. */
static uint8_t pixel(float x)
{
	float unit = x / 2 + 0.5f;

	if (!(unit > 0)) /* NaN too: all_finite is the place to find it */
		return 0;
	return (uint8_t)rintf((unit < 1 ? unit : 1) * 255);
}

enum status ref_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	for (int64_t row = 0; row < x.dim[0]; row++)
		for (int64_t column = 0; column < x.dim[1]; column++)
			for (int64_t c = 0; c < 3; c++)
				*rgb++ = pixel(ref_get(&x, row, column, c));
	return STATUS_OK;
}

enum status ref_all_finite(struct kernels *k, struct tensor x, bool *out)
{
	*out = tensor_finite(x.data, x.dtype, tensor_count(&x));
	return STATUS_OK;
}

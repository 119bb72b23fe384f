/* gguf_encode: floats to blocks, with the arithmetic of the Python package gguf (quants.py), in float throughout. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "engine/fp8.h"
#include "engine/gguf_blocks.h"
#include "kernels/kernels.h"

static void put_u16(unsigned char *p, uint16_t x)
{
	p[0] = (unsigned char)x;
	p[1] = (unsigned char)(x >> 8);
}

static void put_half(unsigned char *p, float x)
{
	put_u16(p, f16_from_f32(x));
}

static int clip(float x, int most)
{
	return x < 0 ? 0 : x > (float)most ? most : (int)x;
}

/* ---- plain numbers ----------------------------------------------------------------------------------------------- */

static void encode_f32(const float *x, unsigned char *b)
{
	memcpy(b, x, 4);
}

static void encode_f16(const float *x, unsigned char *b)
{
	put_half(b, *x);
}

static void encode_bf16(const float *x, unsigned char *b)
{
	put_u16(b, bf16_from_f32(*x));
}

/* ---- 32 values --------------------------------------------------------------------------------------------------- */

/* Value i takes the low nibble of byte i, or the high one of byte i - 16; bits beyond the fourth go into *high. */
static void put_split(const int q[32], unsigned char *low, uint32_t *high)
{
	memset(low, 0, 16);
	*high = 0;
	for (int i = 0; i < 32; i++) {
		low[i % 16] |= (unsigned char)((q[i] & 15) << (i < 16 ? 0 : 4));
		*high |= (uint32_t)(q[i] >> 4) << i;
	}
}

/* The value farthest from zero, with its sign; the first of equals. */
static float extreme(const float *x)
{
	float most = x[0];

	for (int i = 1; i < 32; i++)
		if (fabsf(x[i]) > fabsf(most))
			most = x[i];
	return most;
}

/* Codes 0 .. 2 middle - 1 around a middle, which stands for zero. */
static float quantise_around(const float *x, int middle, int q[32])
{
	float d = extreme(x) / (float)-middle, inverse = d == 0 ? 0 : 1 / d;

	for (int i = 0; i < 32; i++)
		q[i] = clip(x[i] * inverse + ((float)middle + 0.5f), 2 * middle - 1);
	return d;
}

/* Codes 0 .. most from the smallest value to the largest. */
static float quantise_between(const float *x, int most, int q[32], float *low)
{
	float high = x[0], d, inverse;

	*low = x[0];
	for (int i = 1; i < 32; i++) {
		*low = x[i] < *low ? x[i] : *low;
		high = x[i] > high ? x[i] : high;
	}
	d = (high - *low) / (float)most;
	inverse = d == 0 ? 0 : 1 / d;
	for (int i = 0; i < 32; i++)
		q[i] = clip((x[i] - *low) * inverse + 0.5f, most);
	return d;
}

static void encode_q4_0(const float *x, unsigned char *b)
{
	uint32_t high;
	int q[32];

	put_half(b, quantise_around(x, 8, q));
	put_split(q, b + 2, &high);
}

static void encode_q5_0(const float *x, unsigned char *b)
{
	uint32_t high;
	int q[32];

	put_half(b, quantise_around(x, 16, q));
	put_split(q, b + 6, &high);
	memcpy(b + 2, &high, 4);
}

static void encode_q4_1(const float *x, unsigned char *b)
{
	uint32_t high;
	float low;
	int q[32];

	put_half(b, quantise_between(x, 15, q, &low));
	put_half(b + 2, low);
	put_split(q, b + 4, &high);
}

static void encode_q5_1(const float *x, unsigned char *b)
{
	uint32_t high;
	float low;
	int q[32];

	put_half(b, quantise_between(x, 31, q, &low));
	put_half(b + 2, low);
	put_split(q, b + 8, &high);
	memcpy(b + 4, &high, 4);
}

static void encode_q8_0(const float *x, unsigned char *b)
{
	float d = fabsf(extreme(x)) / 127, inverse = d == 0 ? 0 : 1 / d;

	put_half(b, d);
	for (int i = 0; i < 32; i++)
		b[2 + i] = (unsigned char)(int8_t)roundf(x[i] * inverse);
}

/* ---- Q4_K: 8 groups of 32 values, each code * scale - min, scales and mins in 6 bits ------------------------------
 */

/* The squared error of a group with these; q may be NULL. */
static float group_error(const float *x, float scale, float min, int *q)
{
	float inverse = scale > 0 ? 1 / scale : 0, error = 0;

	for (int i = 0; i < 32; i++) {
		int code = clip((x[i] + min) * inverse + 0.5f, 15);
		float off = (float)code * scale - min - x[i];

		error += off * off;
		if (q)
			q[i] = code;
	}
	return error;
}

/* The scale and min of least squared error for these codes; false where all codes are the same. */
static bool fit_line(const float *x, const int *q, float *scale, float *min)
{
	float n = 32, sum_q = 0, sum_q2 = 0, sum_x = 0, sum_qx = 0, determinant;

	for (int i = 0; i < 32; i++) {
		float code = (float)q[i];

		sum_q += code;
		sum_q2 += code * code;
		sum_x += x[i];
		sum_qx += code * x[i];
	}
	determinant = n * sum_q2 - sum_q * sum_q;
	if (determinant <= 0)
		return false;
	*scale = (n * sum_qx - sum_x * sum_q) / determinant;
	*min = (sum_q * sum_qx - sum_q2 * sum_x) / determinant;
	if (*min < 0) { /* cannot be stored: the line through zero instead */
		*min = 0;
		*scale = sum_qx / sum_q2;
	}
	return true;
}

/* Codes for spans a little smaller and larger than that of the values, each with the line that fits them best. */
static void fit_group(const float *x, float *scale, float *min)
{
	float low = 0, high = x[0], best;

	for (int i = 0; i < 32; i++) {
		low = x[i] < low ? x[i] : low;
		high = x[i] > high ? x[i] : high;
	}
	*scale = (high - low) / 15;
	*min = -low;
	best = group_error(x, *scale, *min, NULL);
	for (int step = -10; step <= 10 && high > low; step++) {
		float try_scale, try_min, error;
		int q[32];

		group_error(x, (high - low) / (15 + (float)step * 0.1f), -low, q);
		if (!fit_line(x, q, &try_scale, &try_min) || try_scale <= 0)
			continue;
		error = group_error(x, try_scale, try_min, NULL);
		if (error < best) {
			best = error;
			*scale = try_scale;
			*min = try_min;
		}
	}
}

static void put_scale_min(unsigned char *p, int k, int scale, int min)
{
	if (k < 4) {
		p[k] |= (unsigned char)scale;
		p[k + 4] |= (unsigned char)min;
	} else {
		p[k + 4] = (unsigned char)((scale & 15) | (min & 15) << 4);
		p[k - 4] |= (unsigned char)(scale >> 4 << 6);
		p[k] |= (unsigned char)(min >> 4 << 6);
	}
}

static void encode_q4_k(const float *x, unsigned char *b)
{
	float scale[8], min[8], most_scale = 0, most_min = 0, d, m;

	for (int k = 0; k < 8; k++) {
		fit_group(x + 32 * k, &scale[k], &min[k]);
		most_scale = fmaxf(most_scale, scale[k]);
		most_min = fmaxf(most_min, min[k]);
	}
	memset(b, 0, 144);
	put_half(b, most_scale / 63);
	put_half(b + 2, most_min / 63);
	d = f16_to_f32(f16_from_f32(most_scale / 63));
	m = f16_to_f32(f16_from_f32(most_min / 63));
	for (int k = 0; k < 8; k++) {
		int s = d > 0 ? clip(scale[k] / d + 0.5f, 63) : 0, o = m > 0 ? clip(min[k] / m + 0.5f, 63) : 0, q[32];

		put_scale_min(b + 4, k, s, o);
		group_error(x + 32 * k, d * (float)s, m * (float)o, q);
		for (int i = 0; i < 32; i++)
			b[16 + k / 2 * 32 + i] |= (unsigned char)(q[i] << 4 * (k & 1));
	}
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

void gguf_encode(enum gguf_type type, const float *values, int64_t n, unsigned char *out)
{
	static void (*const encode[])(const float *x, unsigned char *b) = {
		[GGUF_F32] = encode_f32,
		[GGUF_F16] = encode_f16,
		[GGUF_BF16] = encode_bf16,
		[GGUF_Q4_0] = encode_q4_0,
		[GGUF_Q4_1] = encode_q4_1,
		[GGUF_Q5_0] = encode_q5_0,
		[GGUF_Q5_1] = encode_q5_1,
		[GGUF_Q8_0] = encode_q8_0,
		[GGUF_Q4_K] = encode_q4_k,
	};
	const struct gguf_block *block = gguf_block(type);

	for (int64_t i = 0; i < n; i += block->values, out += block->bytes)
		encode[type](values + i, out);
}

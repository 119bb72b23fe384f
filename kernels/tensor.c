/* tensor: dtypes, views and conversions, without a device. */
#include "kernels/backend.h"

#include <math.h>
#include <string.h>

static const struct {
	const char *name;
	size_t size;
} dtypes[DTYPE_COUNT] = {
	[DTYPE_F32] = { "f32", 4 },
	[DTYPE_BF16] = { "bf16", 2 },
	[DTYPE_F16] = { "f16", 2 },
	[DTYPE_U8] = { "u8", 1 },
	[DTYPE_I64] = { "i64", 8 },
	[DTYPE_F8_E4M3] = { "f8_e4m3", 1 },
	[DTYPE_F8_E5M2] = { "f8_e5m2", 1 },
	[DTYPE_I8] = { "int8", 1 },
	[DTYPE_OTHER] = { "other", 0 },
};

size_t dtype_size(enum dtype dtype)
{
	return dtype >= 0 && dtype < DTYPE_COUNT ? dtypes[dtype].size : 0;
}

const char *dtype_name(enum dtype dtype)
{
	return dtype >= 0 && dtype < DTYPE_COUNT ? dtypes[dtype].name : "unknown";
}

static uint32_t bits_of(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static float float_of(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

float bf16_to_f32(uint16_t x)
{
	return float_of((uint32_t)x << 16);
}

uint16_t bf16_from_f32(float x)
{
	uint32_t bits = bits_of(x);

	uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;

	/* a NaN whose payload lies in the lost half must not become infinity; no branch, so that loops vectorise */
	return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40 : rounded);
}

float f16_to_f32(uint16_t x)
{
	uint32_t sign = (uint32_t)(x & 0x8000) << 16;
	uint32_t exponent = x >> 10 & 0x1f, fraction = x & 0x3ff;

	if (exponent == 0x1f)
		return float_of(sign | 0x7f800000u | fraction << 13);
	if (exponent == 0) /* zero and subnormals: fraction * 2^-24, exact in f32 */
		return float_of(sign | bits_of((float)fraction * 0x1p-24f));
	return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

struct tensor tensor_view(void *data, enum dtype dtype, int rank, const int64_t *dim)
{
	struct tensor t = { .data = data, .dtype = dtype, .rank = rank };
	int64_t stride = 1;

	for (int i = TENSOR_RANK_MAX - 1; i >= 0; i--) {
		t.dim[i] = i < rank ? dim[i] : 1;
		t.stride[i] = stride;
		stride *= t.dim[i];
	}
	return t;
}

struct tensor tensor_slice(struct tensor t, int axis, int64_t start, int64_t count)
{
	t.data = (char *)t.data + start * t.stride[axis] * (int64_t)dtype_size(t.dtype);
	t.dim[axis] = count;
	return t;
}

int64_t tensor_count(const struct tensor *t)
{
	int64_t count = 1;

	for (int i = 0; i < t->rank; i++)
		count *= t->dim[i];
	return count;
}

bool tensor_contiguous(const struct tensor *t)
{
	int64_t stride = 1;

	for (int i = t->rank - 1; i >= 0; i--) {
		if (t->dim[i] != 1 && t->stride[i] != stride)
			return false;
		stride *= t->dim[i];
	}
	return true;
}

/* The loops over whole weights say simd, since -O2 alone does not vectorise them: 12 GB pass through here. */
static void f32_to_bf16_run(const float *from, uint16_t *to, int64_t count)
{
#pragma omp simd
	for (int64_t i = 0; i < count; i++)
		to[i] = bf16_from_f32(from[i]);
}

static void bf16_to_f32_run(const uint16_t *from, float *to, int64_t count)
{
#pragma omp simd
	for (int64_t i = 0; i < count; i++)
		to[i] = bf16_to_f32(from[i]);
}

void tensor_convert(const void *from, enum dtype from_dtype, void *to, enum dtype to_dtype, int64_t count)
{
	const uint16_t *half = from;

	if (from_dtype == to_dtype)
		memcpy(to, from, (size_t)count * dtype_size(to_dtype));
	else if (from_dtype == DTYPE_F32)
		f32_to_bf16_run(from, to, count);
	else if (from_dtype == DTYPE_BF16)
		bf16_to_f32_run(from, to, count);
	else if (to_dtype == DTYPE_F32)
		for (int64_t i = 0; i < count; i++)
			((float *)to)[i] = f16_to_f32(half[i]);
	else
		for (int64_t i = 0; i < count; i++)
			((uint16_t *)to)[i] = bf16_from_f32(f16_to_f32(half[i]));
}

float tensor_quantise(const float *row, int64_t count, int8_t *codes)
{
	uint32_t most = 0; /* as bits: NaN is above infinity, and that above all numbers */
	float factor;

#pragma omp simd reduction(max : most)
	for (int64_t i = 0; i < count; i++) {
		uint32_t bits = bits_of(row[i]) & 0x7fffffffu;

		most = bits > most ? bits : most;
	}
	if (most >= 0x7f800000u || float_of(most) < 1e-30f) {
		memset(codes, 0, (size_t)count);
		return most >= 0x7f800000u ? NAN : 0;
	}
	factor = 127 / float_of(most);
#pragma omp simd
	for (int64_t i = 0; i < count; i++)
		codes[i] = (int8_t)rintf(row[i] * factor);
	return float_of(most) / 127;
}

/* All ones in the exponent: infinity or NaN. */
bool tensor_finite(const void *data, enum dtype dtype, int64_t count)
{
	const uint32_t *words = data;
	const uint16_t *halves = data;
	unsigned bad = 0;

	if (dtype == DTYPE_F32)
#pragma omp simd reduction(| : bad)
		for (int64_t i = 0; i < count; i++)
			bad |= (words[i] & 0x7f800000u) == 0x7f800000u;
	else
#pragma omp simd reduction(| : bad)
		for (int64_t i = 0; i < count; i++)
			bad |= (halves[i] & 0x7f80u) == 0x7f80u;
	return !bad;
}

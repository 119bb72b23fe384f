/* gguf_blocks: decoding.  A function a type decodes one block. */
#include "engine/gguf_blocks.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "engine/fp8.h"
#include "kernels/kernels.h"

static uint16_t u16(const unsigned char *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static float half_at(const unsigned char *p)
{
	return f16_to_f32(u16(p));
}

static int nibble(const unsigned char *p, int i)
{
	return p[i / 2] >> 4 * (i & 1) & 15;
}

/* ---- plain numbers ----------------------------------------------------------------------------------------------- */

static void decode_f32(const unsigned char *b, float *out)
{
	memcpy(out, b, 4);
}

static void decode_f16(const unsigned char *b, float *out)
{
	*out = half_at(b);
}

static void decode_bf16(const unsigned char *b, float *out)
{
	*out = bf16_to_f32(u16(b));
}

static void decode_i8(const unsigned char *b, float *out)
{
	*out = (float)(int8_t)*b;
}

static void decode_i16(const unsigned char *b, float *out)
{
	*out = (float)(int16_t)u16(b);
}

static void decode_i32(const unsigned char *b, float *out)
{
	*out = (float)(int32_t)u32(b);
}

static void decode_i64(const unsigned char *b, float *out)
{
	int64_t x;

	memcpy(&x, b, sizeof x);
	*out = (float)x;
}

static void decode_f64(const unsigned char *b, float *out)
{
	double x;

	memcpy(&x, b, sizeof x);
	*out = (float)x;
}

/* ---- 32 values, one or two factors ------------------------------------------------------------------------------- */

/* The low nibbles are the first 16 values. */
static int split_nibble(const unsigned char *p, int i)
{
	return i < 16 ? p[i] & 15 : p[i - 16] >> 4;
}

static void decode_q4_0(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float)(split_nibble(b + 2, i) - 8);
}

static void decode_q4_1(const unsigned char *b, float *out)
{
	float d = half_at(b), m = half_at(b + 2);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float)split_nibble(b + 4, i) + m;
}

static int five_bits(uint32_t high, const unsigned char *low, int i)
{
	return split_nibble(low, i) | (int)(high >> i & 1) << 4;
}

static void decode_q5_0(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float)(five_bits(u32(b + 2), b + 6, i) - 16);
}

static void decode_q5_1(const unsigned char *b, float *out)
{
	float d = half_at(b), m = half_at(b + 2);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float)five_bits(u32(b + 4), b + 8, i) + m;
}

static void decode_q8_0(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int i = 0; i < 32; i++)
		out[i] = (float)(int8_t)b[2 + i] * d;
}

static void decode_q8_1(const unsigned char *b, float *out)
{
	float d = half_at(b); /* the second half is the sum, for products */

	for (int i = 0; i < 32; i++)
		out[i] = (float)(int8_t)b[4 + i] * d;
}

/* ---- 256 values: the K types ------------------------------------------------------------------------------------- */

/* Two bits: 32 bytes hold 128 values, the lowest bits of all first. */
static int two_bits(const unsigned char *p, int i)
{
	return p[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

/* Four bits: 32 bytes hold 64 values. */
static int four_bits(const unsigned char *p, int i)
{
	return p[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

static void decode_q2_k(const unsigned char *b, float *out)
{
	float d = half_at(b + 80), min = half_at(b + 82);

	for (int i = 0; i < 256; i++) {
		float scale = d * (float)(b[i / 16] & 15), offset = min * (float)(b[i / 16] >> 4);

		out[i] = scale * (float)two_bits(b + 16, i) - offset;
	}
}

static void decode_q3_k(const unsigned char *b, float *out)
{
	const unsigned char *scales = b + 96;
	float d = half_at(b + 108);

	for (int i = 0; i < 256; i++) {
		int k = i / 16;
		int low = scales[k % 8] >> k / 8 * 4 & 15, high = scales[8 + k % 4] >> k / 4 * 2 & 3;
		int q = two_bits(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4);

		out[i] = d * (float)((low | high << 4) - 32) * (float)q;
	}
}

/* Eight pairs of 6 bits in 12 bytes. */
static void scale_min(const unsigned char *p, int k, int *scale, int *min)
{
	if (k < 4) {
		*scale = p[k] & 63;
		*min = p[k + 4] & 63;
	} else {
		*scale = (p[k + 4] & 15) | (p[k - 4] >> 6) << 4;
		*min = p[k + 4] >> 4 | (p[k] >> 6) << 4;
	}
}

static void decode_q4_k(const unsigned char *b, float *out)
{
	float d = half_at(b), m = half_at(b + 2);
	int scale, min;

	for (int i = 0; i < 256; i++) {
		scale_min(b + 4, i / 32, &scale, &min);
		out[i] = d * (float)scale * (float)four_bits(b + 16, i) - m * (float)min;
	}
}

static void decode_q5_k(const unsigned char *b, float *out)
{
	float d = half_at(b), m = half_at(b + 2);
	int scale, min;

	for (int i = 0; i < 256; i++) {
		int q = four_bits(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4;

		scale_min(b + 4, i / 32, &scale, &min);
		out[i] = d * (float)scale * (float)q - m * (float)min;
	}
}

static void decode_q6_k(const unsigned char *b, float *out)
{
	float d = half_at(b + 208);

	for (int i = 0; i < 256; i++) {
		int low = b[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
		int q = (low | two_bits(b + 128, i) << 4) - 32;

		out[i] = d * (float)(int8_t)b[192 + i / 16] * (float)q;
	}
}

static void decode_q8_k(const unsigned char *b, float *out)
{
	float d;

	memcpy(&d, b, sizeof d);
	for (int i = 0; i < 256; i++)
		out[i] = d * (float)(int8_t)b[4 + i];
}

/* ---- three values of a digit ------------------------------------------------------------------------------------- */

/* The n-th digit to base 3 of a byte: the byte is a fraction of 256. */
static int ternary(unsigned char byte, int n)
{
	static const int power[] = { 1, 3, 9, 27, 81 };

	return ((byte * power[n] & 255) * 3 >> 8) - 1;
}

static void decode_tq1_0(const unsigned char *b, float *out)
{
	float d = half_at(b + 52);

	for (int i = 0; i < 160; i++)
		out[i] = d * (float)ternary(b[i % 32], i / 32);
	for (int i = 0; i < 80; i++)
		out[160 + i] = d * (float)ternary(b[32 + i % 16], i / 16);
	for (int i = 0; i < 16; i++)
		out[240 + i] = d * (float)ternary(b[48 + i % 4], i / 4);
}

static void decode_tq2_0(const unsigned char *b, float *out)
{
	float d = half_at(b + 64);

	for (int i = 0; i < 256; i++)
		out[i] = d * (float)(two_bits(b, i) - 1);
}

/* ---- four-bit floats --------------------------------------------------------------------------------------------- */

static const int8_t e2m1_doubled[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static void decode_mxfp4(const unsigned char *b, float *out)
{
	uint32_t bits = b[0] < 2 ? 0x200000u << b[0] : (uint32_t)(b[0] - 1) << 23; /* 2^(e - 128) */
	float d;

	memcpy(&d, &bits, sizeof d);
	for (int i = 0; i < 32; i++)
		out[i] = d * (float)e2m1_doubled[split_nibble(b + 1, i)];
}

static void decode_nvfp4(const unsigned char *b, float *out)
{
	for (int i = 0; i < 64; i++) {
		unsigned char byte = b[4 + i / 16 * 8 + i % 8], code = b[i / 16];
		float d = code == 0x7f ? 0 : e4m3_to_f32(code & 0x7f) * 0.5f;

		out[i] = d * (float)e2m1_doubled[i % 16 < 8 ? byte & 15 : byte >> 4];
	}
}

/* ---- IQ: values from tables -------------------------------------------------------------------------------------- */

/* 7 bits say the signs of 8 values: their product is +1. */
static int even_signs(uint32_t seven)
{
	return (int)(seven | (uint32_t)__builtin_parity(seven) << 7);
}

static float signed_value(float x, int signs, int i)
{
	return x * (signs >> i & 1 ? -1.0f : 1.0f);
}

/* 8 values of a row of an IQ2 grid. */
static void put_iq2(float scale, uint16_t row, int signs, float *out)
{
	static const float value[4] = { 8, 25, 43, 0 };

	for (int i = 0; i < 8; i++)
		out[i] = signed_value(scale * value[row >> 2 * i & 3], signs, i);
}

/* 4 values of a row of an IQ3 grid. */
static void put_iq3(float scale, const float value[8], uint16_t row, int signs, float *out)
{
	for (int i = 0; i < 4; i++)
		out[i] = signed_value(scale * value[row >> 4 * i & 7], signs, i);
}

static void decode_iq2_xxs(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int l = 0; l < 32; l++) {
		const unsigned char *group = b + 2 + l / 4 * 8;
		uint32_t tail = u32(group + 4);
		float scale = d * (0.5f + (float)(tail >> 28)) * 0.25f;

		put_iq2(scale, gguf_grid_iq2_xxs[group[l % 4]], even_signs(tail >> 7 * (l % 4) & 127), out + 8 * l);
	}
}

static void decode_iq2_xs(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int l = 0; l < 32; l++) {
		uint16_t q = u16(b + 2 + 2 * l);
		float scale = d * (0.5f + (float)nibble(b + 66, l / 2)) * 0.25f;

		put_iq2(scale, gguf_grid_iq2_xs[q & 511], even_signs(q >> 9), out + 8 * l);
	}
}

static void decode_iq2_s(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int l = 0; l < 32; l++) {
		int q = b[2 + l] | (b[66 + l / 4] >> 2 * (l % 4) & 3) << 8;
		float scale = d * (0.5f + (float)nibble(b + 74, l / 2)) * 0.25f;

		put_iq2(scale, gguf_grid_iq2_s[q], b[34 + l], out + 8 * l);
	}
}

static void decode_iq3_xxs(const unsigned char *b, float *out)
{
	static const float value[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };
	float d = half_at(b);

	for (int l = 0; l < 64; l++) {
		uint32_t tail = u32(b + 66 + l / 8 * 4);
		float scale = d * (0.5f + (float)(tail >> 28)) * 0.5f;
		int signs = even_signs(tail >> 7 * (l % 8 / 2) & 127) >> 4 * (l & 1);

		put_iq3(scale, value, gguf_grid_iq3_xxs[b[2 + l]], signs, out + 4 * l);
	}
}

static void decode_iq3_s(const unsigned char *b, float *out)
{
	static const float value[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };
	float d = half_at(b);

	for (int l = 0; l < 64; l++) {
		int q = b[2 + l] | (b[66 + l / 8] >> l % 8 & 1) << 8;
		float scale = d * (float)(1 + 2 * nibble(b + 106, l / 8));

		put_iq3(scale, value, gguf_grid_iq3_s[q], b[74 + l / 2] >> 4 * (l & 1), out + 4 * l);
	}
}

/* 8 values -1, 0, 1 moved by an eighth. */
static void put_iq1(float scale, uint16_t row, bool down, float *out)
{
	for (int i = 0; i < 8; i++)
		out[i] = scale * ((float)((row >> 2 * i & 3) - 1) + (down ? -0.125f : 0.125f));
}

static void decode_iq1_s(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int l = 0; l < 32; l++) {
		uint16_t high = u16(b + 34 + l / 4 * 2);
		int q = b[2 + l] | (high >> 3 * (l % 4) & 7) << 8;

		put_iq1(d * (float)(2 * (high >> 12 & 7) + 1), gguf_grid_iq1_s[q], high >> 15, out + 8 * l);
	}
}

static void decode_iq1_m(const unsigned char *b, float *out)
{
	const unsigned char *scales = b + 48;
	uint16_t bits = 0;
	float d;

	/* the factor lies in the upper nibbles of the four words of scales */
	for (int i = 0; i < 4; i++)
		bits |= (uint16_t)((u16(scales + 2 * i) >> 12) << 4 * i);
	d = f16_to_f32(bits);
	for (int l = 0; l < 32; l++) {
		int high = nibble(b + 32, l), q = b[l] | (high & 7) << 8;
		int scale = u16(scales + l / 8 * 2) >> 3 * (l % 8 / 2) & 7;

		put_iq1(d * (float)(2 * scale + 1), gguf_grid_iq1_s[q], high & 8, out + 8 * l);
	}
}

static const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static void decode_iq4_nl(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float)iq4_values[split_nibble(b + 2, i)];
}

static void decode_iq4_xs(const unsigned char *b, float *out)
{
	float d = half_at(b);

	for (int i = 0; i < 256; i++) {
		int k = i / 32, scale = nibble(b + 4, k) | (u16(b + 2) >> 2 * k & 3) << 4;

		out[i] = d * (float)(scale - 32) * (float)iq4_values[split_nibble(b + 8 + 16 * k, i % 32)];
	}
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

static const struct type {
	struct gguf_block block;
	void (*decode)(const unsigned char *b, float *out);
} types[] = {
	[GGUF_F32] = { { "F32", 1, 4 }, decode_f32 },
	[GGUF_F16] = { { "F16", 1, 2 }, decode_f16 },
	[GGUF_Q4_0] = { { "Q4_0", 32, 18 }, decode_q4_0 },
	[GGUF_Q4_1] = { { "Q4_1", 32, 20 }, decode_q4_1 },
	[GGUF_Q5_0] = { { "Q5_0", 32, 22 }, decode_q5_0 },
	[GGUF_Q5_1] = { { "Q5_1", 32, 24 }, decode_q5_1 },
	[GGUF_Q8_0] = { { "Q8_0", 32, 34 }, decode_q8_0 },
	[GGUF_Q8_1] = { { "Q8_1", 32, 36 }, decode_q8_1 },
	[GGUF_Q2_K] = { { "Q2_K", 256, 84 }, decode_q2_k },
	[GGUF_Q3_K] = { { "Q3_K", 256, 110 }, decode_q3_k },
	[GGUF_Q4_K] = { { "Q4_K", 256, 144 }, decode_q4_k },
	[GGUF_Q5_K] = { { "Q5_K", 256, 176 }, decode_q5_k },
	[GGUF_Q6_K] = { { "Q6_K", 256, 210 }, decode_q6_k },
	[GGUF_Q8_K] = { { "Q8_K", 256, 292 }, decode_q8_k },
	[GGUF_IQ2_XXS] = { { "IQ2_XXS", 256, 66 }, decode_iq2_xxs },
	[GGUF_IQ2_XS] = { { "IQ2_XS", 256, 74 }, decode_iq2_xs },
	[GGUF_IQ3_XXS] = { { "IQ3_XXS", 256, 98 }, decode_iq3_xxs },
	[GGUF_IQ1_S] = { { "IQ1_S", 256, 50 }, decode_iq1_s },
	[GGUF_IQ4_NL] = { { "IQ4_NL", 32, 18 }, decode_iq4_nl },
	[GGUF_IQ3_S] = { { "IQ3_S", 256, 110 }, decode_iq3_s },
	[GGUF_IQ2_S] = { { "IQ2_S", 256, 82 }, decode_iq2_s },
	[GGUF_IQ4_XS] = { { "IQ4_XS", 256, 136 }, decode_iq4_xs },
	[GGUF_I8] = { { "I8", 1, 1 }, decode_i8 },
	[GGUF_I16] = { { "I16", 1, 2 }, decode_i16 },
	[GGUF_I32] = { { "I32", 1, 4 }, decode_i32 },
	[GGUF_I64] = { { "I64", 1, 8 }, decode_i64 },
	[GGUF_F64] = { { "F64", 1, 8 }, decode_f64 },
	[GGUF_IQ1_M] = { { "IQ1_M", 256, 56 }, decode_iq1_m },
	[GGUF_BF16] = { { "BF16", 1, 2 }, decode_bf16 },
	[GGUF_TQ1_0] = { { "TQ1_0", 256, 54 }, decode_tq1_0 },
	[GGUF_TQ2_0] = { { "TQ2_0", 256, 66 }, decode_tq2_0 },
	[GGUF_MXFP4] = { { "MXFP4", 32, 17 }, decode_mxfp4 },
	[GGUF_NVFP4] = { { "NVFP4", 64, 36 }, decode_nvfp4 },
};

const struct gguf_block *gguf_block(uint32_t type)
{
	return type < sizeof types / sizeof types[0] && types[type].decode ? &types[type].block : NULL;
}

void gguf_decode(enum gguf_type type, const unsigned char *blocks, int64_t n, float *out)
{
	const struct type *t = &types[type];

	for (int64_t i = 0; i < n; i += t->block.values, blocks += t->block.bytes)
		t->decode(blocks, out + i);
}

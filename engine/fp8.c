/* fp8: small floats to and from float. */
#include "engine/fp8.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/kernels.h"

/* A format of few bits: sign, exponent of this bias, mantissa.  `limit` is the code after the largest finite one. */
struct small {
	int mantissa_bits, bias;
	uint32_t limit;
	int sign_shift;
};

static const struct small e4m3 = { 3, 7, 0x7f, 7 }, half = { 10, 15, 0x7c00, 15 };

/* The code of |x|, rounded to nearest even; at least f->limit when it is too large. */
static uint32_t round_small(const struct small *f, float x)
{
	uint32_t bits, drop, rest, code;
	int exponent;

	memcpy(&bits, &x, sizeof bits);
	exponent = (int)(bits >> 23) - 127 + f->bias;
	bits &= 0x7fffff;
	drop = 23 - (uint32_t)f->mantissa_bits;
	if (exponent >= 1) {
		bits |= (uint32_t)exponent << 23;
	} else { /* subnormal: the leading one becomes part of the mantissa */
		bits |= 1u << 23;
		drop += (uint32_t)(1 - exponent);
		if (drop > 25)
			return 0;
	}
	code = bits >> drop;
	rest = bits & ((1u << drop) - 1);
	return code + (rest > 1u << (drop - 1) || (rest == 1u << (drop - 1) && code & 1));
}

static uint32_t from_float(const struct small *f, float x, uint32_t overflow)
{
	uint32_t sign = (uint32_t)(signbit(x) != 0) << f->sign_shift, code;

	x = fabsf(x);
	if (x > 1e6f)
		return sign | overflow;
	code = round_small(f, x);
	return sign | (code < f->limit ? code : overflow);
}

float e4m3_to_f32(uint8_t code)
{
	int exponent = code >> 3 & 15, mantissa = code & 7;
	float x = exponent ? ldexpf(1 + (float)mantissa / 8, exponent - 7) : (float)mantissa / 512;

	if ((code & 0x7f) == 0x7f)
		x = NAN;
	return code & 0x80 ? -x : x;
}

float e5m2_to_f32(uint8_t code)
{
	return f16_to_f32((uint16_t)(code << 8));
}

uint8_t e4m3_from_f32(float x)
{
	return isnan(x) ? (uint8_t)(signbit(x) ? 0xff : 0x7f) : (uint8_t)from_float(&e4m3, x, 0x7e);
}

uint8_t e5m2_from_f32(float x)
{
	static const struct small e5m2 = { 2, 15, 0x7c, 7 };

	return isnan(x) ? (uint8_t)(signbit(x) ? 0xff : 0x7f) : (uint8_t)from_float(&e5m2, x, 0x7c);
}

uint16_t f16_from_f32(float x)
{
	return isnan(x) ? 0x7e00 : (uint16_t)from_float(&half, x, 0x7c00);
}

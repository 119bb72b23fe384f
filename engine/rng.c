/* rng: the normal random numbers of PyTorch.
 *
 * Both kinds compute in float in the order of the reference, but take the logarithm, sine and cosine in double and
 * round once: the numbers are then the same on every machine.
 */
#include "engine/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MT_LEN = 624, MT_SHIFT = 397, BLOCK = 16 };

/* ---- MT19937 ----------------------------------------------------------------------------------------------------- */

static void mt_seed(struct rng *r, uint32_t seed)
{
	r->state[0] = seed;
	for (uint32_t i = 1; i < MT_LEN; i++)
		r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
	r->next = MT_LEN;
}

static void mt_refill(struct rng *r)
{
	uint32_t *s = r->state;

	for (int i = 0; i < MT_LEN; i++) {
		uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % MT_LEN] & 0x7fffffffu);

		s[i] = s[(i + MT_SHIFT) % MT_LEN] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
	}
	r->next = 0;
}

static uint32_t mt_draw(struct rng *r)
{
	uint32_t y;

	if (r->next >= MT_LEN)
		mt_refill(r);
	y = r->state[r->next++];
	y ^= y >> 11;
	y ^= y << 7 & 0x9d2c5680u;
	y ^= y << 15 & 0xefc60000u;
	return y ^ y >> 18;
}

/* ---- torch-cpu --------------------------------------------------------------------------------------------------- */

static void draw_uniforms(struct rng *r, int64_t n, float *out)
{
	for (int64_t i = 0; i < n; i++)
		out[i] = (float)(mt_draw(r) & 0xffffff) * 0x1p-24f;
}

/* 16 uniforms to 16 normals: element j with element j + 8. */
static void transform_block(float *x)
{
	for (int j = 0; j < BLOCK / 2; j++) {
		float radius = sqrtf(-2 * (float)log(1 - x[j]));
		float angle = (float)(2 * M_PI) * x[j + BLOCK / 2];

		x[j] = radius * (float)cos(angle);
		x[j + BLOCK / 2] = radius * (float)sin(angle);
	}
}

/* 16 values or more.  A rest is covered by 16 new uniforms over the last 16 elements.  `first`: how many uniforms are
 * drawn before that: all n for F32, whole blocks only for the 16-bit types. */
static void draw_large(struct rng *r, int64_t n, int64_t first, float *out)
{
	draw_uniforms(r, first, out);
	for (int64_t i = 0; i + BLOCK <= n; i += BLOCK)
		transform_block(out + i);
	if (n % BLOCK) {
		draw_uniforms(r, BLOCK, out + n - BLOCK);
		transform_block(out + n - BLOCK);
	}
}

static double draw_double(struct rng *r)
{
	uint64_t high = mt_draw(r), low = mt_draw(r);

	return (double)((high << 32 | low) & ((1ull << 53) - 1)) * 0x1p-53;
}

/* Fewer than 16 values come in pairs, whose second waits for the next such call. */
static double draw_one(struct rng *r)
{
	double angle, radius;

	if (r->has_cached) {
		r->has_cached = false;
		return r->cached;
	}
	angle = 2 * M_PI * draw_double(r);
	radius = sqrt(-2 * log1p(-draw_double(r)));
	r->cached = radius * sin(angle);
	r->has_cached = true;
	return radius * cos(angle);
}

static void draw_torch_cpu(struct rng *r, enum dtype dtype, int64_t n, float *out)
{
	if (n >= BLOCK) {
		draw_large(r, n, dtype == DTYPE_F32 ? n : n / BLOCK * BLOCK, out);
		return;
	}
	for (int64_t i = 0; i < n; i++)
		out[i] = (float)draw_one(r);
}

/* ---- philox ------------------------------------------------------------------------------------------------------ */

void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
	uint32_t k0 = key[0], k1 = key[1];

	memcpy(out, counter, 4 * sizeof *out);
	for (int round = 0; round < 10; round++) {
		uint64_t a = 0xd2511f53ull * out[0], b = 0xcd9e8d57ull * out[2];
		uint32_t next[4] = { (uint32_t)(b >> 32) ^ out[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ out[3] ^ k1,
			(uint32_t)a };

		memcpy(out, next, sizeof next);
		k0 += 0x9e3779b9u;
		k1 += 0xbb67ae85u;
	}
}

/* One of the four normals of four outputs: sine before cosine, other than torch-cpu. */
static float philox_normal(const uint32_t x[4], int which)
{
	const uint32_t *pair = x + which / 2 * 2;
	float u = (float)pair[0] * 0x1p-32f + 0x1p-33f;
	float angle = (float)pair[1] * (0x1p-32f * (float)(2 * M_PI)) + 0x1p-33f * (float)(2 * M_PI);
	float radius = sqrtf(-2 * (float)log(u));

	return radius * (float)(which % 2 ? cos(angle) : sin(angle));
}

/* What one thread of the device writes: every call gives four values, a grid apart. */
static void philox_thread(const struct rng *r, uint64_t thread, uint64_t threads, uint64_t n, float *out)
{
	uint32_t key[2] = { (uint32_t)r->seed, (uint32_t)(r->seed >> 32) };
	uint64_t call = r->offset / 4;

	for (uint64_t i = thread; i < n; call++) {
		uint32_t counter[4] = { (uint32_t)call, (uint32_t)(call >> 32), (uint32_t)thread,
			(uint32_t)(thread >> 32) },
			 x[4];

		rng_philox(counter, key, x);
		for (int which = 0; which < 4 && i < n; which++, i += threads)
			out[i] = philox_normal(x, which);
	}
}

static void draw_philox(struct rng *r, int64_t n, float *out)
{
	uint64_t count = (uint64_t)n, threads = (count + 255) / 256 * 256;

	if (n <= 0)
		return;
	if (threads > r->device_threads)
		threads = r->device_threads;
	for (uint64_t thread = 0; thread < threads; thread++)
		philox_thread(r, thread, threads, count, out);
	r->offset += 4 * ((count - 1) / (4 * threads) + 1);
}

/* ---- rounding ---------------------------------------------------------------------------------------------------- */

/* To the nearest half, ties to even.  Normal numbers are far from its largest value. */
static float round_f16(float x)
{
	int exponent;
	float step;

	frexpf(x, &exponent);
	step = ldexpf(1, exponent > -13 ? exponent - 11 : -24); /* below 2^-14 halves are 2^-24 apart */
	return rintf(x / step) * step;
}

static void round_to(enum dtype dtype, int64_t n, float *x)
{
	for (int64_t i = 0; i < n && dtype == DTYPE_BF16; i++)
		x[i] = bf16_to_f32(bf16_from_f32(x[i]));
	for (int64_t i = 0; i < n && dtype == DTYPE_F16; i++)
		x[i] = round_f16(x[i]);
}

/* ---- public ------------------------------------------------------------------------------------------------------ */

void rng_seed(struct rng *r, enum rng_kind kind, uint64_t seed)
{
	*r = (struct rng){ .kind = kind, .seed = seed, .device_threads = RNG_PHILOX_THREADS };
	mt_seed(r, (uint32_t)seed);
}

void rng_normal(struct rng *r, enum dtype dtype, int64_t n, float *out)
{
	if (r->kind == RNG_PHILOX)
		draw_philox(r, n, out);
	else
		draw_torch_cpu(r, dtype, n, out);
	round_to(dtype, n, out);
}

static const char *const names[RNG_COUNT] = { [RNG_TORCH_CPU] = "torch-cpu", [RNG_PHILOX] = "philox" };

const char *rng_name(enum rng_kind kind)
{
	return names[kind];
}

bool rng_find(const char *name, enum rng_kind *out)
{
	for (int kind = 0; kind < RNG_COUNT; kind++) {
		if (!strcmp(names[kind], name)) {
			*out = (enum rng_kind)kind;
			return true;
		}
	}
	return false;
}

/* kernels_cases: what the kernel tests share: seeded values, tensors between guard zones, comparison.
 *
 * A `cage` owns an allocation with a view inside it.  Everything is NaN until values are put in, so that an element
 * read outside a view or an output left out shows; cage_intact says whether anything but the view was written.
 */
#ifndef PROMPTFS_TESTS_KERNELS_CASES_H
#define PROMPTFS_TESTS_KERNELS_CASES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/unit/check.h"

enum { GUARD = 64 };

struct cage {
	struct tensor t;
	char *memory, *before; /* before: the allocation as it was filled */
	size_t len;
};

static inline uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Uniform in -1 .. 1. */
static inline float random_float(uint32_t *state)
{
	return (float)(int32_t)random_next(state) * 0x1p-31f;
}

static inline float value_at(const struct tensor *t, int64_t i, int64_t j, int64_t l)
{
	const int64_t at = i * t->stride[0] + j * t->stride[1] + l * t->stride[2];

	return t->dtype == DTYPE_F32 ? ((const float *)t->data)[at] : bf16_to_f32(((const uint16_t *)t->data)[at]);
}

static inline void value_set(const struct tensor *t, int64_t i, int64_t j, int64_t l, float x)
{
	const int64_t at = i * t->stride[0] + j * t->stride[1] + l * t->stride[2];

	if (t->dtype == DTYPE_F32)
		((float *)t->data)[at] = x;
	else
		((uint16_t *)t->data)[at] = bf16_from_f32(x);
}

#define EACH(t, i, j, l)                                                                                               \
	for (int64_t i = 0; i < (t)->dim[0]; i++)                                                                      \
		for (int64_t j = 0; j < (t)->dim[1]; j++)                                                              \
			for (int64_t l = 0; l < (t)->dim[2]; l++)

/* Where cages lie: memory that the device under test can reach. */
struct cage_memory {
	void *(*take)(size_t len);
	void (*give_back)(void *data);
};

static inline void *cage_take(size_t len)
{
	return aligned_alloc(64, (len + 63) / 64 * 64);
}

static struct cage_memory cage_memory = { cage_take, free };

/* A tensor of rank 1..3, rows `gap` elements apart beyond their length; all NaN. */
static inline struct cage cage_new(enum dtype dtype, int rank, const int64_t *dim, int64_t gap)
{
	const size_t size = dtype_size(dtype);
	struct cage c = { .t = tensor_view(NULL, dtype, rank, dim) };
	int64_t extent;

	if (rank > 1)
		c.t.stride[0] += gap;
	extent = c.t.dim[0] * c.t.stride[0] + 2 * GUARD;
	c.len = (size_t)extent * size;
	c.memory = cage_memory.take(c.len);
	c.before = malloc(c.len);
	if (!c.memory || !c.before)
		abort();
	for (int64_t i = 0; i < extent; i++)
		if (dtype == DTYPE_F32)
			((uint32_t *)(void *)c.memory)[i] = 0x7fc12345;
		else
			((uint16_t *)(void *)c.memory)[i] = 0x7fc1;
	memcpy(c.before, c.memory, c.len);
	c.t.data = c.memory + GUARD * size;
	return c;
}

static inline void cage_free(struct cage *c)
{
	cage_memory.give_back(c->memory);
	free(c->before);
}

static inline struct cage cage_random(
	enum dtype dtype, int rank, const int64_t *dim, int64_t gap, float scale, uint32_t seed)
{
	struct cage c = cage_new(dtype, rank, dim, gap);

	seed = seed * 2654435761u + 1;
	EACH(&c.t, i, j, l)
	value_set(&c.t, i, j, l, scale * random_float(&seed));
	return c;
}

static inline bool cage_intact(const struct cage *c)
{
	const size_t size = dtype_size(c->t.dtype);
	bool intact;
	char *expected = malloc(c->len);

	if (!expected)
		abort();
	memcpy(expected, c->before, c->len);
	EACH(&c->t, i, j, l)
	{
		const size_t at = (size_t)((char *)c->t.data - c->memory) +
				  (size_t)(i * c->t.stride[0] + j * c->t.stride[1] + l * c->t.stride[2]) * size;

		memcpy(expected + at, c->memory + at, size);
	}
	intact = memcmp(expected, c->memory, c->len) == 0;
	free(expected);
	return intact;
}

struct tolerance {
	double atol, rtol, nmse;
};

/* Whether `got` is near `wanted`; if not, why says where. */
static inline bool near(
	const struct tensor *wanted, const struct tensor *got, struct tolerance tol, char *why, size_t size)
{
	double error = 0, power = 0;

	why[0] = '\0';
	EACH(wanted, i, j, l)
	{
		const double a = value_at(wanted, i, j, l), b = value_at(got, i, j, l);

		error += (a - b) * (a - b);
		power += a * a;
		if (fabs(a - b) <= tol.atol + tol.rtol * fabs(a))
			continue;
		snprintf(why, size, "[%lld, %lld, %lld] is %.9g, expected %.9g", (long long)i, (long long)j,
			(long long)l, b, a);
		return false;
	}
	if (error <= tol.nmse * power)
		return true;
	snprintf(why, size, "the mean square error is %.3g of the power, above %.3g", error / power, tol.nmse);
	return false;
}

/* The case: `got` is near `wanted` and nothing around it was written. */
static inline void check_near(
	const struct cage *wanted, const struct cage *got, struct tolerance tol, enum status status, const char *name)
{
	char why[256];

	if (status != STATUS_OK)
		check_case(false, status_text(), "%s", name);
	else if (!cage_intact(got))
		check_case(false, "wrote outside the output", "%s", name);
	else
		check_case(near(&wanted->t, &got->t, tol, why, sizeof why), why, "%s", name);
}

#endif

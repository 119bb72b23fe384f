/* rng: the normal random numbers of PyTorch, bit for bit where float arithmetic allows.
 *
 * torch-cpu: torch.Generator("cpu"): MT19937 seeded with the low 32 bits of the seed; two paths (fewer than 16 values,
 * 16 or more).  philox: torch.Generator("cuda"): Philox4x32-10 as curand uses it, on a grid of `device_threads`
 * threads. The generator is a plain value: copying it forks the stream.
 */
#ifndef PROMPTFS_ENGINE_RNG_H
#define PROMPTFS_ENGINE_RNG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum rng_kind { RNG_TORCH_CPU, RNG_PHILOX, RNG_COUNT };

/* What one H100 SXM or H200 runs at once; part of the numbers once a draw is larger (see golden/units/rng). */
enum { RNG_PHILOX_THREADS = 132 * 2048 };

struct rng {
	enum rng_kind kind;
	uint64_t seed;
	uint64_t offset;         /* philox: 32-bit outputs drawn so far */
	uint64_t device_threads; /* philox */
	uint32_t state[624];     /* torch-cpu: MT19937 */
	int next;                /* torch-cpu: position in state */
	bool has_cached;         /* torch-cpu: the second value of a pair of a small draw */
	double cached;
};

void rng_seed(struct rng *r, enum rng_kind kind, uint64_t seed);

/* torch.randn(n, dtype): F32, BF16 or F16, widened to float.  One call is one draw of the whole tensor. */
void rng_normal(struct rng *r, enum dtype dtype, int64_t n, float *out);

/* A tensor of normal numbers, F32 and contiguous: those of one picture (0 = the first) out of a draw for `pictures`. */
enum status rng_fill(struct rng *r, struct kernels *k, int64_t pictures, int64_t picture, struct tensor out);

/* Philox4x32-10 of one counter. */
void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

const char *rng_name(enum rng_kind kind); /* "torch-cpu", "philox" */
bool rng_find(const char *name, enum rng_kind *out);

#endif

/* time_embedding: the sinusoid of a timestep and the two layers after it, as diffusers' Timesteps (flip_sin_to_cos, no
 * frequency shift) and TimestepEmbedding (silu) do it. */
#ifndef PROMPTFS_ENGINE_TIME_EMBEDDING_H
#define PROMPTFS_ENGINE_TIME_EMBEDDING_H

#include "engine/load.h"

struct time_embedding {
	struct weight *linear1, *linear1_bias, *linear2, *linear2_bias;
};

/* Entries of a load table: the sinusoid has `in` values, the layers `hidden` and `out` (indices into dims). */
#define TIME_EMBEDDING_ENTRIES(type, member, prefix, in, hidden, out, one)                                             \
	LOAD_ONE(type, member.linear1, LOAD_LINEAR, prefix "linear_1.weight", hidden, in),                             \
		LOAD_ONE(type, member.linear1_bias, LOAD_VECTOR, prefix "linear_1.bias", hidden, one),                 \
		LOAD_ONE(type, member.linear2, LOAD_LINEAR, prefix "linear_2.weight", out, hidden),                    \
		LOAD_ONE(type, member.linear2_bias, LOAD_VECTOR, prefix "linear_2.bias", out, one)

/* out [1, out] F32; in and hidden are the sizes given to the table. */
enum status time_embedding_run(struct kernels *k, struct arena *arena, const struct time_embedding *e, int64_t in,
	int64_t hidden, float timestep, struct tensor out);

/* Copies what a table of many times [blocks, times, values] says for one of them to *row [blocks, values]: where a
 * device repeats what it recorded, it reads the same place at every step. */
enum status time_embedding_pick(struct kernels *k, struct tensor table, int64_t time, struct tensor row);

#endif

/* time_embedding: see time_embedding.h. */
#include "engine/time_embedding.h"

#include <math.h>
#include <stdlib.h>

/* cos first, then sin; frequencies 10000^(-i / half), in float as PyTorch has them. */
static enum status sinusoid(struct kernels *k, int64_t dim, float timestep, struct tensor out)
{
	float *values = calloc((size_t)dim, sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 2, (int64_t[]){ 1, dim });
	const int64_t half = dim / 2;
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for a time embedding");
	for (int64_t i = 0; i < half; i++) {
		const float angle = timestep * expf(-9.2103404f * (float)i / (float)half);

		values[i] = cosf(angle);
		values[half + i] = sinf(angle);
	}
	status = kernels_upload(k, &host, out);
	free(values);
	return status;
}

enum status time_embedding_run(struct kernels *k, struct arena *arena, const struct time_embedding *e, int64_t in,
	int64_t hidden, float timestep, struct tensor out)
{
	struct tensor wave, inner;
	const size_t mark = arena_mark(arena);

	TRY(arena_take(arena, kernels_dtype(k), 2, (int64_t[]){ 1, in }, &wave));
	TRY(arena_take(arena, kernels_dtype(k), 2, (int64_t[]){ 1, hidden }, &inner));
	TRY(sinusoid(k, in, timestep, wave));
	TRY(kernels_linear(k, &(struct linear){ .x = wave,
				      .w = e->linear1,
				      .bias = e->linear1_bias,
				      .activation = ACTIVATION_SILU,
				      .y = inner }));
	TRY(kernels_linear(k, &(struct linear){ .x = inner, .w = e->linear2, .bias = e->linear2_bias, .y = out }));
	arena_release(arena, mark);
	return STATUS_OK;
}

enum status time_embedding_pick(struct kernels *k, struct tensor table, int64_t time, struct tensor row)
{
	struct tensor from = tensor_slice(table, 1, time, 1);

	from.rank = 2;
	from.dim[1] = from.dim[2];
	from.stride[1] = from.stride[2];
	return kernels_unary(k, UNARY_COPY, from, row);
}

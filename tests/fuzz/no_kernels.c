/* no_kernels: reading computes nothing, so what computes is not linked to fuzzers; reaching it would be an error. */
#include <stdlib.h>

#include "kernels/kernels.h"

enum status arena_take(struct arena *arena, enum dtype dtype, int rank, const int64_t *dim, struct tensor *out)
{
	abort();
}

enum status kernels_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y)
{
	abort();
}

enum status kernels_unary(struct kernels *k, enum unary op, struct tensor x, struct tensor y)
{
	abort();
}

enum status kernels_upload(struct kernels *k, const struct tensor *host, struct tensor device)
{
	abort();
}

enum status kernels_download(struct kernels *k, struct tensor device, const struct tensor *host)
{
	abort();
}

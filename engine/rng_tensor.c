/* rng_tensor: numbers for a device; apart from rng.c, which needs no kernels. */
#include <stdlib.h>

#include "engine/rng.h"
#include "kernels/kernels.h"

enum status rng_fill(struct rng *r, struct kernels *k, int64_t pictures, int64_t picture, struct tensor out)
{
	int64_t count = tensor_count(&out);
	float *noise = malloc((size_t)(pictures * count) * sizeof *noise);
	struct tensor host = out;
	enum status status;

	if (!noise)
		return status_fail(
			STATUS_NO_MEMORY, "no memory for %lld random numbers", (long long)(pictures * count));
	rng_normal(r, DTYPE_F32, pictures * count, noise);
	host.data = noise + picture * count;
	status = kernels_upload(k, &host, out);
	free(noise);
	return status;
}

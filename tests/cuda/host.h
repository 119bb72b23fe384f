/* host: a backend whose operations are the CUDA kernels on the shim; the tests that have it linked use it. */
#ifndef PROMPTFS_TESTS_CUDA_HOST_H
#define PROMPTFS_TESTS_CUDA_HOST_H

#include "kernels/backend.h"

extern const struct backend backend_cuda_host __attribute__((weak));

/* A handle with this backend; its memory is of the host. */
static inline enum status host_kernels_open(enum dtype dtype, struct kernels **out)
{
	TRY(kernels_open("ref", dtype, 1, out));
	(*out)->backend = &backend_cuda_host;
	return STATUS_OK;
}

#endif

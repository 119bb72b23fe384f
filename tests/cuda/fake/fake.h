/* fake: what the files of the fake share: recording, as the capture of a stream does it. */
#ifndef PROMPTFS_TESTS_CUDA_FAKE_H
#define PROMPTFS_TESTS_CUDA_FAKE_H

#include <stdbool.h>
#include <stddef.h>

/* What is to be enqueued: run(data).  While the stream records, a copy of data is kept for the graph; else it runs. */
void fake_enqueue(void (*run)(const void *data), const void *data, size_t size);

/* Where the shim's kernels go (tests/cuda/shim.cc). */
extern void (*shim_enqueue)(void (*run)(const void *data), const void *data, size_t size);

#endif

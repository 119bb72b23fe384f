/* cuda: what the files of this backend share.
 *
 *     backend.c  the table, devices, opening     memory.c  device memory, arenas, staging     lt.c   products by
 * cuBLASLt dnn.c      convolutions and attention by cuDNN's graphs        tuning.c  what was measured, kept on disk
 *     replay.c   what is repeated, as CUDA graphs
 *     launch.h   the own kernels (*.cu)
 *
 * Everything is enqueued on one stream, in order.  An operation therefore reports a failure of its own call; what fails
 * while it runs is found by the next wait.
 */
#ifndef PROMPTFS_KERNELS_CUDA_CUDA_H
#define PROMPTFS_KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include "kernels/cuda/launch.h"

struct lt;
struct dnn;
struct tuning;

/* Working memory that operations share, each for its own purpose; it grows and stays. */
enum scratch {
	SCRATCH_RESULT,    /* a product or picture in f32, before what the libraries cannot do in one go */
	SCRATCH_ENLARGED,  /* rows of an enlarged picture */
	SCRATCH_SUMS,      /* of a group norm; flags */
	SCRATCH_CODES,     /* 8-bit operands and their scales */
	SCRATCH_WORKSPACE, /* of the libraries */
	SCRATCH_COUNT
};

enum { STAGING_BUFFERS = 4 };

struct staging {
	struct {
		char *data;
		cudaEvent_t done; /* of the copies from it */
		bool busy;
	} buffer[STAGING_BUFFERS];
	int current;
	size_t used; /* bytes of the current one */
};

/* Addresses of an arena, with memory behind their beginning. */
struct range {
	struct range *next;
	unsigned long long base;
	size_t len, needed, chunk_len, n_chunks;
	unsigned long long *chunks; /* memory handles; those behind `needed` may go */
};

enum { RECORDINGS_MAX = 8 };

/* Operations that were called once, and their graph. */
struct recording {
	repeat_run *run; /* NULL: a free place */
	size_t key_size;
	unsigned char key[REPEAT_KEY_MAX];
	double flops;
	uint64_t last;        /* when it was used */
	cudaGraphExec_t exec; /* NULL: not recorded yet, or cannot be */
	bool refused;
};

struct cuda {
	struct kernels *k;
	int device;
	int sm; /* 90 */
	cudaStream_t stream;
	cudaEvent_t step[2];
	int steps;
	size_t allocated; /* bytes of device memory, of whatever use */
	struct range *ranges;
	struct staging staging;
	struct {
		void *data;
		size_t len;
	} scratch[SCRATCH_COUNT];
	struct recording recordings[RECORDINGS_MAX];
	uint64_t uses;
	bool recording;        /* what is enqueued now is recorded, and does not run */
	bool eager;            /* nothing is to be recorded */
	struct tuning *tuning; /* NULL: nothing is remembered */
	struct lt *lt;
	struct dnn *dnn; /* NULL: there is no cuDNN; why is in dnn_missing */
	char dnn_missing[128];
};

/* The backend's state, with its device made the thread's own. */
struct cuda *cuda_of(struct kernels *k);

/* STATUS_OK for 0; else STATUS_NO_MEMORY or STATUS_DEVICE with the device, the operation and the driver's words. */
enum status cuda_result(const struct cuda *c, int error, const char *operation);

/* Of a shape's bytes: where it is kept. */
uint64_t cuda_hash(const void *data, size_t size);

/* ---- memory.c */

enum status cuda_map(struct kernels *k, size_t len, void **out);
void cuda_unmap(struct kernels *k, void *data, size_t len);
enum status cuda_reserve(struct kernels *k, size_t len, void **out);
enum status cuda_commit(struct kernels *k, void *data, size_t from, size_t to);
void cuda_discard(struct kernels *k, void *data, size_t len);
void cuda_unreserve(struct kernels *k, void *data, size_t len);
enum status cuda_memory(struct kernels *k, uint64_t *free, uint64_t *total);
enum status cuda_copy_in(struct kernels *k, void *device, const void *host, size_t len);
enum status cuda_copy_out(struct kernels *k, void *host, const void *device, size_t len);
enum status cuda_scratch(struct cuda *c, enum scratch which, size_t len, void **out);
void cuda_memory_close(struct cuda *c);

/* ---- replay.c */

enum status cuda_repeat(struct kernels *k, repeat_run *run, void *context, const void *key, size_t key_size);
/* STATUS_UNSUPPORTED while operations are recorded: what waits, allocates or reads the host's memory begins so. */
enum status cuda_not_recorded(const struct cuda *c, const char *operation);
/* Memory that recordings may hold the address of goes away. */
void cuda_forget_recordings(struct cuda *c);

/* ---- lt.c */

enum status lt_open(struct cuda *c, struct lt **out);
void lt_close(struct lt *lt); /* NULL is allowed */
enum status lt_linear(struct cuda *c, const struct linear *op);
/* A weight in 8 bits: codes [n, k], then a scale for each row. */
size_t lt_codes_len(const struct weight *w);
float *lt_scales(const struct weight *w);

/* ---- dnn.c */

/* NULL in *out where the library does not start, with the reason in c->dnn_missing. */
void dnn_open(struct cuda *c, struct dnn **out);
void dnn_close(struct dnn *dnn); /* NULL is allowed */
/* *done is false where cuDNN has no plan for the operation: nothing was enqueued then. */
enum status dnn_conv(struct cuda *c, const struct conv *op, bool *done);
enum status dnn_attention(struct cuda *c, const struct attention *op, bool *done);

/* ---- tuning.c */

/* Results of measurements under keys of bytes, for a device and the versions of its libraries.  NULL where there is no
 * place for them. */
struct tuning *tuning_open(const char *device, size_t version);
void tuning_close(struct tuning *t); /* NULL is allowed */
/* Whether a value of exactly value_size bytes is known. */
bool tuning_find(const struct tuning *t, const void *key, size_t key_size, void *value, size_t value_size);
void tuning_keep(struct tuning *t, const void *key, size_t key_size, const void *value, size_t value_size);

#endif

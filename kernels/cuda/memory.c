/* memory: of the device.  Weights and scratch are plain allocations.  Arenas are addresses with memory put behind them
 * chunk by chunk; what an arena gives back stays until something else has no room (trim), since giving back means
 * waiting for the device. */
#include "kernels/cuda/cuda.h"

#include <cuda.h>
#include <stdlib.h>
#include <string.h>

static const size_t STAGING_LEN = (size_t)16 << 20, CHUNK_LEN = (size_t)32 << 20, COPY_PIECE = (size_t)1 << 20;

/* ---- room -------------------------------------------------------------------------------------------------------- */

static void drop_chunk(struct cuda *c, struct range *r, size_t i)
{
	if (!r->chunks[i])
		return;
	cuda_forget_recordings(c);
	cuMemUnmap(r->base + i * r->chunk_len, r->chunk_len);
	cuMemRelease(r->chunks[i]);
	r->chunks[i] = 0;
	c->allocated -= r->chunk_len;
}

/* Gives back what arenas no longer need; true if that was anything. */
static bool trim(struct cuda *c)
{
	const size_t before = c->allocated;

	cudaStreamSynchronize(c->stream);
	for (struct range *r = c->ranges; r; r = r->next)
		for (size_t i = (r->needed + r->chunk_len - 1) / r->chunk_len; i < r->n_chunks; i++)
			drop_chunk(c, r, i);
	return c->allocated < before;
}

static bool within_limit(const struct cuda *c, size_t len)
{
	return !c->k->limit || (c->allocated <= c->k->limit && len <= c->k->limit - c->allocated);
}

static enum status refuse(const struct cuda *c, size_t len)
{
	size_t free = 0, total = 0;

	cudaGetLastError(); /* a refused allocation is no failure of the device */
	if (!within_limit(c, len))
		return status_fail(STATUS_NO_MEMORY,
			"%s: %zu MiB more do not fit: %zu of the %llu MiB that the memory limit allows are in use",
			c->k->device, len >> 20, c->allocated >> 20, (unsigned long long)c->k->limit >> 20);
	cudaMemGetInfo(&free, &total);
	return status_fail(STATUS_NO_MEMORY,
		"%s: %zu MiB more do not fit: %zu MiB are in use here, %zu of the device's %zu MiB are free",
		c->k->device, len >> 20, c->allocated >> 20, free >> 20, total >> 20);
}

static enum status allocate(struct cuda *c, size_t len, void **out)
{
	const size_t wanted = len ? len : 1;
	cudaError_t error = cudaErrorMemoryAllocation;

	TRY(cuda_not_recorded(c, "allocating memory"));
	if (within_limit(c, wanted) || (trim(c) && within_limit(c, wanted)))
		error = cudaMalloc(out, wanted);
	if (error == cudaErrorMemoryAllocation && within_limit(c, wanted) && trim(c)) {
		cudaGetLastError();
		error = cudaMalloc(out, wanted);
	}
	if (error == cudaErrorMemoryAllocation)
		return refuse(c, wanted);
	TRY(cuda_result(c, error, "allocating memory"));
	c->allocated += wanted;
	return STATUS_OK;
}

static void give_back(struct cuda *c, void *data, size_t len)
{
	if (!data)
		return;
	cuda_forget_recordings(c);
	cudaStreamSynchronize(c->stream); /* something enqueued may still use it */
	cudaFree(data);
	c->allocated -= len ? len : 1;
}

enum status cuda_map(struct kernels *k, size_t len, void **out)
{
	struct cuda *c = cuda_of(k);
	void *data;

	TRY(allocate(c, len, &data));
	*out = data;
	return cuda_result(c, cudaMemsetAsync(data, 0, len, c->stream), "clearing memory");
}

void cuda_unmap(struct kernels *k, void *data, size_t len)
{
	give_back(cuda_of(k), data, len);
}

enum status cuda_scratch(struct cuda *c, enum scratch which, size_t len, void **out)
{
	if (len > c->scratch[which].len) {
		TRY(cuda_not_recorded(c, "allocating memory"));
		give_back(c, c->scratch[which].data, c->scratch[which].len);
		kernels_hold(c->k, 0, c->scratch[which].len);
		c->scratch[which].data = NULL;
		c->scratch[which].len = 0;
		TRY(allocate(c, len, &c->scratch[which].data));
		c->scratch[which].len = len;
		kernels_hold(c->k, len, 0);
	}
	*out = c->scratch[which].data;
	return STATUS_OK;
}

enum status cuda_memory(struct kernels *k, uint64_t *free, uint64_t *total)
{
	struct cuda *c = cuda_of(k);
	size_t free_bytes, total_bytes;

	TRY(cuda_result(c, cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory"));
	*free = free_bytes;
	*total = total_bytes;
	return STATUS_OK;
}

/* ---- arenas ------------------------------------------------------------------------------------------------------ */

static CUmemAllocationProp chunk_kind(const struct cuda *c)
{
	return (CUmemAllocationProp){ .type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = c->device } };
}

static enum status driver_result(const struct cuda *c, CUresult result, const char *operation)
{
	if (result == CUDA_SUCCESS)
		return STATUS_OK;
	return status_fail(
		STATUS_DEVICE, "%s: %s failed with the driver's error %d", c->k->device, operation, (int)result);
}

enum status cuda_reserve(struct kernels *k, size_t len, void **out)
{
	struct cuda *c = cuda_of(k);
	CUmemAllocationProp kind = chunk_kind(c);
	struct range *r = calloc(1, sizeof *r);
	size_t granule = 0;
	CUresult result;

	if (!r)
		return status_fail(STATUS_NO_MEMORY, "no memory for an arena");
	result = cuMemGetAllocationGranularity(&granule, &kind, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
	r->chunk_len = granule ? (CHUNK_LEN + granule - 1) / granule * granule : CHUNK_LEN;
	r->n_chunks = len / r->chunk_len + 1;
	r->len = r->n_chunks * r->chunk_len;
	r->chunks = calloc(r->n_chunks, sizeof *r->chunks);
	if (result == CUDA_SUCCESS && r->chunks)
		result = cuMemAddressReserve(&r->base, r->len, 0, 0, 0);
	if (result != CUDA_SUCCESS || !r->chunks) {
		free(r->chunks);
		free(r);
		return result == CUDA_SUCCESS ? status_fail(STATUS_NO_MEMORY, "no memory for an arena")
					      : driver_result(c, result, "reserving addresses");
	}
	r->next = c->ranges;
	c->ranges = r;
	*out = (void *)(uintptr_t)r->base;
	return STATUS_OK;
}

static struct range *find_range(struct cuda *c, const void *data)
{
	struct range *r = c->ranges;

	while (r && (uintptr_t)data - (uintptr_t)r->base >= r->len)
		r = r->next;
	return r;
}

/* A chunk of memory; STATUS_OK with *out 0 where there is none left. */
static enum status new_chunk(struct cuda *c, size_t len, CUmemGenericAllocationHandle *out)
{
	CUmemAllocationProp kind = chunk_kind(c);
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;

	TRY(cuda_not_recorded(c, "allocating memory"));
	*out = 0;
	if (within_limit(c, len) || (trim(c) && within_limit(c, len)))
		result = cuMemCreate(out, len, &kind, 0);
	if (result == CUDA_ERROR_OUT_OF_MEMORY && within_limit(c, len) && trim(c))
		result = cuMemCreate(out, len, &kind, 0);
	return result == CUDA_ERROR_OUT_OF_MEMORY ? STATUS_OK : driver_result(c, result, "allocating memory");
}

static enum status fill_chunk(struct cuda *c, struct range *r, size_t i)
{
	CUmemAccessDesc access = { .location = chunk_kind(c).location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	const CUdeviceptr at = r->base + i * r->chunk_len;
	CUmemGenericAllocationHandle chunk;
	CUresult result;

	TRY(new_chunk(c, r->chunk_len, &chunk));
	if (!chunk)
		return refuse(c, r->chunk_len);
	result = cuMemMap(at, r->chunk_len, 0, chunk, 0);
	if (result != CUDA_SUCCESS) {
		cuMemRelease(chunk);
		return driver_result(c, result, "mapping memory");
	}
	r->chunks[i] = chunk;
	c->allocated += r->chunk_len;
	return driver_result(c, cuMemSetAccess(at, r->chunk_len, &access, 1), "opening memory");
}

enum status cuda_commit(struct kernels *k, void *data, size_t from, size_t to)
{
	struct cuda *c = cuda_of(k);
	struct range *r = find_range(c, data);
	const size_t before = r->needed;

	r->needed = to; /* a trim while chunks are filled must keep the ones before */
	for (size_t i = from / r->chunk_len; i * r->chunk_len < to; i++)
		if (!r->chunks[i]) {
			enum status status = fill_chunk(c, r, i);

			if (status != STATUS_OK) {
				r->needed = before;
				return status;
			}
		}
	return STATUS_OK;
}

void cuda_discard(struct kernels *k, void *data, size_t len)
{
	struct range *r = find_range(cuda_of(k), data);

	if (r)
		r->needed = (size_t)((uintptr_t)data - (uintptr_t)r->base);
}

static void free_range(struct cuda *c, struct range *r)
{
	for (size_t i = 0; i < r->n_chunks; i++)
		drop_chunk(c, r, i);
	cuMemAddressFree(r->base, r->len);
	free(r->chunks);
	free(r);
}

void cuda_unreserve(struct kernels *k, void *data, size_t len)
{
	struct cuda *c = cuda_of(k);

	cuda_forget_recordings(c);
	cudaStreamSynchronize(c->stream);
	for (struct range **at = &c->ranges; *at; at = &(*at)->next)
		if ((*at)->base == (uintptr_t)data) {
			struct range *r = *at;

			*at = r->next;
			free_range(c, r);
			return;
		}
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

/* Reading a mapped file page by page takes longer than sending it, so several threads do. */
static void copy_wide(char *to, const char *from, size_t len)
{
	const size_t pieces = (len + COPY_PIECE - 1) / COPY_PIECE;

#pragma omp parallel for schedule(dynamic) if (pieces > 1)
	for (size_t i = 0; i < pieces; i++) {
		const size_t at = i * COPY_PIECE, n = len - at < COPY_PIECE ? len - at : COPY_PIECE;

		memcpy(to + at, from + at, n);
	}
}

/* Pinned memory for the next `len` bytes (at most STAGING_LEN).  Small copies share a buffer: nobody waits for the
 * device before all buffers have been filled once more. */
static enum status stage(struct cuda *c, size_t len, char **out)
{
	struct staging *s = &c->staging;

	if (s->buffer[s->current].data && s->used + len > STAGING_LEN) {
		TRY(cuda_result(c, cudaEventRecord(s->buffer[s->current].done, c->stream), "copying to the device"));
		s->buffer[s->current].busy = true;
		s->current = (s->current + 1) % STAGING_BUFFERS;
		s->used = 0;
	}
	if (!s->buffer[s->current].data) {
		TRY(cuda_result(c, cudaEventCreateWithFlags(&s->buffer[s->current].done, cudaEventDisableTiming),
			"creating an event"));
		TRY(cuda_result(c, cudaMallocHost((void **)&s->buffer[s->current].data, STAGING_LEN),
			"allocating pinned memory"));
	}
	if (s->buffer[s->current].busy)
		TRY(cuda_result(c, cudaEventSynchronize(s->buffer[s->current].done), "copying to the device"));
	s->buffer[s->current].busy = false;
	*out = s->buffer[s->current].data + s->used;
	s->used += (len + 63) / 64 * 64;
	return STATUS_OK;
}

enum status cuda_copy_in(struct kernels *k, void *device, const void *host, size_t len)
{
	struct cuda *c = cuda_of(k);

	TRY(cuda_not_recorded(c, "copying to the device"));
	for (size_t done = 0; done < len;) {
		const size_t n = len - done < STAGING_LEN ? len - done : STAGING_LEN;
		char *pinned;

		TRY(stage(c, n, &pinned));
		copy_wide(pinned, (const char *)host + done, n);
		TRY(cuda_result(c, cudaMemcpyAsync((char *)device + done, pinned, n, cudaMemcpyHostToDevice, c->stream),
			"copying to the device"));
		done += n;
	}
	return STATUS_OK;
}

enum status cuda_copy_out(struct kernels *k, void *host, const void *device, size_t len)
{
	struct cuda *c = cuda_of(k);

	TRY(cuda_not_recorded(c, "copying from the device"));
	TRY(cuda_result(
		c, cudaMemcpyAsync(host, device, len, cudaMemcpyDeviceToHost, c->stream), "copying from the device"));
	return cuda_result(c, cudaStreamSynchronize(c->stream), "what was computed before");
}

void cuda_memory_close(struct cuda *c)
{
	for (int i = 0; i < STAGING_BUFFERS; i++) {
		if (c->staging.buffer[i].done)
			cudaEventDestroy(c->staging.buffer[i].done);
		if (c->staging.buffer[i].data)
			cudaFreeHost(c->staging.buffer[i].data);
	}
	for (int i = 0; i < SCRATCH_COUNT; i++) {
		give_back(c, c->scratch[i].data, c->scratch[i].len);
		kernels_hold(c->k, 0, c->scratch[i].len);
	}
}

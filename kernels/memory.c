/* memory: host memory of a handle, and arenas of any backend.
 *
 * Everything large is mapped, so that freeing gives the pages back at once; huge pages save the time of first touch.
 */
#include "kernels/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN = 64, HUGE_LEN = 2 << 20 };

/* A release keeps this much above its mark: giving pages back and faulting them in again with every layer costs more
 * than the layer's norms. */
static const size_t ARENA_KEEP = (size_t)64 << 20;

enum status memory_map(struct kernels *k, size_t len, void **out)
{
	void *data =
		mmap(NULL, len ? len : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (data == MAP_FAILED)
		return status_fail(STATUS_NO_MEMORY, "no memory for %zu MiB: %s", len >> 20, strerror(errno));
	if (len >= HUGE_LEN)
		madvise(data, len, MADV_HUGEPAGE); /* advice; a kernel without huge pages refuses it */
	*out = data;
	return STATUS_OK;
}

void memory_unmap(struct kernels *k, void *data, size_t len)
{
	if (data)
		munmap(data, len ? len : 1);
}

void memory_discard(struct kernels *k, void *data, size_t len)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t skip = -(uintptr_t)data % page;

	if (len > skip)
		madvise((char *)data + skip, len - skip, MADV_DONTNEED);
}

enum status memory_copy(struct kernels *k, void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	return STATUS_OK;
}

/* ---- arenas ------------------------------------------------------------------------------------------------------ */

struct arena {
	struct kernels *k;
	char *data;
	size_t capacity;
	size_t used;    /* bytes taken */
	size_t touched; /* bytes from the start that may hold pages; >= used */
	size_t peak;
};

enum status arena_open(struct kernels *k, size_t capacity, struct arena **out)
{
	struct arena *a = calloc(1, sizeof *a);
	void *data;
	enum status status;

	if (!a)
		return status_fail(STATUS_NO_MEMORY, "no memory for an arena");
	status = k->backend->reserve ? k->backend->reserve(k, capacity, &data) : k->backend->map(k, capacity, &data);
	if (status != STATUS_OK) {
		free(a);
		return status;
	}
	*a = (struct arena){ .k = k, .data = data, .capacity = capacity };
	*out = a;
	return STATUS_OK;
}

void arena_close(struct arena *a)
{
	if (!a)
		return;
	if (a->k->backend->unreserve)
		a->k->backend->unreserve(a->k, a->data, a->capacity);
	else
		a->k->backend->unmap(a->k, a->data, a->capacity);
	kernels_hold(a->k, 0, a->touched);
	free(a);
}

/* The arena's bytes may hold pages up to `touched`. */
static void set_touched(struct arena *a, size_t touched)
{
	kernels_hold(a->k, touched, a->touched);
	a->touched = touched;
}

enum status arena_take(struct arena *a, enum dtype dtype, int rank, const int64_t *dim, struct tensor *out)
{
	size_t len = dtype_size(dtype), start = (a->used + ALIGN - 1) / ALIGN * ALIGN;

	if (rank < 1 || rank > TENSOR_RANK_MAX || len == 0)
		return status_fail(STATUS_INTERNAL, "arena: a tensor of rank %d and dtype %s", rank, dtype_name(dtype));
	for (int i = 0; i < rank; i++)
		if (dim[i] < 0 || __builtin_mul_overflow(len, (size_t)dim[i], &len))
			return status_fail(STATUS_INTERNAL, "arena: dimension %d is %lld", i, (long long)dim[i]);
	if (start > a->capacity || len > a->capacity - start)
		return status_fail(STATUS_NO_MEMORY, "arena: %zu MiB more do not fit: %zu of %zu MiB are in use",
			len >> 20, a->used >> 20, a->capacity >> 20);
	if (a->k->backend->commit && start + len > a->touched)
		TRY(a->k->backend->commit(a->k, a->data, a->touched, start + len));
	a->used = start + len;
	if (a->used > a->peak)
		a->peak = a->used;
	if (a->used > a->touched)
		set_touched(a, a->used);
	*out = tensor_view(a->data + start, dtype, rank, dim);
	return STATUS_OK;
}

size_t arena_mark(const struct arena *a)
{
	return a->used;
}

void arena_release(struct arena *a, size_t mark)
{
	if (mark > a->used)
		return;
	a->used = mark;
	if (a->touched - mark > ARENA_KEEP) {
		size_t keep = mark + ARENA_KEEP;

		a->k->backend->discard(a->k, a->data + keep, a->touched - keep);
		set_touched(a, keep);
	}
}

size_t arena_peak(const struct arena *a)
{
	return a->peak;
}

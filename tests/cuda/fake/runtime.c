/* runtime: as much of CUDA's runtime and driver as kernels/cuda asks for, with host memory for a device's, so that the
 * whole backend runs where there is no GPU.  Everything is done when it is called, but for what a stream records.
 *
 * FAKE_CUDA_MEMORY: MiB of the device (default 4096).  FAKE_CUDA_LOST: after so many waits the device is lost: that
 * wait and every call after it fails.  FAKE_CUDA_DEVICES: how many there are (default 1).
 * FAKE_CUDA_GRAPHS: "begin", "end", "instantiate" or "launch" fails.  FAKE_CUDA_COUNTS: a file for how often what was
 * called, written at the end.
 */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/cuda/fake/fake.h"

enum { GRANULE = 2 << 20, ALIGN = 256, UNSET = 0xff /* floats of it are NaN */ };

static size_t used;
static int waits;
static cudaError_t lost;

static int setting(const char *name, int otherwise)
{
	const char *text = getenv(name);

	return text && *text ? atoi(text) : otherwise;
}

static size_t total(void)
{
	return (size_t)setting("FAKE_CUDA_MEMORY", 4096) << 20;
}

static int *device_count(void)
{
	static int n;

	n = setting("FAKE_CUDA_DEVICES", 1);
	return &n;
}

/* ---- recording: a graph is a list of calls with their arguments */

struct call {
	struct call *next;
	void (*run)(const void *data);
	_Alignas(16) char data[];
};

struct list {
	struct call *first, **end;
};

static bool recording, spoiled;
static struct list *recorded;

static struct {
	long waits, allocations, enqueued, recorded, repeated;
} counts;

__attribute__((destructor)) static void write_counts(void)
{
	const char *path = getenv("FAKE_CUDA_COUNTS");
	FILE *f = path ? fopen(path, "we") : NULL;

	if (f) {
		fprintf(f, "waits %ld\nallocations %ld\nenqueued %ld\nrecorded %ld\nrepeated %ld\n", counts.waits,
			counts.allocations, counts.enqueued, counts.recorded, counts.repeated);
		fclose(f);
	}
}

static bool fails(const char *what)
{
	const char *text = getenv("FAKE_CUDA_GRAPHS");

	return text && strcmp(text, what) == 0;
}

/* What no stream may do while it records: it waits, or changes memory; then the recording is worth nothing. */
static cudaError_t not_recorded(long *count)
{
	++*count;
	spoiled |= recording;
	return recording ? cudaErrorStreamCaptureUnsupported : lost;
}

void fake_enqueue(void (*run)(const void *data), const void *data, size_t size)
{
	struct call *c;

	counts.enqueued++;
	if (!recording) {
		run(data);
		return;
	}
	c = aligned_alloc(16, (sizeof *c + size + 15) / 16 * 16);
	c->next = NULL;
	c->run = run;
	memcpy(c->data, data, size);
	*recorded->end = c;
	recorded->end = &c->next;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
	if (lost || recording || fails("begin"))
		return lost ? lost : cudaErrorStreamCaptureUnsupported;
	recorded = calloc(1, sizeof *recorded);
	recorded->end = &recorded->first;
	recording = true;
	spoiled = false;
	return cudaSuccess;
}

static void free_list(struct list *list)
{
	for (struct call *c = list->first, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(list);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
	if (!recording)
		return cudaErrorIllegalState;
	recording = false;
	if (lost || spoiled || fails("end")) {
		free_list(recorded);
		return lost ? lost : cudaErrorStreamCaptureInvalidated;
	}
	*out = (cudaGraph_t)recorded;
	return cudaSuccess;
}

/* Takes the calls from the graph. */
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
	struct list *list = (struct list *)graph, *all;

	if (lost || fails("instantiate"))
		return lost ? lost : cudaErrorMemoryAllocation;
	all = malloc(sizeof *all);
	*all = *list;
	*list = (struct list){ NULL };
	counts.recorded++;
	*out = (cudaGraphExec_t)all;
	return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	free_list((struct list *)graph);
	return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	free_list((struct list *)exec);
	return lost;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	if (lost || fails("launch"))
		return lost ? lost : cudaErrorUnknown;
	counts.repeated++;
	for (const struct call *c = ((struct list *)exec)->first; c; c = c->next)
		c->run(c->data);
	return cudaSuccess;
}

/* ---- devices */

cudaError_t cudaGetDeviceCount(int *n)
{
	*n = *device_count();
	return *n ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
	return device < *device_count() ? lost : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
	memset(p, 0, sizeof *p);
	snprintf(p->name, sizeof p->name, "a fake of a GPU");
	p->major = 9;
	p->totalGlobalMem = total();
	return lost;
}

const char *cudaGetErrorString(cudaError_t error)
{
	return error == cudaErrorLaunchFailure ? "unspecified launch failure" : "an error of the fake";
}

const char *cudaGetErrorName(cudaError_t error)
{
	return error == cudaErrorLaunchFailure      ? "cudaErrorLaunchFailure"
	       : error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
	       : error == cudaErrorNoDevice         ? "cudaErrorNoDevice"
						    : "cudaErrorUnknown";
}

cudaError_t cudaGetLastError(void)
{
	return lost;
}

/* ---- memory: in front of every block lies its length */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all)
{
	*all = total();
	*free_bytes = used < *all ? *all - used : 0;
	return lost;
}

cudaError_t cudaMalloc(void **out, size_t len)
{
	char *block;
	const cudaError_t error = not_recorded(&counts.allocations);

	if (error)
		return error;
	if (used + len > total())
		return cudaErrorMemoryAllocation;
	block = aligned_alloc(ALIGN, (len + 2 * ALIGN - 1) / ALIGN * ALIGN);
	if (!block)
		return cudaErrorMemoryAllocation;
	memcpy(block, &len, sizeof len);
	memset(block + ALIGN, UNSET, len);
	used += len;
	*out = block + ALIGN;
	return cudaSuccess;
}

cudaError_t cudaFree(void *data)
{
	size_t len;

	if (!data || not_recorded(&counts.allocations) == cudaErrorStreamCaptureUnsupported)
		return lost;
	memcpy(&len, (char *)data - ALIGN, sizeof len);
	used -= len;
	free((char *)data - ALIGN);
	return lost;
}

cudaError_t cudaMallocHost(void **out, size_t len)
{
	*out = malloc(len);
	return *out ? not_recorded(&counts.allocations) : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *data)
{
	free(data);
	return cudaSuccess;
}

struct fill {
	void *to;
	int value;
	size_t len;
};

static void run_fill(const void *data)
{
	const struct fill *f = data;

	memset(f->to, f->value, f->len);
}

struct copy {
	void *to;
	const void *from;
	size_t len;
};

static void run_copy(const void *data)
{
	const struct copy *c = data;

	memcpy(c->to, c->from, c->len);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t len, cudaStream_t stream)
{
	const struct fill f = { to, value, len };

	if (lost)
		return lost;
	fake_enqueue(run_fill, &f, sizeof f);
	return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t len, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	const struct copy c = { to, from, len };

	if (lost)
		return lost;
	fake_enqueue(run_copy, &c, sizeof c);
	return cudaSuccess;
}

/* ---- streams and events: nothing to order */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
	*out = (cudaStream_t)malloc(1);
	shim_enqueue = fake_enqueue;
	return lost;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	const int after = setting("FAKE_CUDA_LOST", 0);

	if (after && ++waits >= after)
		lost = cudaErrorLaunchFailure;
	return not_recorded(&counts.waits);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	free(stream);
	return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
	*out = (cudaEvent_t)malloc(1);
	return lost;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
	return cudaEventCreateWithFlags(out, 0);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	spoiled |= recording; /* a recorded event could be waited for by nobody */
	return lost;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	return lost;
}

cudaError_t cudaEventElapsedTime(float *out, cudaEvent_t a, cudaEvent_t b)
{
	static float time = 1;

	*out = time /= 2; /* each faster than the one before */
	return lost;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	free(event);
	return cudaSuccess;
}

/* ---- addresses and memory apart: what has none cannot be touched */

CUresult cuMemGetAllocationGranularity(
	size_t *out, const CUmemAllocationProp *kind, CUmemAllocationGranularity_flags option)
{
	*out = GRANULE;
	return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *out, size_t len, size_t align, CUdeviceptr at, unsigned long long flags)
{
	void *data = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (data == MAP_FAILED || len % GRANULE)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (CUdeviceptr)(uintptr_t)data;
	return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr at, size_t len)
{
	return munmap((void *)(uintptr_t)at, len) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuMemCreate(
	CUmemGenericAllocationHandle *out, size_t len, const CUmemAllocationProp *kind, unsigned long long flags)
{
	if (not_recorded(&counts.allocations))
		return lost ? CUDA_ERROR_LAUNCH_FAILED : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (len % GRANULE)
		return CUDA_ERROR_INVALID_VALUE;
	if (used + len > total())
		return CUDA_ERROR_OUT_OF_MEMORY;
	used += len;
	*out = len; /* all there is to know of it */
	return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle chunk)
{
	used -= (size_t)chunk;
	return CUDA_SUCCESS;
}

CUresult cuMemMap(
	CUdeviceptr at, size_t len, size_t offset, CUmemGenericAllocationHandle chunk, unsigned long long flags)
{
	return len == chunk ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemSetAccess(CUdeviceptr at, size_t len, const CUmemAccessDesc *access, size_t count)
{
	void *data = (void *)(uintptr_t)at;

	if (mprotect(data, len, PROT_READ | PROT_WRITE))
		return CUDA_ERROR_INVALID_VALUE;
	memset(data, UNSET, len);
	return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr at, size_t len)
{
	void *data = (void *)(uintptr_t)at;

	if (madvise(data, len, MADV_DONTNEED) || mprotect(data, len, PROT_NONE))
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

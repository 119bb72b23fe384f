/* runtime: as much of CUDA's runtime and driver as kernels/cuda asks for, with host memory for a device's, so that the
 * whole backend runs where there is no GPU.  Everything is done when it is called.
 *
 * FAKE_CUDA_MEMORY: MiB of the device (default 4096).  FAKE_CUDA_LOST: after so many waits the device is lost: that
 * wait and every call after it fails.  FAKE_CUDA_DEVICES: how many there are (default 1).
 */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

	if (lost)
		return lost;
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

	if (!data)
		return lost;
	memcpy(&len, (char *)data - ALIGN, sizeof len);
	used -= len;
	free((char *)data - ALIGN);
	return lost;
}

cudaError_t cudaMallocHost(void **out, size_t len)
{
	*out = malloc(len);
	return *out ? lost : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *data)
{
	free(data);
	return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t len, cudaStream_t stream)
{
	if (lost)
		return lost;
	memset(to, value, len);
	return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t len, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	if (lost)
		return lost;
	memcpy(to, from, len);
	return cudaSuccess;
}

/* ---- streams and events: nothing to order */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
	*out = (cudaStream_t)malloc(1);
	return lost;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	const int after = setting("FAKE_CUDA_LOST", 0);

	if (after && ++waits >= after)
		lost = cudaErrorLaunchFailure;
	return lost;
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
	if (lost)
		return CUDA_ERROR_LAUNCH_FAILED;
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

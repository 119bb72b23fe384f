/* driver: the names that cuDNN wants of libcuda.so.1 before it makes plans for a device that is not here.  None of them
 * does anything; those that make something give out a place that nobody looks at. */
static int nothing[64];

#define IDLE(name)                                                                                                     \
	int name(void)                                                                                                 \
	{                                                                                                              \
		return 0;                                                                                              \
	}
#define MAKES(name)                                                                                                    \
	int name(void **out)                                                                                           \
	{                                                                                                              \
		*out = nothing;                                                                                        \
		return 0;                                                                                              \
	}
#define COUNTS(name, value)                                                                                            \
	int name(int *out)                                                                                             \
	{                                                                                                              \
		*out = value;                                                                                          \
		return 0;                                                                                              \
	}

/* clang-format off */
COUNTS(cuDriverGetVersion, 13020) COUNTS(cuDeviceGetCount, 1) COUNTS(cuDeviceGet, 0)
MAKES(cuLibraryLoadData) MAKES(cuLibraryGetKernel) MAKES(cuKernelGetFunction) MAKES(cuModuleLoadData)
MAKES(cuModuleGetFunction) MAKES(cuCtxGetCurrent)
IDLE(cuGetErrorString) IDLE(cuGetErrorName) IDLE(cuModuleUnload) IDLE(cuTensorMapEncodeIm2col)
IDLE(cuTensorMapEncodeTiled) IDLE(cuCtxGetLimit) IDLE(cuCtxPopCurrent) IDLE(cuCtxPushCurrent) IDLE(cuStreamGetCtx)
IDLE(cuLinkCreate) IDLE(cuLinkAddData) IDLE(cuLinkComplete) IDLE(cuLinkDestroy) IDLE(cuLaunchKernel)
IDLE(cuLaunchKernelEx) IDLE(cuLaunchCooperativeKernel) IDLE(cuLibraryLoadFromFile) IDLE(cuLibraryUnload)
IDLE(cuKernelSetAttribute) IDLE(cuKernelGetAttribute) IDLE(cuOccupancyMaxPotentialClusterSize)

/* plugin: the backend of a GPU, a shared object of its own, so that one program serves machines with and without one.
 *
 * promptfs-cuda.so exports promptfs_cuda_plugin.  It lies beside the program, or in the folder of its data;
 * PROMPTFS_CUDA names another one.  It takes what it shares with the program (status_fail, tensor_view, ...) from the
 * program itself.
 */
#ifndef PROMPTFS_KERNELS_PLUGIN_H
#define PROMPTFS_KERNELS_PLUGIN_H

#include "kernels/backend.h"

/* Changes with whatever the two share: backend.h, kernels.h, status.h. */
enum { PLUGIN_ABI = 3 };

struct plugin {
	int abi;
	size_t backend_size; /* sizeof(struct backend), which finds a forgotten change of PLUGIN_ABI */
	const struct backend *backend;
	/* How many devices there are; 0 with the reason in status_text(). */
	int (*count)(void);
	/* "NVIDIA H200, sm_90, 139.8 GiB" */
	enum status (*describe)(int device, char *out, size_t size);
	/* Host memory that the devices reach under the same address; for tests. */
	void *(*take_host)(size_t len);
	void (*give_host)(void *data);
};

typedef const struct plugin *plugin_entry(void);
plugin_entry promptfs_cuda_plugin;

/* The loaded plugin; STATUS_UNSUPPORTED with the reason where there is no driver, no plugin or no device.  Loaded once
 * a process and never unloaded. */
enum status plugin_cuda(const struct plugin **out);

#endif

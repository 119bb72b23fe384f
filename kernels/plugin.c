/* plugin: see plugin.h. */
#include "kernels/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char name[] = "promptfs-cuda.so", driver[] = "libcuda.so.1";

static struct {
	pthread_once_t once;
	const struct plugin *plugin;
	enum status status;
	char why[256];
} loaded = { .once = PTHREAD_ONCE_INIT };

/* The folder of the program; false where /proc does not tell. */
static bool program_folder(char out[PATH_MAX])
{
	ssize_t len = readlink("/proc/self/exe", out, PATH_MAX - 1);
	char *slash;

	if (len < 0)
		return false;
	out[len] = '\0';
	slash = strrchr(out, '/');
	if (slash)
		*slash = '\0';
	return slash != NULL;
}

/* Test programs lie one folder below the program. */
bool kernels_plugin_file(char *out, size_t size)
{
	const char *given = getenv("PROMPTFS_CUDA"), *const below[] = { "", "/.." };
	char folder[PATH_MAX];

	if (given && *given)
		return snprintf(out, size, "%s", given) < (int)size;
	for (int i = 0; i < 2 && program_folder(folder); i++)
		if (snprintf(out, size, "%s%s/%s", folder, below[i], name) < (int)size && access(out, R_OK) == 0)
			return true;
	return snprintf(out, size, "%s/%s", PROMPTFS_DATADIR, name) < (int)size && access(out, R_OK) == 0;
}

static enum status open_file(const char *path, const struct plugin **out)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL), *symbol;
	const struct plugin *found;
	plugin_entry *entry;

	if (!library)
		return status_fail(STATUS_UNSUPPORTED, "%s", dlerror());
	symbol = dlsym(library, "promptfs_cuda_plugin");
	if (!symbol)
		return status_fail(STATUS_UNSUPPORTED, "%s is no plugin of promptfs", path);
	memcpy(&entry, &symbol, sizeof entry); /* C has no conversion from object to function pointers */
	found = entry();
	if (found->abi != PLUGIN_ABI || found->backend_size != sizeof(struct backend))
		return status_fail(
			STATUS_UNSUPPORTED, "%s belongs to another build of promptfs; build both together", path);
	if (found->count() < 1)
		return STATUS_UNSUPPORTED;
	*out = found;
	return STATUS_OK;
}

/* The driver comes first: without it there is no need to look further, and the plugin takes symbols from it. */
static enum status load(const struct plugin **out)
{
	const char *given = getenv("PROMPTFS_CUDA");
	char path[PATH_MAX];

	if (!(given && *given) && !dlopen(driver, RTLD_NOW | RTLD_GLOBAL))
		return status_fail(STATUS_UNSUPPORTED, "there is no NVIDIA driver (%s)", driver);
	if (!kernels_plugin_file(path, sizeof path))
		return status_fail(STATUS_UNSUPPORTED,
			"there is an NVIDIA driver, but promptfs was built without CUDA (no %s); see README: GPU",
			name);
	return open_file(path, out);
}

static void load_once(void)
{
	loaded.status = load(&loaded.plugin);
	if (loaded.status != STATUS_OK)
		snprintf(loaded.why, sizeof loaded.why, "%s", status_text());
}

enum status plugin_cuda(const struct plugin **out)
{
	pthread_once(&loaded.once, load_once);
	if (loaded.status != STATUS_OK)
		return status_fail(loaded.status, "%s", loaded.why);
	*out = loaded.plugin;
	return STATUS_OK;
}

bool kernels_tuning_folder(char *out, size_t size)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	static const char *const below[] = { "/promptfs", "/tuning" };
	size_t len;

	if (cache && *cache)
		len = (size_t)snprintf(out, size, "%s", cache);
	else if (home && *home)
		len = (size_t)snprintf(out, size, "%s/.cache", home);
	else
		return false;
	for (int i = 0; i < 2 && len < size; i++) {
		mkdir(out, 0700);
		len += (size_t)snprintf(out + len, size - len, "%s", below[i]);
	}
	if (len >= size)
		return false;
	mkdir(out, 0700);
	return access(out, X_OK) == 0;
}

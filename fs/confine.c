/* confine: see confine.h. */
#include "fs/confine.h"

#include <dirent.h>
#include <link.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/sandbox.h"
#include "kernels/kernels.h"

enum { LINKS_DEPTH = 4 };

struct list {
	struct sandbox_path *paths; /* each path malloc'ed */
	int n;
	bool full; /* no memory for more */
};

static void add(struct list *l, const char *path, enum sandbox_use use, bool pattern)
{
	struct sandbox_path *more = l->full ? NULL : realloc(l->paths, ((size_t)l->n + 1) * sizeof(*more));
	char *copy = strdup(path);

	if (more)
		l->paths = more;
	if (!more || !copy) {
		l->full = true;
		free(copy);
		return;
	}
	more[l->n++] = (struct sandbox_path){ copy, use, pattern };
}

static void free_list(struct list *l)
{
	for (int i = 0; i < l->n; i++)
		free((char *)l->paths[i].path);
	free(l->paths);
}

/* Folders of models may hold links to files elsewhere, as in the Hub's cache. */
static void add_links(struct list *l, const char *folder, int depth)
{
	DIR *dir = depth < LINKS_DEPTH ? opendir(folder) : NULL;
	const struct dirent *entry;
	char path[PATH_MAX], target[PATH_MAX];

	while (dir && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
			snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path))
			continue;
		if (entry->d_type == DT_DIR)
			add_links(l, path, depth + 1);
		else if (entry->d_type == DT_LNK && realpath(path, target))
			add(l, target, SANDBOX_READ, false);
	}
	if (dir)
		closedir(dir);
}

static void add_models(struct list *l, const struct config *config)
{
	for (int i = 0; i < config->n_models; i++) {
		add(l, config->models[i].path, SANDBOX_READ, false);
		add_links(l, config->models[i].path, 0);
	}
	if (*config->loras) {
		add(l, config->loras, SANDBOX_READ, false);
		add_links(l, config->loras, 0);
	}
}

/* Its folder: editors make a new file of that name. */
static void add_config(struct list *l, const struct config *config)
{
	char folder[PATH_MAX];
	char *slash;

	snprintf(folder, sizeof(folder), "%s", config->file);
	slash = strrchr(folder, '/');
	if (!slash)
		return;
	*slash = '\0';
	add(l, folder, SANDBOX_READ, false);
}

static int add_object(struct dl_phdr_info *info, size_t size, void *list)
{
	if (info->dlpi_name && *info->dlpi_name == '/')
		add(list, info->dlpi_name, SANDBOX_READ, false);
	return 0;
}

/* The plugin of GPUs, which a worker loads, and where it keeps measurements. */
static void add_gpu(struct list *l)
{
	char path[PATH_MAX];

	if (kernels_plugin_file(path, sizeof(path)))
		add(l, path, SANDBOX_READ, false);
	if (access("/dev/nvidiactl", F_OK) == 0 && kernels_tuning_folder(path, sizeof(path)))
		add(l, path, SANDBOX_ADD, false);
}

/* Our program for the workers, what it is linked with, and where more may be loaded from. */
static void add_program(struct list *l)
{
	const char *libraries = getenv("LD_LIBRARY_PATH");
	char *folders = strdup(libraries ? libraries : ""), *save, *folder;

	add(l, "/proc/self/exe", SANDBOX_RUN, false);
	add(l, "/lib*/ld-*.so*", SANDBOX_RUN, true); /* what the kernel starts for it */
	dl_iterate_phdr(add_object, l);
	for (folder = folders ? strtok_r(folders, ":", &save) : NULL; folder; folder = strtok_r(NULL, ":", &save))
		add(l, folder, SANDBOX_READ, false);
	free(folders);
}

static void add_system(struct list *l)
{
	static const struct sandbox_path paths[] = {
		{ "/usr", SANDBOX_READ, false },
		{ "/lib", SANDBOX_READ, false },
		{ "/lib64", SANDBOX_READ, false },
		{ "/opt", SANDBOX_READ, false },
		{ "/etc/ld.so.*", SANDBOX_READ, true },
		{ "/etc/passwd", SANDBOX_READ, false },
		{ "/etc/nsswitch.conf", SANDBOX_READ, false },
		{ "/sys", SANDBOX_READ, false },
		{ "/dev/*random", SANDBOX_READ, true },
		SANDBOX_DEVICES,
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		add(l, paths[i].path, paths[i].use, paths[i].pattern);
	/* a worker says there that it is to go first when memory runs out; root could also set what concerns everybody
	 */
	add(l, "/proc", geteuid() == 0 ? SANDBOX_READ : SANDBOX_DEVICE, false);
}

/* To make files for others, as root. */
static void keep_capabilities(void)
{
	sandbox_keep_capabilities(1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH |
				  1u << CAP_FOWNER | 1u << CAP_FSETID | 1u << CAP_MKNOD);
}

enum status confine_daemon(const struct config *config)
{
	struct list l = { 0 };
	bool entered = false;

	add(&l, config->store, SANDBOX_WRITE, false);
	add(&l, config->cache, SANDBOX_WRITE, false);
	add_models(&l, config);
	add_config(&l, config);
	add_program(&l);
	add_gpu(&l);
	add_system(&l);
	if (!l.full)
		entered = sandbox_enter(l.paths, l.n);
	free_list(&l);
	if (l.full)
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	keep_capabilities();
	if (!entered)
		log_warn(
			"--sandbox: this kernel has no Landlock (Linux 5.19): files are not confined, only privileges");
	return STATUS_OK;
}

/* content: see content.h. */
#include "engine/content.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/json.h"

enum { READ_LEN = 1 << 20, FILES_MAX = 10000 };

/* The files that belong to a model, as paths relative to its folder, sorted. */
struct files {
	char **path;
	int n, capacity;
};

static void files_free(struct files *f)
{
	for (int i = 0; i < f->n; i++)
		free(f->path[i]);
	free(f->path);
}

static enum status files_add(struct files *f, const char *path)
{
	if (f->n == FILES_MAX)
		return status_fail(STATUS_CORRUPT, "a model of more than %d files", FILES_MAX);
	if (f->n == f->capacity) {
		int capacity = f->capacity ? 2 * f->capacity : 64;
		char **grown = realloc(f->path, (size_t)capacity * sizeof *grown);

		if (!grown)
			return status_fail(STATUS_NO_MEMORY, "no memory for a list of files");
		f->path = grown;
		f->capacity = capacity;
	}
	f->path[f->n] = strdup(path);
	if (!f->path[f->n])
		return status_fail(STATUS_NO_MEMORY, "no memory for a list of files");
	f->n++;
	return STATUS_OK;
}

/* What may change a picture: everything but notes to people and hidden files. */
static bool counts(const char *name)
{
	size_t len = strlen(name);

	return name[0] != '.' && !(len > 3 && strcmp(name + len - 3, ".md") == 0);
}

/* The regular files of one component's folder. */
static enum status list_folder(const char *root, const char *component, struct files *f)
{
	char path[PATH_MAX];
	struct dirent *entry;
	struct stat st;
	enum status status = STATUS_OK;
	DIR *dir;

	snprintf(path, sizeof path, "%s/%s", root, component);
	dir = opendir(path);
	if (!dir)
		return STATUS_OK; /* what misses it says so with a better message */
	while (status == STATUS_OK && (entry = readdir(dir))) {
		char relative[PATH_MAX];

		if (!counts(entry->d_name) || fstatat(dirfd(dir), entry->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode))
			continue;
		snprintf(relative, sizeof relative, "%s/%s", component, entry->d_name);
		status = files_add(f, relative);
	}
	closedir(dir);
	return status;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files of a folder without an index, and of those in it. */
static enum status list_all(const char *root, struct files *f)
{
	DIR *dir = opendir(root);
	struct dirent *entry;
	enum status status = list_folder(root, ".", f);

	if (!dir)
		return status_fail(STATUS_IO, "%s: %s", root, strerror(errno));
	while (status == STATUS_OK && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			status = list_folder(root, entry->d_name, f);
	closedir(dir);
	return status;
}

/* Components are the keys of model_index.json that hold a list and do not begin with "_"; ComfyUI's folders may hold
 * their weights (weights.c). */
static enum status list_indexed(const char *root, struct files *f)
{
	static const char *const others[] = { "diffusion_models", "text_encoders", "clip" };
	char path[PATH_MAX + 32];
	json_t *index, *value;
	const char *key;
	enum status status;

	snprintf(path, sizeof path, "%s/model_index.json", root);
	TRY(json_read_object(path, &index));
	status = files_add(f, "model_index.json");
	json_object_foreach (index, key, value)
		if (status == STATUS_OK && json_is_array(value) && key[0] != '_' && !strchr(key, '/') &&
			strcmp(key, "..") != 0)
			status = list_folder(root, key, f);
	for (size_t i = 0; i < sizeof others / sizeof others[0] && status == STATUS_OK; i++)
		status = list_folder(root, others[i], f);
	json_decref(index);
	return status;
}

/* Of a file: itself, as "". */
static enum status list_files(const char *root, struct files *f)
{
	char path[PATH_MAX + 32];
	struct stat st;

	if (stat(root, &st) != 0)
		return status_fail(STATUS_IO, "%s: %s", root, strerror(errno));
	if (S_ISREG(st.st_mode))
		return files_add(f, "");
	if (!S_ISDIR(st.st_mode))
		return status_fail(STATUS_INVALID, "%s: neither a file nor a folder", root);
	snprintf(path, sizeof path, "%s/model_index.json", root);
	if (access(path, F_OK) == 0)
		TRY(list_indexed(root, f));
	else
		TRY(list_all(root, f));
	qsort(f->path, (size_t)f->n, sizeof *f->path, by_name);
	return STATUS_OK;
}

static void digest_text(XXH3_state_t *state, char hash[CONTENT_LEN + 1])
{
	XXH128_hash_t digest = XXH3_128bits_digest(state);

	snprintf(hash, CONTENT_LEN + 1, "%016" PRIx64 "%016" PRIx64, digest.high64, digest.low64);
}

/* The i-th file below root; a file's own path where root is one. */
static void join(const char *root, const char *relative, char path[PATH_MAX * 2])
{
	snprintf(path, PATH_MAX * 2, "%s%s%s", root, *relative ? "/" : "", relative);
}

/* ---- identity ---------------------------------------------------------------------------------------------------- */

static enum status identify_one(const char *root, XXH3_state_t *state, uint64_t *bytes)
{
	struct files files = { 0 };
	enum status status = list_files(root, &files);

	for (int i = 0; status == STATUS_OK && i < files.n; i++) {
		char path[PATH_MAX * 2], line[PATH_MAX + 256];
		struct stat st;

		join(root, files.path[i], path);
		if (stat(path, &st) != 0)
			continue; /* gone since it was listed: the identity changes, as it should */
		*bytes += (uint64_t)st.st_size;
		snprintf(line, sizeof line, "%s %ju %ju %jd %jd.%09ld %jd.%09ld\n", files.path[i], (uintmax_t)st.st_dev,
			(uintmax_t)st.st_ino, (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
			(intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
		XXH3_128bits_update(state, line, strlen(line));
	}
	files_free(&files);
	return status;
}

enum status content_identify(int n, const char *const *paths, char identity[CONTENT_LEN + 1], uint64_t *bytes)
{
	XXH3_state_t *state = XXH3_createState();
	enum status status = state ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory to tell files apart");
	uint64_t sum = 0;

	if (state)
		XXH3_128bits_reset(state);
	for (int i = 0; i < n && status == STATUS_OK; i++)
		status = identify_one(paths[i], state, &sum);
	if (status == STATUS_OK)
		digest_text(state, identity);
	if (status == STATUS_OK && bytes)
		*bytes = sum;
	XXH3_freeState(state);
	return status;
}

/* ---- content ----------------------------------------------------------------------------------------------------- */

static enum status hash_file(const char *path, XXH3_state_t *state, unsigned char *buffer)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	while ((n = read(fd, buffer, READ_LEN)) > 0)
		XXH3_128bits_update(state, buffer, (size_t)n);
	if (n < 0) {
		enum status status = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));

		close(fd);
		return status;
	}
	close(fd);
	return STATUS_OK;
}

static enum status hash_one(const char *root, XXH3_state_t *state, unsigned char *buffer)
{
	struct files files = { 0 };
	enum status status = list_files(root, &files);

	for (int i = 0; status == STATUS_OK && i < files.n; i++) {
		char path[PATH_MAX * 2];

		join(root, files.path[i], path);
		if (files.path[i][0])
			XXH3_128bits_update(state, files.path[i], strlen(files.path[i]) + 1);
		status = hash_file(path, state, buffer);
	}
	files_free(&files);
	return status;
}

enum status content_hash(int n, const char *const *paths, char hash[CONTENT_LEN + 1])
{
	XXH3_state_t *state = XXH3_createState();
	unsigned char *buffer = malloc(READ_LEN);
	enum status status = buffer && state ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory to hash a model");

	if (state)
		XXH3_128bits_reset(state);
	for (int i = 0; i < n && status == STATUS_OK; i++)
		status = hash_one(paths[i], state, buffer);
	if (status == STATUS_OK)
		digest_text(state, hash);
	XXH3_freeState(state);
	free(buffer);
	return status;
}

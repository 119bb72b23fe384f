/* model: describing a model folder, and telling its content apart. */
#include "engine/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/bytes.h"
#include "engine/component.h"
#include "engine/family.h"
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

/* Components are the keys of model_index.json that hold a list and do not begin with "_"; ComfyUI's folders may hold
 * their weights (weights.c). */
static enum status list_files(const char *root, struct files *f)
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
	qsort(f->path, (size_t)f->n, sizeof *f->path, by_name);
	return status;
}

static void digest_text(XXH3_state_t *state, char hash[MODEL_HASH_LEN + 1])
{
	XXH128_hash_t digest = XXH3_128bits_digest(state);

	snprintf(hash, MODEL_HASH_LEN + 1, "%016" PRIx64 "%016" PRIx64, digest.high64, digest.low64);
}

/* ---- identity ---------------------------------------------------------------------------------------------------- */

static enum status identify(struct model *m)
{
	XXH3_state_t *state = XXH3_createState();
	struct files files = { 0 };
	enum status status = list_files(m->path, &files);

	XXH3_128bits_reset(state);
	for (int i = 0; status == STATUS_OK && i < files.n; i++) {
		char path[PATH_MAX * 2], line[PATH_MAX + 256];
		struct stat st;

		snprintf(path, sizeof path, "%s/%s", m->path, files.path[i]);
		if (stat(path, &st) != 0)
			continue; /* gone since it was listed: the identity changes, as it should */
		m->file_bytes += (uint64_t)st.st_size;
		snprintf(line, sizeof line, "%s %ju %ju %jd %jd.%09ld %jd.%09ld\n", files.path[i], (uintmax_t)st.st_dev,
			(uintmax_t)st.st_ino, (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
			(intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
		XXH3_128bits_update(state, line, strlen(line));
	}
	digest_text(state, m->identity);
	XXH3_freeState(state);
	files_free(&files);
	return status;
}

static enum status find_family(const char *root, const struct family **out)
{
	char path[PATH_MAX + 32];
	const char *pipeline = NULL;
	json_t *index;
	enum status status;

	snprintf(path, sizeof path, "%s/model_index.json", root);
	TRY(json_read_object(path, &index));
	status = json_get_string(index, path, "_class_name", &pipeline);
	if (status == STATUS_OK && !pipeline)
		status = status_fail(STATUS_CORRUPT, "%s: _class_name, the pipeline, is missing", path);
	else if (status == STATUS_OK && !(*out = family_find(pipeline)))
		status = status_fail(
			STATUS_UNSUPPORTED, "%s: pipeline %s is not supported by this version", path, pipeline);
	json_decref(index);
	return status;
}

enum status model_open(const char *path, const char *name, struct model *out)
{
	struct model m = { 0 };
	struct stat st;

	if (!realpath(path, m.path))
		return status_fail(STATUS_NO_MODEL, "%s: no such model: %s", path, strerror(errno));
	if (stat(m.path, &st) == 0 && !S_ISDIR(st.st_mode))
		return status_fail(STATUS_UNSUPPORTED,
			"%s: single-file models are not read by this version; give the folder of a "
			"model in the diffusers layout",
			path);
	snprintf(m.name, sizeof m.name, "%s", name && *name ? name : strrchr(m.path, '/') + 1);
	TRY(find_family(m.path, &m.family));
	TRY(m.family->describe(&m));
	TRY(identify(&m));
	*out = m;
	return STATUS_OK;
}

/* ---- components -------------------------------------------------------------------------------------------------- */

enum status model_set_override(struct model *m, const char *component, const char *path)
{
	for (int i = 0; i < MODEL_OVERRIDES_MAX; i++) {
		struct model_override *o = &m->override[i];

		if (o->path[0] && strcmp(o->component, component) != 0)
			continue;
		if (!realpath(path, o->path)) {
			o->path[0] = 0;
			return status_fail(STATUS_NO_MODEL, "%s: %s", path, strerror(errno));
		}
		snprintf(o->component, sizeof o->component, "%s", component);
		return STATUS_OK;
	}
	return status_fail(STATUS_INVALID, "%s: at most %d parts of a model may come from files of their own", path,
		MODEL_OVERRIDES_MAX);
}

enum status model_component(const struct model *m, const char *name, struct component *out)
{
	const char *from = NULL;
	int config, weights;

	for (int i = 0; i < MODEL_OVERRIDES_MAX; i++)
		if (m->override[i].path[0] && strcmp(m->override[i].component, name) == 0)
			from = m->override[i].path;
	out->loras = NULL;
	snprintf(out->name, sizeof out->name, "%s", name);
	config = snprintf(out->config, sizeof out->config, "%s/%s/config.json", m->path, name);
	if (from)
		weights = snprintf(out->weights, sizeof out->weights, "%s", from);
	else
		weights = snprintf(out->weights, sizeof out->weights, "%s/%s", m->path, name);
	if (config >= (int)sizeof out->config || weights >= (int)sizeof out->weights)
		return status_fail(STATUS_INVALID, "%s: the path is too long", m->path);
	return STATUS_OK;
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

enum status model_hash_files(const char *root, char hash[MODEL_HASH_LEN + 1])
{
	XXH3_state_t *state = XXH3_createState();
	unsigned char *buffer = malloc(READ_LEN);
	struct files files = { 0 };
	enum status status =
		buffer && state ? list_files(root, &files) : status_fail(STATUS_NO_MEMORY, "no memory to hash a model");

	if (state)
		XXH3_128bits_reset(state);
	for (int i = 0; status == STATUS_OK && i < files.n; i++) {
		char path[PATH_MAX * 2];

		snprintf(path, sizeof path, "%s/%s", root, files.path[i]);
		XXH3_128bits_update(state, files.path[i], strlen(files.path[i]) + 1);
		status = hash_file(path, state, buffer);
	}
	if (status == STATUS_OK)
		digest_text(state, hash);
	XXH3_freeState(state);
	files_free(&files);
	free(buffer);
	return status;
}

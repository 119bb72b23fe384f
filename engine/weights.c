/* weights: the tensors of one component, from one file or from shards with their index.
 *
 * A file is mapped and its header checked (safetensors.c, gguf.c, pickle.c); then all tensors stand in one list sorted
 * by name, under the names of diffusers (stored.c).  Values that are no plain floats are computed when they are asked
 * for.
 */
#include "engine/weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "engine/derive.h"
#include "engine/gguf.h"
#include "engine/json.h"
#include "engine/lora.h"
#include "engine/pickle.h"
#include "engine/random_weights.h"
#include "engine/safetensors.h"
#include "engine/stored.h"
#include "engine/survey.h"

enum { SHARDS_MAX = 1000 };

struct mapped {
	char *path;
	unsigned char *data;
	size_t size;
};

/* The computed values of a tensor, until it is released; or its values as they are, in a place where they can be read,
 * to the end. */
struct computed {
	const struct stored_tensor *of;
	bool copied;
	void *values;
	struct computed *next;
};

struct cache {
	pthread_mutex_t lock;
	struct computed *first;
};

struct weights {
	char *source; /* the file or the index, for messages */
	struct mapped *file;
	int n_files;
	struct stored_tensor *tensor; /* sorted by name */
	int64_t count;
	const struct lora_set *loras;  /* NULL: none */
	const char *part;              /* their name for it */
	struct cache *cache;           /* may change in a const struct weights */
	atomic_bool *read;             /* of each tensor; NULL: not noted */
	struct survey *survey;         /* NULL: none */
	struct random_weights *random; /* NULL: none */
};

static enum status fail_memory(const char *path)
{
	return status_fail(STATUS_NO_MEMORY, "%s: no memory for the list of tensors", path);
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

static enum status map_fd(int fd, const char *path, struct mapped *m)
{
	struct stat st;
	void *data;

	if (fstat(fd, &st))
		return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return status_fail(STATUS_CORRUPT, "%s: not a regular file", path);
	if (st.st_size == 0)
		return status_fail(STATUS_CORRUPT, "%s: the file is empty", path);
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return status_fail(
			STATUS_IO, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(errno));
	m->data = data;
	m->size = (size_t)st.st_size;
	return STATUS_OK;
}

/* On failure m may hold its path: unmap it in either case. */
static enum status map_file(const char *path, struct mapped *m)
{
	enum status status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO in the place of the file must not hang us */

	if (fd < 0)
		return status_fail(
			errno == ENOENT ? STATUS_NO_MODEL : STATUS_IO, "%s: cannot open: %s", path, strerror(errno));
	m->path = strdup(path);
	status = m->path ? map_fd(fd, path, m) : fail_memory(path);
	close(fd);
	return status;
}

static void unmap_file(struct mapped *m)
{
	if (m->data)
		munmap(m->data, m->size);
	free(m->path);
}

static bool ends_with(const char *name, const char *suffix)
{
	size_t len = strlen(name), suffix_len = strlen(suffix);

	return len > suffix_len && !strcasecmp(name + len - suffix_len, suffix);
}

/* By its content; where that is of no format, by its name, for the message. */
static enum status parse_file(const struct mapped *m, struct stored_tensor **list, int64_t *count)
{
	static const char *const pickles[] = { ".bin", ".pt", ".pth", ".ckpt" };

	if (ends_with(m->path, ".gguf") || (m->size >= 4 && !memcmp(m->data, "GGUF", 4)))
		return gguf_parse(m->data, m->size, list, count);
	if (m->size > 8 && m->data[8] == '{')
		return safetensors_parse(m->data, m->size, list, count);
	if (pickle_is(m->data, m->size))
		return pickle_parse(m->data, m->size, list, count);
	for (size_t i = 0; i < sizeof pickles / sizeof pickles[0]; i++)
		if (ends_with(m->path, pickles[i]))
			return pickle_parse(m->data, m->size, list, count);
	return safetensors_parse(m->data, m->size, list, count);
}

/* Adds the file and its tensors to w. */
static enum status add_file(struct weights *w, const char *path)
{
	struct mapped *m = &w->file[w->n_files];
	struct stored_tensor *list = NULL, *all;
	int64_t count = 0;
	enum status status;

	w->n_files++;
	TRY(map_file(path, m));
	status = parse_file(m, &list, &count);
	if (status != STATUS_OK)
		return status_prefix(status, "%s: ", path);
	all = realloc(w->tensor, (size_t)(w->count + count + 1) * sizeof *all);
	if (!all) {
		stored_tensors_free(list, count);
		return fail_memory(path);
	}
	for (int64_t i = 0; i < count; i++) {
		list[i].file = w->n_files - 1;
		all[w->count + i] = list[i];
	}
	w->tensor = all;
	w->count += count;
	free(list);
	return STATUS_OK;
}

/* ---- all tensors by name ----------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct stored_tensor *)a)->name, ((const struct stored_tensor *)b)->name);
}

static enum status sort_tensors(struct weights *w)
{
	if (!w->count)
		return status_fail(STATUS_CORRUPT, "%s: no tensors in it", w->source);
	qsort(w->tensor, (size_t)w->count, sizeof *w->tensor, compare_names);
	stored_take_scales(w->tensor, &w->count);
	for (int64_t i = 1; i < w->count; i++)
		if (!strcmp(w->tensor[i - 1].name, w->tensor[i].name))
			return status_fail(STATUS_CORRUPT, "%s: tensor %s is in %s as well",
				w->file[w->tensor[i].file].path, w->tensor[i].name,
				w->file[w->tensor[i - 1].file].path);
	return STATUS_OK;
}

static const struct stored_tensor *find_tensor(const struct weights *w, const char *name)
{
	struct stored_tensor key = { .name = (char *)name };

	return bsearch(&key, w->tensor, (size_t)w->count, sizeof key, compare_names);
}

static enum status new_weights(const char *source, size_t n_files, struct weights **out)
{
	struct weights *w = calloc(1, sizeof *w);

	if (!w)
		return fail_memory(source);
	w->source = strdup(source);
	w->file = calloc(n_files, sizeof *w->file);
	w->cache = calloc(1, sizeof *w->cache);
	if (w->cache)
		pthread_mutex_init(&w->cache->lock, NULL);
	if (!w->source || !w->file || !w->cache) {
		weights_close(w);
		return fail_memory(source);
	}
	*out = w;
	return STATUS_OK;
}

enum status weights_open_file(const char *path, struct weights **out)
{
	struct weights *w = NULL;
	enum status status;

	TRY(new_weights(path, 1, &w));
	status = add_file(w, path);
	if (status == STATUS_OK)
		status = sort_tensors(w);
	if (status != STATUS_OK) {
		weights_close(w);
		return status;
	}
	*out = w;
	return STATUS_OK;
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

static bool plain_file_name(const char *name)
{
	return *name && name[0] != '.' && !strchr(name, '/') && strlen(name) <= NAME_MAX;
}

/* Numbers the files that the map names, in order of appearance: {"a.safetensors": 0, ...}. */
static enum status number_shards(const char *index, const json_t *map, json_t *numbers)
{
	const char *name;
	const json_t *file;

	json_object_foreach ((json_t *)map, name, file) {
		const char *text = json_string_value(file);

		if (!text || !plain_file_name(text))
			return status_fail(STATUS_CORRUPT,
				"%s: weight_map must give a plain file name in this folder for every tensor, "
				"not \"%.60s\" for %.60s",
				index, text ? text : "something else", name);
		if (json_object_get(numbers, text))
			continue;
		if (json_object_set_new(numbers, text, json_integer((json_int_t)json_object_size(numbers))))
			return fail_memory(index);
	}
	if (json_object_size(numbers) < 1 || json_object_size(numbers) > SHARDS_MAX)
		return status_fail(STATUS_CORRUPT, "%s: weight_map names %zu files; 1 to %d are possible", index,
			json_object_size(numbers), SHARDS_MAX);
	return STATUS_OK;
}

static enum status add_shards(struct weights *w, const char *dir, const json_t *numbers)
{
	const char *name;
	const json_t *number;
	enum status status = STATUS_OK;

	json_object_foreach ((json_t *)numbers, name, number) {
		struct bytes path = { 0 };

		TRY(bytes_print(&path, "%s/%s", dir, name));
		status = add_file(w, (char *)path.data);
		bytes_free(&path);
		TRY(status);
	}
	return sort_tensors(w);
}

/* The index and the shards must agree in both directions. */
static enum status check_places(const struct weights *w, const char *dir, const json_t *map, const json_t *numbers)
{
	const char *name;
	const json_t *file;

	json_object_foreach ((json_t *)map, name, file) {
		const struct stored_tensor *t = find_tensor(w, name);
		const char *shard = json_string_value(file);

		if (!t || t->file != json_integer_value(json_object_get(numbers, shard)))
			return status_fail(STATUS_CORRUPT,
				"%s/%s: tensor %.200s is not in it, though the index says so", dir, shard, name);
	}
	for (int64_t i = 0; i < w->count; i++)
		if (!json_object_get(map, w->tensor[i].name))
			return status_fail(STATUS_CORRUPT, "%s: tensor %s is not in the index",
				w->file[w->tensor[i].file].path, w->tensor[i].name);
	return STATUS_OK;
}

static enum status open_mapped(const char *dir, const char *index, const json_t *map, struct weights **out)
{
	struct weights *w = NULL;
	json_t *numbers = json_object();
	enum status status = numbers ? number_shards(index, map, numbers) : fail_memory(index);

	if (status == STATUS_OK)
		status = new_weights(index, json_object_size(numbers), &w);
	if (status == STATUS_OK)
		status = add_shards(w, dir, numbers);
	if (status == STATUS_OK)
		status = check_places(w, dir, map, numbers);
	json_decref(numbers);
	if (status != STATUS_OK) {
		weights_close(w);
		return status;
	}
	*out = w;
	return STATUS_OK;
}

static enum status open_index(const char *dir, const char *index, struct weights **out)
{
	json_t *root = NULL;
	const json_t *map;
	enum status status;

	TRY(json_read_object(index, &root));
	map = json_object_get(root, "weight_map");
	if (json_is_object(map))
		status = open_mapped(dir, index, map, out);
	else
		status =
			status_fail(STATUS_CORRUPT, "%s: weight_map must be an object of tensor and file names", index);
	json_decref(root);
	return status;
}

/* ---- files of other names ---------------------------------------------------------------------------------------- */

/* In order of preference. */
static const char *const suffixes[] = { ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt" };

struct found {
	char name[NAME_MAX + 1]; /* the first in order of the alphabet */
	int count;
};

static void find_suffix(DIR *folder, const char *suffix, struct found *found)
{
	const struct dirent *entry;

	*found = (struct found){ "", 0 };
	rewinddir(folder);
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.' || !ends_with(entry->d_name, suffix))
			continue;
		if (!found->count++ || strcmp(entry->d_name, found->name) < 0)
			snprintf(found->name, sizeof found->name, "%s", entry->d_name);
	}
}

/* The one file with weights in the folder, of the best format there; found->count is 0 if there is none. */
static enum status find_file(const char *dir, struct found *found)
{
	DIR *folder = opendir(dir);

	*found = (struct found){ "", 0 };
	if (!folder)
		return errno == ENOENT ? STATUS_OK
				       : status_fail(STATUS_IO, "%s: cannot open: %s", dir, strerror(errno));
	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0] && !found->count; i++)
		find_suffix(folder, suffixes[i], found);
	closedir(folder);
	if (found->count > 1)
		return status_fail(STATUS_NO_MODEL,
			"%s: %d files with weights, %s and others: leave one, or choose one by Set: PART_file=", dir,
			found->count, found->name);
	return STATUS_OK;
}

/* Opens the one file with weights in dir; *found is false if there is none. */
static enum status try_only_file(const char *dir, bool *found, struct weights **out)
{
	struct bytes path = { 0 };
	struct found file;
	enum status status;

	TRY(find_file(dir, &file));
	*found = file.count > 0;
	if (!*found)
		return STATUS_OK;
	TRY(bytes_print(&path, "%s/%s", dir, file.name));
	status = weights_open_file((char *)path.data, out);
	bytes_free(&path);
	return status;
}

/* Folders beside the part's own in which ComfyUI keeps such files. */
static const struct {
	const char *part, *folder;
} beside[] = {
	{ "transformer", "diffusion_models" },
	{ "unet", "diffusion_models" },
	{ "text_encoder", "text_encoders" },
	{ "text_encoder", "clip" },
};

static enum status try_beside(const char *part, const char *dir, bool *found, struct weights **out)
{
	const char *slash = strrchr(dir, '/');

	for (size_t i = 0; i < sizeof beside / sizeof beside[0] && slash; i++) {
		struct bytes path = { 0 };
		enum status status;

		if (strcmp(beside[i].part, part) != 0)
			continue;
		TRY(bytes_print(&path, "%.*s/%s", (int)(slash - dir), dir, beside[i].folder));
		status = try_only_file((char *)path.data, found, out);
		bytes_free(&path);
		if (status != STATUS_OK || *found)
			return status;
	}
	return STATUS_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Opens dir/name if something has that name, be it a link that leads nowhere; *found says so. */
static enum status try_name(const char *dir, const char *name, bool is_index, bool *found, struct weights **out)
{
	struct bytes path = { 0 };
	struct stat st;
	enum status status;

	TRY(bytes_print(&path, "%s/%s", dir, name));
	*found = lstat((char *)path.data, &st) == 0;
	if (!*found)
		status = STATUS_OK;
	else if (is_index)
		status = open_index(dir, (char *)path.data, out);
	else
		status = weights_open_file((char *)path.data, out);
	bytes_free(&path);
	return status;
}

static enum status open_folder(const char *part, const char *dir, struct weights **out)
{
	static const struct {
		const char *name;
		bool is_index;
	} names[] = {
		{ "diffusion_pytorch_model.safetensors.index.json", true },
		{ "model.safetensors.index.json", true },
		{ "diffusion_pytorch_model.safetensors", false },
		{ "model.safetensors", false },
	};

	bool found = false;

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		TRY(try_name(dir, names[i].name, names[i].is_index, &found, out));
		if (found)
			return STATUS_OK;
	}
	TRY(try_only_file(dir, &found, out));
	if (!found)
		TRY(try_beside(part, dir, &found, out));
	if (!found)
		return status_fail(STATUS_NO_MODEL,
			"%s: neither diffusion_pytorch_model.safetensors nor model.safetensors is there", dir);
	return STATUS_OK;
}

enum status weights_open(const char *dir, struct weights **out)
{
	return open_folder("", dir, out);
}

/* ---- names without values ---------------------------------------------------------------------------------------- */

/* A tensor of which nothing but the name, or also the shape, is known. */
static enum status add_name(struct weights *w, const char *name, const json_t *shape)
{
	struct stored_tensor *t = &w->tensor[w->count], named = { .dtype = DTYPE_BF16, .type = "BF16", .rank = -1 };

	named.name = strdup(name);
	if (!named.name)
		return fail_memory(w->source);
	named.count = 1;
	if (json_is_array(shape) && json_array_size(shape) <= STORED_RANK_MAX) {
		named.rank = (int)json_array_size(shape);
		for (int i = 0; i < named.rank; i++)
			named.dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
	}
	*t = named;
	w->count++;
	return STATUS_OK;
}

/* Adds what a list of names has: {KEY: {name: anything}}, shapes being lists. */
static enum status try_list(struct weights *w, const char *dir, const char *file, const char *key)
{
	struct bytes path = { 0 };
	const json_t *names, *value;
	json_t *root = NULL;
	const char *name;
	enum status status = bytes_print(&path, "%s/%s", dir, file);

	if (status == STATUS_OK && w->count == 0 && access((char *)path.data, F_OK) == 0)
		status = json_read_object((char *)path.data, &root);
	bytes_free(&path);
	names = json_object_get(root, key);
	if (status == STATUS_OK && json_object_size(names) > 0) {
		w->tensor = calloc(json_object_size(names), sizeof *w->tensor);
		if (!w->tensor)
			status = fail_memory(w->source);
		json_object_foreach ((json_t *)names, name, value)
			if (status == STATUS_OK)
				status = add_name(w, name, value);
	}
	json_decref(root);
	return status;
}

static enum status open_names(const char *dir, struct weights **out)
{
	static const char *const lists[][2] = { { "names.json", "tensors" },
		{ "diffusion_pytorch_model.safetensors.index.json", "weight_map" },
		{ "model.safetensors.index.json", "weight_map" } };
	struct weights *w = NULL;
	enum status status;

	TRY(new_weights(dir, 1, &w));
	w->n_files = 1;
	w->file[0].path = strdup(dir);
	status = w->file[0].path ? STATUS_OK : fail_memory(dir);
	for (size_t i = 0; i < sizeof lists / sizeof lists[0] && status == STATUS_OK; i++)
		status = try_list(w, dir, lists[i][0], lists[i][1]);
	if (status != STATUS_OK) {
		weights_close(w);
		return status;
	}
	qsort(w->tensor, (size_t)w->count, sizeof *w->tensor, compare_names);
	*out = w;
	return STATUS_OK;
}

static enum status open_random(const char *dir, struct weights **out)
{
	enum status status;

	TRY(new_weights(dir, 1, out));
	(*out)->file[0].path = strdup(dir);
	status = (*out)->file[0].path ? random_weights_open(&(*out)->random) : fail_memory(dir);
	if (status != STATUS_OK)
		weights_close(*out);
	return status;
}

static enum status survey_find(const struct weights *w, const char *name, int rank, const int64_t *dim)
{
	const struct stored_tensor *t = find_tensor(w, name);
	struct survey_tensor found = { .name = (char *)name,
		.rank = rank,
		.stored_rank = t && t->rank <= TENSOR_RANK_MAX ? t->rank : -1,
		.state = t          ? SURVEY_FITS
			 : w->count ? SURVEY_MISSING
				    : SURVEY_EXPECTED };

	memcpy(found.dim, dim, (size_t)rank * sizeof *dim);
	for (int i = 0; i < found.stored_rank; i++)
		found.stored[i] = t->dim[i];
	if (t && t->rank >= 0 && (t->rank != rank || memcmp(t->dim, dim, (size_t)rank * sizeof *dim) != 0))
		found.state = SURVEY_SHAPE;
	return survey_add(w->survey, &found);
}

void weights_note_block(const struct weights *w, int64_t rows, int64_t columns)
{
	if (!w->survey)
		return;
	w->survey->block_values += rows * columns;
	w->survey->block_rows += rows;
}

static enum status survey_rest(const struct weights *w, const struct stored_tensor *t, bool passed)
{
	struct survey_tensor found = { .name = t->name,
		.rank = t->rank <= TENSOR_RANK_MAX ? t->rank : -1,
		.state = passed ? SURVEY_PASSED : SURVEY_UNUSED };

	found.stored_rank = found.rank;
	for (int i = 0; i < found.rank; i++)
		found.dim[i] = found.stored[i] = t->dim[i];
	return survey_add(w->survey, &found);
}

/* ---- components -------------------------------------------------------------------------------------------------- */

static enum status open_files(const struct component *c, struct weights **out)
{
	struct weights *w = NULL;
	struct stat st;
	enum status status;

	if (!*c->weights)
		return derive_fail_missing(c);
	if (stat(c->weights, &st) == 0 && !S_ISDIR(st.st_mode))
		TRY(weights_open_file(c->weights, &w));
	else
		TRY(open_folder(c->name, c->weights, &w));
	status = stored_rename(c->name, &w->tensor, &w->count);
	if (status != STATUS_OK)
		status_prefix(status, "%s: ", w->source);
	else
		status = sort_tensors(w);
	if (status != STATUS_OK) {
		weights_close(w);
		return status;
	}
	*out = w;
	return STATUS_OK;
}

enum status weights_open_component(const struct component *c, struct weights **out)
{
	struct weights *w = NULL;
	enum status status = c->random && !c->survey ? open_random(c->weights, &w) : open_files(c, &w);

	if (status == STATUS_NO_MODEL && c->survey)
		status = open_names(c->weights, &w);
	TRY(status);
	w->survey = c->survey;
	w->read = calloc((size_t)w->count + 1, sizeof *w->read);
	if (!w->read) {
		weights_close(w);
		return fail_memory(c->weights);
	}
	weights_add_lora(w, c->loras, c->name);
	*out = w;
	return STATUS_OK;
}

static bool begins_with_one(const char *name, const char *const *beginnings)
{
	for (; beginnings && *beginnings; beginnings++)
		if (strncmp(name, *beginnings, strlen(*beginnings)) == 0)
			return true;
	return false;
}

enum status weights_check_read(const struct weights *w, const char *const *passed_over)
{
	for (int64_t i = 0; w->read && i < w->count; i++) {
		const struct stored_tensor *t = &w->tensor[i];
		bool passed = begins_with_one(t->name, passed_over);

		if (atomic_load(&w->read[i]))
			continue;
		if (w->survey)
			TRY(survey_rest(w, t, passed));
		else if (!passed)
			return status_fail(STATUS_CORRUPT, "%s: %s is no part of a model with this configuration",
				w->file[t->file].path, t->name);
	}
	return STATUS_OK;
}

/* ---- computed values --------------------------------------------------------------------------------------------- */

static enum status compute(const struct weights *w, const struct stored_tensor *t, void **out)
{
	int64_t rows = t->rank ? t->dim[0] : 1;
	float *values = malloc(t->count ? (size_t)t->count * sizeof *values : 1);

	if (!values)
		return status_fail(
			STATUS_NO_MEMORY, "tensor %s: no memory for its %lld values", t->name, (long long)t->count);
	stored_to_floats(t, values);
	if (w->loras && rows > 0) {
		enum status status = lora_add(w->loras, w->part, t->name, rows, t->count / rows, values);

		if (status != STATUS_OK) {
			free(values);
			return status;
		}
	}
	*out = values;
	return STATUS_OK;
}

static enum status copy(const struct stored_tensor *t, void **out)
{
	*out = malloc(t->len ? t->len : 1);
	if (!*out)
		return status_fail(STATUS_NO_MEMORY, "tensor %s: no memory for its %zu bytes", t->name, t->len);
	memcpy(*out, t->data, t->len);
	return STATUS_OK;
}

/* Asked again before it is released, a tensor has the same values. */
static enum status get_computed(const struct weights *w, const struct stored_tensor *t, bool copied, void **out)
{
	struct cache *cache = w->cache;
	struct computed *c;
	enum status status = STATUS_OK;

	pthread_mutex_lock(&cache->lock);
	for (c = cache->first; c && (c->of != t || c->copied != copied); c = c->next)
		;
	if (!c && (c = calloc(1, sizeof *c))) {
		status = copied ? copy(t, &c->values) : compute(w, t, &c->values);
		c->of = t;
		c->copied = copied;
		c->next = cache->first;
		cache->first = c;
	}
	if (!c)
		status = status_fail(STATUS_NO_MEMORY, "tensor %s: no memory", t->name);
	else
		*out = c->values;
	pthread_mutex_unlock(&cache->lock);
	return status;
}

/* Takes one from the list and frees it; values NULL: any.  False when there is none. */
static bool drop_computed(struct cache *cache, const void *values)
{
	struct computed **at = &cache->first, *c;

	while (*at && values && ((*at)->copied || (*at)->values != values))
		at = &(*at)->next;
	c = *at;
	if (!c)
		return false;
	*at = c->next;
	free(c->values);
	free(c);
	return true;
}

void weights_close(struct weights *w)
{
	if (!w)
		return;
	for (int i = 0; i < w->n_files; i++)
		unmap_file(&w->file[i]);
	stored_tensors_free(w->tensor, w->count);
	while (w->cache && drop_computed(w->cache, NULL))
		;
	if (w->cache)
		pthread_mutex_destroy(&w->cache->lock);
	free(w->cache);
	random_weights_close(w->random);
	free(w->read);
	free(w->file);
	free(w->source);
	free(w);
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

/* "[2, 3]" */
static void print_shape(int rank, const int64_t *dim, char *out, size_t out_len)
{
	size_t len = (size_t)snprintf(out, out_len, "[");

	for (int i = 0; i < rank && len < out_len; i++)
		len += (size_t)snprintf(out + len, out_len - len, "%s%lld", i ? ", " : "", (long long)dim[i]);
	if (len < out_len)
		snprintf(out + len, out_len - len, "]");
}

static enum status check_shape(const char *path, const struct stored_tensor *t, int rank, const int64_t *dim)
{
	char have[200], want[200];
	bool equal = rank == t->rank;

	for (int i = 0; i < rank && equal; i++)
		equal = dim[i] == t->dim[i];
	if (equal)
		return STATUS_OK;
	print_shape(t->rank, t->dim, have, sizeof have);
	print_shape(rank, dim, want, sizeof want);
	return status_fail(STATUS_CORRUPT, "%s: tensor %s has the shape %s; the configuration wants %s", path, t->name,
		have, want);
}

static enum status check_rank(const char *path, const struct stored_tensor *t)
{
	if (t->rank > TENSOR_RANK_MAX)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s has %d dimensions; at most %d are possible", path,
			t->name, t->rank, TENSOR_RANK_MAX);
	return STATUS_OK;
}

static struct tensor stored_view(const struct stored_tensor *t, const void *data, enum dtype dtype)
{
	/* a scalar is a vector of one */
	return tensor_view((void *)data, dtype, t->rank ? t->rank : 1, t->rank ? t->dim : (int64_t[]){ 1 });
}

/* Those of the file.  The formats align nothing, and old writers did not pad the header: what cannot be read where it
 * is is copied. */
static enum status find_values(const struct weights *w, const struct stored_tensor *t, void **out)
{
	size_t size = dtype_size(t->dtype);

	*out = (void *)(uintptr_t)t->data;
	return size && (uintptr_t)t->data % size ? get_computed(w, t, true, out) : STATUS_OK;
}

enum status weights_view(const struct weights *w, const char *name, struct tensor *out)
{
	const struct stored_tensor *t = find_tensor(w, name);
	void *values;

	if (!t)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s is missing", w->source, name);
	if (t->dtype == DTYPE_OTHER)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s has the dtype %s, which is not supported",
			w->file[t->file].path, name, t->type);
	TRY(check_rank(w->file[t->file].path, t));
	TRY(find_values(w, t, &values));
	*out = stored_view(t, values, t->dtype);
	return STATUS_OK;
}

enum status weights_find(const struct weights *w, const char *name, int rank, const int64_t *dim, struct tensor *out)
{
	const struct stored_tensor *t = find_tensor(w, name);
	void *values = NULL;
	const char *path;

	if (t && w->read)
		atomic_store(&w->read[t - w->tensor], true);
	if (w->survey) {
		*out = tensor_view(NULL, DTYPE_F32, rank, dim);
		return survey_find(w, name, rank, dim);
	}
	if (w->random)
		return random_weights_view(w->random, name, rank, dim, out);
	if (!t)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s is missing", w->source, name);
	path = w->file[t->file].path;
	if (!stored_can_be_floats(t))
		return status_fail(STATUS_CORRUPT,
			"%s: tensor %s has the dtype %s; F32, BF16, F16, F8_E4M3 and F8_E5M2 are possible", path, name,
			t->type);
	if (rank)
		TRY(check_shape(path, t, rank, dim));
	TRY(check_rank(path, t));
	if (stored_needs_work(t) || lora_touches(w->loras, w->part, name)) {
		TRY(get_computed(w, t, false, &values));
		*out = stored_view(t, values, DTYPE_F32);
	} else {
		TRY(find_values(w, t, &values));
		*out = stored_view(t, values, t->dtype);
	}
	return STATUS_OK;
}

void weights_floats(const struct weights *w, const char *name, float *out)
{
	stored_to_floats(find_tensor(w, name), out);
}

void weights_add_lora(struct weights *w, const struct lora_set *loras, const char *part)
{
	w->loras = loras;
	w->part = part;
}

bool weights_has(const struct weights *w, const char *name)
{
	return find_tensor(w, name) != NULL;
}

int weights_rank(const struct weights *w, const char *name)
{
	const struct stored_tensor *t = find_tensor(w, name);

	return t ? t->rank : -1;
}

bool weights_has_floats(const struct weights *w, const char *name)
{
	const struct stored_tensor *t = find_tensor(w, name);

	return t && stored_can_be_floats(t);
}

enum status weights_shape(const struct weights *w, const char *name, int *rank, int64_t dim[TENSOR_RANK_MAX])
{
	const struct stored_tensor *t = find_tensor(w, name);

	if (!t)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s is missing", w->source, name);
	TRY(check_rank(w->file[t->file].path, t));
	*rank = t->rank;
	memcpy(dim, t->dim, TENSOR_RANK_MAX * sizeof *dim);
	return STATUS_OK;
}

int64_t weights_count(const struct weights *w)
{
	return w->count;
}

const char *weights_name(const struct weights *w, int64_t i)
{
	return w->tensor[i].name;
}

const char *weights_path(const struct weights *w, const char *name)
{
	const struct stored_tensor *t = find_tensor(w, name);

	return t ? w->file[t->file].path : w->source;
}

uint64_t weights_bytes(const struct weights *w)
{
	uint64_t len = 0;

	for (int64_t i = 0; i < w->count; i++)
		len += w->tensor[i].len;
	return len;
}

int64_t weights_parameters(const struct weights *w)
{
	int64_t count = 0;

	for (int64_t i = 0; i < w->count; i++)
		count += w->tensor[i].count;
	return count;
}

enum dtype weights_dtype(const struct weights *w)
{
	const struct stored_tensor *largest = &w->tensor[0];

	for (int64_t i = 1; i < w->count; i++)
		if (w->tensor[i].count > largest->count)
			largest = &w->tensor[i];
	return largest->dtype;
}

static void release_pages(const struct weights *w, uintptr_t begin, uintptr_t end)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;

	for (int i = 0; i < w->n_files; i++) {
		const struct mapped *m = &w->file[i];
		uintptr_t map = (uintptr_t)m->data;

		if (begin >= map && end - map <= m->size && first < last)
			madvise((void *)first, last - first, MADV_DONTNEED);
	}
}

static const struct stored_tensor *computed_from(const struct cache *cache, const void *values)
{
	for (const struct computed *c = cache->first; c; c = c->next)
		if (c->values == values)
			return c->of;
	return NULL;
}

void weights_release(const struct weights *w, const struct tensor *t)
{
	uintptr_t begin = (uintptr_t)t->data, end = begin + (uintptr_t)tensor_count(t) * dtype_size(t->dtype);
	const struct stored_tensor *source;

	pthread_mutex_lock(&w->cache->lock);
	source = computed_from(w->cache, t->data);
	if (source) {
		begin = (uintptr_t)source->data;
		end = begin + source->len;
		drop_computed(w->cache, t->data);
	}
	pthread_mutex_unlock(&w->cache->lock);
	release_pages(w, begin, end);
}

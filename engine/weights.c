/* weights: the tensors of one component, from one safetensors file or from shards with their index.
 *
 * A file is mapped and its header checked (safetensors.c); then all tensors stand in one list sorted by name.  Other
 * formats are found only to say why they are refused.
 */
#include "engine/weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "engine/gguf.h"
#include "engine/json.h"
#include "engine/safetensors.h"

enum { SHARDS_MAX = 1000 };

struct mapped {
	char *path;
	unsigned char *data;
	size_t size;
	bool copied; /* memory of its own instead of the file's pages */
};

struct weights {
	char *source; /* the file or the index, for messages */
	struct mapped *file;
	int n_files;
	struct stored_tensor *tensor; /* sorted by name */
	int64_t count;
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

static bool misaligned(const struct stored_tensor *list, int64_t count)
{
	for (int64_t i = 0; i < count; i++)
		if (dtype_size(list[i].dtype) && (uintptr_t)list[i].data % dtype_size(list[i].dtype))
			return true;
	return false;
}

/* The format aligns nothing, and old writers did not pad the header: such a file is copied, tensor by tensor. */
static enum status copy_aligned(struct mapped *m, struct stored_tensor *list, int64_t count)
{
	enum { ALIGNMENT = 16 };
	size_t size = ALIGNMENT;
	unsigned char *copy, *at;

	for (int64_t i = 0; i < count; i++)
		size += list[i].len + ALIGNMENT - 1;
	copy = at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		return status_fail(STATUS_NO_MEMORY,
			"%s: its tensors are not aligned, and there is no memory for a copy of %zu bytes", m->path,
			size);
	for (int64_t i = 0; i < count; i++) {
		memcpy(at, list[i].data, list[i].len);
		list[i].data = at;
		at += (list[i].len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	}
	munmap(m->data, m->size);
	m->data = copy;
	m->size = size;
	m->copied = true;
	return STATUS_OK;
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
	status = safetensors_parse(m->data, m->size, &list, &count);
	if (status != STATUS_OK)
		return status_prefix(status, "%s: ", path);
	if (misaligned(list, count))
		status = copy_aligned(m, list, count);
	all = status == STATUS_OK ? realloc(w->tensor, (size_t)(w->count + count + 1) * sizeof *all) : NULL;
	if (!all) {
		stored_tensors_free(list, count);
		return status == STATUS_OK ? fail_memory(path) : status;
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
	if (!w->source || !w->file) {
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

/* ---- other formats ----------------------------------------------------------------------------------------------- */

static enum status refuse_gguf(const char *path)
{
	struct mapped m = { 0 };
	enum status status = map_file(path, &m);

	if (status == STATUS_OK) {
		status = gguf_check(m.data, m.size);
		if (status != STATUS_OK)
			status_prefix(status, "%s: ", path);
	}
	unmap_file(&m);
	TRY(status);
	return status_fail(
		STATUS_UNSUPPORTED, "%s: GGUF weights are not read by this version; use the safetensors files", path);
}

static enum status refuse_pickle(const char *path)
{
	return status_fail(STATUS_UNSUPPORTED, "%s: pickle files can run code: use safetensors", path);
}

static enum status refuse_name(const char *path)
{
	return status_fail(
		STATUS_NO_MODEL, "%s: its name must be diffusion_pytorch_model.safetensors or model.safetensors", path);
}

static const struct format {
	const char *suffix;
	enum status (*refuse)(const char *path);
} formats[] = {
	{ ".safetensors", refuse_name },
	{ ".gguf", refuse_gguf },
	{ ".bin", refuse_pickle },
	{ ".pt", refuse_pickle },
	{ ".pth", refuse_pickle },
	{ ".ckpt", refuse_pickle },
};

static bool ends_with(const char *name, const char *suffix)
{
	size_t len = strlen(name), suffix_len = strlen(suffix);

	return len > suffix_len && !strcasecmp(name + len - suffix_len, suffix);
}

/* The first name in the folder, in order of the alphabet, that ends like this; "" if none. */
static void find_suffix(DIR *folder, const char *suffix, char found[NAME_MAX + 1])
{
	const struct dirent *entry;

	found[0] = 0;
	rewinddir(folder);
	while ((entry = readdir(folder)))
		if (ends_with(entry->d_name, suffix) && (!found[0] || strcmp(entry->d_name, found) < 0))
			snprintf(found, NAME_MAX + 1, "%s", entry->d_name);
}

/* Always a failure. */
static enum status refuse_folder(const char *dir)
{
	DIR *folder = opendir(dir);
	char name[NAME_MAX + 1] = "";
	struct bytes path = { 0 };
	size_t i = 0;
	enum status status;

	if (!folder)
		return status_fail(
			errno == ENOENT ? STATUS_NO_MODEL : STATUS_IO, "%s: cannot open: %s", dir, strerror(errno));
	for (; i < sizeof formats / sizeof formats[0]; i++) {
		find_suffix(folder, formats[i].suffix, name);
		if (name[0])
			break;
	}
	closedir(folder);
	if (!name[0])
		return status_fail(STATUS_NO_MODEL,
			"%s: neither diffusion_pytorch_model.safetensors nor model.safetensors is there", dir);
	TRY(bytes_print(&path, "%s/%s", dir, name));
	status = formats[i].refuse((char *)path.data);
	bytes_free(&path);
	return status;
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

enum status weights_open(const char *dir, struct weights **out)
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

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		bool found = false;

		TRY(try_name(dir, names[i].name, names[i].is_index, &found, out));
		if (found)
			return STATUS_OK;
	}
	return refuse_folder(dir);
}

enum status weights_open_component(const struct component *c, struct weights **out)
{
	struct stat st;

	if (stat(c->weights, &st) == 0 && S_ISREG(st.st_mode))
		return weights_open_file(c->weights, out);
	return weights_open(c->weights, out);
}

void weights_close(struct weights *w)
{
	if (!w)
		return;
	for (int i = 0; i < w->n_files; i++)
		unmap_file(&w->file[i]);
	stored_tensors_free(w->tensor, w->count);
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

enum status weights_view(const struct weights *w, const char *name, struct tensor *out)
{
	const struct stored_tensor *t = find_tensor(w, name);
	const char *path;

	if (!t)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s is missing", w->source, name);
	path = w->file[t->file].path;
	if (t->dtype == DTYPE_OTHER)
		return status_fail(
			STATUS_CORRUPT, "%s: tensor %s has the dtype %s, which is not supported", path, name, t->type);
	if (t->rank > TENSOR_RANK_MAX)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s has %d dimensions; at most %d are possible", path,
			name, t->rank, TENSOR_RANK_MAX);
	/* a scalar is a vector of one */
	*out = tensor_view((void *)t->data, t->dtype, t->rank ? t->rank : 1, t->rank ? t->dim : (int64_t[]){ 1 });
	return STATUS_OK;
}

enum status weights_find(const struct weights *w, const char *name, int rank, const int64_t *dim, struct tensor *out)
{
	const struct stored_tensor *t = find_tensor(w, name);

	if (t && t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
		return status_fail(STATUS_CORRUPT, "%s: tensor %s has the dtype %s; F32, BF16 and F16 are possible",
			w->file[t->file].path, name, t->type);
	if (t && rank)
		TRY(check_shape(w->file[t->file].path, t, rank, dim));
	return weights_view(w, name, out);
}

bool weights_has(const struct weights *w, const char *name)
{
	return find_tensor(w, name) != NULL;
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
		if (w->tensor[i].len > largest->len)
			largest = &w->tensor[i];
	return largest->dtype;
}

void weights_release(const struct weights *w, const struct tensor *t)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = (uintptr_t)t->data, end = begin + (uintptr_t)tensor_count(t) * dtype_size(t->dtype);
	uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;

	for (int i = 0; i < w->n_files; i++) {
		const struct mapped *m = &w->file[i];
		uintptr_t map = (uintptr_t)m->data;

		/* the pages of a copy are not in any file: dropping them would zero them */
		if (!m->copied && begin >= map && end - map <= m->size && first < last)
			madvise((void *)first, last - first, MADV_DONTNEED);
	}
}

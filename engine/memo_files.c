/* memo_files: see memo_files.h. */
#include "engine/memo_files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/memo.h"
#include "kernels/folder.h"

enum { NAME_LEN = 256 };

struct memo_files {
	char dir[PATH_MAX];
	uint64_t limit, bytes; /* bytes: of all files, as far as is known */
	bool surveyed;
};

struct header {
	char magic[16]; /* with the version */
	char key[MEMO_KEY_LEN];
	int64_t n;
	struct {
		int64_t dtype, rank, dim[TENSOR_RANK_MAX];
	} tensor[MEMO_TENSORS];
	uint64_t len, sum; /* of the bytes behind the header; sum: of them, and of what stands before it here */
};

static const char magic[16] = "promptfs text 1";

struct memo_files *memo_files_new(const char *dir, uint64_t limit)
{
	struct memo_files *f = calloc(1, sizeof *f);

	if (!f || strlen(dir) >= sizeof f->dir) {
		free(f);
		return NULL;
	}
	memcpy(f->dir, dir, strlen(dir));
	f->limit = limit;
	return f;
}

void memo_files_free(struct memo_files *f)
{
	free(f);
}

static void path_of(const struct memo_files *f, const char *name, char out[PATH_MAX + NAME_LEN])
{
	snprintf(out, PATH_MAX + NAME_LEN, "%s/%s", f->dir, name);
}

static uint64_t checksum(const struct header *h, const void *data)
{
	return XXH3_64bits_withSeed(data, h->len, XXH3_64bits(h, offsetof(struct header, sum)));
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* The tensors that the header describes, without data; false where they are none or not of h->len bytes together. */
static bool read_shapes(const struct header *h, int n, struct tensor *out)
{
	uint64_t sum = 0;

	if (memcmp(h->magic, magic, sizeof magic) != 0 || h->n != n)
		return false;
	for (int i = 0; i < n; i++) {
		const int64_t rank = h->tensor[i].rank, dtype = h->tensor[i].dtype;
		uint64_t len = dtype == DTYPE_F32 || dtype == DTYPE_BF16 ? dtype_size((enum dtype)dtype) : 0;

		if (len == 0 || rank < 1 || rank > TENSOR_RANK_MAX)
			return false;
		for (int j = 0; j < rank; j++)
			if (h->tensor[i].dim[j] < 1 || h->tensor[i].dim[j] > MEMO_BYTES ||
				(len *= (uint64_t)h->tensor[i].dim[j]) > MEMO_BYTES)
				return false;
		sum += len;
		out[i] = tensor_view(NULL, (enum dtype)dtype, (int)rank, h->tensor[i].dim);
	}
	return sum == h->len;
}

static bool read_all(int fd, void *out, size_t len)
{
	char *to = out;

	while (len > 0) {
		ssize_t got = read(fd, to, len);

		if (got <= 0)
			return false;
		to += got;
		len -= (size_t)got;
	}
	return true;
}

/* What is behind the header, malloc'ed; NULL where the file is not the one of this key, whole and undamaged. */
static char *read_file(int fd, const char *key, int n, struct tensor *out)
{
	struct header h;
	struct stat st;
	char *data;

	if (fstat(fd, &st) != 0 || !read_all(fd, &h, sizeof h) || memcmp(h.key, key, sizeof h.key) != 0 ||
		!read_shapes(&h, n, out) || (uint64_t)st.st_size != sizeof h + h.len)
		return NULL;
	data = malloc(h.len);
	if (data && read_all(fd, data, h.len) && checksum(&h, data) == h.sum)
		return data;
	free(data);
	return NULL;
}

static size_t bytes_of(const struct tensor *t)
{
	return (size_t)tensor_count(t) * dtype_size(t->dtype);
}

/* Memory of its own for each of them; false without memory. */
static bool divide(const char *data, int n, struct tensor *out)
{
	for (int i = 0; i < n; i++) {
		const size_t len = bytes_of(&out[i]);

		out[i].data = malloc(len + 1);
		if (!out[i].data) {
			while (i-- > 0)
				free(out[i].data);
			return false;
		}
		memcpy(out[i].data, data, len);
		data += len;
	}
	return true;
}

bool memo_files_read(const struct memo_files *f, const char *key, int n, struct tensor *out)
{
	char path[PATH_MAX + NAME_LEN], *data;
	struct tensor found[MEMO_TENSORS];
	bool good;
	int fd;

	path_of(f, key, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	data = read_file(fd, key, n, found);
	close(fd);
	if (!data) {
		unlink(path);
		return false;
	}
	utimensat(AT_FDCWD, path, NULL, 0); /* it was used now */
	good = divide(data, n, found);
	free(data);
	if (good)
		memcpy(out, found, (size_t)n * sizeof *out);
	return good;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* It and the one around it. */
static void make_folder(const struct memo_files *f)
{
	char path[PATH_MAX];
	char *end;

	memcpy(path, f->dir, sizeof path);
	end = strrchr(path, '/');
	if (end)
		*end = 0;
	mkdir(path, 0700);
	mkdir(f->dir, 0700);
}

/* The folder is looked through when it must be: what others write meanwhile is seen at the next time. */
static bool make_room(struct memo_files *f, uint64_t bytes)
{
	make_folder(f);
	if (!f->surveyed || f->bytes + bytes > f->limit) {
		if (!folder_shrink(f->dir, f->limit, bytes, &f->bytes))
			return false;
		f->surveyed = true;
	}
	return folder_has_disk(f->dir, bytes);
}

static bool write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

/* Not brought to the disk before it is renamed: what a crash tears has another checksum. */
static bool put(const char *temporary, const char *path, const struct header *h, const char *data)
{
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool good;

	if (fd < 0)
		return false;
	good = write_all(fd, (const char *)h, sizeof *h) && write_all(fd, data, h->len);
	good = close(fd) == 0 && good;
	if (good && rename(temporary, path) == 0)
		return true;
	unlink(temporary);
	return false;
}

void memo_files_write(struct memo_files *f, const char *key, int n, const struct tensor *tensors)
{
	char path[PATH_MAX + NAME_LEN], temporary[PATH_MAX + NAME_LEN + 32], *data;
	struct header h = { .n = n };
	size_t at = 0;

	memcpy(h.magic, magic, sizeof magic);
	memcpy(h.key, key, sizeof h.key);
	for (int i = 0; i < n; i++) {
		h.tensor[i].dtype = tensors[i].dtype;
		h.tensor[i].rank = tensors[i].rank;
		memcpy(h.tensor[i].dim, tensors[i].dim, sizeof h.tensor[i].dim);
		h.len += bytes_of(&tensors[i]);
	}
	data = malloc(h.len + 1);
	if (!data)
		return;
	for (int i = 0; i < n; at += bytes_of(&tensors[i]), i++)
		memcpy(data + at, tensors[i].data, bytes_of(&tensors[i]));
	h.sum = checksum(&h, data);
	path_of(f, key, path);
	snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
	if (make_room(f, sizeof h + h.len) && put(temporary, path, &h, data))
		f->bytes += sizeof h + h.len;
	free(data);
}

/* packed: copies of packed weights on disk, so that the next start maps them instead of packing again.
 *
 *     DIR/<key>   for every weight, in the order in which they were packed:
 *                 a page with a header | the packed values, up to whole pages
 *     DIR/<key>.<pid>.tmp   being written
 *
 * Values are mapped as they are, one mapping a weight, after their checksum was compared.  Whatever does not fit
 * (another length, a torn or damaged file) removes the file; the next start writes it anew.  Nothing here is ever a
 * failure: without a copy weights are packed from their sources.
 */
#include "kernels/backend.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "kernels/folder.h"

enum { PAGE = 4096, PARTS = 64 };

struct packed {
	char dir[PATH_MAX];
	uint64_t limit; /* bytes of all files */
	char path[PATH_MAX + 64], temporary[PATH_MAX + 96];
	int fd;       /* -1: neither reading nor writing */
	bool writing; /* else reading */
	uint64_t at;  /* in the file */
	uint64_t size;
};

struct header {
	char magic[16];
	int64_t kind, dtype, n, k, kernel;
	uint64_t len, sum;
};

static const char magic[16] = "promptfs packed";

static uint64_t pages(uint64_t len)
{
	return (len + PAGE - 1) / PAGE * PAGE;
}

void kernels_keep_packed(struct kernels *k, const char *dir, uint64_t limit)
{
	struct packed *p = calloc(1, sizeof *p);

	if (!p || !k->backend->layout || strlen(dir) >= sizeof p->dir) {
		free(p);
		return;
	}
	memcpy(p->dir, dir, strlen(dir));
	p->limit = limit;
	p->fd = -1;
	packed_free(k->packed);
	k->packed = p;
}

static void stop(struct packed *p)
{
	if (p->fd >= 0)
		close(p->fd);
	if (p->fd >= 0 && p->writing)
		unlink(p->temporary);
	p->fd = -1;
}

void packed_free(struct packed *p)
{
	if (p)
		stop(p);
	free(p);
}

/* ---- a file ------------------------------------------------------------------------------------------------------ */

static void open_new(struct packed *p, uint64_t bytes)
{
	uint64_t held;

	mkdir(p->dir, 0700);
	if (!folder_shrink(p->dir, p->limit, bytes, &held) || !folder_has_disk(p->dir, bytes))
		return;
	snprintf(p->temporary, sizeof p->temporary, "%s.%ld.tmp", p->path, (long)getpid());
	p->fd = open(p->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	p->writing = true;
}

void kernels_packed_begin(struct kernels *k, const char *identity, uint64_t bytes)
{
	struct packed *p = k->packed;
	char text[512];
	struct stat st = { 0 };
	XXH128_canonical_t key;
	size_t len;

	if (!p || bytes < PACKED_MIN || !*identity)
		return;
	stop(p);
	/* another build may pack otherwise, or in another order */
	kernels_arithmetic(k, text, sizeof text);
	len = strlen(text);
	snprintf(text + len, sizeof text - len, " %s", identity);
	XXH128_canonicalFromHash(&key, XXH3_128bits(text, strlen(text)));
	snprintf(p->path, sizeof p->path, "%s/", p->dir);
	for (size_t i = 0; i < sizeof key.digest; i++)
		snprintf(p->path + strlen(p->path), 3, "%02x", key.digest[i]);
	p->at = 0;
	p->writing = false;
	p->fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (p->fd < 0 || fstat(p->fd, &st) != 0) {
		stop(p);
		open_new(p, bytes);
		return;
	}
	p->size = (uint64_t)st.st_size;
	utimensat(AT_FDCWD, p->path, NULL, 0); /* it was used now */
}

void kernels_packed_end(struct kernels *k, bool keep)
{
	struct packed *p = k->packed;

	if (!p)
		return;
	if (keep && p->fd >= 0 && p->writing && p->at > 0 && rename(p->temporary, p->path) == 0)
		p->writing = false;
	stop(p);
}

/* Of parts, so that all threads help; reading also brings in the pages. */
static uint64_t checksum(const void *data, uint64_t len)
{
	const uint64_t part = len / PARTS + 1;
	uint64_t sums[PARTS] = { 0 };

#pragma omp parallel for schedule(dynamic)
	for (int i = 0; i < PARTS; i++)
		if ((uint64_t)i * part < len)
			sums[i] = XXH3_64bits((const char *)data + (uint64_t)i * part,
				len - (uint64_t)i * part < part ? len - (uint64_t)i * part : part);
	return XXH3_64bits(sums, sizeof sums);
}

static struct header describe(const struct weight *w)
{
	struct header h = {
		.kind = w->kind, .dtype = w->dtype, .n = w->n, .k = w->k, .kernel = w->kernel, .len = w->len
	};

	memcpy(h.magic, magic, sizeof magic);
	return h;
}

/* The values of w from the file, or NULL. */
static void *map_values(const struct packed *p, const struct weight *w)
{
	struct header found, wanted = describe(w);
	void *data;

	if (p->size < PAGE || p->at > p->size - PAGE || pages(w->len) > p->size - PAGE - p->at ||
		pread(p->fd, &found, sizeof found, (off_t)p->at) != (ssize_t)sizeof found)
		return NULL;
	wanted.sum = found.sum;
	if (memcmp(&found, &wanted, sizeof found) != 0)
		return NULL;
	data = mmap(NULL, w->len, PROT_READ, MAP_PRIVATE, p->fd, (off_t)(p->at + PAGE));
	if (data == MAP_FAILED)
		return NULL;
	madvise(data, w->len, MADV_WILLNEED);
	if (checksum(data, w->len) == found.sum)
		return data;
	munmap(data, w->len);
	return NULL;
}

bool packed_take(struct kernels *k, struct weight *w)
{
	struct packed *p = k->packed;

	if (!p || p->fd < 0 || p->writing)
		return false;
	if (k->backend->pack_layout(k, w) == STATUS_OK) {
		w->data = map_values(p, w);
		p->at += PAGE + pages(w->len);
	}
	if (w->data)
		return true;
	k->backend->pack_free(k, w);
	w->len = 0;
	unlink(p->path);
	stop(p);
	return false;
}

static bool write_all(int fd, const char *data, uint64_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len < 1 << 30 ? len : 1 << 30);

		if (n <= 0)
			return false;
		data += n;
		len -= (uint64_t)n;
	}
	return true;
}

void packed_add(struct kernels *k, const struct weight *w)
{
	static const char zeros[PAGE];
	struct packed *p = k->packed;
	char page[PAGE] = { 0 };
	struct header h = describe(w);

	if (!p || p->fd < 0 || !p->writing)
		return;
	h.sum = checksum(w->data, w->len);
	memcpy(page, &h, sizeof h);
	if (write_all(p->fd, page, PAGE) && write_all(p->fd, w->data, w->len) &&
		write_all(p->fd, zeros, pages(w->len) - w->len))
		p->at += PAGE + pages(w->len);
	else
		stop(p);
}

/* object: one object's file, `bytes | trailer`.
 *
 *     trailer: "promptfs" | length of the bytes, 8 bytes little endian | XXH3-128 of the bytes, 16 bytes big endian
 *
 * The bytes come first, so that the file itself can be looked at with the tools for its format.
 */
#include "cache/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xxhash.h>

static const char magic[8] = "promptfs";

void cache_seal(const void *data, size_t len, unsigned char trailer[TRAILER_LEN])
{
	XXH128_canonical_t hash;

	memcpy(trailer, magic, sizeof magic);
	for (int i = 0; i < 8; i++)
		trailer[8 + i] = (unsigned char)((uint64_t)len >> (8 * i));
	XXH128_canonicalFromHash(&hash, XXH3_128bits(data, len));
	memcpy(trailer + 16, &hash, sizeof hash);
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static int lock_shared(int fd)
{
	while (flock(fd, LOCK_SH) != 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

/* Maps a file whose last bytes may be a trailer; too short a one has no bytes. */
static int map_file(int fd, const struct stat *st, struct cache_object *out)
{
	*out = (struct cache_object){ .fd = fd };
	if (st->st_size < TRAILER_LEN)
		return 0;
	out->map_len = (size_t)st->st_size;
	out->map = mmap(NULL, out->map_len, PROT_READ, MAP_SHARED, fd, 0);
	if (out->map == MAP_FAILED)
		return errno;
	out->data = out->map;
	out->len = out->map_len - TRAILER_LEN;
	return 0;
}

/* Reading must not count as use: O_NOATIME, where the file is ours. */
static int open_quietly(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME | O_NOFOLLOW);

	return fd < 0 && errno == EPERM ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : fd;
}

int cache_open_object(struct cache *c, const char *key, struct cache_object *out)
{
	char path[PATH_MAX];
	struct cache_object object;
	struct stat st;
	int fd, error;

	cache_path(c, key, "", path);
	for (;;) {
		fd = open_quietly(path);
		if (fd < 0)
			return errno == ENOENT ? ENOENT : cache_fail(errno, path, "cannot be opened");
		error = lock_shared(fd);
		if (!error && fstat(fd, &st) != 0)
			error = errno;
		if (error || st.st_nlink > 0)
			break;
		close(fd); /* removed before we had the lock: look again */
	}
	if (!error)
		error = map_file(fd, &st, &object);
	if (error) {
		close(fd);
		return cache_fail(error, path, "cannot be read");
	}
	*out = object;
	return 0;
}

void cache_release(struct cache_object *o)
{
	if (o->map)
		munmap(o->map, o->map_len);
	if (o->fd >= 0) {
		flock(o->fd, LOCK_UN); /* also where a fork still has the descriptor */
		close(o->fd);
	}
	*o = (struct cache_object){ .fd = -1 };
}

/* ---- verifying ----------------------------------------------------------------------------------------------- */

static bool same_file(const struct verified *v, const struct stat *st)
{
	return v->inode == st->st_ino && v->device == st->st_dev && v->size == st->st_size &&
	       v->changed.tv_sec == st->st_mtim.tv_sec && v->changed.tv_nsec == st->st_mtim.tv_nsec;
}

static bool was_verified(struct cache *c, const struct stat *st)
{
	bool found = false;

	pthread_mutex_lock(&c->mu);
	for (unsigned i = 0; i < VERIFIED_MAX && i < c->n_verified && !found; i++)
		found = same_file(&c->verified[i], st);
	pthread_mutex_unlock(&c->mu);
	return found;
}

static void remember(struct cache *c, const struct stat *st)
{
	pthread_mutex_lock(&c->mu);
	c->verified[c->n_verified++ % VERIFIED_MAX] =
		(struct verified){ st->st_dev, st->st_ino, st->st_size, st->st_mtim };
	if (c->n_verified == 2 * VERIFIED_MAX)
		c->n_verified = VERIFIED_MAX;
	pthread_mutex_unlock(&c->mu);
}

bool cache_is_whole(struct cache *c, const struct cache_object *o, bool again)
{
	unsigned char trailer[TRAILER_LEN];
	struct stat st;

	if (!o->map || fstat(o->fd, &st) != 0 || (size_t)st.st_size != o->map_len)
		return false;
	if (!again && was_verified(c, &st))
		return true;
	cache_seal(o->data, o->len, trailer);
	if (memcmp(trailer, (const char *)o->map + o->len, TRAILER_LEN) != 0)
		return false;
	remember(c, &st);
	return true;
}

/* ---- removing ------------------------------------------------------------------------------------------------ */

int cache_unlink(struct cache *c, const char *key, int fd)
{
	char path[PATH_MAX], text[PATH_MAX];
	struct stat ours, named;
	int lock = cache_lock(c), error = 0;

	cache_path(c, key, "", path);
	cache_path(c, key, ".txt", text);
	if (lock < 0)
		return cache_fail(errno, c->dir, "its lock cannot be taken");
	if (fstat(fd, &ours) != 0 || stat(path, &named) != 0)
		error = errno;
	else if (ours.st_ino != named.st_ino || ours.st_dev != named.st_dev)
		error = ENOENT;
	else if (unlink(path) != 0)
		error = errno;
	else
		unlink(text);
	cache_unlock(lock);
	return error;
}

/* cache: opening, storing, fetching, removing.  Work on all objects at once is in survey.c. */
#include "cache/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { FORMAT = 1 };

/* Between scans this long apart other processes' objects are not counted. */
static const int64_t scan_every_ns = 60 * 1000000000ll;

/* ---- opening ------------------------------------------------------------------------------------------------- */

/* Like mkdir -p: every folder of the path. */
static int make_folders(const char *path)
{
	char part[PATH_MAX];

	for (size_t i = 1; path[i - 1]; i++)
		if (path[i] == '/' || !path[i]) {
			snprintf(part, sizeof part, "%.*s", (int)i, path);
			if (mkdir(part, 0700) != 0 && errno != EEXIST)
				return cache_fail(errno, part, "cannot be made");
		}
	return 0;
}

static int make_layout(struct cache *c)
{
	static const char *const names[] = { "objects", "tmp", "pins" };
	char path[PATH_MAX];
	int error = make_folders(c->dir);

	for (int i = 0; i < 3 && !error; i++) {
		snprintf(path, sizeof path, "%s/%s", c->dir, names[i]);
		if (mkdir(path, 0700) != 0 && errno != EEXIST)
			error = cache_fail(errno, path, "cannot be made");
	}
	return error;
}

/* The version on disk, 0 where there is none; -1 when it cannot be read. */
static long read_format(const char *path)
{
	char text[32] = "", *end;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;
	long version;

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	len = read(fd, text, sizeof text - 1);
	close(fd);
	version = strtol(text, &end, 10);
	return len > 0 && end != text && version > 0 ? version : -1;
}

static int check_format(struct cache *c)
{
	static const char text[] = "1\n";
	char path[PATH_MAX];
	long version;
	int error = 0;

	snprintf(path, sizeof path, "%s/format", c->dir);
	version = read_format(path);
	if (version == 0)
		error = cache_write(c, path, 1, &(struct cache_part){ text, sizeof text - 1 });
	if (error && error != EEXIST)
		return error;
	if (version < 0 || version > FORMAT)
		return cache_fail(
			EPROTONOSUPPORT, path, "a newer promptfs made this cache; use that one or another folder");
	return 0;
}

int cache_open(const char *dir, uint64_t limit, struct cache **out)
{
	struct cache *c = calloc(1, sizeof *c);
	uint64_t removed;
	int error = 0;

	if (!c)
		return cache_fail(ENOMEM, dir, "no memory");
	c->limit = limit;
	pthread_mutex_init(&c->mu, NULL);
	if (!*dir || (size_t)snprintf(c->dir, sizeof c->dir, "%s", dir) >= sizeof c->dir)
		error = cache_fail(ENAMETOOLONG, dir, "no path for a cache");
	if (!error)
		error = make_layout(c);
	if (!error)
		error = check_format(c);
	if (!error) {
		cache_sweep(c);
		error = cache_shrink(c, limit ? limit : UINT64_MAX, &removed);
	}
	if (error) {
		cache_close(c);
		return error;
	}
	*out = c;
	return 0;
}

void cache_close(struct cache *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->mu);
	free(c);
}

/* ---- fetching ------------------------------------------------------------------------------------------------ */

static int check_key(const struct cache *c, const char *key)
{
	return cache_is_key(key) ? 0 : cache_fail(EINVAL, c->dir, "a key has 32 lower-case hex digits");
}

static void mark_used(const struct cache *c, const char *key)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };
	char path[PATH_MAX];

	cache_path(c, key, "", path);
	utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

int cache_get(struct cache *c, const char *key, struct cache_object *out)
{
	struct cache_object object;
	int error = check_key(c, key);

	if (!error)
		error = cache_open_object(c, key, &object);
	if (error)
		return error;
	if (!cache_is_whole(c, &object, false)) {
		/* readers of the damaged file keep it; for others it is absent */
		cache_unlink(c, key, object.fd);
		cache_release(&object);
		return ENOENT;
	}
	mark_used(c, key);
	*out = object;
	return 0;
}

bool cache_has(struct cache *c, const char *key)
{
	char path[PATH_MAX];

	if (!cache_is_key(key))
		return false;
	cache_path(c, key, "", path);
	return access(path, F_OK) == 0;
}

int cache_read_text(struct cache *c, const char *key, char **out)
{
	char path[PATH_MAX], *text = NULL;
	struct stat st;
	size_t len = 0;
	ssize_t n = 1;
	int error = check_key(c, key), fd;

	if (error)
		return error;
	cache_path(c, key, ".txt", path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0 || !(text = malloc((size_t)st.st_size + 1)))
		error = errno;
	while (!error && n > 0 && len < (size_t)st.st_size) {
		n = read(fd, text + len, (size_t)st.st_size - len);
		if (n > 0)
			len += (size_t)n;
		else if (n < 0 && errno != EINTR)
			error = errno;
	}
	if (fd >= 0)
		close(fd);
	if (error) {
		free(text);
		return cache_fail(error, path, "cannot be read");
	}
	text[len] = 0;
	*out = text;
	return 0;
}

/* ---- storing ------------------------------------------------------------------------------------------------- */

/* Counts what was added; true when it is time to look at the whole. */
static bool account(struct cache *c, uint64_t added)
{
	bool due;

	pthread_mutex_lock(&c->mu);
	c->bytes += added;
	due = c->limit && (c->bytes > c->limit || cache_now_ns() - c->scanned_ns > scan_every_ns);
	pthread_mutex_unlock(&c->mu);
	return due;
}

/* What is there under the key already: kept when whole, removed when damaged. */
static bool is_kept(struct cache *c, const char *key)
{
	struct cache_object object;
	bool whole;

	if (cache_open_object(c, key, &object) != 0)
		return false;
	whole = cache_is_whole(c, &object, false);
	if (!whole)
		cache_unlink(c, key, object.fd);
	cache_release(&object);
	return whole;
}

static int write_object(
	struct cache *c, const char *key, const void *data, size_t len, const char *text, size_t text_len)
{
	unsigned char trailer[TRAILER_LEN];
	char path[PATH_MAX], text_path[PATH_MAX];
	int error;

	cache_path(c, key, "", path);
	cache_path(c, key, ".txt", text_path);
	cache_seal(data, len, trailer);
	error = cache_write(c, text_path, 1, &(struct cache_part){ text, text_len });
	if (error && error != EEXIST)
		return error;
	error = cache_write(c, path, 2, (struct cache_part[]){ { data, len }, { trailer, sizeof trailer } });
	if (error && error != EEXIST && !cache_has(c, key))
		unlink(text_path);
	return error;
}

int cache_put(struct cache *c, const char *key, const void *data, size_t len, const char *text, size_t text_len)
{
	uint64_t removed;
	int error = check_key(c, key);

	if (error || is_kept(c, key))
		return error;
	error = write_object(c, key, data, len, text, text_len);
	if (error == EEXIST)
		return 0; /* another process was faster */
	if (error)
		return error;
	if (account(c, len + TRAILER_LEN + text_len))
		cache_shrink(c, c->limit, &removed); /* too large a cache is no reason to lose the picture */
	return 0;
}

/* ---- removing and pinning ------------------------------------------------------------------------------------ */

int cache_remove(struct cache *c, const char *key)
{
	struct cache_object object;
	char path[PATH_MAX];
	int error = check_key(c, key);

	if (error)
		return error;
	cache_path(c, key, "", path);
	if (cache_is_pinned(c, key))
		return cache_fail(EPERM, path, "is pinned; unpin it first");
	error = cache_open_object(c, key, &object);
	if (error)
		return error == ENOENT ? cache_fail(error, path, "no such object") : error;
	/* asking for the stronger lock gives up the weaker one: a reader coming in between makes it fail */
	if (flock(object.fd, LOCK_EX | LOCK_NB) != 0)
		error = cache_fail(EBUSY, path, "is open");
	else
		error = cache_unlink(c, key, object.fd);
	cache_release(&object);
	return error;
}

int cache_pin(struct cache *c, const char *key, bool pinned)
{
	char path[PATH_MAX];
	int error = check_key(c, key), fd;

	if (error)
		return error;
	cache_pin_path(c, key, path);
	if (!pinned)
		return unlink(path) == 0 || errno == ENOENT ? 0 : cache_fail(errno, path, "cannot be removed");
	if (!cache_has(c, key))
		return cache_fail(ENOENT, path, "no such object to pin");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return cache_fail(errno, path, "cannot be made");
	close(fd);
	return 0;
}

/* files: names, locks and durable writing. */
#include "cache/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static _Thread_local char text[PATH_MAX + 200];

int cache_fail(int error, const char *path, const char *what)
{
	snprintf(text, sizeof text, "%s: %s (%s)", path, what, strerror(error));
	return error;
}

const char *cache_text(void)
{
	return text;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

bool cache_is_key(const char *key)
{
	return strlen(key) == CACHE_KEY_LEN && strspn(key, "0123456789abcdef") == CACHE_KEY_LEN;
}

void cache_path(const struct cache *c, const char *key, const char *suffix, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/objects/%.2s/%s%s", c->dir, key, key, suffix);
}

void cache_pin_path(const struct cache *c, const char *key, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/pins/%s", c->dir, key);
}

bool cache_is_pinned(const struct cache *c, const char *key)
{
	char path[PATH_MAX];

	cache_pin_path(c, key, path);
	return access(path, F_OK) == 0;
}

int64_t cache_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* ---- locks --------------------------------------------------------------------------------------------------- */

/* A flock belongs to the open file, so that each thread opens one of its own. */
int cache_lock(const struct cache *c)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof path, "%s/lock", c->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	while (fd >= 0 && flock(fd, LOCK_EX) != 0)
		if (errno != EINTR) {
			close(fd);
			return -1;
		}
	return fd;
}

void cache_unlock(int lock)
{
	if (lock >= 0)
		close(lock);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

/* A locked file of a name of its own; -1 and errno. */
static int create_temporary(struct cache *c, char path[PATH_MAX])
{
	static _Atomic unsigned count;
	int lock = cache_lock(c), fd = -1, error;

	if (lock < 0)
		return -1;
	snprintf(path, PATH_MAX, "%s/tmp/%ld-%u-%lld", c->dir, (long)getpid(), count++, (long long)cache_now_ns());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
		error = errno;
		unlink(path);
		close(fd);
		errno = error;
		fd = -1;
	}
	error = errno;
	cache_unlock(lock);
	errno = error;
	return fd;
}

static int write_all(int fd, const struct cache_part *part)
{
	const char *at = part->data;

	for (size_t left = part->len; left;) {
		ssize_t n = write(fd, at, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		at += n;
		left -= (size_t)n;
	}
	return 0;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return errno;
	if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system that has no use for it */
		error = errno;
	close(fd);
	return error;
}

/* The folder of a path, made where it is missing. */
static int make_folder(const char *path, char folder[PATH_MAX])
{
	char *slash;

	snprintf(folder, PATH_MAX, "%s", path);
	slash = strrchr(folder, '/');
	*slash = 0;
	if (mkdir(folder, 0700) != 0)
		return errno == EEXIST ? 0 : errno;
	slash = strrchr(folder, '/');
	*slash = 0;
	sync_folder(folder); /* the new folder's own name; the object's fsync below is the one that must succeed */
	*slash = '/';
	return 0;
}

static int fill(int fd, int n_parts, const struct cache_part *parts)
{
	for (int i = 0; i < n_parts; i++) {
		int error = write_all(fd, &parts[i]);

		if (error)
			return error;
	}
	return fsync(fd) == 0 ? 0 : errno;
}

int cache_write(struct cache *c, const char *path, int n_parts, const struct cache_part *parts)
{
	char temporary[PATH_MAX], folder[PATH_MAX];
	int error = make_folder(path, folder), fd;

	if (error)
		return cache_fail(error, path, "its folder cannot be made");
	fd = create_temporary(c, temporary);
	if (fd < 0)
		return cache_fail(errno, c->dir, "no file can be made in tmp/");
	error = fill(fd, n_parts, parts);
	/* a hard link never replaces what is there, on any file system */
	if (!error && link(temporary, path) != 0)
		error = errno;
	unlink(temporary);
	close(fd);
	if (!error)
		error = sync_folder(folder);
	return error && error != EEXIST ? cache_fail(error, path, "cannot be written") : error;
}

void cache_sweep(struct cache *c)
{
	char path[PATH_MAX];
	int lock = cache_lock(c), fd;
	const struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof path, "%s/tmp", c->dir);
	dir = lock >= 0 ? opendir(path) : NULL;
	while (dir && (entry = readdir(dir))) {
		if (*entry->d_name == '.')
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
		if (fd < 0)
			continue;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0) /* its writer is dead */
			unlinkat(dirfd(dir), entry->d_name, 0);
		close(fd);
	}
	if (dir)
		closedir(dir);
	cache_unlock(lock);
}

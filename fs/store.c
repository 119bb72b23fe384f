/* store: see store.h. */
#include "fs/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_TRIES = 50, LOCK_PAUSE_US = 100 * 1000 };

static enum status fail_system(const char *what, const char *path)
{
	return status_fail(STATUS_IO, "%s %s: %s", what, path, strerror(errno));
}

static enum status make_folders(const char *path)
{
	char part[PATH_MAX];

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return status_fail(STATUS_INVALID, "store %s: the path is too long", path);
	for (char *slash = part + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return fail_system("cannot create the folder", part);
		*slash = '/';
	}
	if (mkdir(part, 0700) < 0 && errno != EEXIST)
		return fail_system("cannot create the store", part);
	return STATUS_OK;
}

static enum status open_folder(struct store *s, const char *path)
{
	TRY(make_folders(path));
	if (!realpath(path, s->path))
		return fail_system("cannot find the store", path);
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0)
		return fail_system("cannot open the store", s->path);
	return STATUS_OK;
}

/* The other daemon's id, for the message; 0 if unreadable. */
static long lock_holder(int fd)
{
	char text[32];
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

	if (len <= 0)
		return 0;
	text[len] = '\0';
	return strtol(text, NULL, 10);
}

static enum status take_lock(struct store *s)
{
	int tries = 0;

	s->lock_fd = openat(s->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return fail_system("cannot write to the store", s->path);
	while (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return fail_system("cannot lock the store", s->path);
		if (++tries >= LOCK_TRIES)
			return status_fail(STATUS_IO,
				"the store %s is served by another promptfs (process %ld): unmount that one first, or "
				"choose "
				"another --store",
				s->path, lock_holder(s->lock_fd));
		usleep(LOCK_PAUSE_US);
	}
	if (ftruncate(s->lock_fd, 0) < 0 || dprintf(s->lock_fd, "%ld\n", (long)getpid()) < 0)
		return fail_system("cannot write to the store", s->path);
	return STATUS_OK;
}

/* The version is written beside and renamed, so that a full disk leaves no empty file behind. */
static enum status write_format(struct store *s)
{
	int fd = openat(s->fd, "format.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int written;

	if (fd < 0)
		return fail_system("cannot write to the store", s->path);
	written = dprintf(fd, "%d\n", STORE_FORMAT);
	if (written < 0 || fsync(fd) < 0 || renameat(s->fd, "format.new", s->fd, "format") < 0) {
		enum status failed = fail_system("cannot write to the store", s->path);

		close(fd);
		unlinkat(s->fd, "format.new", 0);
		return failed;
	}
	close(fd);
	return STATUS_OK;
}

static enum status check_format(struct store *s)
{
	char text[32];
	char *end;
	long version;
	ssize_t len;
	int fd = openat(s->fd, "format", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? write_format(s) : fail_system("cannot read the format of the store", s->path);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	version = strtol(text, &end, 10);
	if (end == text || version < 1)
		return status_fail(
			STATUS_CORRUPT, "%s/format holds no version number: is this a promptfs store?", s->path);
	if (version > STORE_FORMAT)
		return status_fail(STATUS_UNSUPPORTED,
			"the store %s has format %ld, this promptfs knows %d: install a newer promptfs", s->path,
			version, STORE_FORMAT);
	return STATUS_OK;
}

static enum status open_prompts(struct store *s)
{
	if (mkdirat(s->fd, "prompts", 0755) < 0 && errno != EEXIST)
		return fail_system("cannot create prompts/ in the store", s->path);
	s->prompts_fd = openat(s->fd, "prompts", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->prompts_fd < 0)
		return fail_system("cannot open prompts/ in the store", s->path);
	return STATUS_OK;
}

static enum status open_all(struct store *s, const char *path)
{
	TRY(open_folder(s, path));
	TRY(check_format(s));
	TRY(take_lock(s));
	return open_prompts(s);
}

enum status store_open(const char *path, struct store *out)
{
	struct store s = { .fd = -1, .lock_fd = -1, .prompts_fd = -1 };
	enum status opened = open_all(&s, path);

	if (opened != STATUS_OK) {
		store_close(&s);
		return opened;
	}
	*out = s;
	return STATUS_OK;
}

static void close_one(int fd)
{
	if (fd >= 0)
		close(fd);
}

void store_close(struct store *s)
{
	close_one(s->prompts_fd);
	close_one(s->lock_fd);
	close_one(s->fd);
}

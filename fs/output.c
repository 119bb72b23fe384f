/* output: see output.h. */
#include "fs/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status fail(const char *path)
{
	return status_fail(STATUS_IO, "%s: cannot be written: %s", path, strerror(errno));
}

static void folder_of(const char *path, char folder[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		snprintf(folder, PATH_MAX, ".");
	else
		snprintf(folder, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* Whether there is something under the name that a rename must not replace. */
static bool is_special(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

enum status output_check(const char *path)
{
	char folder[PATH_MAX];
	struct stat st;

	if (strcmp(path, "-") == 0)
		return isatty(STDOUT_FILENO)
			       ? status_fail(STATUS_IO, "a picture is not for a terminal; redirect it or use -o FILE")
			       : STATUS_OK;
	if (is_special(path))
		return STATUS_OK;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		errno = EISDIR;
		return fail(path);
	}
	folder_of(path, folder);
	return access(folder, W_OK | X_OK) == 0 ? STATUS_OK : fail(path);
}

static bool write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static enum status write_direct(const char *path, const void *data, size_t len)
{
	bool standard = strcmp(path, "-") == 0;
	int fd = standard ? STDOUT_FILENO : open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	enum status s = STATUS_OK;

	if (fd < 0)
		return fail(path);
	if (!write_all(fd, data, len))
		s = fail(standard ? "standard output" : path);
	if (!standard && close(fd) != 0 && s == STATUS_OK)
		s = fail(path);
	return s;
}

/* mkstemp makes private files; a picture gets what open() would have given it, or what the old one had. */
static mode_t mode_for(const char *path)
{
	struct stat st;
	mode_t mask = umask(0);

	umask(mask);
	return stat(path, &st) == 0 ? st.st_mode & 0777 : 0666 & ~mask;
}

enum status output_write(const char *path, const void *data, size_t len)
{
	char real[PATH_MAX], temporary[PATH_MAX];
	enum status s = STATUS_OK;
	int fd;

	if (strcmp(path, "-") == 0 || is_special(path))
		return write_direct(path, data, len);
	if (!realpath(path, real)) /* a link keeps pointing where it points */
		snprintf(real, sizeof real, "%s", path);
	if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", real) >= (int)sizeof temporary) {
		errno = ENAMETOOLONG;
		return fail(path);
	}
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return fail(path);
	if (!write_all(fd, data, len) || fchmod(fd, mode_for(real)) != 0)
		s = fail(path);
	if (close(fd) != 0 && s == STATUS_OK)
		s = fail(path);
	if (s == STATUS_OK && rename(temporary, real) != 0)
		s = fail(path);
	if (s != STATUS_OK)
		unlink(temporary);
	return s;
}

/* inject: makes file operations below one folder fail, for a program started with LD_PRELOAD=inject.so.
 *
 * INJECT_UNDER: the folder.  INJECT_PLAN: a file, read again at each operation, with "OPERATION ERRNO EVERY":
 * OPERATION write (also pwrite, writev), sync (fsync, fdatasync), rename (also link) or create (open with O_CREAT);
 * ERRNO a number, or 0 for a write that is cut in half; EVERY n: each n-th fails.  No file, or an empty one: none does.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_ulong calls;

/* The operation's place is a descriptor, or a path in the folder of one. */
static bool is_under(int fd, const char *path)
{
	const char *under = getenv("INJECT_UNDER");
	char link[64], full[PATH_MAX];
	ssize_t len;

	if (!under)
		return false;
	if (path && path[0] == '/')
		return strncmp(path, under, strlen(under)) == 0;
	if (fd == AT_FDCWD)
		return false;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, full, sizeof full - 1);
	if (len < 0)
		return false;
	full[len] = 0;
	return strncmp(full, under, strlen(under)) == 0;
}

/* Whether this one fails, and how: *error 0 cuts it. */
static bool strikes(const char *operation, int fd, const char *path, int *error)
{
	int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	const char *plan = getenv("INJECT_PLAN");
	char text[64] = "", wanted[16];
	unsigned long every;
	int file;

	if (!plan || !is_under(fd, path))
		return false;
	file = real_open(plan, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	if (read(file, text, sizeof text - 1) < 0)
		text[0] = 0;
	close(file);
	if (sscanf(text, "%15s %d %lu", wanted, error, &every) != 3 || strcmp(wanted, operation) != 0 || every == 0)
		return false;
	return atomic_fetch_add(&calls, 1) % every == every - 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t len)
{
	int error;

	if (strikes("write", fd, NULL, &error)) {
		if (error) {
			errno = error;
			return -1;
		}
		len = (len + 1) / 2;
	}
	return REAL(write)(fd, data, len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	int error;

	if (strikes("write", fd, NULL, &error)) {
		if (error) {
			errno = error;
			return -1;
		}
		len = (len + 1) / 2;
	}
	return REAL(pwrite)(fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t offset)
{
	return pwrite(fd, data, len, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int n)
{
	int error;

	if (n > 0 && strikes("write", fd, NULL, &error)) {
		if (error) {
			errno = error;
			return -1;
		}
		return REAL(write)(fd, parts[0].iov_base, (parts[0].iov_len + 1) / 2);
	}
	return REAL(writev)(fd, parts, n);
}

static int fail_or(int error, bool struck, int done)
{
	if (!struck)
		return done;
	errno = error ? error : EIO;
	return -1;
}

int fsync(int fd)
{
	int error;
	bool struck = strikes("sync", fd, NULL, &error);

	return fail_or(error, struck, struck ? 0 : REAL(fsync)(fd));
}

int fdatasync(int fd)
{
	int error;
	bool struck = strikes("sync", fd, NULL, &error);

	return fail_or(error, struck, struck ? 0 : REAL(fdatasync)(fd));
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	int error;
	bool struck = strikes("rename", to_dir, to, &error);

	return fail_or(error, struck, struck ? 0 : REAL(renameat)(from_dir, from, to_dir, to));
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags)
{
	int error;
	bool struck = strikes("rename", to_dir, to, &error);

	return fail_or(error, struck, struck ? 0 : REAL(renameat2)(from_dir, from, to_dir, to, flags));
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	int error;
	bool struck = strikes("rename", to_dir, to, &error);

	return fail_or(error, struck, struck ? 0 : REAL(linkat)(from_dir, from, to_dir, to, flags));
}

int openat(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;
	int error;

	if (flags & O_CREAT) {
		va_list list;

		va_start(list, flags);
		mode = va_arg(list, mode_t);
		va_end(list);
		if (strikes("create", dir, path, &error)) {
			errno = error ? error : EIO;
			return -1;
		}
	}
	return REAL(openat)(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;

	if (flags & O_CREAT) {
		va_list list;

		va_start(list, flags);
		mode = va_arg(list, mode_t);
		va_end(list);
	}
	return openat(dir, path, flags, mode);
}

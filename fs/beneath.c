/* beneath: see beneath.h. */
#include "fs/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_how(int dir_fd, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve };

	return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
}

int beneath_open(int dir_fd, const char *path, int flags)
{
	int fd = open_how(dir_fd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);

	/* kernels before 5.6, and sandboxes that do not know the call */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = openat(dir_fd, path, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd;
}

bool beneath_is_folder(int dir_fd, const char *target)
{
	int fd = open_how(dir_fd, target, O_PATH | O_DIRECTORY, RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

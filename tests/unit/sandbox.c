/* sandbox: a process that entered it reads on, and can neither write, make, remove nor run a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/sandbox.h"
#include "tests/unit/check.h"

enum { READS = 1, NO_WRITE = 2, NO_NEW = 4, NO_UNLINK = 8, NO_RUN = 16, DEVICE = 32, FOLDER = 64, KEEPS = 128 };

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* asks for the version */) > 0;
}

/* In a child: what it could do, as bits. */
static int try_all(const char *file, const char *device, const char *folder)
{
	char other[128], pattern[128], inside[128], packed[96], kept[128];
	struct sandbox_path paths[] = { { "/", SANDBOX_READ, false }, { NULL, SANDBOX_DEVICE, true },
		{ NULL, SANDBOX_ADD, false }, { NULL, SANDBOX_KEEP, false }, { "/missing", SANDBOX_WRITE, false } };
	int found = 0;

	snprintf(other, sizeof other, "%s.new", file);
	snprintf(inside, sizeof inside, "%s/file", folder);
	snprintf(pattern, sizeof pattern, "%.*s*", (int)strlen(device) - 1, device);
	snprintf(packed, sizeof packed, "%s.packed", file);
	snprintf(kept, sizeof kept, "%s/kept", packed);
	paths[1].path = pattern;
	paths[2].path = folder;
	paths[3].path = packed;
	mkdir(packed, 0700);
	if (!sandbox_enter(paths, sizeof paths / sizeof *paths))
		return 0;
	if (open(kept, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0 && unlink(kept) == 0)
		found |= KEEPS;
	if (open(device, O_RDWR | O_CLOEXEC) >= 0 && unlink(device) < 0)
		found |= DEVICE;
	if (open(inside, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) >= 0 && unlink(inside) < 0)
		found |= FOLDER;
	if (open(file, O_RDONLY | O_CLOEXEC) >= 0)
		found |= READS;
	if (open(file, O_WRONLY | O_CLOEXEC) < 0 && errno == EACCES && truncate(file, 0) < 0)
		found |= NO_WRITE;
	if (open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EACCES)
		found |= NO_NEW;
	if (unlink(file) < 0 && errno == EACCES)
		found |= NO_UNLINK;
	execl("/bin/true", "true", (char *)NULL);
	if (errno == EACCES)
		found |= NO_RUN;
	return found;
}

int main(void)
{
	char file[] = "/tmp/promptfs-sandbox-XXXXXX", device[] = "/tmp/promptfs-device-XXXXXX";
	char folder[] = "/tmp/promptfs-folder-XXXXXX", inside[64], packed[64];
	int fd = mkstemp(file), device_fd = mkstemp(device), status = 0;
	pid_t child;

	if (device_fd < 0 || !mkdtemp(folder))
		return 2;
	close(device_fd);
	snprintf(inside, sizeof inside, "%s/file", folder);

	if (!has_landlock()) {
		printf("skip - sandbox: this kernel has no Landlock\n");
		unlink(file);
		return 0;
	}
	close(fd);
	fflush(stdout);
	child = fork();
	if (child == 0)
		_exit(try_all(file, device, folder));
	waitpid(child, &status, 0);
	CHECK("reads on", WEXITSTATUS(status) & READS);
	CHECK("writes no file", WEXITSTATUS(status) & NO_WRITE);
	CHECK("makes no file", WEXITSTATUS(status) & NO_NEW);
	CHECK("removes no file", WEXITSTATUS(status) & NO_UNLINK);
	CHECK("runs no program", WEXITSTATUS(status) & NO_RUN);
	CHECK("writes to a device", WEXITSTATUS(status) & DEVICE);
	CHECK("makes a file in its folder", WEXITSTATUS(status) & FOLDER);
	CHECK("makes and removes packed weights", WEXITSTATUS(status) & KEEPS);
	unlink(file);
	rmdir(strcat(strcpy(packed, file), ".packed"));
	unlink(device);
	unlink(inside);
	rmdir(folder);
	return check_result();
}

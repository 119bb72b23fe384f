/* mountpoint: see mountpoint.h. */
#include "fs/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static const char our_type[] = "fuse.promptfs";

enum { STACKED_MAX = 16, END_PATIENCE_MS = 10000 };

/* ---- /proc/self/mountinfo ---- */

/* Blanks and backslashes in its paths are written as \040 and so on. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *c = path; *c; c++) {
		if (c[0] == '\\' && c[1] >= '0' && c[1] <= '3' && c[2] >= '0' && c[2] <= '7' && c[3] >= '0' &&
			c[3] <= '7') {
			*to++ = (char)((c[1] - '0') * 64 + (c[2] - '0') * 8 + (c[3] - '0'));
			c += 3;
		} else {
			*to++ = *c;
		}
	}
	*to = '\0';
}

/* "id parent major:minor root MOUNTPOINT options ... - TYPE source options": cuts the line up. */
static bool read_line(char *line, const char **path, const char **type)
{
	char *rest = strstr(line, " - "), *save;

	if (!rest)
		return false;
	*rest = '\0';
	strtok_r(line, " ", &save);
	for (int field = 1; field < 4; field++)
		strtok_r(NULL, " ", &save);
	*path = strtok_r(NULL, " ", &save);
	*type = strtok_r(rest + 3, " ", &save);
	return *path && *type;
}

bool mountpoint_type(const char *absolute, char *type, int size)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (file && getline(&line, &room, file) > 0) {
		const char *path, *this_type;

		if (!read_line(line, &path, &this_type))
			continue;
		unescape((char *)path);
		if (strcmp(path, absolute) == 0) {
			snprintf(type, (size_t)size, "%s", this_type); /* the last one is on top */
			found = true;
		}
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

/* ---- taking away ---- */

/* The tool that may unmount for ordinary users; its errno is not known, only that it failed. */
static int run_fusermount(const char *path, bool lazy)
{
	int ended;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		if (null >= 0)
			dup2(null, STDERR_FILENO);
		execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", path, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return errno;
	while (waitpid(pid, &ended, 0) < 0) {
		if (errno != EINTR)
			return errno;
	}
	if (WIFEXITED(ended) && WEXITSTATUS(ended) == 127)
		return ENOENT;
	return WIFEXITED(ended) && WEXITSTATUS(ended) == 0 ? 0 : EBUSY;
}

static int take_away(const char *path, bool lazy)
{
	if (geteuid() != 0)
		return run_fusermount(path, lazy);
	return umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? errno : 0;
}

/* Whether a daemon that died left this mounted.  statfs always asks the daemon; stat may be answered from what the
 * kernel remembers of the root, long after the daemon is gone. */
static bool is_dead(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

/* Through its descriptor: exactly the mount that was found dead, not a new one over it. */
static int detach(const char *path, int fd)
{
	char link[32];

	if (geteuid() != 0)
		return run_fusermount(path, true);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return umount2(link, MNT_DETACH) < 0 ? errno : 0;
}

static bool is_dead_at(const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);
	bool dead = fd >= 0 && is_dead(fd);

	if (fd >= 0)
		close(fd);
	return dead;
}

/* Several dead mounts may lie upon each other. */
enum status mountpoint_clear(const char *path)
{
	for (int i = 0; i < STACKED_MAX; i++) {
		int fd = open(path, O_PATH | O_CLOEXEC);
		bool dead = fd >= 0 && is_dead(fd);
		int error = dead ? detach(path, fd) : 0;

		if (fd >= 0)
			close(fd);
		if (!dead)
			break;
		if (error && is_dead_at(path)) /* unless another process was faster */
			return status_fail(STATUS_IO,
				"%s: a daemon that died left it mounted, and it cannot be unmounted (%s): "
				"try `fusermount3 -uz` on it",
				path, strerror(error));
	}
	return STATUS_OK;
}

/* ---- finding out ---- */

static enum status check_folder(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return status_fail(STATUS_IO, "mount point %s: %s%s", path, strerror(errno),
			errno == ENOENT ? "; create the folder first" : "");
	if (!S_ISDIR(st.st_mode))
		return status_fail(STATUS_IO, "mount point %s: is no folder", path);
	return STATUS_OK;
}

static enum status check_empty(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int n = 0;

	if (!dir)
		return status_fail(STATUS_IO, "mount point %s: %s", path, strerror(errno));
	while (n < 3 && (entry = readdir(dir)))
		n++;
	closedir(dir);
	if (n > 2)
		return status_fail(STATUS_IO,
			"mount point %s: is not empty; mount elsewhere, or hide what is in it with -o nonempty", path);
	return STATUS_OK;
}

enum status mountpoint_prepare(const char *path, bool nonempty, char absolute[PATH_MAX])
{
	char type[64];

	TRY(mountpoint_clear(path));
	TRY(check_folder(path));
	if (!realpath(path, absolute))
		return status_fail(STATUS_IO, "mount point %s: %s", path, strerror(errno));
	if (mountpoint_type(absolute, type, sizeof(type)) && strcmp(type, our_type) == 0)
		return status_fail(STATUS_IO,
			"mount point %s: a promptfs is mounted there already; `promptfs unmount` it first", path);
	if (access(absolute, W_OK) < 0 && geteuid() != 0)
		return status_fail(STATUS_IO, "mount point %s: %s", path, strerror(errno));
	return nonempty ? STATUS_OK : check_empty(absolute);
}

/* ---- unmounting ---- */

/* The process that serves the mount, to wait for; -1 when it cannot be found out. */
static int open_server(const char *absolute)
{
	char path[PATH_MAX], text[32];
	ssize_t len;
	int fd;

	if (snprintf(path, sizeof(path), "%s/status/pid", absolute) >= (int)sizeof(path))
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (len <= 0)
		return -1;
	text[len] = '\0';
	return (int)syscall(SYS_pidfd_open, (pid_t)strtol(text, NULL, 10), 0);
}

static void wait_for(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	if (pidfd < 0)
		return;
	poll(&p, 1, END_PATIENCE_MS);
	close(pidfd);
}

/* The absolute path, also of a dead mount, which realpath cannot look at. */
static bool find_absolute(const char *path, char absolute[PATH_MAX])
{
	char parent[PATH_MAX], *slash;
	const char *last;
	size_t len;

	if (realpath(path, absolute))
		return true;
	if ((errno != ENOTCONN && errno != ECONNABORTED) ||
		snprintf(parent, sizeof(parent), "%s", path) >= (int)sizeof(parent))
		return false;
	for (len = strlen(parent); len > 1 && parent[len - 1] == '/'; len--)
		parent[len - 1] = '\0';
	slash = strrchr(parent, '/');
	last = path + (slash ? slash + 1 - parent : 0);
	if (slash)
		slash[slash == parent] = '\0';
	if (!realpath(slash ? parent : ".", absolute))
		return false;
	len = strlen(absolute);
	snprintf(absolute + len, PATH_MAX - len, "%s%s", len > 1 ? "/" : "", last);
	for (len = strlen(absolute); len > 1 && absolute[len - 1] == '/'; len--)
		absolute[len - 1] = '\0';
	return true;
}

enum status mountpoint_release(const char *path, bool lazy)
{
	char absolute[PATH_MAX], type[64];
	bool dead;
	int error, server;

	if (!find_absolute(path, absolute))
		return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	if (!mountpoint_type(absolute, type, sizeof(type)) || strcmp(type, our_type) != 0)
		return status_fail(STATUS_IO, "%s: no promptfs is mounted there", path);
	dead = is_dead_at(absolute);
	server = dead ? -1 : open_server(absolute);
	error = take_away(absolute, lazy || dead);
	if (error) {
		if (server >= 0)
			close(server);
		return status_fail(STATUS_IO, "%s: %s%s", path,
			error == ENOENT ? "fusermount3 is not installed" : strerror(error),
			error == EBUSY ? "; end what has a file or its working folder there, or use --lazy" : "");
	}
	if (!lazy)
		wait_for(server);
	else if (server >= 0)
		close(server);
	return STATUS_OK;
}

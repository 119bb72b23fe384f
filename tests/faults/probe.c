/* probe: tries from within a running daemon, started with LD_PRELOAD=probe.so, what a sandbox is to refuse.
 *
 * Making a symbolic link whose target begins with "probe" makes one instead that tells the errno of each attempt (0: it
 * succeeded): "shadow=13 write=13 ...".  PROBE_STORE: a folder of the daemon; PROBE_OTHER: one it has no
 * business with.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int try_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int try_run(const char *program)
{
	char *const arguments[] = { "true", NULL }, *const environment[] = { NULL };
	int error, ended;
	pid_t pid;

	error = posix_spawn(&pid, program, NULL, NULL, arguments, environment);
	if (!error)
		waitpid(pid, &ended, 0);
	return error;
}

static int try_connect(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(1), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error = connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ? errno : 0;

	close(fd);
	return error;
}

static int error_of(int result)
{
	return result < 0 ? errno : 0;
}

static void try_all(char *text, size_t size)
{
	char own[4096], other[4096], there[4096];

	snprintf(own, sizeof own, "%s/probed", getenv("PROBE_STORE"));
	snprintf(there, sizeof there, "%s/file", getenv("PROBE_OTHER"));
	snprintf(other, sizeof other, "%s/probed", getenv("PROBE_OTHER"));
	snprintf(text, size, "own=%d shadow=%d home=%d new=%d remove=%d run=%d mount=%d connect=%d kill=%d",
		try_open(own, O_WRONLY | O_CREAT), try_open("/etc/shadow", O_RDONLY),
		try_open(getenv("HOME"), O_RDONLY), try_open(other, O_WRONLY | O_CREAT), error_of(unlink(there)),
		try_run("/bin/true"), error_of(mount("tmpfs", getenv("PROBE_OTHER"), "tmpfs", 0, NULL)), try_connect(),
		error_of(kill(getppid(), 0)));
}

int symlinkat(const char *target, int dir_fd, const char *name)
{
	static int (*real)(const char *target, int dir_fd, const char *name);
	char text[1024];

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "symlinkat");
	if (strncmp(target, "probe", 5) == 0) {
		try_all(text, sizeof text);
		target = text;
	}
	return real(target, dir_fd, name);
}

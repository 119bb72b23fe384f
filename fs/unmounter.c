/* unmounter: see unmounter.h. */
#include "fs/unmounter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mountpoint.h"

/* Descriptors of the process: null, null, null, and these; nothing else, above all not the FUSE device. */
enum { FD_SOCKET = 3, FD_DAEMON, FD_LOCK, FD_COUNT };

static void keep_descriptors(int socket, int daemon, int lock)
{
	int null = open("/dev/null", O_RDWR), fds[FD_COUNT] = { null, null, null, socket, daemon, lock };

	/* out of each other's way first */
	for (int i = 0; i < FD_COUNT; i++)
		fds[i] = fcntl(fds[i], F_DUPFD, 64 + i);
	for (int i = 0; i < FD_COUNT; i++)
		dup2(fds[i], i);
	close_range(FD_COUNT, ~0u, 0);
}

/* Signals that end the daemon come to its whole group or service: this waits for its end. */
static void ignore_signals(void)
{
	const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT };

	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
}

static _Noreturn void wait_and_clear(const char *mountpoint)
{
	struct pollfd fds[2] = { { .fd = FD_DAEMON, .events = POLLIN }, { .fd = FD_SOCKET, .events = POLLIN } };
	char word;

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			_exit(1);
		if (fds[0].revents)
			break;
		if (!fds[1].revents)
			continue;
		if (read(FD_SOCKET, &word, 1) == 1)
			break;
		fds[1].fd = -1; /* closed: the daemon is dying, but may still hold the device */
	}
	_exit(mountpoint_clear(mountpoint) == STATUS_OK ? 0 : 1);
}

/* Twice forked: it is nobody's child, and the daemon need not reap it. */
static _Noreturn void become(const char *mountpoint, int socket, int daemon, int lock)
{
	if (setsid() < 0 || fork() != 0)
		_exit(0);
	ignore_signals();
	keep_descriptors(socket, daemon, lock);
	if (chdir("/") < 0)
		_exit(1);
	wait_and_clear(mountpoint);
}

enum status unmounter_start(const char *mountpoint, int lock_fd, struct unmounter *out)
{
	int ends[2], daemon = pidfd_open(getpid(), 0), error = errno;
	pid_t child;

	if (daemon < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		error = daemon < 0 ? error : errno;
		if (daemon >= 0)
			close(daemon);
		return status_fail(STATUS_IO, "cannot prepare the unmounting: %s", strerror(error));
	}
	child = fork();
	if (child == 0)
		become(mountpoint, ends[1], daemon, lock_fd);
	error = errno;
	close(ends[1]);
	close(daemon);
	if (child < 0) {
		close(ends[0]);
		return status_fail(STATUS_IO, "cannot start what unmounts: %s", strerror(error));
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	out->socket = ends[0];
	return STATUS_OK;
}

void unmounter_finish(struct unmounter *u)
{
	char byte = 'u';

	if (u->socket < 0)
		return;
	if (write(u->socket, &byte, 1) == 1)
		while (read(u->socket, &byte, 1) < 0 && errno == EINTR)
			; /* its end closes the other end */
	close(u->socket);
	u->socket = -1;
}

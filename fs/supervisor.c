/* supervisor: starting and ending worker processes.
 *
 * posix_spawn and not fork: the daemon has many threads and may be large.
 */
#include "fs/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKER_FD = 3 };

struct worker {
	pid_t pid;
	int pidfd;
	struct wire *wire;
};

/* Descriptors: null, null, our stderr, the socket; nothing else. */
static int set_files(posix_spawn_file_actions_t *actions, int socket)
{
	int error = posix_spawn_file_actions_adddup2(actions, socket, WORKER_FD);

	if (!error)
		error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
	if (!error)
		error = posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
	return error ? error : posix_spawn_file_actions_addclosefrom_np(actions, WORKER_FD + 1);
}

/* Default signals, none blocked, and a process group of its own: Ctrl-C on a foreground daemon is for the daemon. */
static int set_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(attributes, &none);
	posix_spawnattr_setsigdefault(attributes, &all);
	posix_spawnattr_setpgroup(attributes, 0);
	return posix_spawnattr_setflags(
		attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
}

static int spawn(const char *executable, int socket, pid_t *pid)
{
	static const char *const arguments[] = { "promptfs", "worker", "--fd", "3", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int error = posix_spawn_file_actions_init(&actions);

	if (error)
		return error;
	error = posix_spawnattr_init(&attributes);
	if (!error) {
		error = set_files(&actions, socket);
		if (!error)
			error = set_attributes(&attributes);
		if (!error)
			error = posix_spawn(pid, executable, &actions, &attributes, (char *const *)arguments, environ);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

enum status worker_start(const char *executable, struct worker **out)
{
	struct worker *w = calloc(1, sizeof *w);
	int ends[2], error;

	if (!w)
		return status_fail(STATUS_NO_MEMORY, "no memory for a worker");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		free(w);
		return status_fail(STATUS_IO, "cannot make a socket for a worker: %s", strerror(errno));
	}
	error = spawn(executable, ends[1], &w->pid);
	close(ends[1]);
	if (error) {
		close(ends[0]);
		free(w);
		return status_fail(STATUS_IO, "cannot start a worker (%s): %s", executable, strerror(error));
	}
	w->pidfd = pidfd_open(w->pid, 0);
	error = w->pidfd < 0 ? errno : 0;
	if (wire_open(ends[0], WIRE_REPLY_MAX, &w->wire) != STATUS_OK)
		error = ENOMEM;
	if (error) {
		worker_end(w, 0, NULL, 0);
		return status_fail(STATUS_IO, "cannot watch a worker: %s", strerror(error));
	}
	*out = w;
	return STATUS_OK;
}

struct wire *worker_wire(struct worker *w)
{
	return w->wire;
}

pid_t worker_pid(const struct worker *w)
{
	return w->pid;
}

/* ---- the end */

static void describe_exit(int wait_status, char *why, size_t size)
{
	int signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
	const char *name = sigdescr_np(signal);

	if (signal == SIGKILL)
		snprintf(why, size, "was killed by signal 9, as the kernel does when it runs out of memory");
	else if (signal)
		snprintf(why, size, "was killed by signal %d (%s)", signal, name ? name : "unknown");
	else
		snprintf(why, size, "exited with status %d", WEXITSTATUS(wait_status));
}

static bool exits_within(const struct worker *w, int patience_ms)
{
	struct pollfd exit = { .fd = w->pidfd, .events = POLLIN };
	int ready;

	do
		ready = poll(&exit, 1, patience_ms);
	while (ready < 0 && errno == EINTR);
	return ready > 0;
}

void worker_end(struct worker *w, int patience_ms, char *why, size_t why_size)
{
	int wait_status = 0;
	bool by_itself;
	pid_t reaped;

	if (w->wire)
		shutdown(wire_fd(w->wire), SHUT_RDWR);
	by_itself = exits_within(w, patience_ms);
	if (!by_itself)
		kill(w->pid, SIGKILL);
	do
		reaped = waitpid(w->pid, &wait_status, 0);
	while (reaped < 0 && errno == EINTR);
	if (why && by_itself && reaped == w->pid)
		describe_exit(wait_status, why, why_size);
	else if (why)
		snprintf(why, why_size, "had to be killed");
	if (w->pidfd >= 0)
		close(w->pidfd);
	wire_close(w->wire);
	free(w);
}

/* ---- /proc */

/* A small file of /proc as a string; "" when it cannot be read. */
static void read_proc(pid_t pid, const char *file, char *out, size_t size)
{
	char path[64];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, out, size - 1);
		close(fd);
	}
	out[n > 0 ? n : 0] = 0;
}

uint64_t worker_ticks(const struct worker *w)
{
	unsigned long user, system;
	char text[1024], *end;

	read_proc(w->pid, "stat", text, sizeof text);
	end = strrchr(text, ')'); /* the name before it may hold anything */
	if (!end || sscanf(end, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
		return 0;
	return (uint64_t)user + system;
}

uint64_t worker_memory(pid_t pid)
{
	unsigned long pages;
	char text[256];

	read_proc(pid, "statm", text, sizeof text);
	if (sscanf(text, "%*u %lu", &pages) != 1)
		return 0;
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* program.h: how a C test runs the promptfs program that was built. */
#ifndef PROMPTFS_TESTS_PROGRAM_H
#define PROMPTFS_TESTS_PROGRAM_H

#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* PROMPTFS_BINARY, else where make puts it. */
static inline const char *program(void)
{
	const char *path = getenv("PROMPTFS_BINARY");

	return path && *path ? path : "build/release/promptfs";
}

/* Runs it with these arguments (argv[0] included), with stderr going to error_fd (-1: ours).  After `seconds` SIGALRM
 * ends it (0: never).  *state is waitpid's, *used also counts the processes that it waited for. */
static inline bool program_run(
	const char *const argv[], int error_fd, unsigned seconds, int *state, struct rusage *used)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (error_fd >= 0)
			dup2(error_fd, STDERR_FILENO);
		alarm(seconds); /* which exec keeps */
		execv(program(), (char **)argv);
		_exit(127);
	}
	return pid > 0 && wait4(pid, state, 0, used) == pid;
}

#endif

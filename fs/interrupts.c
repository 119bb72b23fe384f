/* interrupts: see interrupts.h. */
#include "fs/interrupts.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t bit(int number)
{
	return UINT64_C(1) << (number - 1);
}

/* Signals that a program gets in passing while it goes on with what it does. */
static uint64_t harmless(void)
{
	return bit(SIGCHLD) | bit(SIGCONT) | bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU) | bit(SIGURG) |
	       bit(SIGVTALRM) | bit(SIGPROF) | bit(SIGWINCH) | bit(SIGIO);
}

/* The mask on the line that begins with `name`; 0 where it is missing. */
static uint64_t mask(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 16) : 0;
}

bool interrupt_status_final(const char *text)
{
	uint64_t pending = mask(text, "\nSigPnd:") | mask(text, "\nShdPnd:");

	return (pending & ~mask(text, "\nSigBlk:") & ~harmless()) != 0;
}

bool interrupt_is_final(pid_t thread)
{
	char path[64], text[4096];
	ssize_t len;
	int fd;

	if (thread <= 0)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return true;
	text[len] = '\0';
	return interrupt_status_final(text);
}

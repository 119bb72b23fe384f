/* shell.h: a command line for tests that make and move files. */
#ifndef PROMPTFS_TESTS_SHELL_H
#define PROMPTFS_TESTS_SHELL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Whether it succeeded. */
static inline bool shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline bool shell(const char *format, ...)
{
	char command[2000];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof command, format, args);
	va_end(args);
	return system(command) == 0;
}

#endif

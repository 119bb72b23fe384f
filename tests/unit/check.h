/* check.h: what every C test uses.  One line a case on stdout: "ok - NAME", "not ok - NAME: why" or "skip - NAME: why";
 * tests/run counts them.
 *
 *     int main(void) { CHECK("bf16 rounds to even", bf16_from_f32(1.00390625f) == 0x3f80); return check_result(); }
 */
#ifndef PROMPTFS_TESTS_CHECK_H
#define PROMPTFS_TESTS_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int check_failures;

/* name is printf-style; why may be NULL. */
static inline void check_case(bool passed, const char *why, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static inline void check_case(bool passed, const char *why, const char *format, ...)
{
	va_list args;

	fputs(passed ? "ok - " : "not ok - ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	if (!passed && why)
		printf(": %s", why);
	putchar('\n');
	check_failures += !passed;
}

#define CHECK(name, condition) check_case(condition, #condition, "%s", name)

/* Where the golden cases lie: PROMPTFS_GOLDEN, else the project's own small copy. */
static inline const char *check_golden(void)
{
	const char *dir = getenv("PROMPTFS_GOLDEN");
	return dir && *dir ? dir : "tests/golden";
}

static inline int check_result(void)
{
	return check_failures != 0;
}

#endif

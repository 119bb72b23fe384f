/* commands: what the commands share. */
#include "fs/commands.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"

int command_fail(enum status s)
{
	fprintf(stderr, "promptfs: %s\n", *status_text() ? status_text() : status_name(s));
	return s == STATUS_CANCELLED ? 130 : 1;
}

int command_usage(const char *command, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	status_clean(text);
	fprintf(stderr, "promptfs: %s (see `promptfs help%s%s`)\n", text, *command ? " " : "", command);
	return 2;
}

int command_config(int *argc, char **argv, struct config *out)
{
	const char *command = argv[0];
	enum status s = config_load(argc, argv, out);

	if (s == STATUS_INVALID)
		return command_usage(command, "%s", status_text());
	if (s != STATUS_OK)
		return command_fail(s);
	s = log_open(out->log_level, out->log_file, LOG_SINK_STDERR);
	if (s == STATUS_OK)
		return 0;
	config_free(out);
	return command_fail(s);
}

int command_bad_option(const char *command, int result, char **argv)
{
	const char *word = argv[optind - 1];

	if (result == ':')
		return command_usage(command, "option %s needs a value", word);
	if (optopt && optopt < 256)
		return command_usage(command, "no option -%c", optopt);
	return command_usage(command, "no such option: %s", word);
}

int command_finish(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return command_fail(status_fail(STATUS_IO, "standard output: %s", strerror(errno)));
}

void command_print_bytes(uint64_t bytes, char out[COMMAND_BYTES_LEN])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
	double value = (double)bytes;
	int unit = 0;

	while (value >= 999.5 && unit < 6) {
		value /= 1000;
		unit++;
	}
	snprintf(out, COMMAND_BYTES_LEN, unit ? "%.3g %s" : "%.0f %s", value, units[unit]);
}

void command_print_line(const char *text, size_t columns, FILE *out)
{
	size_t len = strcspn(text, "\n");
	char *line;

	if (len > columns)
		for (len = columns; len && ((unsigned char)text[len] & 0xc0) == 0x80;)
			len--; /* not in the middle of a character */
	line = strndup(text, len);
	if (!line)
		return;
	status_clean(line);
	fputs(line, out);
	free(line);
}

/* control_lines: see control_lines.h. */
#include "fs/control_lines.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/escape.h"

/* "images/a.png", "prompts/a.txt" and "a.txt" mean a.png too. */
static const char *read_name(char *name)
{
	size_t len;

	if (!escape_undo(name))
		return NULL;
	if (strncmp(name, "images/", 7) == 0)
		name += 7;
	else if (strncmp(name, "prompts/", 8) == 0)
		name += 8;
	len = strlen(name);
	if (len > 4 && strcmp(name + len - 4, ".txt") == 0)
		memcpy(name + len - 4, ".png", 4);
	return *name ? name : NULL;
}

static const char *read_model(char *name)
{
	return *name ? name : NULL;
}

static const char *read_nothing(char *argument)
{
	return *argument ? NULL : argument;
}

static const struct command {
	const char *name;
	const char *(*read)(char *argument); /* NULL: a bad one */
} commands[CONTROL_VERBS] = {
	[CONTROL_CANCEL] = { "cancel", read_name },
	[CONTROL_RETRY] = { "retry", read_name },
	[CONTROL_WARM] = { "warm", read_model },
	[CONTROL_UNLOAD] = { "unload", read_model },
	[CONTROL_RELOAD] = { "reload", read_nothing },
};

/* Only the white space before the argument goes: names of files may end in blanks. */
static int run_line(char *line, control_runner *run, void *context)
{
	size_t word;

	line += strspn(line, " \t");
	if (!*line)
		return 0;
	word = strcspn(line, " \t");
	for (int c = 0; c < CONTROL_VERBS; c++) {
		const char *argument;

		if (strlen(commands[c].name) != word || strncmp(line, commands[c].name, word) != 0)
			continue;
		line += word;
		argument = commands[c].read(line + strspn(line, " \t"));
		return argument ? run(context, (enum control_verb)c, argument) : EINVAL;
	}
	return EINVAL;
}

int control_lines(const char *text, size_t len, control_runner *run, void *context, size_t *failed)
{
	int error = memchr(text, '\0', len) ? EINVAL : 0;
	size_t at = 0;

	while (at < len && !error) {
		const char *newline = memchr(text + at, '\n', len - at);
		size_t line_len = newline ? (size_t)(newline - text) - at : len - at;
		char *line = strndup(text + at, line_len);

		error = line ? run_line(line, run, context) : ENOMEM;
		free(line);
		if (!error)
			at += line_len + 1;
	}
	*failed = at < len ? at : len;
	return error;
}

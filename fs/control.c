/* control: see control.h. */
#include "fs/control.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool control_unescape(char *name)
{
	char *to = name;

	for (const char *c = name; *c; c++) {
		if (*c != '\\') {
			*to++ = *c;
		} else if (c[1] == '\\') {
			*to++ = *++c;
		} else if (c[1] == 'n') {
			*to++ = '\n';
			c++;
		} else if (c[1] == 'x' && hex_digit(c[2]) >= 0 && hex_digit(c[3]) >= 0) {
			*to++ = (char)(hex_digit(c[2]) * 16 + hex_digit(c[3]));
			c += 3;
		} else {
			return false;
		}
	}
	*to = '\0';
	return true;
}

/* "images/a.png", "prompts/a.txt" and "a.txt" mean a.png too. */
static const char *image_name(char *name)
{
	size_t len;

	if (!control_unescape(name))
		return NULL;
	if (strncmp(name, "images/", 7) == 0)
		name += 7;
	else if (strncmp(name, "prompts/", 8) == 0)
		name += 8;
	len = strlen(name);
	if (len > 4 && strcmp(name + len - 4, ".txt") == 0)
		strcpy(name + len - 4, ".png");
	return *name ? name : NULL;
}

static int run_cancel(struct daemon *d, char *argument)
{
	const char *name = image_name(argument);

	return name && jobs_cancel(d->jobs, name) == 0 ? 0 : EINVAL;
}

static int run_retry(struct daemon *d, char *argument)
{
	const char *name = image_name(argument);

	if (!name)
		return EINVAL;
	outcomes_forget(d->outcomes, name);
	jobs_forgive(d->jobs, name);
	return 0;
}

static const struct catalog_model *find_model(struct daemon *d, const char *name)
{
	const struct catalog_model *m = *name ? catalog_find(resolver_catalog(d->resolver), name) : NULL;

	return m && m->status == STATUS_OK ? m : NULL;
}

static int run_warm(struct daemon *d, char *argument)
{
	const struct catalog_model *m = find_model(d, argument);

	return m && jobs_warm(d->jobs, &m->model, m->where) == STATUS_OK ? 0 : EINVAL;
}

static int run_unload(struct daemon *d, char *argument)
{
	const struct catalog_model *m = find_model(d, argument);

	return m && jobs_unload(d->jobs, &m->model) == STATUS_OK ? 0 : EINVAL;
}

static int run_reload(struct daemon *d, char *argument)
{
	if (*argument)
		return EINVAL;
	if (daemon_reload(d) == STATUS_OK)
		return 0;
	log_error("reload: %s", status_text());
	return EINVAL;
}

static const struct command {
	const char *name;
	int (*run)(struct daemon *d, char *argument);
} commands[] = {
	{ "cancel", run_cancel },
	{ "retry", run_retry },
	{ "warm", run_warm },
	{ "unload", run_unload },
	{ "reload", run_reload },
};

/* Only the white space before the argument goes: names of files may end in blanks. */
static int run_line(struct daemon *d, char *line)
{
	size_t word, n = sizeof(commands) / sizeof(*commands);

	line += strspn(line, " \t");
	if (!*line)
		return 0;
	word = strcspn(line, " \t");
	for (size_t c = 0; c < n; c++) {
		if (strlen(commands[c].name) != word || strncmp(line, commands[c].name, word) != 0)
			continue;
		line += word;
		return commands[c].run(d, line + strspn(line, " \t"));
	}
	return EINVAL;
}

int control_run(struct daemon *d, const char *text, size_t len)
{
	const char *end = text + len;
	int error = memchr(text, '\0', len) ? EINVAL : 0;

	while (text < end && !error) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		size_t line_len = (size_t)((newline ? newline : end) - text);
		char *line = strndup(text, line_len);

		error = line ? run_line(d, line) : ENOMEM;
		if (error)
			log_warn("status/control: '%.200s': %s", line ? line : "", strerror(error));
		free(line);
		text += line_len + 1;
	}
	return error;
}

/* prompt: a prompt file by the A1111 convention.
 *
 * The text is cut from its end: the parameter line, if the last line is one; the negative prompt above it; the rest is
 * the prompt.  The parameter line is read by fs/prompt_items.c.
 */
#include "fs/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/text.h"
#include "fs/prompt_items.h"

/* A range of the text and the number of its first line. */
struct part {
	const char *text;
	size_t len;
};

static const char negative_lead[] = "Negative prompt:";

static int line_of(const char *text, const char *at)
{
	int line = 1;

	for (; text < at; text++)
		line += *text == '\n';
	return line;
}

static enum status check_bytes(const char *text, size_t len)
{
	size_t bad;

	if (len > RECIPE_PROMPT_MAX)
		return status_fail(STATUS_INVALID, "longer than 1 MiB");
	if (text_is_utf8(text, len, &bad))
		return STATUS_OK;
	return status_fail(STATUS_INVALID, "line %d: %s at byte %zu of the file; save it as UTF-8",
		line_of(text, text + bad), text[bad] ? "not UTF-8" : "a NUL byte", bad + 1);
}

/* A copy with newlines alone at the ends of lines, without a byte order mark and without white space at the end. */
static enum status clean(const char *text, size_t len, char **out, size_t *out_len)
{
	char *copy = malloc(len + 1), *to = copy;
	size_t start = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

	if (!copy)
		return status_fail(STATUS_NO_MEMORY, "no memory for a prompt of %zu bytes", len);
	for (size_t i = start; i < len; i++)
		if (!(text[i] == '\r' && i + 1 < len && text[i + 1] == '\n'))
			*to++ = text[i];
	while (to > copy && text_is_space(to[-1]))
		to--;
	*to = 0;
	*out = copy;
	*out_len = (size_t)(to - copy);
	return STATUS_OK;
}

static struct part last_line(struct part all)
{
	const char *newline = memrchr(all.text, '\n', all.len);
	const char *start = newline ? newline + 1 : all.text;

	return (struct part){ start, (size_t)(all.text + all.len - start) };
}

static bool is_blank(struct part p)
{
	text_trim(&p.text, &p.len);
	return p.len == 0;
}

static void trim_end(struct part *p)
{
	while (p->len && text_is_space(p->text[p->len - 1]))
		p->len--;
}

/* Cuts the part from the first line that begins a negative prompt; false when there is none. */
static bool cut_negative(struct part *all, struct part *negative)
{
	size_t lead = sizeof negative_lead - 1;
	const char *end = all->text + all->len;

	for (const char *line = all->text; line < end;) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));

		if ((size_t)(end - line) >= lead && strncasecmp(line, negative_lead, lead) == 0) {
			*negative = (struct part){ line + lead, (size_t)(end - line) - lead };
			text_trim(&negative->text, &negative->len);
			all->len = (size_t)(line - all->text);
			return true;
		}
		line = newline ? newline + 1 : end;
	}
	return false;
}

/* "<lora:NAME>" or "<lora:NAME:SCALE>" at `at`: its length, or 0 where it is anything else. */
static size_t read_lora(const char *at, const char *end, char **name, double *scale)
{
	const char *start = at + strlen("<lora:"), *close, *colon;
	char number[TEXT_DOUBLE_LEN];
	size_t name_len, len;

	if ((size_t)(end - at) < strlen("<lora:") || strncmp(at, "<lora:", strlen("<lora:")) != 0)
		return 0;
	close = memchr(start, '>', (size_t)(end - start));
	if (!close || memchr(start, '\n', (size_t)(close - start)) || memchr(start, '<', (size_t)(close - start)))
		return 0;
	colon = memchr(start, ':', (size_t)(close - start));
	name_len = (size_t)((colon ? colon : close) - start);
	*scale = 1;
	if (colon) {
		len = (size_t)(close - colon - 1);
		if (len >= sizeof number)
			return 0;
		memcpy(number, colon + 1, len);
		number[len] = 0;
		if (!text_read_double(number, scale))
			return 0;
	}
	if (name_len == 0 || text_copy(start, name_len, name) != STATUS_OK)
		return 0;
	return (size_t)(close + 1 - at);
}

/* The prompt without its LoRA tags, which become LoRAs. */
static enum status take_loras(struct part prompt, struct recipe_fields *out)
{
	const char *end = prompt.text + prompt.len;
	struct bytes plain = { 0 };
	char *name = NULL;
	enum status s = STATUS_OK;

	for (const char *at = prompt.text; at < end && s == STATUS_OK;) {
		const char *tag = memchr(at, '<', (size_t)(end - at));
		double scale;
		size_t tag_len;

		s = bytes_add(&plain, at, (size_t)((tag ? tag : end) - at));
		if (!tag)
			break;
		tag_len = read_lora(tag, end, &name, &scale);
		if (s == STATUS_OK && tag_len)
			s = recipe_fields_lora(out, name, scale);
		else if (s == STATUS_OK)
			s = bytes_add(&plain, tag, 1);
		at = tag + (tag_len ? tag_len : 1);
	}
	while (plain.len && text_is_space((char)plain.data[plain.len - 1]))
		plain.len--;
	if (s == STATUS_OK)
		s = text_copy((char *)plain.data, plain.len, &out->prompt);
	free(name);
	bytes_free(&plain);
	return s;
}

/* The prompts above the parameter line; what that line says exactly wins. */
static enum status read_texts(struct part all, const struct prompt_exact *exact, struct recipe_fields *out)
{
	struct part negative;

	if (cut_negative(&all, &negative) && !exact->negative)
		TRY(text_copy(negative.text, negative.len, &out->negative));
	if (exact->negative)
		TRY(text_copy(exact->negative, strlen(exact->negative), &out->negative));
	if (exact->prompt)
		return text_copy(exact->prompt, strlen(exact->prompt), &out->prompt);
	trim_end(&all);
	return take_loras(all, out);
}

static enum status parse_file(struct part all, struct recipe_fields *out)
{
	struct part line = last_line(all), above = { all.text, (size_t)(line.text - all.text) };
	struct prompt_exact exact = { 0 };
	enum status parameters = STATUS_OK, s;
	char why[512] = "";

	if (!is_blank(above) && prompt_items_are(line.text, line.len)) {
		parameters = prompt_items_read(line.text, line.len, &exact, out);
		if (parameters != STATUS_OK)
			snprintf(why, sizeof why, "line %d: %s", line_of(all.text, line.text), status_text());
		all = above;
	}
	s = read_texts(all, &exact, out); /* also after a wrong parameter: the caller may show the rest */
	free(exact.prompt);
	free(exact.negative);
	return parameters != STATUS_OK ? status_fail(parameters, "%s", why) : s;
}

enum status prompt_parse(const char *text, size_t len, struct recipe_fields *out)
{
	char *copy;
	enum status s;

	TRY(check_bytes(text, len));
	TRY(clean(text, len, &copy, &len));
	s = parse_file((struct part){ copy, len }, out);
	free(copy);
	return s;
}

static enum status parse_defaults(struct part all, struct recipe_fields *out)
{
	struct part line = last_line(all), above = { all.text, (size_t)(line.text - all.text) }, negative;
	struct prompt_exact exact = { 0 };
	enum status s = STATUS_OK;

	if (prompt_items_are(line.text, line.len)) {
		s = prompt_items_read(line.text, line.len, &exact, out);
		if (s == STATUS_OK && exact.prompt)
			s = status_fail(STATUS_INVALID, "Prompt: a file of defaults has none");
		if (s != STATUS_OK)
			status_prefix(s, "line %d: ", line_of(all.text, line.text));
		all = above;
	}
	if (s == STATUS_OK && cut_negative(&all, &negative))
		s = text_copy(negative.text, negative.len, &out->negative);
	if (s == STATUS_OK && exact.negative)
		s = text_copy(exact.negative, strlen(exact.negative), &out->negative);
	if (s == STATUS_OK && !is_blank(all))
		s = status_fail(
			STATUS_INVALID, "line 1: neither `Key: value, ...` with known keys nor a negative prompt");
	free(exact.prompt);
	free(exact.negative);
	return s;
}

enum status prompt_parse_defaults(const char *text, size_t len, struct recipe_fields *out)
{
	char *copy;
	enum status s;

	TRY(check_bytes(text, len));
	TRY(clean(text, len, &copy, &len));
	s = parse_defaults((struct part){ copy, len }, out);
	free(copy);
	return s;
}

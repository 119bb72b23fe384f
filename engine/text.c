/* text: readers and printers of values. */
#include "engine/text.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

bool text_is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

bool text_is_utf8(const char *text, size_t len, size_t *bad)
{
	size_t at = 0;

	while (at < len) {
		utf8proc_int32_t point;
		utf8proc_ssize_t n =
			utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &point);

		if (n <= 0 || point == 0)
			break;
		at += (size_t)n;
	}
	if (at < len && bad)
		*bad = at;
	return at == len;
}

bool text_read_int(const char *text, int64_t low, int64_t high, int64_t *out)
{
	const char *digits = text + (*text == '-');
	long long value;
	char *end;

	if (!isdigit((unsigned char)*digits))
		return false;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || *end || value < low || value > high)
		return false;
	*out = value;
	return true;
}

bool text_read_seed(const char *text, uint64_t *out)
{
	unsigned long long value;
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end)
		return false;
	*out = value;
	return true;
}

bool text_read_double(const char *text, double *out)
{
	char *end;
	double value;

	/* strtod alone would take "inf", "nan", "0x1p3" and leading white space */
	if (!*text || text[strspn(text, "+-.0123456789eE")])
		return false;
	value = strtod(text, &end);
	if (*end || end == text || !isfinite(value))
		return false;
	*out = value == 0 ? 0 : value; /* no negative zero: it would be a key of its own */
	return true;
}

bool text_read_size(const char *text, int64_t max, int64_t *width, int64_t *height)
{
	char first[24];
	const char *x = strpbrk(text, "xX");
	int64_t w, h;

	if (!x || (size_t)(x - text) >= sizeof first)
		return false;
	memcpy(first, text, (size_t)(x - text));
	first[x - text] = 0;
	if (!text_read_int(first, 1, max, &w) || !text_read_int(x + 1, 1, max, &h))
		return false;
	*width = w;
	*height = h;
	return true;
}

void text_print_double(double value, char out[TEXT_DOUBLE_LEN])
{
	for (int digits = 1; digits <= 17; digits++) {
		snprintf(out, TEXT_DOUBLE_LEN, "%.*g", digits, value);
		if (strtod(out, NULL) == value)
			return;
	}
}

enum status text_quote(const char *text, struct bytes *out)
{
	json_t *string = json_string(text);
	char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
	enum status s = STATUS_INVALID;

	if (quoted)
		s = bytes_add(out, quoted, strlen(quoted));
	else
		status_fail(s, "a text is not UTF-8");
	free(quoted);
	json_decref(string);
	return s;
}

enum status text_copy(const char *text, size_t len, char **out)
{
	char *copy = malloc(len + 1);

	if (!copy)
		return status_fail(STATUS_NO_MEMORY, "no memory for a text of %zu bytes", len);
	if (len)
		memcpy(copy, text, len);
	copy[len] = 0;
	free(*out);
	*out = copy;
	return STATUS_OK;
}

void text_trim(const char **text, size_t *len)
{
	while (*len && text_is_space((*text)[*len - 1]))
		--*len;
	while (*len && text_is_space(**text))
		++*text, --*len;
}

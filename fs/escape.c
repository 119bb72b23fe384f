/* escape: see escape.h. */
#include "fs/escape.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "engine/text.h"

/* How many bytes the UTF-8 character at c has; 0: none begins there. */
static size_t character_len(const char *c)
{
	size_t n = 0, left = strnlen(c, 4);

	do
		n++;
	while (n < left && !text_is_utf8(c, n, NULL));
	return text_is_utf8(c, n, NULL) ? n : 0;
}

static uint32_t code_point(const char *c, size_t len)
{
	uint32_t code = (unsigned char)*c;

	if (len > 1)
		code &= 0x7fu >> len;
	for (size_t i = 1; i < len; i++)
		code = code << 6 | ((unsigned char)c[i] & 0x3f);
	return code;
}

static bool is_harmless(uint32_t code)
{
	return code >= 0x20 && code != '\\' && (code < 0x7f || code > 0x9f) && code != 0x200e && code != 0x200f &&
	       (code < 0x2028 || code > 0x202e) && (code < 0x2066 || code > 0x2069);
}

static enum status add_escaped(const char *c, size_t len, struct bytes *out)
{
	if (*c == '\\')
		return bytes_print(out, "\\\\");
	if (*c == '\n')
		return bytes_print(out, "\\n");
	for (size_t i = 0; i < len; i++)
		TRY(bytes_print(out, "\\x%02x", (unsigned char)c[i]));
	return STATUS_OK;
}

enum status escape_add(const char *name, struct bytes *out)
{
	while (*name) {
		size_t len = character_len(name);

		if (len && is_harmless(code_point(name, len)))
			TRY(bytes_add(out, name, len));
		else
			TRY(add_escaped(name, len ? len : 1, out));
		name += len ? len : 1;
	}
	return STATUS_OK;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What "\xHL" stands for; 0: nothing. */
static int hex_byte(const char *c)
{
	int high = hex_digit(c[2]), low = high < 0 ? -1 : hex_digit(c[3]);

	return low < 0 ? 0 : high * 16 + low;
}

bool escape_undo(char *name)
{
	char *to = name;
	int byte;

	for (const char *c = name; *c; c++) {
		if (*c != '\\') {
			*to++ = *c;
		} else if (c[1] == '\\' || c[1] == 'n') {
			*to++ = *++c == 'n' ? '\n' : '\\';
		} else if (c[1] == 'x' && (byte = hex_byte(c)) != 0) {
			*to++ = (char)byte;
			c += 3;
		} else {
			return false;
		}
	}
	*to = '\0';
	return true;
}

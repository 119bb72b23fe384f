/* status: the per-thread failure text. */
#include "kernels/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_LEN = 1024 };

static _Thread_local char text[TEXT_LEN];

void status_clean(char *line)
{
	for (unsigned char *c = (unsigned char *)line; *c; c++) {
		if (*c < ' ' || *c == 0x7f)
			*c = ' ';
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
			*c = c[1] = ' ';
	}
}

enum status status_fail(enum status code, const char *format, ...)
{
	char next[TEXT_LEN]; /* the arguments may point into the old text */
	va_list args;

	va_start(args, format);
	vsnprintf(next, sizeof next, format, args);
	va_end(args);
	status_clean(next);
	memcpy(text, next, sizeof text);
	return code;
}

enum status status_prefix(enum status code, const char *format, ...)
{
	char next[TEXT_LEN];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(next, sizeof next, format, args);
	va_end(args);
	if (len >= 0 && len < TEXT_LEN)
		snprintf(next + len, sizeof next - (size_t)len, "%s", text);
	status_clean(next);
	memcpy(text, next, sizeof text);
	return code;
}

const char *status_text(void)
{
	return text;
}

const char *status_name(enum status code)
{
	static const char *const names[STATUS_COUNT] = {
		[STATUS_OK] = "ok",
		[STATUS_INVALID] = "invalid",
		[STATUS_NO_MODEL] = "no model",
		[STATUS_CORRUPT] = "corrupt",
		[STATUS_UNSUPPORTED] = "unsupported",
		[STATUS_NO_MEMORY] = "no memory",
		[STATUS_IO] = "io",
		[STATUS_CANCELLED] = "cancelled",
		[STATUS_NUMERIC] = "numeric",
		[STATUS_DEVICE] = "device",
		[STATUS_INTERNAL] = "internal",
	};
	return code >= 0 && code < STATUS_COUNT ? names[code] : "unknown";
}

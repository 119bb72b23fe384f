/* bytes: a growing buffer. */
#include "engine/bytes.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status bytes_reserve(struct bytes *b, size_t more)
{
	size_t capacity = b->capacity ? b->capacity : 256;
	unsigned char *data;

	if (more > SIZE_MAX / 4 || b->len > SIZE_MAX / 4)
		return status_fail(STATUS_NO_MEMORY, "a buffer of %zu more bytes is too large", more);
	while (capacity < b->len + more + 1)
		capacity *= 2;
	if (capacity == b->capacity)
		return STATUS_OK;
	data = realloc(b->data, capacity);
	if (!data)
		return status_fail(STATUS_NO_MEMORY, "no memory for a buffer of %zu bytes", capacity);
	b->data = data;
	b->capacity = capacity;
	return STATUS_OK;
}

enum status bytes_add(struct bytes *b, const void *data, size_t len)
{
	TRY(bytes_reserve(b, len));
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = 0;
	return STATUS_OK;
}

enum status bytes_print(struct bytes *b, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0)
		return status_fail(STATUS_INTERNAL, "bytes_print: bad format");
	TRY(bytes_reserve(b, (size_t)len));
	va_start(args, format);
	vsnprintf((char *)b->data + b->len, (size_t)len + 1, format, args);
	va_end(args);
	b->len += (size_t)len;
	return STATUS_OK;
}

void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){ 0 };
}

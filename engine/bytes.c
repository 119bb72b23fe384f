/* bytes: a growing buffer. */
#include "engine/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum status bytes_reserve(struct bytes *b, size_t more)
{
	/* what is reserved first is often all there will be */
	size_t capacity = b->capacity ? b->capacity : more < 255 ? 256 : more + 1;
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

static enum status read_open_file(struct bytes *b, int fd, const char *path, int max_mib)
{
	struct stat st;
	size_t end;

	if (fstat(fd, &st))
		return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return status_fail(STATUS_CORRUPT, "%s: not a regular file", path);
	if (st.st_size > (off_t)max_mib << 20)
		return status_fail(
			STATUS_CORRUPT, "%s: larger than the %d MiB that such a file may have", path, max_mib);
	TRY(bytes_reserve(b, (size_t)st.st_size));
	end = b->len + (size_t)st.st_size;
	while (b->len < end) {
		ssize_t got = read(fd, b->data + b->len, end - b->len);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
		if (got == 0)
			break;
		b->len += (size_t)got;
	}
	return bytes_add(b, "", 0);
}

enum status bytes_read_file(struct bytes *b, const char *path, int max_mib)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO in the place of the file must not hang us */
	enum status status;

	if (fd < 0)
		return status_fail(errno == ENOENT ? STATUS_NO_MODEL : STATUS_IO, "%s: %s", path, strerror(errno));
	status = read_open_file(b, fd, path, max_mib);
	close(fd);
	return status;
}

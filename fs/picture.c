/* picture: sealed memory files. */
#include "fs/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/png.h"

enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

static enum status write_all(int fd, const char *data, size_t len)
{
	ssize_t n;

	while (len) {
		n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return status_fail(STATUS_NO_MEMORY, "no memory to hand over a picture: %s", strerror(errno));
		data += n;
		len -= (size_t)n;
	}
	return STATUS_OK;
}

enum status picture_seal(const void *png, size_t len, int *fd)
{
	int file = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	enum status status;

	if (file < 0)
		return status_fail(STATUS_IO, "cannot make a memory file: %s", strerror(errno));
	status = write_all(file, png, len);
	if (status == STATUS_OK && fcntl(file, F_ADD_SEALS, SEALS) < 0)
		status = status_fail(STATUS_IO, "cannot seal a memory file: %s", strerror(errno));
	if (status != STATUS_OK) {
		close(file);
		return status;
	}
	*fd = file;
	return STATUS_OK;
}

static enum status check_file(int fd, uint64_t max, size_t *len)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || (seals & SEALS) != SEALS)
		return status_fail(STATUS_CORRUPT, "the picture is not in a sealed memory file");
	if (fstat(fd, &st) < 0 || st.st_size <= 0 || (uint64_t)st.st_size > max)
		return status_fail(STATUS_CORRUPT, "the picture's file has a wrong size");
	*len = (size_t)st.st_size;
	return STATUS_OK;
}

/* private: before Linux 6.7 a sealed file cannot be mapped shared */
static enum status map_file(int fd, size_t len, void **out)
{
	void *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);

	if (map == MAP_FAILED)
		return status_fail(STATUS_NO_MEMORY, "cannot map a picture of %zu bytes: %s", len, strerror(errno));
	*out = map;
	return STATUS_OK;
}

enum status picture_map(int fd, int width, int height, void **png, size_t *len)
{
	int got_width, got_height;
	enum status status;
	size_t size = 0;
	void *map;

	TRY(check_file(fd, png_size(width, height, 0, NULL), &size));
	TRY(map_file(fd, size, &map));
	status = png_check(map, size, &got_width, &got_height);
	if (status == STATUS_OK && (got_width != width || got_height != height))
		status = status_fail(
			STATUS_CORRUPT, "the picture is %dx%d instead of %dx%d", got_width, got_height, width, height);
	if (status != STATUS_OK) {
		munmap(map, size);
		return status;
	}
	*png = map;
	*len = size;
	return STATUS_OK;
}

enum status picture_map_pixels(int fd, int width, int height, void **rgb, size_t *len)
{
	const uint64_t wanted = (uint64_t)width * (uint64_t)height * 3;
	size_t size = 0;

	TRY(check_file(fd, wanted, &size));
	if (size != wanted)
		return status_fail(STATUS_CORRUPT, "%zu bytes are not the pixels of %dx%d", size, width, height);
	TRY(map_file(fd, size, rgb));
	*len = size;
	return STATUS_OK;
}

void picture_unmap(void *png, size_t len)
{
	if (png)
		munmap(png, len);
}

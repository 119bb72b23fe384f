/* new_file: see new_file.h. */
#include "engine/new_file.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum status new_file_open(const char *path, struct new_file *out)
{
	struct new_file f = { .path = path };
	enum status status;

	TRY(bytes_print(&f.temporary, "%s.%ld.tmp", path, (long)getpid()));
	f.file = fopen((char *)f.temporary.data, "wxe");
	if (!f.file) {
		status = status_fail(STATUS_IO, "%s: cannot create: %s", path, strerror(errno));
		bytes_free(&f.temporary);
		return status;
	}
	errno = 0;
	*out = f;
	return STATUS_OK;
}

enum status new_file_fail(void)
{
	return status_fail(STATUS_IO, "cannot write: %s", strerror(errno ? errno : EIO));
}

static enum status put_on_disk(struct new_file *f)
{
	bool good = fflush(f->file) == 0 && fsync(fileno(f->file)) == 0;

	return good ? STATUS_OK : new_file_fail();
}

enum status new_file_close(struct new_file *f, enum status written)
{
	enum status status = written == STATUS_OK ? put_on_disk(f) : written;

	if (fclose(f->file) != 0 && status == STATUS_OK)
		status = new_file_fail();
	if (status == STATUS_OK && rename((char *)f->temporary.data, f->path) != 0)
		status = status_fail(STATUS_IO, "cannot rename to it: %s", strerror(errno));
	if (status != STATUS_OK) {
		status_prefix(status, "%s: ", f->path);
		unlink((char *)f->temporary.data);
	}
	bytes_free(&f->temporary);
	return status;
}

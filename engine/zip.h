/* zip: the members of a zip file that are stored, not compressed: what torch.save writes.
 *
 * Format: APPNOTE.TXT of PKWARE, with the 64-bit extension.  Every place is checked against the file's size.
 */
#ifndef PROMPTFS_ENGINE_ZIP_H
#define PROMPTFS_ENGINE_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct zip_member {
	const char *name; /* in the file's memory, not closed by a NUL */
	size_t name_len;
	const unsigned char *data;
	size_t len;
};

struct zip {
	struct zip_member *member; /* sorted by name */
	int64_t count;
};

/* STATUS_CORRUPT, or STATUS_UNSUPPORTED for a compressed member; the message names no file.  Free with zip_free. */
enum status zip_open(const unsigned char *file, size_t size, struct zip *out);
const struct zip_member *zip_find(const struct zip *z, const char *name, size_t len); /* NULL: not there */
void zip_free(struct zip *z);

#endif

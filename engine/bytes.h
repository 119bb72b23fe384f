/* bytes: a growing buffer that owns its memory; zero-initialise it, bytes_free it. */
#ifndef PROMPTFS_ENGINE_BYTES_H
#define PROMPTFS_ENGINE_BYTES_H

#include <stddef.h>

#include "kernels/status.h"

struct bytes {
	unsigned char *data; /* always followed by a NUL once something was added */
	size_t len, capacity;
};

enum status bytes_add(struct bytes *b, const void *data, size_t len); /* STATUS_NO_MEMORY */
enum status bytes_reserve(struct bytes *b, size_t more);              /* room for `more` bytes after len */
enum status bytes_print(struct bytes *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends a whole regular file of at most max_mib.  Errors name the file; a missing one is STATUS_NO_MODEL. */
enum status bytes_read_file(struct bytes *b, const char *path, int max_mib);
void bytes_free(struct bytes *b); /* leaves it empty */

#endif

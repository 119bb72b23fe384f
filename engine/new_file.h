/* new_file: a file that appears whole or not at all: written under another name beside its own, on disk before it is
 * renamed.
 *
 *     TRY(new_file_open("out.safetensors", &f));
 *     status = write_all(f.file);
 *     return new_file_close(&f, status);             // renames, or removes what was written
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_NEW_FILE_H
#define PROMPTFS_ENGINE_NEW_FILE_H

#include <stdio.h>

#include "engine/bytes.h"

struct new_file {
	FILE *file;
	const char *path; /* borrowed */
	struct bytes temporary;
};

enum status new_file_open(const char *path, struct new_file *out); /* STATUS_IO */
/* written: how the writing went; a failure of it is forwarded with the path in front. */
enum status new_file_close(struct new_file *f, enum status written);

/* A write that failed, from errno. */
enum status new_file_fail(void);

#endif

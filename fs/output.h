/* output: the file of a picture that a command writes: whole under its name, or not at all.
 *
 * "-" is standard output.  What is no regular file (a pipe, a device) is written directly.
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_OUTPUT_H
#define PROMPTFS_FS_OUTPUT_H

#include <stddef.h>

#include "kernels/status.h"

/* What can be known before hours of work: a folder that is there and writable, no terminal.  STATUS_IO. */
enum status output_check(const char *path);

enum status output_write(const char *path, const void *data, size_t len);

#endif

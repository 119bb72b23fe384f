/* picture: a bare PNG on its way from a worker to the daemon, in a sealed memory file: passed without a copy, and
 * nobody can change it once the daemon has looked at it.
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_PICTURE_H
#define PROMPTFS_FS_PICTURE_H

#include <stddef.h>

#include "kernels/status.h"

/* A memory file that holds the bytes, sealed against every change; *fd is the caller's. */
enum status picture_seal(const void *png, size_t len, int *fd);

/* Maps what a worker sent, after checking that it is sealed and a bare PNG of this size (STATUS_CORRUPT otherwise).  fd
 * stays the caller's and may be closed. */
enum status picture_map(int fd, int width, int height, void **png, size_t *len);
void picture_unmap(void *png, size_t len); /* NULL is allowed */

#endif

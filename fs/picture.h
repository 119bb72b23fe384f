/* picture: a bare PNG, or pixels that become one, on its way from a worker to the daemon, in a sealed memory file:
 * passed without a copy, and nobody can change it once the daemon has looked at it.
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
/* The same of 8-bit RGB: any bytes, but as many as such a picture has. */
enum status picture_map_pixels(int fd, int width, int height, void **rgb, size_t *len);
void picture_unmap(void *png, size_t len); /* of either; NULL is allowed */

#endif

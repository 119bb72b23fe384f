/* gguf: the header of a GGUF file, checked completely.  Its tensors are not read by this version.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
 */
#ifndef PROMPTFS_ENGINE_GGUF_H
#define PROMPTFS_ENGINE_GGUF_H

#include <stddef.h>

#include "kernels/status.h"

/* STATUS_OK when the header and every tensor's place are sound; else STATUS_CORRUPT, or STATUS_UNSUPPORTED for a model
 * that paints no pictures.  The message names no file: the caller puts that before it. */
enum status gguf_check(const unsigned char *file, size_t size);

#endif

/* gguf: the header of a GGUF file, checked completely.  Used by weights alone.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
 */
#ifndef PROMPTFS_ENGINE_GGUF_H
#define PROMPTFS_ENGINE_GGUF_H

#include <stddef.h>

#include "engine/safetensors.h"

/* As safetensors_parse: *out is the caller's.  F32, F16 and BF16 have their dtype, all others a coding. STATUS_CORRUPT,
 * or STATUS_UNSUPPORTED for a model that paints no pictures.  The message names no file: the caller puts that before
 * it. */
enum status gguf_parse(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count);

#endif

/* png: 8-bit RGB pictures whose file size is known before they are made.
 *
 * A finished file is: signature, IHDR, text chunks, one IDAT, a padding chunk, IEND.  Its size depends only on width,
 * height and the texts (png_size): the IDAT's bound is that of stored deflate blocks, and what compression saves is
 * filled by one private ancillary chunk "paDd" of zeros.  The cache keeps the bare file (no texts, no padding);
 * png_dress adds both.
 */
#ifndef PROMPTFS_ENGINE_PNG_H
#define PROMPTFS_ENGINE_PNG_H

#include <stdint.h>

#include "engine/bytes.h"

enum { PNG_SIDE_MAX = 16384 };

/* An uncompressed iTXt chunk. keyword: 1..79 Latin-1 characters; text: UTF-8. */
struct png_text {
	const char *keyword, *text;
};

/* The bare file: filters chosen row by row, deflate by libdeflate, one IDAT that never exceeds the stored bound. */
enum status png_encode(const uint8_t *rgb, int width, int height, struct bytes *out);

/* Size of the finished file. */
uint64_t png_size(int width, int height, int n_texts, const struct png_text *texts);

/* The finished file from a bare one; STATUS_CORRUPT when `png` is not what png_encode wrote for this size. */
enum status png_dress(const void *png, size_t len, int n_texts, const struct png_text *texts, struct bytes *out);

/* Walks the chunks of a bare file and checks lengths, order and CRCs; gives its width and height. */
enum status png_check(const void *png, size_t len, int *width, int *height);

#endif

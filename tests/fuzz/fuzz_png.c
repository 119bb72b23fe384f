/* Any bytes as a bare PNG: refused, or dressed to the size foretold.  The same bytes as a picture: written so that the
 * check takes it. */
#include <stdlib.h>

#include "engine/png.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const uint8_t *rgb, int width, int height)
{
	struct bytes png = { 0 }, out = { 0 };
	int w = 0, h = 0;

	if (png_encode(rgb, width, height, &png) || png_check(png.data, png.len, &w, &h) || w != width || h != height)
		abort();
	if (png_dress(png.data, png.len, 0, NULL, &out) || out.len != png_size(width, height, 0, NULL))
		abort();
	bytes_free(&png);
	bytes_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes out = { 0 };
	int w = 0, h = 0;

	/* a file of some bytes may say that it is 16384 x 16384, and its padding is as large as that */
	if (png_check(data, size, &w, &h) == STATUS_OK && w * h <= 1 << 20)
		if (png_dress(data, size, 0, NULL, &out) || out.len != png_size(w, h, 0, NULL))
			abort();
	bytes_free(&out);
	if (size >= 4 && size < 100000) {
		int width = 1 + data[0] % 64, height = (int)((size - 1) / 3) / width;

		if (height > 0)
			encode(data + 1, width, height);
	}
	return 0;
}

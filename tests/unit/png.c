/* png: what is written is read back pixel by pixel, has the size that was foretold, and no damage goes unseen. */
#include "engine/png.h"

#include <libdeflate.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "tests/unit/check.h"

/* ---- a reader ---------------------------------------------------------------------------------------------------- */

static uint32_t u32_at(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int predict(int filter, int left, int up, int corner)
{
	int p = left + up - corner, a = abs(p - left), b = abs(p - up), c = abs(p - corner);

	switch (filter) {
	case 1:
		return left;
	case 2:
		return up;
	case 3:
		return (left + up) / 2;
	case 4:
		return a <= b && a <= c ? left : b <= c ? up : corner;
	default:
		return 0;
	}
}

/* Undoes the filters in place and compares.  used[] counts the filters. */
static bool pixels_equal(unsigned char *raw, const uint8_t *rgb, int width, int height, int *used)
{
	size_t len = 3 * (size_t)width;

	for (int y = 0; y < height; y++) {
		unsigned char *row = raw + (size_t)y * (len + 1) + 1, *above = row - len - 1;

		if (row[-1] > 4)
			return false;
		used[row[-1]]++;
		for (size_t x = 0; x < len; x++)
			row[x] = (unsigned char)(row[x] + predict(row[-1], x < 3 ? 0 : row[x - 3], y ? above[x] : 0,
								  x < 3 || !y ? 0 : above[x - 3]));
		if (memcmp(row, rgb + (size_t)y * len, len))
			return false;
	}
	return true;
}

/* The chunks' names of a file, "IHDR IDAT IEND", checked one by one; idat: where the pixels are. */
static bool walk(const struct bytes *png, char names[80], const unsigned char **idat, size_t *idat_len)
{
	size_t at = 8;

	names[0] = 0;
	while (at < png->len) {
		const unsigned char *chunk = png->data + at;
		size_t len;

		if (png->len - at < 12 || u32_at(chunk) > png->len - at - 12)
			return false;
		len = u32_at(chunk);
		if (libdeflate_crc32(0, chunk + 4, len + 4) != u32_at(chunk + 8 + len))
			return false;
		snprintf(names + strlen(names), 80 - strlen(names), "%s%.4s", at > 8 ? " " : "",
			(const char *)chunk + 4);
		if (!memcmp(chunk + 4, "IDAT", 4)) {
			*idat = chunk + 8;
			*idat_len = len;
		}
		at += len + 12;
	}
	return true;
}

static bool read_back(const struct bytes *png, const uint8_t *rgb, int width, int height, const char *wanted, int *used)
{
	size_t raw_len = (size_t)height * (1 + 3 * (size_t)width), idat_len = 0;
	unsigned char *raw = malloc(raw_len);
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	const unsigned char *idat = NULL;
	char names[80];
	bool good = walk(png, names, &idat, &idat_len) && !strcmp(names, wanted);

	/* NULL for the length: the stream must have exactly this many bytes, and its checksum must hold */
	good = good && libdeflate_zlib_decompress(d, idat, idat_len, raw, raw_len, NULL) == LIBDEFLATE_SUCCESS;
	good = good && pixels_equal(raw, rgb, width, height, used);
	libdeflate_free_decompressor(d);
	free(raw);
	return good;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static uint32_t noise(void)
{
	static uint32_t state = 1;

	state = state * 1664525u + 1013904223u;
	return state >> 24;
}

enum picture { FLAT, SMOOTH, LINES, NOISE, PICTURES };

static uint8_t *paint(enum picture picture, int width, int height)
{
	uint8_t *rgb = malloc(3 * (size_t)width * (size_t)height), *at = rgb;

	for (int y = 0; y < height; y++) {
		for (int x = 0; x < width; x++) {
			for (int c = 0; c < 3; c++, at++) {
				if (picture == NOISE)
					*at = (uint8_t)noise();
				else if (picture == SMOOTH)
					*at = (uint8_t)(128 + 80 * sin(0.02 * x + c) + 40 * cos(0.03 * y * (c + 1)) +
							(noise() & 7));
				else if (picture == LINES)
					*at = (uint8_t)(y % 5 ? (uint32_t)(x * (c + 1) * (y % 3)) : noise());
				else
					*at = 77;
			}
		}
	}
	return rgb;
}

static const struct png_text texts[] = { { "parameters", "a red panda \xc3\xa4\nSteps: 8" },
	{ "Software", "promptfs" } };

static void check_picture(enum picture picture, int width, int height)
{
	uint8_t *rgb = paint(picture, width, height);
	struct bytes bare = { 0 }, plain = { 0 }, dressed = { 0 };
	int used[5] = { 0 }, w = 0, h = 0;
	uint64_t bound = png_size(width, height, 0, NULL) - 12; /* without the padding chunk */

	if (png_encode(rgb, width, height, &bare) || png_dress(bare.data, bare.len, 0, NULL, &plain) ||
		png_dress(bare.data, bare.len, 2, texts, &dressed)) {
		check_case(false, status_text(), "picture %d of %dx%d", picture, width, height);
		goto out;
	}
	check_case(read_back(&bare, rgb, width, height, "IHDR IDAT IEND", used) && bare.len <= bound, "differs",
		"picture %d of %dx%d: %zu bytes", picture, width, height, bare.len);
	if (picture == NOISE && width > 3) /* in narrow ones the rows' filter bytes are worth compressing */
		check_case(bare.len == bound, "not stored", "noise of %dx%d fills the bound", width, height);
	check_case(read_back(&plain, rgb, width, height, "IHDR IDAT paDd IEND", used) &&
			   plain.len == png_size(width, height, 0, NULL),
		"differs", "padded to %zu bytes", plain.len);
	check_case(read_back(&dressed, rgb, width, height, "IHDR iTXt iTXt IDAT paDd IEND", used) &&
			   dressed.len == png_size(width, height, 2, texts),
		"differs", "with texts %zu bytes", dressed.len);
	CHECK("its size is read", png_check(bare.data, bare.len, &w, &h) == STATUS_OK && w == width && h == height);
out:
	free(rgb);
	bytes_free(&bare);
	bytes_free(&plain);
	bytes_free(&dressed);
}

static void check_filters(void)
{
	uint8_t *rgb = paint(LINES, 301, 200);
	struct bytes png = { 0 };
	int used[5] = { 0 };

	CHECK("lines",
		png_encode(rgb, 301, 200, &png) == STATUS_OK && read_back(&png, rgb, 301, 200, "IHDR IDAT IEND", used));
	check_case(used[1] && used[2] + used[3] + used[4], "one filter for all", "filters: %d %d %d %d %d", used[0],
		used[1], used[2], used[3], used[4]);
	free(rgb);
	bytes_free(&png);
}

/* ---- texts, damage, limits --------------------------------------------------------------------------------------- */

static void check_text(void)
{
	static const unsigned char wanted[] = "\0\0\0\x15iTXtSoftware\0\0\0\0\0promptfs";
	const uint8_t rgb[3] = { 1, 2, 3 };
	struct bytes bare = { 0 }, dressed = { 0 };
	char long_keyword[81];

	memset(long_keyword, 'k', 80);
	long_keyword[80] = 0;
	CHECK("a picture of one pixel", png_encode(rgb, 1, 1, &bare) == STATUS_OK);
	CHECK("a text's bytes", png_dress(bare.data, bare.len, 1, &texts[1], &dressed) == STATUS_OK &&
					!memcmp(dressed.data + 33, wanted, sizeof wanted - 1));
	dressed.len = 3;
	CHECK("no keyword",
		png_dress(bare.data, bare.len, 1, &(struct png_text){ "", "x" }, &dressed) == STATUS_INTERNAL &&
			dressed.len == 3);
	CHECK("a keyword of 80", png_dress(bare.data, bare.len, 1, &(struct png_text){ long_keyword, "x" }, &dressed) ==
					 STATUS_INTERNAL);
	bytes_free(&bare);
	bytes_free(&dressed);
}

static void check_damage(void)
{
	uint8_t *rgb = paint(SMOOTH, 9, 7);
	struct bytes bare = { 0 }, out = { 0 };
	int w = -1, h = -1, unseen = 0;

	CHECK("a small picture", png_encode(rgb, 9, 7, &bare) == STATUS_OK);
	for (size_t i = 0; i < bare.len; i++) {
		bare.data[i] ^= 0x20;
		unseen += png_dress(bare.data, bare.len, 0, NULL, &out) != STATUS_CORRUPT;
		bare.data[i] ^= 0x20;
	}
	check_case(unseen == 0, "accepted", "a damaged byte is seen (%d not)", unseen);
	for (size_t len = 0; len < bare.len; len++)
		unseen += png_check(bare.data, len, &w, &h) != STATUS_CORRUPT;
	check_case(unseen == 0 && w == -1 && h == -1, "accepted", "a truncated file is seen (%d not)", unseen);
	CHECK("a byte too many is seen",
		bytes_add(&bare, "x", 1) == STATUS_OK && png_check(bare.data, bare.len, &w, &h) == STATUS_CORRUPT);
	bare.len--;
	CHECK("a dressed file is no bare one", png_dress(bare.data, bare.len, 0, NULL, &out) == STATUS_OK &&
						       png_check(out.data, out.len, &w, &h) == STATUS_CORRUPT);
	CHECK("no rows", png_encode(rgb, 1, 0, &bare) == STATUS_INVALID);
	CHECK("too many columns", png_encode(rgb, PNG_SIDE_MAX + 1, 1, &bare) == STATUS_INVALID);
	free(rgb);
	bytes_free(&bare);
	bytes_free(&out);
}

static void show_speed(void)
{
	uint8_t *rgb = paint(SMOOTH, 512, 512);
	struct bytes png = { 0 };
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	if (png_encode(rgb, 512, 512, &png) == STATUS_OK) {
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("# 512x512: %.1f ms, %zu bytes\n",
			1e3 * (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_nsec - a.tv_nsec), png.len);
	}
	free(rgb);
	bytes_free(&png);
}

int main(void)
{
	for (int picture = 0; picture < PICTURES; picture++) {
		check_picture(picture, 1, 1);
		check_picture(picture, 64, 48);
		check_picture(picture, 301, 203);
	}
	check_picture(SMOOTH, PNG_SIDE_MAX, 1);
	check_picture(NOISE, PNG_SIDE_MAX, 2); /* more than one stored block */
	check_picture(SMOOTH, 1, PNG_SIDE_MAX);
	check_picture(NOISE, 3, 6553); /* 65530 bytes: one block, almost full */
	check_filters();
	check_text();
	check_damage();
	show_speed();
	CHECK("the size of 1024x1024",
		png_size(1024, 1024, 0, NULL) == 3147072 /* by hand: 8 + 25 + 12 + (3146752 + 5 * 49 + 6) + 12 + 12 */);
	return check_result();
}

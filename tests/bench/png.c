/* bench/png: encoding pictures with the detail of photographs, one thread.
 *
 *     make bench && build/release/bench/png
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/png.h"

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Waves with grain: about 5 bits a byte are left after filtering, as in a detailed picture. */
static void draw(uint8_t *rgb, int side)
{
	uint32_t state = 1;

	for (int y = 0; y < side; y++)
		for (int x = 0; x < side; x++)
			for (int c = 0; c < 3; c++) {
				double wave = 60 * sin(x / 37.0 + c) + 40 * cos(y / 23.0 - c * x / 190.0);

				state = state * 1664525 + 1013904223;
				*rgb++ = (uint8_t)(128 + wave + (double)(state >> 28) - 7.5);
			}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static bool measure(int side)
{
	enum { TURNS = 9 };
	uint8_t *rgb = malloc((size_t)side * (size_t)side * 3);
	struct bytes png = { 0 };
	double took[TURNS];
	bool done = rgb != NULL;

	if (done)
		draw(rgb, side);
	for (int i = 0; i < TURNS && done; i++) {
		double start = seconds();

		png.len = 0;
		done = png_encode(rgb, side, side, &png) == STATUS_OK;
		took[i] = seconds() - start;
	}
	if (done) {
		qsort(took, TURNS, sizeof *took, by_value);
		printf("png %4d x %-4d %8.2f ms %9zu bytes of %zu\n", side, side, 1e3 * took[TURNS / 2], png.len,
			(size_t)side * (size_t)side * 3);
	}
	bytes_free(&png);
	free(rgb);
	return done;
}

int main(void)
{
	for (int side = 256; side <= 2048; side *= 2)
		if (!measure(side))
			return 1;
	return 0;
}

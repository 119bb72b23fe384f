/* Any four bytes as a float: its 8-bit and 16-bit codes must be nearest, and a code must return to itself. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fp8.h"
#include "kernels/kernels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int again, int code, float value)
{
	if (again != code && !isnan(value))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	float x;

	for (; size >= sizeof x; data += sizeof x, size -= sizeof x) {
		uint8_t e4m3, e5m2;
		uint16_t half;

		memcpy(&x, data, sizeof x);
		e4m3 = e4m3_from_f32(x);
		e5m2 = e5m2_from_f32(x);
		half = f16_from_f32(x);
		check(e4m3_from_f32(e4m3_to_f32(e4m3)), e4m3, e4m3_to_f32(e4m3));
		check(e5m2_from_f32(e5m2_to_f32(e5m2)), e5m2, e5m2_to_f32(e5m2));
		check(f16_from_f32(f16_to_f32(half)), half, f16_to_f32(half));
	}
	return 0;
}

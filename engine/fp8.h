/* fp8: the 8-bit floats of safetensors, and half precision, written.
 *
 * e4m3 is e4m3fn: bias 7, no infinity, NaN at 0x7f and 0xff, largest 448.  e5m2 is the upper byte of a half.  Rounding
 * is to nearest, ties to even, and beyond the range as PyTorch 2.15 does it: e4m3 saturates, e5m2 overflows to
 * infinity.
 */
#ifndef PROMPTFS_ENGINE_FP8_H
#define PROMPTFS_ENGINE_FP8_H

#include <stdint.h>

float e4m3_to_f32(uint8_t code);
float e5m2_to_f32(uint8_t code);
uint8_t e4m3_from_f32(float x);
uint8_t e5m2_from_f32(float x);
uint16_t f16_from_f32(float x);

#endif

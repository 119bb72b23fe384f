/* gguf_blocks: values of GGUF files in blocks of few bits, to floats and back.
 *
 * The layouts are those of ggml's C structures (ggml-common.h); every product is rounded to float in the order of ggml,
 * so that values are exactly its.  Files are little-endian, and so must the machine be.
 */
#ifndef PROMPTFS_ENGINE_GGUF_BLOCKS_H
#define PROMPTFS_ENGINE_GGUF_BLOCKS_H

#include <stdint.h>

/* Numbers of the format.  4, 5, 31 to 33 and 36 to 38 were removed from it. */
enum gguf_type {
	GGUF_F32 = 0,
	GGUF_F16 = 1,
	GGUF_Q4_0 = 2,
	GGUF_Q4_1 = 3,
	GGUF_Q5_0 = 6,
	GGUF_Q5_1 = 7,
	GGUF_Q8_0 = 8,
	GGUF_Q8_1 = 9,
	GGUF_Q2_K = 10,
	GGUF_Q3_K = 11,
	GGUF_Q4_K = 12,
	GGUF_Q5_K = 13,
	GGUF_Q6_K = 14,
	GGUF_Q8_K = 15,
	GGUF_IQ2_XXS = 16,
	GGUF_IQ2_XS = 17,
	GGUF_IQ3_XXS = 18,
	GGUF_IQ1_S = 19,
	GGUF_IQ4_NL = 20,
	GGUF_IQ3_S = 21,
	GGUF_IQ2_S = 22,
	GGUF_IQ4_XS = 23,
	GGUF_I8 = 24,
	GGUF_I16 = 25,
	GGUF_I32 = 26,
	GGUF_I64 = 27,
	GGUF_F64 = 28,
	GGUF_IQ1_M = 29,
	GGUF_BF16 = 30,
	GGUF_TQ1_0 = 34,
	GGUF_TQ2_0 = 35,
	GGUF_MXFP4 = 39,
	GGUF_NVFP4 = 40,
};

struct gguf_block {
	const char *name;
	int values, bytes; /* of one block */
};

enum { GGUF_BLOCK_MAX = 256 };

const struct gguf_block *gguf_block(uint32_t type); /* NULL for a type that is not known */

/* n values, a multiple of the block's.  Any known type. */
void gguf_decode(enum gguf_type type, const unsigned char *blocks, int64_t n, float *out);

/* The types that can be written: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q4_K.  Byte for byte what the Python
 * package gguf writes, but Q4_K, which it cannot. */
void gguf_encode(enum gguf_type type, const float *values, int64_t n, unsigned char *out);

extern const uint16_t gguf_grid_iq2_xxs[256], gguf_grid_iq2_xs[512], gguf_grid_iq2_s[1024], gguf_grid_iq3_xxs[256],
	gguf_grid_iq3_s[512], gguf_grid_iq1_s[2048];

#endif

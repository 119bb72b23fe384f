/* convert: weights written in another precision, as safetensors (f32, bf16, fp8) or as GGUF (q8_0, q4_0, q4_k).
 *
 * Names stay those of the source.  Matrices get the precision; vectors, tables of one row and small matrices stay F32
 * (in bf16 and fp8 files BF16), and matrices that do not divide into blocks, and convolutions, become BF16.  fp8 is
 * e4m3 with one factor a matrix, as ComfyUI has it: X.scale_weight and the empty tensor scaled_fp8.
 */
#ifndef PROMPTFS_ENGINE_CONVERT_H
#define PROMPTFS_ENGINE_CONVERT_H

#include "engine/weights.h"

enum convert_type { CONVERT_F32, CONVERT_BF16, CONVERT_FP8, CONVERT_Q8_0, CONVERT_Q4_0, CONVERT_Q4_K, CONVERT_COUNT };

/* "bf16"; CONVERT_COUNT for a word that is none. */
enum convert_type convert_type_find(const char *name);
bool convert_is_gguf(enum convert_type type);

/* One tensor at a time is in memory.  The file appears whole or not.  `step`, which may be NULL, is told how much is
 * done, from 0 to 1.  STATUS_IO; STATUS_UNSUPPORTED for a tensor that the format cannot hold. */
enum status convert_write(const struct weights *w, enum convert_type type, const char *path,
	void (*step)(void *context, double done), void *context);

#endif

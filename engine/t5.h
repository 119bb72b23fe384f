/* t5: the encoder half of T5 1.1 (T5EncoderModel), with gated GELU.
 *
 * Papers: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, arXiv 1910.10683; GLU
 * Variants Improve Transformer, arXiv 2002.05202.  Reference: transformers, models/t5/modeling_t5.py.
 *
 * Traps: attention scores are not scaled; the only positions are a bias by distance, whose one table lies in block 0
 * and serves all; norms divide by the root mean square, without subtracting a mean; the inner width of attention need
 * not be the model's; padding is attended.  Only the rows of the token table that a prompt needs are read from the
 * file.
 */
#ifndef PROMPTFS_ENGINE_T5_H
#define PROMPTFS_ENGINE_T5_H

#include "engine/component.h"
#include "kernels/kernels.h"

struct t5;

enum status t5_open(struct kernels *k, const struct component *c, struct t5 **out);
void t5_close(struct t5 *t); /* NULL is allowed */

int64_t t5_width(const struct t5 *t);

/* out [n, width] F32: the last hidden state after the final norm, one row a token. */
enum status t5_encode(struct t5 *t, struct arena *arena, const int64_t *ids, int64_t n, struct tensor out);

#endif

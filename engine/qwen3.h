/* qwen3: the Qwen3 decoder-only language model as a text encoder: the hidden states before its last layer.
 *
 * Paper: Qwen3 Technical Report, arXiv 2505.09388.  Reference: transformers, models/qwen3/modeling_qwen3.py;
 * diffusers takes hidden_states[-2], so the last layer, the final norm and the output head are never read.
 * Only the rows of the token table that a prompt needs are read from the file.
 */
#ifndef PROMPTFS_ENGINE_QWEN3_H
#define PROMPTFS_ENGINE_QWEN3_H

#include "engine/component.h"
#include "kernels/kernels.h"

struct qwen3_config {
	int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
	double eps, rope_theta;
};

enum status qwen3_config_read(const struct component *part, struct qwen3_config *out);

struct qwen3;
enum status qwen3_open(struct kernels *k, const struct component *c, struct qwen3 **out);
void qwen3_close(struct qwen3 *q); /* NULL is allowed */

int64_t qwen3_hidden(const struct qwen3 *q);

/* out [count, hidden] F32: one row a token.  Causal: padding to the right would change nothing, so give none. */
enum status qwen3_encode(struct qwen3 *q, struct arena *arena, const int64_t *ids, int64_t count, struct tensor out);

#endif

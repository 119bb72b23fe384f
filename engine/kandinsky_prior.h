/* kandinsky_prior: the PriorTransformer, which makes an image embedding of a text.
 *
 *     rows: text (77) | pooled text | time | noisy embedding | prd  -> causal blocks -> the last row
 *
 * Paper: Hierarchical Text-Conditional Image Generation with CLIP Latents, arXiv 2204.06125; Kandinsky, arXiv
 * 2310.03502.  Reference: diffusers, models/transformers/prior_transformer.py.
 *
 * Traps: masks are -10000, added up, not infinite; the activation is the exact GELU; it predicts the clean embedding,
 * normalised: times clip_std plus clip_mean is what the decoder wants.
 */
#ifndef PROMPTFS_ENGINE_KANDINSKY_PRIOR_H
#define PROMPTFS_ENGINE_KANDINSKY_PRIOR_H

#include "engine/component.h"
#include "kernels/kernels.h"

struct kandinsky_prior;

enum status kandinsky_prior_open(struct kernels *k, const struct component *c, struct kandinsky_prior **out);
void kandinsky_prior_close(struct kandinsky_prior *p); /* NULL is allowed */

int64_t kandinsky_prior_tokens(const struct kandinsky_prior *p); /* 77 */
int64_t kandinsky_prior_width(const struct kandinsky_prior *p);  /* of embeddings */

struct kandinsky_text {
	struct tensor hidden; /* [tokens, width] F32 */
	struct tensor pooled; /* [1, width] F32 */
	int64_t tokens;       /* that are not padding */
};

/* x and out [1, width] F32: the predicted embedding at `timestep`. */
enum status kandinsky_prior_predict(struct kandinsky_prior *p, struct arena *arena, const struct kandinsky_text *text,
	float timestep, struct tensor x, struct tensor out);

/* x [1, width] F32 := x * clip_std + clip_mean */
enum status kandinsky_prior_finish(struct kandinsky_prior *p, struct tensor x);

#endif

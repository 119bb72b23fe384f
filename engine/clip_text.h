/* clip_text: the text half of CLIP (CLIPTextModel and CLIPTextModelWithProjection).
 *
 * Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020.  Reference:
 * transformers, models/clip/modeling_clip.py.
 *
 * Traps: the attention is causal and padding is attended; what is pooled stands at the first position of the largest id
 * when the configuration says eos_token_id 2 (all published ones do, and it is wrong), else at the first eos; a skipped
 * layer's state has no final norm, except in SD 1.5's clip_skip; names begin with `text_model.` in published files and
 * without it in those of transformers 5.  Only the rows of the token table that a prompt needs are read from the file.
 */
#ifndef PROMPTFS_ENGINE_CLIP_TEXT_H
#define PROMPTFS_ENGINE_CLIP_TEXT_H

#include "engine/component.h"
#include "kernels/kernels.h"

struct clip_text;

enum status clip_text_open(struct kernels *k, const struct component *c, struct clip_text **out);
void clip_text_close(struct clip_text *c); /* NULL is allowed */

int64_t clip_text_width(const struct clip_text *c);
int64_t clip_text_projection(const struct clip_text *c); /* of the pooled row; 0: there is no projection */
int64_t clip_text_positions(const struct clip_text *c);  /* how many tokens it takes at most: 77 */
int64_t clip_text_layers(const struct clip_text *c);

/* hidden [n, width] F32, or data NULL: the state after all layers but the last `skip` (0: last_hidden_state, 1:
 * hidden_states[-2] ...).  The final norm is applied where skip is 0 or final_norm says so.
 * pooled [projection or width] F32, or data NULL: from the last layer, whatever skip is. */
enum status clip_text_encode(struct clip_text *c, struct arena *arena, const int64_t *ids, int64_t n, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled);

#endif

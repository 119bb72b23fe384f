/* clip_vision: the picture half of CLIP (CLIPVisionModelWithProjection), for one picture only: the all-zero one, which
 * Kandinsky takes as the embedding of "nothing" when there is no negative prompt.
 *
 * Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020.  Reference:
 * transformers, models/clip/modeling_clip.py.
 *
 * Traps: the picture is zero after normalisation, so the patch embedding (which has no bias) contributes nothing and
 * its weights are not read; the norm before the layers is spelt pre_layrnorm.
 */
#ifndef PROMPTFS_ENGINE_CLIP_VISION_H
#define PROMPTFS_ENGINE_CLIP_VISION_H

#include "engine/component.h"
#include "kernels/kernels.h"

struct clip_vision;

enum status clip_vision_open(struct kernels *k, const struct component *c, struct clip_vision **out);
void clip_vision_close(struct clip_vision *c); /* NULL is allowed */

int64_t clip_vision_projection(const struct clip_vision *c);

/* out [1, projection] F32 */
enum status clip_vision_embed_zero(struct clip_vision *c, struct arena *arena, struct tensor out);

#endif

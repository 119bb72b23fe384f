/* sd3_transformer: the two-stream diffusion transformer of Stable Diffusion 3 and 3.5 (MMDiT, MMDiT-X).
 *
 * Paper: Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, arXiv 2403.03206.  Reference:
 * diffusers, models/transformers/transformer_sd3.py, models/attention.py (JointTransformerBlock).
 *
 *     picture patches -> embed, + positions --+--> joint blocks -> norm -> linear -> patches
 *     text rows -> embed ---------------------+
 *
 * Traps: attention sees [picture, text]; the position table comes from the file and its middle is cut out, from
 * (max - n) / 2 rounded down; a block's modulation is shift, scale, gate, the one of the last block's text and of the
 * final norm is scale, shift; both attentions of a dual block read the stream as it was before the block; the last
 * block drops the text after its keys and values; input patches are (channel, dy, dx), output patches (dy, dx,
 * channel). The text rows of a prompt do not depend on the noise level: they are embedded once.  Modulation depends on
 * the noise level and the pooled prompt alone: it is computed for many steps at once.
 */
#ifndef PROMPTFS_ENGINE_SD3_TRANSFORMER_H
#define PROMPTFS_ENGINE_SD3_TRANSFORMER_H

#include "engine/component.h"
#include "kernels/kernels.h"

enum { SD3_PATCH = 2, SD3_LAYERS_MAX = 256 };

struct sd3_config {
	int64_t channels, dim, layers, heads, head_dim;
	int64_t text_dim, pooled_dim;
	int64_t positions;   /* the largest picture is positions x positions patches */
	int64_t sample_size; /* side of the latents it was trained for */
	bool qk_norm;
	bool dual[SD3_LAYERS_MAX]; /* layers with a second attention, on the picture alone */
};

enum status sd3_config_read(const struct component *part, struct sd3_config *out);

struct sd3_transformer;
enum status sd3_transformer_open(struct kernels *k, const struct component *c, struct sd3_transformer **out);
void sd3_transformer_close(struct sd3_transformer *t); /* NULL is allowed */

/* A prompt made ready; tensors live in the arena it was made with. */
struct sd3_prompt {
	struct tensor rows;   /* [tokens, dim] F32 */
	struct tensor pooled; /* [1, dim] F32 */
};

/* embeds [tokens, text_dim] F32; pooled [1, pooled_dim] F32. */
enum status sd3_transformer_prompt(struct sd3_transformer *t, struct arena *arena, struct tensor embeds,
	struct tensor pooled, struct sd3_prompt *out);

/* The positions of latents [.., height, width]: *out [tokens, dim] F32 is taken from the arena. */
enum status sd3_transformer_positions(
	struct sd3_transformer *t, struct arena *arena, int64_t height, int64_t width, struct tensor *out);

/* The modulation of every block for a prompt at n noise levels. */
struct sd3_modulation {
	int64_t n;
	struct tensor values; /* [n, chunks of dim] F32: block after block */
	struct tensor row;    /* [1, chunks of dim] F32: of one level */
};

/* times[i] is a timestep of the scheduler (0..1000).  values with data NULL is taken from the arena; else it is used
 * again, and n must not exceed what it was taken for. */
enum status sd3_transformer_modulation(struct sd3_transformer *t, struct arena *arena, const struct sd3_prompt *prompt,
	int64_t n, const float *times, struct sd3_modulation *m);

/* What one prediction depends on besides the latents. */
struct sd3_condition {
	const struct sd3_prompt *prompt;
	const struct sd3_modulation *modulation;
	int64_t row; /* of the modulation: which noise level */
	struct tensor positions;
	const bool *skip; /* [layers]: blocks to leave out; NULL: none */
};

/* out [channels, height, width] F32: the velocity at latents. */
enum status sd3_transformer_predict(struct sd3_transformer *t, struct arena *arena, const struct sd3_condition *c,
	struct tensor latents, struct tensor out);

#endif

/* flux_transformer: the diffusion transformer of FLUX.1 (FluxTransformer2DModel).
 *
 * Paper: FLUX.1 Kontext, arXiv 2506.15742; the blocks are those of Stable Diffusion 3, arXiv 2403.03206, and of
 * parallel attention and feed-forward layers, arXiv 2302.05442.  Reference: diffusers,
 * models/transformers/transformer_flux.py.
 *
 *     [text, picture] -> double blocks (two sets of weights, one attention) -> single blocks -> final layer -> patches
 *
 * Traps: the stream is [text, picture]; text sits at (0, 0, 0), picture tokens at (0, row, column); rotary pairs are
 * adjacent, their frequencies float64; patches are ordered (channel, dy, dx); modulation is shift, scale, gate in the
 * blocks, but scale, shift in the final layer; time and guidance are multiplied by 1000 before their sinusoids.
 * The text's embedding does not depend on the noise level: it is made once per prompt.  Modulation depends only on the
 * noise level and the pooled prompt: it is computed for many steps at once.
 */
#ifndef PROMPTFS_ENGINE_FLUX_TRANSFORMER_H
#define PROMPTFS_ENGINE_FLUX_TRANSFORMER_H

#include "engine/component.h"
#include "kernels/kernels.h"

enum { FLUX_PATCH = 2 };

struct flux_config {
	int64_t channels; /* of the latents: a quarter of in_channels */
	int64_t dim, heads, head_dim, layers, single_layers, text_dim, pooled_dim;
	int64_t axes[3]; /* rotary dimensions of (0, row, column) */
	bool guidance;   /* it was distilled: guidance is one of its inputs */
};

enum status flux_config_read(const struct component *part, struct flux_config *out);

struct flux_transformer;
enum status flux_transformer_open(struct kernels *k, const struct component *c, struct flux_transformer **out);
void flux_transformer_close(struct flux_transformer *t); /* NULL is allowed */

/* A prompt made ready for pictures of one size; tensors live in the arena it was made with. */
struct flux_text {
	struct tensor rows;   /* [tokens, dim] F32 */
	struct tensor vector; /* [dim] F32: pooled prompt and guidance, embedded */
	struct tensor rope;   /* [tokens + picture tokens, head_dim / 2, 2] F32 */
};

/* embeds [tokens, text_dim] F32, pooled [pooled_dim] F32; height and width are those of the latents. */
enum status flux_transformer_text(struct flux_transformer *t, struct arena *arena, struct tensor embeds,
	struct tensor pooled, float guidance, int64_t height, int64_t width, struct flux_text *out);

/* The modulation of every block for n noise levels; times[i] is the timestep, 0 to 1000. */
struct flux_modulation {
	struct tensor doubles;                           /* [layers, n, 12 dim] F32: 6 of the picture, 6 of the text */
	struct tensor singles;                           /* [single_layers, n, 3 dim] F32 */
	struct tensor final;                             /* [1, n, 2 dim] F32 */
	struct tensor double_row, single_row, final_row; /* of one level: [blocks, values] */
};
enum status flux_transformer_modulation(struct flux_transformer *t, struct arena *arena, const struct flux_text *text,
	int64_t n, const float *times, struct flux_modulation *out);

/* out [channels, height, width] F32 = the velocity at latents.  row: of the modulation. */
enum status flux_transformer_predict(struct flux_transformer *t, struct arena *arena, const struct flux_text *text,
	const struct flux_modulation *modulation, int64_t row, struct tensor latents, struct tensor out);

#endif

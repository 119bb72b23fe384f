/* zimage_transformer: the single-stream diffusion transformer of Z-Image ("S3-DiT").
 *
 * Paper: Z-Image, arXiv 2511.22699.  Reference: diffusers, models/transformers/transformer_z_image.py.
 *
 *     picture patches -> embed -> noise refiner ---+
 *                                                  +--> [picture, caption] -> layers -> final layer -> patches
 *     caption rows -> norm, embed -> context refiner
 *
 * Traps: rows are padded to a multiple of 32 with learned tokens that are attended; caption padding goes on counting
 * positions, picture padding sits at (0, 0, 0); the picture's t is the padded caption length + 1; gates pass through
 * tanh; the feed-forward width is int(dim / 3 * 8).
 * The caption does not depend on the noise level: it is refined once per prompt.  Modulation depends only on the
 * noise level: it is computed for many steps at once.
 */
#ifndef PROMPTFS_ENGINE_ZIMAGE_TRANSFORMER_H
#define PROMPTFS_ENGINE_ZIMAGE_TRANSFORMER_H

#include "engine/component.h"
#include "kernels/kernels.h"

struct zimage_config {
	int64_t channels, dim, layers, refiner_layers, heads, head_dim, caption_dim;
	int64_t axes[3], axes_len[3]; /* rotary dimensions and largest position + 1 of (t, row, column) */
	double norm_eps, rope_theta, t_scale;
};

enum { ZIMAGE_PATCH = 2, ZIMAGE_PAD = 32 };

enum status zimage_config_read(const struct component *part, struct zimage_config *out);

struct zimage_transformer;
enum status zimage_transformer_open(struct kernels *k, const struct component *c, struct zimage_transformer **out);
void zimage_transformer_close(struct zimage_transformer *t); /* NULL is allowed */

/* A prompt made ready for pictures of one size; tensors live in the arena it was made with. */
struct zimage_caption {
	int64_t picture_tokens, picture_rows; /* without and with padding */
	struct tensor rows;                   /* [caption rows, dim] F32, refined */
	struct tensor rope;                   /* [picture rows + caption rows, head_dim / 2, 2] F32 */
};

/* embeds [tokens, caption_dim] F32; height and width are those of the latents. */
enum status zimage_transformer_caption(struct zimage_transformer *t, struct arena *arena, struct tensor embeds,
	int64_t height, int64_t width, struct zimage_caption *out);

/* The modulation of every block for n noise levels; times[i] is 1 - sigma. */
struct zimage_modulation {
	struct tensor blocks; /* [blocks, n, 4 dim] F32: scale, gate of attention, scale, gate of feed-forward */
	struct tensor final;  /* [1, n, dim] F32 */
	struct tensor block_row, final_row; /* of one level: [blocks, 4 dim], [1, dim] */
};
enum status zimage_transformer_modulation(struct zimage_transformer *t, struct arena *arena, int64_t n,
	const float *times, struct zimage_modulation *out);

/* out [channels, height, width] F32 = -(velocity at latents): what the scheduler expects.  row: of the modulation. */
enum status zimage_transformer_predict(struct zimage_transformer *t, struct arena *arena,
	const struct zimage_caption *caption, const struct zimage_modulation *modulation, int64_t row,
	struct tensor latents, struct tensor out);

#endif

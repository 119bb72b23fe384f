/* kandinsky_unet: the UNet of Kandinsky 2.2's decoder, conditioned on an image embedding alone.
 *
 * Paper: Kandinsky: an Improved Text-to-Image Synthesis with Image Prior and Latent Diffusion, arXiv 2310.03502.
 * Reference: diffusers, models/unets/unet_2d_condition.py and unet_2d_blocks.py (ResnetDownsampleBlock2D,
 * SimpleCrossAttn*Block2D), AttnAddedKVProcessor in models/attention_processor.py.
 *
 * Traps: the time projection gives scale and shift of the second norm; sizes change inside resnets, by 2 x 2 means and
 * repetition, without a convolution of their own; attention_head_dim is the width of a head, not the number of heads;
 * the rows made of the image embedding (32 of them) are keys before the picture's own; the last half of the output
 * channels is the learned variance.
 */
#ifndef PROMPTFS_ENGINE_KANDINSKY_UNET_H
#define PROMPTFS_ENGINE_KANDINSKY_UNET_H

#include "engine/component.h"
#include "kernels/kernels.h"

enum { KANDINSKY_BLOCKS_MAX = 8, KANDINSKY_IMAGE_ROWS = 32 };

struct kandinsky_unet_config {
	int64_t channels[KANDINSKY_BLOCKS_MAX]; /* finest first */
	int n_blocks;
	bool attention_down[KANDINSKY_BLOCKS_MAX], attention_up[KANDINSKY_BLOCKS_MAX];
	int64_t in, out, layers, cross_dim, image_dim, head_dim, groups;
	double eps;
};

enum status kandinsky_unet_config_read(const char *path, struct kandinsky_unet_config *out);

struct kandinsky_unet;
enum status kandinsky_unet_open(struct kernels *k, const struct component *c, struct kandinsky_unet **out);
void kandinsky_unet_close(struct kandinsky_unet *u); /* NULL is allowed */

/* What an image embedding [1, image_dim] F32 becomes; lives in the arena. */
struct kandinsky_image {
	struct tensor rows; /* [32, cross_dim] operand */
	struct tensor time; /* [1, 4 channels[0]] F32: added to the time embedding */
};
enum status kandinsky_unet_image(
	struct kandinsky_unet *u, struct arena *arena, struct tensor embedding, struct kandinsky_image *out);

/* latents [in, h, w] F32, out [config.out, h, w] F32 */
enum status kandinsky_unet_predict(struct kandinsky_unet *u, struct arena *arena, const struct kandinsky_image *image,
	float timestep, struct tensor latents, struct tensor out);

#endif

/* autoencoder: the decoder of AutoencoderKL, latents to pictures.
 *
 * Paper: arXiv 2112.10752.  Reference: diffusers, models/autoencoders/{autoencoder_kl,vae}.py, unet_2d_blocks.py.
 * Activations are [height, width, channels]; the residual stream stays in F32.
 */
#ifndef PROMPTFS_ENGINE_AUTOENCODER_H
#define PROMPTFS_ENGINE_AUTOENCODER_H

#include "engine/component.h"
#include "kernels/kernels.h"

enum { AUTOENCODER_BLOCKS_MAX = 8, AUTOENCODER_STATISTICS_MAX = 128 };

struct autoencoder_config {
	int64_t latent_channels, layers_per_block, groups;
	int64_t channels[AUTOENCODER_BLOCKS_MAX]; /* of each level, finest first */
	int n_blocks;                             /* levels: a latent pixel covers 2^(n_blocks - 1) pixels */
	bool attention, post_quant_conv;
	double scaling_factor, shift_factor; /* latents / scaling_factor + shift_factor are decoded */
	bool statistics;                     /* or, with these: latents * std / scaling_factor + mean */
	float mean[AUTOENCODER_STATISTICS_MAX], std[AUTOENCODER_STATISTICS_MAX]; /* of each channel */
	int64_t sample_size; /* side of the pictures it was trained for */
};

enum status autoencoder_config_read(const struct component *part, struct autoencoder_config *out);

struct autoencoder;
enum status autoencoder_open(
	struct kernels *k, const struct component *c, struct autoencoder **out); /* the decoder alone */
void autoencoder_close(struct autoencoder *a);                                   /* NULL is allowed */

/* latents [channels, h, w] F32; *picture [h * f, w * f, 3] F32 is taken from the arena. */
enum status autoencoder_decode(
	struct autoencoder *a, struct arena *arena, struct tensor latents, struct tensor *picture);

#endif

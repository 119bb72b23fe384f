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

/* latents [channels, h, w] F32; *picture [h * f, w * f, 3] F32 is taken from the arena.  rows 0: all at once; else in
 * bands of so many rows, which takes a third of the memory and a third to two fifths more arithmetic; the picture is
 * the same but for the rounding of sums. */
enum status autoencoder_decode(
	struct autoencoder *a, struct arena *arena, struct tensor latents, int64_t rows, struct tensor *picture);

/* Rows of a band for pictures of this size: small beside the picture, large beside what bands do twice. */
int64_t autoencoder_band_rows(const struct autoencoder *a, int64_t height, int64_t width);

/* Bytes that decoding all at once takes beside the weights. */
enum status autoencoder_needs(const struct autoencoder *a, struct tensor latents, uint64_t *bytes);

#endif

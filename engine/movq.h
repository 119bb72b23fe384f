/* movq: the decoder half of VQModel with spatial norms (MoVQ), Kandinsky's autoencoder.
 *
 * Paper: MoVQ: Modulating Quantized Vectors for High-Fidelity Image Generation, arXiv 2209.09002.  Reference:
 * diffusers, models/autoencoders/vq_model.py, class SpatialNorm in models/attention_processor.py.
 *
 * Traps: every norm is a group norm of always 32 groups times conv_y(z) plus conv_b(z), where z are the latents before
 * post_quant_conv; latents are neither scaled nor quantised; the encoder and the codebook are in the file but not used.
 */
#ifndef PROMPTFS_ENGINE_MOVQ_H
#define PROMPTFS_ENGINE_MOVQ_H

#include "engine/component.h"
#include "kernels/kernels.h"

enum { MOVQ_BLOCKS_MAX = 8 };

struct movq_config {
	int64_t channels[MOVQ_BLOCKS_MAX]; /* finest first */
	int n_blocks;
	bool attention[MOVQ_BLOCKS_MAX]; /* of the decoder's blocks, coarsest first */
	int64_t latent_channels, vq_channels, layers_per_block;
};

enum status movq_config_read(const char *path, struct movq_config *out);

struct movq;
enum status movq_open(struct kernels *k, const struct component *c, struct movq **out);
void movq_close(struct movq *m); /* NULL is allowed */

/* latents [channels, h, w] F32; *picture [h * 2^(n_blocks - 1), w * .., 3] F32, taken from the arena. */
enum status movq_decode(struct movq *m, struct arena *arena, struct tensor latents, struct tensor *picture);

#endif

/* unet_blocks: the parts that UNets of diffusers are made of: spatial transformers, resampling; residual blocks are
 * conv_blocks.h.
 *
 * Papers: arXiv 2112.10752 (latent diffusion), 2307.01952 (SDXL).  Reference: diffusers, models/resnet.py,
 * models/transformers/transformer_2d.py, models/attention.py.
 *
 * Traps: a residual block's GroupNorm takes norm_eps of the configuration (1e-5), the GroupNorm before a transformer
 * 1e-6, LayerNorm 1e-5; GEGLU's second half is the gate, through the exact GELU; the transformers' proj_in is a 1x1
 * convolution in SD 1.5 and a matrix in SDXL, which is the same product.
 *
 * Activations are [height, width, channels]; the residual stream stays in F32.  Each run_ function takes its result
 * from the arena and releases everything else.
 */
#ifndef PROMPTFS_ENGINE_UNET_BLOCKS_H
#define PROMPTFS_ENGINE_UNET_BLOCKS_H

#include "engine/conv_blocks.h"
#include "kernels/kernels.h"

/* What loading needs to know. */
struct unet_loader {
	struct kernels *k;
	const struct weights *weights;
	int64_t time;  /* width of the time embedding */
	int64_t cross; /* width of the text */
	bool linear;   /* what leads into and out of transformers is stored as matrices, not as convolutions */
};

enum status unet_load(const struct unet_loader *l, const int64_t *dims, const char *prefix,
	const struct load_entry *table, int n, void *base);

/* What running needs. */
struct unet_pass {
	struct conv_pass conv; /* eps: of the residual blocks */
	struct tensor text;    /* [tokens, cross] operand */
};

/* skip (data NULL: none) is joined to x along channels first; both F32. */
enum status unet_residual_run(
	struct unet_pass *p, const struct residual *r, struct tensor x, struct tensor skip, struct tensor *y);

struct unet_transformer_block {
	struct weight *norm1_weight, *norm1_bias, *self_qkv, *self_out, *self_out_bias;
	struct weight *norm2_weight, *norm2_bias, *cross_q, *cross_kv, *cross_out, *cross_out_bias;
	struct weight *norm3_weight, *norm3_bias, *ff_in, *ff_in_bias, *ff_out, *ff_out_bias;
};

struct unet_transformer {
	struct weight *norm_weight, *norm_bias, *in, *in_bias, *out, *out_bias;
	int64_t width, heads;
	int64_t n_blocks;
	struct unet_transformer_block *blocks;
};

enum status unet_transformer_load(struct unet_loader *l, const char *prefix, int64_t width, int64_t heads,
	int64_t n_blocks, struct unet_transformer *t);
void unet_transformer_free(struct kernels *k, struct unet_transformer *t);
enum status unet_transformer_run(struct unet_pass *p, const struct unet_transformer *t, struct tensor x); /* in place */

/* Half the size (stride 2). */
enum status unet_downsample(struct unet_pass *p, const struct conv_sampler *s, struct tensor x, struct tensor *y);
/* To [height, width]: twice x's, or one less. */
enum status unet_upsample(struct unet_pass *p, const struct conv_sampler *s, struct tensor x, int64_t height,
	int64_t width, struct tensor *y);

#endif

/* unet: UNet2DConditionModel, the network of Stable Diffusion 1.5, SDXL and Playground v2.5.
 *
 *     conv_in -> levels down -> middle -> levels up, each joined with what its level put out on the way down ->
 * conv_out
 *
 * Papers: arXiv 2112.10752, 2307.01952.  Reference: diffusers, models/unets/unet_2d_condition.py, unet_2d_blocks.py.
 *
 * Traps: `attention_head_dim` is the number of heads (an old mistake that files keep); the sinusoid puts cosines first
 * when flip_sin_to_cos says so; odd sizes are rounded up on the way down and met again on the way up.
 */
#ifndef PROMPTFS_ENGINE_UNET_H
#define PROMPTFS_ENGINE_UNET_H

#include <stdbool.h>

#include "engine/component.h"
#include "kernels/kernels.h"

enum { UNET_LEVELS_MAX = 8, UNET_LAYERS_MAX = 16, UNET_SIZES = 6 };

struct unet_level_config {
	int64_t channels, layers, heads;
	int64_t blocks;               /* of each of its transformers */
	bool attention, attention_up; /* whether it has some on the way down, and up */
};

struct unet_config {
	int64_t in_channels, out_channels, cross, groups;
	int64_t sample_size; /* side of the latents it was trained for */
	int n_levels;
	struct unet_level_config level[UNET_LEVELS_MAX]; /* finest first */
	double norm_eps, freq_shift;
	bool cos_first;
	bool linear_projection;          /* in its transformers */
	bool text_time;                  /* SDXL: pooled text and sizes are embedded beside the time */
	int64_t size_width, added_width; /* of one size's sinusoid; of all that is embedded */
};

enum status unet_config_read(const struct component *part, struct unet_config *out);

struct unet;
enum status unet_open(struct kernels *k, const struct component *c, struct unet **out);
void unet_close(struct unet *u); /* NULL is allowed */

/* What of a prompt the network reads. */
struct unet_prompt {
	struct tensor text;  /* [tokens, cross] operand */
	struct tensor added; /* [1, time] F32; data NULL: none */
};

/* text [tokens, cross] F32; pooled [dim] F32 and sizes only where the configuration says text_time.  The result is
 * taken from the arena. */
enum status unet_embed_prompt(struct unet *u, struct arena *arena, struct tensor text, struct tensor pooled,
	const float sizes[UNET_SIZES], struct unet_prompt *out);

/* latents, out [channels, h, w] F32. */
enum status unet_predict(struct unet *u, struct arena *arena, const struct unet_prompt *prompt, float timestep,
	struct tensor latents, struct tensor out);

#endif

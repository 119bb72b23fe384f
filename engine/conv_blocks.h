/* conv_blocks: what UNets and autoencoders are built of: residual blocks of two convolutions, attention of a picture's
 * places with one head, and a convolution between two sizes.
 *
 *     struct conv_pass pass = { .k = k, .arena = arena, .groups = 32, .eps = 1e-6f };
 *     TRY(residual_load(k, weights, "mid_block.resnets.0.", &(struct conv_shape){ .in = 512, .out = 512 }, &block));
 *     TRY(residual_run(&pass, &block, &stream));
 *
 * Reference: diffusers, models/resnet.py, models/attention_processor.py (SpatialNorm).
 *
 * Activations are [height, width, channels]; the stream stays in F32.
 */
#ifndef PROMPTFS_ENGINE_CONV_BLOCKS_H
#define PROMPTFS_ENGINE_CONV_BLOCKS_H

#include "engine/load.h"
#include "kernels/kernels.h"

struct conv_shape {
	int64_t in, out;
	int64_t time, time_rows; /* width of the time embedding, and what it becomes: out (added) or 2 out; 0: none */
	int64_t spatial;         /* MoVQ: channels of the latents that its norms look at; 0: plain group norms */
};

struct conv_norm {
	struct weight *weight, *bias;
	struct weight *y, *y_bias, *b, *b_bias; /* of a spatial norm */
};

struct residual {
	struct conv_norm norm1, norm2;
	struct weight *conv1, *conv1_bias, *conv2, *conv2_bias;
	struct weight *time, *time_bias;         /* NULL: none */
	struct weight *shortcut, *shortcut_bias; /* where the number of channels changes */
	int64_t in, out, time_rows;
};

struct place_attention {
	struct conv_norm norm;
	struct weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *out, *out_bias;
};

struct conv_sampler {
	struct weight *conv, *conv_bias;
};

/* On failure what was loaded so far stays, for the function that frees it. */
enum status residual_load(struct kernels *k, const struct weights *w, const char *prefix,
	const struct conv_shape *shape, struct residual *out);
void residual_free(struct kernels *k, struct residual *r);
enum status place_attention_load(struct kernels *k, const struct weights *w, const char *prefix,
	const struct conv_shape *shape, struct place_attention *out);
void place_attention_free(struct kernels *k, struct place_attention *a);
enum status conv_sampler_load(
	struct kernels *k, const struct weights *w, const char *prefix, int64_t width, struct conv_sampler *out);
void conv_sampler_free(struct kernels *k, struct conv_sampler *s);

/* What running needs. */
struct conv_pass {
	struct kernels *k;
	struct arena *arena;
	int groups;
	float eps;
	struct tensor time; /* [1, time] operand: silu of the embedding, where blocks have one */
	/* y = norm(x), then silu if asked; y may be x.  NULL: a group norm */
	enum status (*norm)(
		const struct conv_pass *p, const struct conv_norm *n, bool silu, struct tensor x, struct tensor y);
	const void *context; /* of norm */
};

enum status conv_group_norm(
	const struct conv_pass *p, const struct conv_norm *n, bool silu, struct tensor x, struct tensor y);

/* y = x, through the shortcut where there is one; then y += the rest of the block, in which the picture may change its
 * size before the first convolution. */
enum conv_resize { RESIZE_NONE, RESIZE_HALVE, RESIZE_DOUBLE };
enum status residual_start(const struct conv_pass *p, const struct residual *r, struct tensor x, struct tensor y);
enum status residual_add(
	const struct conv_pass *p, const struct residual *r, enum conv_resize resize, struct tensor x, struct tensor y);
/* Both, in place where the number of channels stays. */
enum status residual_run(const struct conv_pass *p, const struct residual *r, struct tensor *stream);

enum status place_attention_run(const struct conv_pass *p, const struct place_attention *a, struct tensor x);
enum status conv_double(const struct conv_pass *p, const struct conv_sampler *s, struct tensor *stream);

/* x at another size; x itself where it stays. */
enum status conv_resized(const struct conv_pass *p, enum conv_resize resize, struct tensor x, struct tensor *out);
/* x as an operand: itself where the dtype is that already, else a copy from the arena. */
enum status conv_operand(const struct conv_pass *p, struct tensor x, struct tensor *out);
/* From the arena: of like's height and width. */
enum status conv_take(
	const struct conv_pass *p, enum dtype dtype, struct tensor like, int64_t channels, struct tensor *out);
struct tensor conv_places(struct tensor t); /* [places, channels] */

#endif

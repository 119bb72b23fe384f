/* names: tensors of the original checkpoints under the names of diffusers.
 *
 *     struct mapped_name to[NAMES_MAX];
 *     int n = names_map(NAMES_FLUX, &names_usual, "double_blocks.3.img_attn.qkv.weight", to);
 *     // n == 3: transformer_blocks.3.attn.to_q.weight has rows 0/3 .. 1/3 of it, to_k 1/3 .. 2/3, to_v 2/3 .. 3/3
 *
 * Also for modules (without ".weight"), and for names with every dot written as an underscore, as the LoRA files of
 * kohya have them: a rule's dots match them then, and what a rule does not name is copied as it is.
 *
 * Reference: diffusers 0.42.1, loaders/single_file_utils.py.
 */
#ifndef PROMPTFS_ENGINE_NAMES_H
#define PROMPTFS_ENGINE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

enum names_layout {
	NAMES_SAME,      /* diffusers' own, and files that differ by a prefix only */
	NAMES_ZIMAGE,    /* layers.0.attention.qkv */
	NAMES_FLUX,      /* BFL: double_blocks, single_blocks */
	NAMES_SD3,       /* joint_blocks */
	NAMES_UNET,      /* LDM and sgm: input_blocks, middle_block, output_blocks */
	NAMES_VAE,       /* LDM: decoder.up.3.block.0 */
	NAMES_OPEN_CLIP, /* transformer.resblocks */
	NAMES_QWEN_GGUF, /* blk.0.attn_q */
	NAMES_T5_GGUF,   /* enc.blk.0.attn_q */
	NAMES_COUNT
};

/* What is done to a tensor besides the name, in this order: its rows `from` .. `from + count` of `of` equal shares
 * (of 0: all), then `how`. */
enum names_how {
	NAMES_AS_IS,
	NAMES_SQUEEZE,   /* [n, k, 1, 1] is a matrix in diffusers */
	NAMES_TRANSPOSE, /* [k, n] is [n, k] there */
	NAMES_SWAP,      /* (shift, scale) is (scale, shift) there: the halves of the rows change places */
};

enum { NAMES_MAX = 4, NAMES_LEN = 300 };

struct mapped_name {
	char name[NAMES_LEN];
	int from, count, of;
	enum names_how how;
};

/* Numbers that the rules need: how many numbers a block of the UNet takes (layers_per_block + 1), how many blocks the
 * autoencoder has (up.3 is up_blocks.0), and how many joint blocks SD3 has (0: unknown; the last one differs). */
struct names_sizes {
	int unet_stride, vae_blocks, joint_blocks;
};
extern const struct names_sizes names_usual; /* of every published model: 3, 4, 0 */

/* The names under which diffusers has `original` (without the file's prefix); returns how many.  Where no rule fits,
 * one: the same name. */
int names_map(enum names_layout layout, const struct names_sizes *sizes, const char *original,
	struct mapped_name to[NAMES_MAX]);

/* Where a part of a model lies in a file: all its tensors' names begin with prefix. */
struct names_source {
	const char *part; /* "unet"; a trailing * stands for any end: "text_encoder*" */
	const char *prefix;
	enum names_layout layout;
	const char *mark; /* the tensor, after the prefix, by which it is recognised */
};

/* The first source of the part whose mark the file has; NULL if none: the names are those of diffusers. */
const struct names_source *names_find_source(
	const char *part, bool (*has)(const void *file, const char *name), const void *file);

#endif

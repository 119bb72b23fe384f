/* dress: what a finished picture carries beside its pixels: `parameters`, `promptfs`, `Software` and the padding to the
 * size that stat promised.
 *
 * The size follows from the recipe and the model's name alone, not from whether the model's hash is known by then.
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_DRESS_H
#define PROMPTFS_FS_DRESS_H

#include "engine/recipe.h"

/* The exact size of the finished picture. */
enum status dress_size(const struct recipe *r, const struct model *model, uint64_t *size);

/* Appends the finished picture made from a bare one (engine/png.h). */
enum status dress_png(
	const struct recipe *r, const struct model *model, const void *bare, size_t len, struct bytes *out);

#endif

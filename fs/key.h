/* key: the name of a result in the cache; the same for `generate` and for a mount.
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_KEY_H
#define PROMPTFS_FS_KEY_H

#include "engine/recipe.h"

/* model_hash: of the content (32 hex digits); the recipe has the hashes of its LoRAs and files.  Appends the canonical
 * text, which is kept beside the result. */
enum status key_make(const struct recipe *r, const char *model_hash, enum dtype dtype, struct bytes *canonical,
	char key[RECIPE_KEY_LEN + 1]);

#endif

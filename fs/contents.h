/* contents: what a recipe uses besides its model: LoRA files, and files and folders that sets name.  They are found and
 * told apart at once; their hashes, which keys need, take as long as reading them.
 *
 * Threads: any.
 */
#ifndef PROMPTFS_FS_CONTENTS_H
#define PROMPTFS_FS_CONTENTS_H

#include "engine/recipe.h"
#include "fs/config.h"

/* Fills in the path of every LoRA (NAME or NAME.safetensors of the `loras` folder; with `here`, what is a file is a
 * path too; without, a name cannot leave the folder) and all identities.  A LoRA that is not there: STATUS_INVALID. */
enum status contents_find(const struct config *config, bool here, struct recipe *r);

/* Whether something has gone or is another one since it was found. */
bool contents_changed(const struct recipe *r);

/* The i-th of them; false past the last.  identity and hash ("": not known) lie in the recipe. */
struct content {
	const char *path, *identity;
	char *hash;
};
bool contents_at(const struct recipe *r, int i, struct content *out);

/* Fills in the hashes: remembered, else by reading. */
enum status contents_hash(const char *cache_dir, struct recipe *r);

/* Whether every hash is there. */
bool contents_are_hashed(const struct recipe *r);

/* A recipe that borrows from r, with the hashes that `find` knows; contents_put it. */
typedef bool contents_finder(void *context, const char *identity, char hash[MODEL_HASH_LEN + 1]);
enum status contents_know(const struct recipe *r, contents_finder *find, void *context, struct recipe *out);
void contents_put(struct recipe *known);
/* A finder that asks hashes_recall; context: the cache's folder. */
bool contents_recall(void *cache_dir, const char *identity, char hash[MODEL_HASH_LEN + 1]);

/* Identities and hashes, between recipes of the same list. */
void contents_copy(const struct recipe *from, struct recipe *to);

#endif

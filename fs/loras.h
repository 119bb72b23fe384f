/* loras: the files that a recipe's LoRAs are, and their contents' hashes.
 *
 * Threads: any.
 */
#ifndef PROMPTFS_FS_LORAS_H
#define PROMPTFS_FS_LORAS_H

#include "engine/recipe.h"
#include "fs/config.h"

/* Fills in path and hash of every LoRA: NAME or NAME.safetensors of the `loras` folder; what has a slash, or with
 * `here` is a file, is a path.  A file that is not there: STATUS_INVALID. */
enum status loras_settle(const struct config *config, bool here, struct recipe *r);

#endif

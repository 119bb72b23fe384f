/* loras: the files that a recipe's LoRAs are, and their contents' hashes.
 *
 * Threads: any.
 */
#ifndef PROMPTFS_FS_LORAS_H
#define PROMPTFS_FS_LORAS_H

#include "engine/recipe.h"
#include "fs/config.h"

/* Fills in path and hash of every LoRA: NAME or NAME.safetensors of the `loras` folder; with `here`, what is a file
 * is a path too; without, a name cannot leave the folder.  A file that is not there: STATUS_INVALID. */
enum status loras_settle(const struct config *config, bool here, struct recipe *r);

/* Whether a file has gone or is another one since it was settled. */
bool loras_changed(const struct recipe *r);

#endif

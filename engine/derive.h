/* derive: what a model is whose files have no configuration: one checkpoint file, or folders as ComfyUI keeps them.
 *
 * Families and sizes follow from the names and shapes of the tensors; what these do not tell is as the models were
 * published.  Names of files tell nothing.
 *
 * The path of such a model ends in a slash, so what lies below it has "//" in its path and need not exist:
 * "/models/flux1-dev.safetensors//scheduler/scheduler_config.json".  What does exist there wins.
 *
 * Threads: any.  The model asked for last is remembered, until its files change.
 */
#ifndef PROMPTFS_ENGINE_DERIVE_H
#define PROMPTFS_ENGINE_DERIVE_H

#include <jansson.h>

#include "engine/component.h"

typedef enum status derive_reader(const json_t *object, const char *path, void *out);

/* json_read_with for model_index.json and a scheduler's configuration. */
enum status derive_read_file(const char *path, derive_reader *read, void *out);
/* json_read_with for a part's config.json. */
enum status derive_read_config(const struct component *c, derive_reader *read, void *out);

/* The file, or the folder, with the weights of a part; root: the model's path.  STATUS_NO_MODEL when there is none,
 * STATUS_INVALID when there are several. */
enum status derive_find_part(const char *root, const char *part, char out[PATH_MAX]);

/* The message for a part whose weights were not found (component.weights ""). */
enum status derive_fail_missing(const struct component *c);

/* path: a tokenizer as it would lie in a model's folder.  That of a file may also lie beside it, or one folder above.
 */
enum status derive_find_tokenizer(const char *path, char out[PATH_MAX]);
struct tokenizer;
enum status derive_open_tokenizer(const char *path, struct tokenizer **out);

#endif

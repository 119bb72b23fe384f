/* pickle: the tensors of a PyTorch checkpoint (.ckpt, .pt, .bin as torch.save writes them, or wrote them before
 * version 1.6), without running anything.
 * Used by weights alone.
 *
 * A pickle is a program.  Here it can build numbers, texts, tuples, lists, dictionaries and the description of tensors;
 * any name beyond torch's tensors, its storages and OrderedDict is refused, and nothing is looked up or called.
 */
#ifndef PROMPTFS_ENGINE_PICKLE_H
#define PROMPTFS_ENGINE_PICKLE_H

#include <stdbool.h>

#include "engine/safetensors.h"

/* Whether it begins as such a file does. */
bool pickle_is(const unsigned char *file, size_t size);

/* As safetensors_parse: the tensors of the top dictionary, or of its "state_dict".  STATUS_CORRUPT, or
 * STATUS_UNSUPPORTED for what is refused, with the name of it.  The message names no file. */
enum status pickle_parse(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count);

#endif

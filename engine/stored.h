/* stored: what lies between the tensors of a file and those that a model asks for.  Used by weights alone.
 */
#ifndef PROMPTFS_ENGINE_STORED_H
#define PROMPTFS_ENGINE_STORED_H

#include "engine/safetensors.h"

/* Whether its values have to be computed: blocks, 8-bit floats, factors, or another order. */
bool stored_needs_work(const struct stored_tensor *t);
bool stored_can_be_floats(const struct stored_tensor *t);         /* whether stored_to_floats can */
void stored_to_floats(const struct stored_tensor *t, float *out); /* t->count values, in the order of t->dim */

/* Of a list sorted by name: gives 8-bit floats their factors (X.scale_weight or X.weight_scale belong to X.weight, as
 * ComfyUI writes them) and takes these, and what belongs to products of 8-bit floats, from the list. */
void stored_take_scales(struct stored_tensor *list, int64_t *count);

/* Of a list sorted by name that holds a part ("transformer") in the layout of its original code: the names, rows and
 * shapes of diffusers, without the tensors of other parts.  Otherwise it stays.  The list is the caller's and may move;
 * its order is lost. */
enum status stored_rename(const char *part, struct stored_tensor **list, int64_t *count);

#endif

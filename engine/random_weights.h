/* random_weights: tensors of any name and shape, for measuring speed and memory with a model's configurations alone.
 *
 * All are windows into the same few megabytes, mapped again and again: a table of hundreds of megabytes costs address
 * space only.  Values are bf16, within the range of trained weights, so that activations stay finite; vectors named
 * "weight" (of norms) are ones.
 */
#ifndef PROMPTFS_ENGINE_RANDOM_WEIGHTS_H
#define PROMPTFS_ENGINE_RANDOM_WEIGHTS_H

#include "kernels/kernels.h"

struct random_weights;

enum status random_weights_open(struct random_weights **out);
void random_weights_close(struct random_weights *r); /* NULL is allowed; views die */
enum status random_weights_view(
	const struct random_weights *r, const char *name, int rank, const int64_t *dim, struct tensor *out);

#endif

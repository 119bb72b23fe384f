/* weights: the tensors of one component of a model (safetensors, GGUF), mapped, never read whole.
 *
 *     struct weights *w;
 *     TRY(weights_open("/models/z/transformer", &w));          // one file, or shards with their index
 *     TRY(weights_find(w, "cap_embedder.1.weight", 2, (int64_t[]){dim, cap_dim}, &t));
 *     ... pack t ...
 *     weights_release(w, &t);                                  // its pages leave memory
 *
 * Everything in the files is checked when they are opened: header length, JSON, names, dtypes, shapes, offsets, gaps,
 * overlaps, trailing bytes (safetensors.h, gguf.h).  Errors are STATUS_CORRUPT (or
 * STATUS_NO_MODEL where a file is not there) and name the file and the tensor.
 *
 * Threads: after opening, reading is safe from any thread.
 */
#ifndef PROMPTFS_ENGINE_WEIGHTS_H
#define PROMPTFS_ENGINE_WEIGHTS_H

#include <stdbool.h>

#include "engine/component.h"
#include "kernels/kernels.h"

struct weights;

/* dir: a component's folder.  Looked for, in this order: {diffusion_pytorch_model,model}.safetensors.index.json,
 * {..}.safetensors, the only file ending in .safetensors, in .gguf, in .bin, .pt, .pth or .ckpt. */
enum status weights_open(const char *dir, struct weights **out);
enum status weights_open_file(const char *path, struct weights **out); /* one file of any name */

/* Wherever they are, also in the folders where ComfyUI keeps them; under the names of diffusers, also where they lie in
 * a checkpoint of all parts or have the names of their original code (names.h). */
enum status weights_open_component(const struct component *c, struct weights **out);
void weights_close(struct weights *w); /* NULL is allowed; views die */

/* The view of tensor `name`, which must have this shape; rank 0: any.  Its dtype is F32, BF16 or F16.  Where the file
 * holds blocks, 8-bit floats or another order, values are computed, and die when the view is released.  In a survey it
 * has no data, and what is missing or of another shape is noted instead of refused. */
enum status weights_find(const struct weights *w, const char *name, int rank, const int64_t *dim, struct tensor *out);
/* The same for any shape and any dtype with a name in enum dtype (reading traces). */
enum status weights_view(const struct weights *w, const char *name, struct tensor *out);
bool weights_has(const struct weights *w, const char *name);
int weights_rank(const struct weights *w, const char *name); /* -1: not there, or unknown (survey.h) */

/* Of a component: refuses a tensor that weights_find was not asked for, since it belongs to another configuration, but
 * for names with one of these beginnings; NULL ends the list. */
enum status weights_check_read(const struct weights *w, const char *const *passed_over);

/* t's values, in the order of its shape, where weights_find can give it. */
void weights_floats(const struct weights *w, const char *name, float *out);

/* From now on weights_find gives tensors of this part with the set's changes; both are borrowed. */
struct lora_set;
void weights_add_lora(struct weights *w, const struct lora_set *loras, const char *part);

/* Whether weights_find can give it, and its shape, without computing anything; it must be there.  rank 0: a scalar. */
bool weights_has_floats(const struct weights *w, const char *name);
enum status weights_shape(const struct weights *w, const char *name, int *rank, int64_t dim[TENSOR_RANK_MAX]);

/* Iteration, in order of name. */
int64_t weights_count(const struct weights *w);
const char *weights_name(const struct weights *w, int64_t i);
const char *weights_path(const struct weights *w, const char *name); /* the file that holds it, for messages */
uint64_t weights_bytes(const struct weights *w);                     /* all tensors' data together */
/* In a survey: a matrix of what was asked for is one that may be kept in 8 bits. */
void weights_note_block(const struct weights *w, int64_t rows, int64_t columns);
int64_t weights_parameters(const struct weights *w); /* all tensors' elements together */
enum dtype weights_dtype(const struct weights *w);   /* of the largest tensor */

/* Gives the mapped pages that lie wholly inside t back to the system (madvise); t stays readable, but for computed
 * values, which are freed. */
void weights_release(const struct weights *w, const struct tensor *t);

/* Writing, for traces: tensors in the given order; DTYPE_F32, DTYPE_I64 and DTYPE_U8.  The file appears whole or not.
 */
struct named_tensor {
	char name[64];
	struct tensor tensor; /* contiguous, host memory */
};
enum status weights_write(const char *path, int n, const struct named_tensor *tensors);

#endif

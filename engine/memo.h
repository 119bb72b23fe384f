/* memo: what a text encoder made of prompts, kept on the host, so that the same words with another seed, size or number
 * of steps need neither the encoder's arithmetic nor its weights in memory.
 *
 *     TRY(memo_recall(parts_memo(parts), run, sign, 2, tensors, &found));
 *     if (!found) {
 *             ... encode into tensors ...
 *             TRY(memo_keep(parts_memo(parts), run, sign, 2, tensors));
 *     }
 *
 * A memo belongs to one opened model, so to one content of its files.  Within it an entry is found by the sign, the
 * words of that sign, every Set and every LoRA of the recipe: all that encoders of any family read.  Bytes come back as
 * they were.  The entries longest unused go when there are too many or they are too large together.
 */
#ifndef PROMPTFS_ENGINE_MEMO_H
#define PROMPTFS_ENGINE_MEMO_H

#include "engine/family.h"

enum { MEMO_ENTRIES = 64, MEMO_TENSORS = 3, MEMO_BYTES = 64 << 20 };

struct memo; /* zero entries at first */

enum status memo_new(struct memo **out);
void memo_free(struct memo *m); /* NULL is allowed */

/* sign: 0 the prompt, 1 the negative one.  What is found is taken from the run's arena.  A job that writes a trace
 * finds nothing: its stages are computed. */
enum status memo_recall(struct memo *m, struct run *run, int sign, int n, struct tensor *out, bool *found);

/* Contiguous tensors; copied.  What is too large is not kept. */
enum status memo_keep(struct memo *m, struct run *run, int sign, int n, const struct tensor *tensors);

#endif

/* dry_run: `promptfs models --dry-run`: which tensors a model's configurations describe, against those that are there.
 *
 *     missing     transformer/layers.30.attention.to_q.weight [3840, 3840]
 *
 * One tensor a line on stdout, then one line a part with its figures.
 */
#ifndef PROMPTFS_FS_DRY_RUN_H
#define PROMPTFS_FS_DRY_RUN_H

#include "engine/model.h"

/* STATUS_CORRUPT when a tensor is missing, of another shape, or of no use; the message says how many. */
enum status dry_run_model(const struct model *m);

#endif

/* statustext: what the files of status/ say.
 *
 * Each function appends to *out.  Names of files may hold any byte: see escape.h.
 *
 * Threads: any.
 */
#ifndef PROMPTFS_FS_STATUSTEXT_H
#define PROMPTFS_FS_STATUSTEXT_H

#include "engine/bytes.h"
#include "fs/daemon.h"
#include "fs/views.h"

enum status statustext_queue(struct daemon *d, uid_t reader, struct bytes *out);
enum status statustext_metrics(struct daemon *d, struct bytes *out);
enum status statustext_model(struct daemon *d, const struct catalog_model *m, struct bytes *out);
enum status statustext_info(struct daemon *d, const struct child *c, struct bytes *out);

/* The reason why the picture cannot be had; appends nothing when the last attempt did not fail. */
enum status statustext_error(struct daemon *d, const struct child *c, struct bytes *out);

#endif

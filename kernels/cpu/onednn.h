/* onednn: matrix products and convolutions of the cpu backend, by oneDNN.  Nothing else here knows oneDNN.
 *
 * A weight is packed once for every number of rows and every picture size: the layout oneDNN prefers for a typical size
 * serves them all at full speed (NOTES.md).  A primitive is made once per shape and kept.
 */
#ifndef PROMPTFS_KERNELS_CPU_ONEDNN_H
#define PROMPTFS_KERNELS_CPU_ONEDNN_H

#include "kernels/backend.h"

struct onednn;

enum status onednn_open(struct kernels *k, struct onednn **out);
void onednn_close(struct kernels *k, struct onednn *o); /* NULL is allowed */
bool onednn_has_bf16(void);
bool onednn_has_amx(void); /* x86-64 only */

/* Version and instruction set: with the number of threads, what oneDNN's choice of a layout depends on. */
void onednn_name(char *out, size_t size);

/* Sets w->layout and w->len. */
enum status onednn_pack_layout(struct onednn *o, struct weight *w);
enum status onednn_pack_rows(
	struct onednn *o, struct weight *w, enum dtype dtype, int64_t first, int64_t count, const void *rows);
void onednn_pack_free(struct weight *w);

/* x and y with adjacent rows: strided ones give right results, but slowly. */
enum status onednn_linear(struct onednn *o, struct kernels *k, const struct linear *op);

/* A convolution over rows that are there already: x is [h + 2 * halo, w, in] for y [h, w, out], where halo is 0 and
 * zeros are padded above and below, or kernel / 2 and x holds the rows above and below.  op->upsample is not looked at.
 */
enum status onednn_conv(struct onednn *o, struct kernels *k, const struct conv *op, int halo);

#endif

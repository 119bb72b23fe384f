/* ref: the operations as plain loops; what every other backend is compared with.  Its simple operations serve any
 * backend in host memory. */
#ifndef PROMPTFS_KERNELS_REF_REF_H
#define PROMPTFS_KERNELS_REF_REF_H

#include "kernels/backend.h"

/* Element access by index; F32 and BF16. */
float ref_get(const struct tensor *t, int64_t i, int64_t j, int64_t l);
void ref_set(const struct tensor *t, int64_t i, int64_t j, int64_t l, float x);

/* elements.c */
double ref_activate(enum activation f, double x);

/* products.c */
enum status ref_pack_begin(struct kernels *k, struct weight *w);
enum status ref_pack_rows(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows);
void ref_pack_free(struct kernels *k, struct weight *w);
enum status ref_linear(struct kernels *k, const struct linear *op);
enum status ref_conv(struct kernels *k, const struct conv *op);
enum status ref_attention(struct kernels *k, const struct attention *op);

/* norms.c */
enum status ref_norm(struct kernels *k, const struct norm *op);
enum status ref_norm_residual(struct kernels *k, const struct norm_residual *op);
enum status ref_group_norm(struct kernels *k, const struct group_norm *op);
enum status ref_qk_rope(struct kernels *k, const struct qk_rope *op);

/* elements.c */
enum status ref_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y);
enum status ref_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream);
enum status ref_add_row(struct kernels *k, struct tensor row, struct tensor y);
enum status ref_clamp(struct kernels *k, float low, float high, struct tensor y);
enum status ref_resize_nearest(struct kernels *k, struct tensor x, struct tensor y);
enum status ref_halve(struct kernels *k, struct tensor x, struct tensor y);
enum status ref_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y);
enum status ref_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y);
enum status ref_fill_rows(struct kernels *k, struct tensor row, struct tensor y);
enum status ref_patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows);
enum status ref_unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents);
enum status ref_to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y);
enum status ref_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb);
enum status ref_all_finite(struct kernels *k, struct tensor x, bool *out);

#endif

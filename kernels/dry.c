/* dry: a backend that computes nothing and reads no weights, by which the memory of a job is known before it runs.
 *
 * It takes addresses where another device would take memory, and books them; the arguments of every operation are
 * checked as always (kernels.c).  Results are whatever lies there, mostly zeros.
 */
#include "kernels/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a device needs beside the arena for what its libraries cannot do in place: a result in f32. */
struct dry {
	size_t aside;
};

static enum status dry_open(struct kernels *k)
{
	k->state = calloc(1, sizeof(struct dry));
	return k->state ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a plan");
}

static void dry_close(struct kernels *k)
{
	free(k->state);
}

static void need_aside(struct kernels *k, const struct tensor *y)
{
	struct dry *d = k->state;
	const size_t len = (size_t)tensor_count(y) * sizeof(float);

	if (len > d->aside) {
		kernels_hold(k, len, d->aside);
		d->aside = len;
	}
}

static enum status dry_in(struct kernels *k, void *device, const void *host, size_t len)
{
	return STATUS_OK;
}

static enum status dry_out(struct kernels *k, void *host, const void *device, size_t len)
{
	memset(host, 0, len);
	return STATUS_OK;
}

static enum status dry_pack(struct kernels *k, struct weight *w)
{
	w->len = (size_t)(w->n * w->k * w->kernel * w->kernel) * dtype_size(w->dtype);
	if (w->dtype != k->dtype)
		w->len += (size_t)w->n * sizeof(float); /* scales */
	return STATUS_OK;
}

static void dry_pack_free(struct kernels *k, struct weight *w)
{
}

static enum status dry_linear(struct kernels *k, const struct linear *op)
{
	if (op->activation != ACTIVATION_NONE || op->w->dtype != k->dtype)
		need_aside(k, &op->y);
	return STATUS_OK;
}

static enum status dry_conv(struct kernels *k, const struct conv *op)
{
	if (op->accumulate)
		need_aside(k, &op->y);
	return STATUS_OK;
}

static enum status dry_attention(struct kernels *k, const struct attention *op)
{
	return STATUS_OK;
}

static enum status dry_norm(struct kernels *k, const struct norm *op)
{
	return STATUS_OK;
}

static enum status dry_norm_residual(struct kernels *k, const struct norm_residual *op)
{
	return STATUS_OK;
}

static enum status dry_group_norm(struct kernels *k, const struct group_norm *op)
{
	return STATUS_OK;
}

static enum status dry_qk_rope(struct kernels *k, const struct qk_rope *op)
{
	return STATUS_OK;
}

static enum status dry_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	return STATUS_OK;
}

static enum status dry_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	return STATUS_OK;
}

static enum status dry_pair(struct kernels *k, struct tensor x, struct tensor y)
{
	return STATUS_OK;
}

static enum status dry_clamp(struct kernels *k, float low, float high, struct tensor y)
{
	return STATUS_OK;
}

static enum status dry_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	return STATUS_OK;
}

static enum status dry_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y)
{
	return STATUS_OK;
}

static enum status dry_patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows)
{
	return STATUS_OK;
}

static enum status dry_unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents)
{
	return STATUS_OK;
}

static enum status dry_to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y)
{
	return STATUS_OK;
}

static enum status dry_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	memset(rgb, 0, (size_t)tensor_count(&x));
	return STATUS_OK;
}

static enum status dry_all_finite(struct kernels *k, struct tensor x, bool *out)
{
	*out = true;
	return STATUS_OK;
}

static const struct backend backend_dry = {
	.name = "dry",
	.open = dry_open,
	.close = dry_close,
	.map = memory_map,
	.unmap = memory_unmap,
	.discard = memory_discard,
	.copy_in = dry_in,
	.copy_out = dry_out,
	.pack_begin = dry_pack,
	.pack_free = dry_pack_free,
	.linear = dry_linear,
	.conv = dry_conv,
	.attention = dry_attention,
	.norm = dry_norm,
	.norm_residual = dry_norm_residual,
	.group_norm = dry_group_norm,
	.qk_rope = dry_qk_rope,
	.glu = dry_glu,
	.gated_add = dry_gated_add,
	.add_row = dry_pair,
	.clamp = dry_clamp,
	.resize_nearest = dry_pair,
	.halve = dry_pair,
	.unary = dry_unary,
	.axpby = dry_axpby,
	.fill_rows = dry_pair,
	.patchify = dry_patchify,
	.unpatchify = dry_unpatchify,
	.to_nhwc = dry_to_nhwc,
	.to_rgb8 = dry_to_rgb8,
	.all_finite = dry_all_finite,
};

enum status kernels_open_dry(const struct kernels *like, struct kernels **out)
{
	struct kernels *k = calloc(1, sizeof *k);
	enum status status;

	if (!k)
		return status_fail(STATUS_NO_MEMORY, "no memory for a plan");
	k->backend = &backend_dry;
	k->dtype = like->dtype;
	k->weight_dtype = like->weight_dtype;
	k->threads = 1;
	snprintf(k->device, sizeof k->device, "%s", like->device);
	status = dry_open(k);
	if (status != STATUS_OK)
		free(k);
	else
		*out = k;
	return status;
}

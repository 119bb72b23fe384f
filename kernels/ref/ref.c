/* ref: the table of the reference backend. */
#include "kernels/ref/ref.h"

static enum status ref_open(struct kernels *k)
{
	if (k->weight_dtype == DTYPE_F8_E4M3)
		return status_fail(STATUS_UNSUPPORTED, "device ref has no products in fp8; use f32, bf16 or int8");
	if (k->dtype == DTYPE_OTHER)
		k->dtype = DTYPE_F32;
	return STATUS_OK;
}

static void ref_close(struct kernels *k)
{
}

float ref_get(const struct tensor *t, int64_t i, int64_t j, int64_t l)
{
	const int64_t at = i * t->stride[0] + j * t->stride[1] + l * t->stride[2];

	return t->dtype == DTYPE_F32 ? ((const float *)t->data)[at] : bf16_to_f32(((const uint16_t *)t->data)[at]);
}

void ref_set(const struct tensor *t, int64_t i, int64_t j, int64_t l, float x)
{
	const int64_t at = i * t->stride[0] + j * t->stride[1] + l * t->stride[2];

	if (t->dtype == DTYPE_F32)
		((float *)t->data)[at] = x;
	else
		((uint16_t *)t->data)[at] = bf16_from_f32(x);
}

const struct backend backend_ref = {
	.name = "ref",
	.open = ref_open,
	.close = ref_close,
	.map = memory_map,
	.unmap = memory_unmap,
	.discard = memory_discard,
	.copy_in = memory_copy,
	.copy_out = memory_copy,
	.pack_begin = ref_pack_begin,
	.pack_rows = ref_pack_rows,
	.pack_free = ref_pack_free,
	.linear = ref_linear,
	.conv = ref_conv,
	.attention = ref_attention,
	.norm = ref_norm,
	.norm_residual = ref_norm_residual,
	.group_norm = ref_group_norm,
	.qk_rope = ref_qk_rope,
	.glu = ref_glu,
	.gated_add = ref_gated_add,
	.add_row = ref_add_row,
	.clamp = ref_clamp,
	.resize_nearest = ref_resize_nearest,
	.halve = ref_halve,
	.unary = ref_unary,
	.axpby = ref_axpby,
	.fill_rows = ref_fill_rows,
	.patchify = ref_patchify,
	.unpatchify = ref_unpatchify,
	.to_nhwc = ref_to_nhwc,
	.to_rgb8 = ref_to_rgb8,
	.all_finite = ref_all_finite,
};

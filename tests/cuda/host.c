/* host: the table of the CUDA kernels on the shim. */
#include "tests/cuda/host.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/launch.h"

static enum status launched(const char *name, int error)
{
	return error ? status_fail(STATUS_DEVICE, "%s: launch error %d", name, error) : STATUS_OK;
}

static enum status host_open(struct kernels *k)
{
	if (k->dtype == DTYPE_OTHER)
		k->dtype = DTYPE_F32;
	return STATUS_OK;
}

static void host_close(struct kernels *k)
{
}

/* Weights and the like are exactly as long as asked, so that AddressSanitizer sees the first byte after them. */
enum { LARGE = 1 << 24 };

static enum status host_map(struct kernels *k, size_t len, void **out)
{
	if (len >= LARGE)
		return memory_map(k, len, out);
	if (posix_memalign(out, 64, len ? len : 1))
		return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes", len);
	memset(*out, 0, len);
	return STATUS_OK;
}

static void host_unmap(struct kernels *k, void *data, size_t len)
{
	if (len >= LARGE)
		memory_unmap(k, data, len);
	else
		free(data);
}

/* In 8 bits: the codes of all rows, and the scales in memory of their own. */
static enum status host_pack_begin(struct kernels *k, struct weight *w)
{
	if (w->dtype == DTYPE_I8)
		TRY(host_map(k, (size_t)w->n * sizeof(float), &w->layout));
	w->len = (size_t)(w->n * w->k * w->kernel * w->kernel) * dtype_size(w->dtype);
	return host_map(k, w->len, &w->data);
}

static enum status host_pack_rows(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	const int64_t row = w->k * w->kernel * w->kernel;
	const struct tensor from = tensor_view((void *)(uintptr_t)rows, k->dtype, 2, (int64_t[]){ count, row });
	char *to = (char *)w->data + (size_t)(first * row) * dtype_size(w->dtype);

	if (w->dtype == DTYPE_I8)
		return launched(
			"quantize_rows", cuda_quantize_rows(NULL, QUANTIZED_I8, &from, to, (float *)w->layout + first));
	if (w->kind == WEIGHT_CONV)
		return launched(
			"conv_layout", cuda_conv_layout(NULL, rows, count, w->k, w->kernel, dtype_size(k->dtype), to));
	memcpy(to, rows, (size_t)(count * row) * dtype_size(k->dtype));
	return STATUS_OK;
}

static void host_pack_free(struct kernels *k, struct weight *w)
{
	free(w->layout);
}

static enum status linear_i8(const struct linear *op)
{
	const int64_t m = op->x.dim[0], n = op->w->n, depth = op->w->k;
	int32_t *sums = malloc((size_t)(m * n) * sizeof *sums);
	float *scale = malloc((size_t)m * sizeof *scale);
	int8_t *codes = malloc((size_t)(m * depth));
	int error = sums && scale && codes ? 0 : 2;

	if (!error)
		error = cuda_quantize_rows(NULL, QUANTIZED_I8, &op->x, codes, scale);
	if (!error)
		error = cuda_multiply_codes(NULL, QUANTIZED_I8, codes, op->w->data, m, n, depth, sums);
	if (!error)
		error = cuda_scale_sums(NULL, op->activation, QUANTIZED_I8, sums, scale, op->w->layout,
			op->bias ? op->bias->table.data : NULL, op->accumulate, &op->y);
	free(sums);
	free(scale);
	free(codes);
	return launched("linear in int8", error);
}

static enum status host_linear(struct kernels *k, const struct linear *op)
{
	if (op->w->dtype == DTYPE_I8)
		return linear_i8(op);
	return launched("linear", cuda_linear(NULL, op));
}

static enum status host_conv(struct kernels *k, const struct conv *op)
{
	return launched("conv", cuda_conv(NULL, op));
}

static enum status host_attention(struct kernels *k, const struct attention *op)
{
	return launched("attention", cuda_attention(NULL, op));
}

static enum status host_norm(struct kernels *k, const struct norm *op)
{
	return launched("norm", cuda_norm(NULL, op));
}

static enum status host_norm_residual(struct kernels *k, const struct norm_residual *op)
{
	return launched("norm_residual", cuda_norm_residual(NULL, op));
}

static enum status host_group_norm(struct kernels *k, const struct group_norm *op)
{
	void *scratch = malloc(cuda_group_norm_scratch(op));
	const int error = scratch ? cuda_group_norm(NULL, op, scratch) : 2;

	free(scratch);
	return launched("group_norm", error);
}

static enum status host_qk_rope(struct kernels *k, const struct qk_rope *op)
{
	return launched("qk_rope", cuda_qk_rope(NULL, op));
}

static enum status host_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	return launched("glu", cuda_glu(NULL, f, &gate, &up, &y));
}

static enum status host_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	return launched("gated_add", cuda_gated_add(NULL, &x, gate, &stream));
}

static enum status host_add_row(struct kernels *k, struct tensor row, struct tensor y)
{
	return launched("add_row", cuda_add_row(NULL, &row, &y));
}

static enum status host_clamp(struct kernels *k, float low, float high, struct tensor y)
{
	return launched("clamp", cuda_clamp(NULL, low, high, &y));
}

static enum status host_resize_nearest(struct kernels *k, struct tensor x, struct tensor y)
{
	return launched("resize_nearest", cuda_resize_nearest(NULL, &x, &y));
}

static enum status host_halve(struct kernels *k, struct tensor x, struct tensor y)
{
	return launched("halve", cuda_halve(NULL, &x, &y));
}

static enum status host_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	return launched("unary", cuda_unary(NULL, f, &x, &y));
}

static enum status host_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y)
{
	return launched("axpby", cuda_axpby(NULL, a, &x, b, &y));
}

static enum status host_fill_rows(struct kernels *k, struct tensor row, struct tensor y)
{
	return launched("fill_rows", cuda_fill_rows(NULL, &row, &y));
}

static enum status host_patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows)
{
	return launched("patchify", cuda_patchify(NULL, &latents, patch, &rows));
}

static enum status host_unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents)
{
	return launched("unpatchify", cuda_unpatchify(NULL, &rows, patch, scale, &latents));
}

static enum status host_to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y)
{
	return launched("to_nhwc", cuda_to_nhwc(NULL, &x, scale, shift, &y));
}

static enum status host_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	return launched("to_rgb8", cuda_to_rgb8(NULL, &x, rgb));
}

static enum status host_all_finite(struct kernels *k, struct tensor x, bool *out)
{
	int32_t found = 0;

	TRY(launched("find_not_finite", cuda_find_not_finite(NULL, &x, &found)));
	*out = !found;
	return STATUS_OK;
}

const struct backend backend_cuda_host = {
	.name = "cuda-host",
	.open = host_open,
	.close = host_close,
	.map = host_map,
	.unmap = host_unmap,
	.discard = memory_discard,
	.copy_in = memory_copy,
	.copy_out = memory_copy,
	.pack_begin = host_pack_begin,
	.pack_rows = host_pack_rows,
	.pack_free = host_pack_free,
	.linear = host_linear,
	.conv = host_conv,
	.attention = host_attention,
	.norm = host_norm,
	.norm_residual = host_norm_residual,
	.group_norm = host_group_norm,
	.qk_rope = host_qk_rope,
	.glu = host_glu,
	.gated_add = host_gated_add,
	.add_row = host_add_row,
	.clamp = host_clamp,
	.resize_nearest = host_resize_nearest,
	.halve = host_halve,
	.unary = host_unary,
	.axpby = host_axpby,
	.fill_rows = host_fill_rows,
	.patchify = host_patchify,
	.unpatchify = host_unpatchify,
	.to_nhwc = host_to_nhwc,
	.to_rgb8 = host_to_rgb8,
	.all_finite = host_all_finite,
};

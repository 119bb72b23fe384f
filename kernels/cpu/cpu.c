/* cpu: products by oneDNN, attention and rows by our own vector loops, what is small by the reference's functions. */
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/simd.h"
#include "kernels/ref/ref.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct cpu {
	struct onednn *onednn;
	const struct simd *simd;
	void *scratch;
	size_t scratch_len;
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool has_bf16(void)
{
	return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
	       onednn_has_bf16();
}

/* Linux lets a process use tiles only after it has asked (Documentation/arch/x86/xstate.rst). */
static bool has_amx(void)
{
#if defined(__linux__)
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

	return onednn_has_amx() && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
	return false;
#endif
}

static const struct simd *pick_simd(enum dtype dtype)
{
	if (dtype == DTYPE_BF16)
		return has_amx() ? &simd_amx : &simd_avx512bf16;
	if (has_avx512())
		return __builtin_cpu_supports("avx512vnni") ? &simd_avx512vnni : &simd_avx512;
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &simd_avx2 : &simd_base;
}
#else
static bool has_bf16(void)
{
	return false;
}

static const struct simd *pick_simd(enum dtype dtype)
{
	return &simd_base;
}
#endif

static enum status cpu_open(struct kernels *k)
{
	struct cpu *cpu;

	if (k->weight_dtype == DTYPE_F8_E4M3)
		return status_fail(STATUS_UNSUPPORTED, "device cpu has no products in fp8; use f32, bf16 or int8");
	if (k->dtype == DTYPE_OTHER)
		k->dtype = has_bf16() ? DTYPE_BF16 : DTYPE_F32;
	if (k->dtype == DTYPE_BF16 && !has_bf16())
		return status_fail(
			STATUS_UNSUPPORTED, "device cpu: this processor has no bf16 arithmetic (AVX512_BF16); use f32");
	cpu = calloc(1, sizeof *cpu);
	if (!cpu)
		return status_fail(STATUS_NO_MEMORY, "no memory for the cpu backend");
	k->state = cpu;
	cpu->simd = pick_simd(k->dtype);
	return onednn_open(k, &cpu->onednn);
}

static void cpu_close(struct kernels *k)
{
	struct cpu *cpu = k->state;

	if (!cpu)
		return;
	onednn_close(k, cpu->onednn);
	memory_unmap(k, cpu->scratch, cpu->scratch_len);
	free(cpu);
}

/* Working memory of at least len bytes, kept for the next operation. */
static enum status need_scratch(struct kernels *k, size_t len, void **out)
{
	struct cpu *cpu = k->state;

	if (len > cpu->scratch_len) {
		memory_unmap(k, cpu->scratch, cpu->scratch_len);
		kernels_hold(k, 0, cpu->scratch_len);
		cpu->scratch = NULL;
		cpu->scratch_len = 0;
		TRY(memory_map(k, len, &cpu->scratch));
		cpu->scratch_len = len;
		kernels_hold(k, len, 0);
	}
	*out = cpu->scratch;
	return STATUS_OK;
}

static const struct simd *simd(const struct kernels *k)
{
	return ((const struct cpu *)k->state)->simd;
}

static struct onednn *onednn(const struct kernels *k)
{
	return ((const struct cpu *)k->state)->onednn;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static enum status cpu_pack_layout(struct kernels *k, struct weight *w)
{
	if (w->dtype != DTYPE_I8)
		return onednn_pack_layout(onednn(k), w);
	w->len = simd(k)->i8_len(w);
	return STATUS_OK;
}

static enum status cpu_pack_begin(struct kernels *k, struct weight *w)
{
	TRY(cpu_pack_layout(k, w));
	return memory_map(k, w->len, &w->data);
}

static void cpu_layout(const struct kernels *k, char *out, size_t size)
{
	char name[128];

	onednn_name(name, sizeof name);
	snprintf(out, size, "cpu %s %s %s %s, %d threads", simd(k)->name, name, dtype_name(k->dtype),
		dtype_name(k->weight_dtype), k->threads);
}

static enum status cpu_pack_rows(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	if (w->dtype != DTYPE_I8)
		return onednn_pack_rows(onednn(k), w, k->dtype, first, count, rows);
	simd(k)->i8_pack(w, k->dtype, first, count, rows);
	return STATUS_OK;
}

static void cpu_pack_free(struct kernels *k, struct weight *w)
{
	onednn_pack_free(w);
}

/* oneDNN has no products of f32 that end in bf16: they go through a picture or matrix in f32. */
static bool needs_f32(const struct kernels *k, const struct tensor *y)
{
	return k->dtype == DTYPE_F32 && y->dtype == DTYPE_BF16;
}

/* [h, w, channels] as [h * w, channels] */
static struct tensor places_view(const struct tensor *t)
{
	return tensor_view(t->data, t->dtype, 2, (int64_t[]){ t->dim[0] * t->dim[1], t->dim[2] });
}

static size_t dense_size(const struct tensor *t, enum dtype dtype)
{
	return ((size_t)tensor_count(t) * dtype_size(dtype) + 63) / 64 * 64;
}

static enum status linear_i8(struct kernels *k, const struct linear *op)
{
	void *scratch;

	TRY(need_scratch(k, simd(k)->i8_scratch(op), &scratch));
	simd(k)->i8_linear(op, scratch);
	return STATUS_OK;
}

/* With strided rows of x or y oneDNN 2.6 falls back to its reference loops, 200 times slower: those rows are copied to
 * and from scratch, as is a y of a dtype it has not. */
static enum status cpu_linear(struct kernels *k, const struct linear *op)
{
	const bool copy_x = !tensor_contiguous(&op->x), copy_y = !tensor_contiguous(&op->y) || needs_f32(k, &op->y);
	const enum dtype y_dtype = needs_f32(k, &op->y) ? DTYPE_F32 : op->y.dtype;
	const size_t x_size = copy_x ? dense_size(&op->x, k->dtype) : 0;
	const size_t y_size = copy_y ? dense_size(&op->y, y_dtype) : 0;
	struct linear dense = *op;
	void *scratch;

	if (op->w->dtype == DTYPE_I8)
		return linear_i8(k, op);
	if (!copy_x && !copy_y)
		return onednn_linear(onednn(k), k, op);
	TRY(need_scratch(k, x_size + y_size, &scratch));
	if (copy_x) {
		dense.x = tensor_view(scratch, k->dtype, 2, op->x.dim);
		simd(k)->unary(UNARY_COPY, &op->x, &dense.x);
	}
	if (copy_y)
		dense.y = tensor_view((char *)scratch + x_size, y_dtype, 2, op->y.dim);
	if (copy_y && op->accumulate)
		simd(k)->unary(UNARY_COPY, &op->y, &dense.y);
	TRY(onednn_linear(onednn(k), k, &dense));
	if (copy_y)
		simd(k)->unary(UNARY_COPY, &dense.y, &op->y);
	return STATUS_OK;
}

/* A row of the picture enlarged to height x width; rows outside it are zeros. */
static void enlarge_row(const struct tensor *x, int64_t row, int64_t height, int64_t width, char *to)
{
	const size_t place = (size_t)x->dim[2] * dtype_size(x->dtype);
	const char *from = (const char *)x->data + row / 2 * x->dim[1] * (int64_t)place;

	if (row < 0 || row >= height) {
		memset(to, 0, (size_t)width * place);
		return;
	}
	for (int64_t i = 0; i < width; i++)
		memcpy(to + (size_t)i * place, from + (size_t)(i / 2) * place, place);
}

/* The enlarged picture is made in bands of rows with the halo that the kernel needs: whole, the largest of a decoder
 * would take a gigabyte. */
static enum status conv_enlarged(struct kernels *k, const struct conv *op)
{
	const int64_t halo = op->w->kernel / 2, height = op->y.dim[0], columns = op->y.dim[1];
	const int64_t row_len = columns * op->x.dim[2] * (int64_t)dtype_size(op->x.dtype),
		      most = ((int64_t)32 << 20) / row_len;
	const int64_t band = most < 8 ? 8 : most < height ? most : height;
	void *rows;

	TRY(need_scratch(k, (size_t)((band + 2 * halo) * row_len), &rows));
	for (int64_t first = 0; first < height; first += band) {
		const int64_t n = height - first < band ? height - first : band;
		struct conv part = *op;

		part.x = tensor_view(rows, op->x.dtype, 3, (int64_t[]){ n + 2 * halo, columns, op->x.dim[2] });
		part.y = tensor_slice(op->y, 0, first, n);
#pragma omp parallel for schedule(static) if (n * row_len > 1 << 16)
		for (int64_t i = 0; i < n + 2 * halo; i++)
			enlarge_row(&op->x, first + i - halo, height, columns, (char *)rows + i * row_len);
		TRY(onednn_conv(onednn(k), k, &part, (int)halo));
	}
	return STATUS_OK;
}

static enum status conv_any(struct kernels *k, const struct conv *op)
{
	return op->upsample ? conv_enlarged(k, op) : onednn_conv(onednn(k), k, op, 0);
}

static enum status cpu_conv(struct kernels *k, const struct conv *op)
{
	const size_t len = (size_t)tensor_count(&op->y) * sizeof(float);
	struct tensor from, to = places_view(&op->y);
	struct conv wide = *op;
	void *data;
	enum status status;

	if (!needs_f32(k, &op->y))
		return conv_any(k, op);
	TRY(memory_map(k, len, &data));
	wide.y = tensor_view(data, DTYPE_F32, 3, op->y.dim);
	from = places_view(&wide.y);
	status = conv_any(k, &wide);
	if (status == STATUS_OK)
		simd(k)->unary(UNARY_COPY, &from, &to);
	memory_unmap(k, data, len);
	return status;
}

static enum status cpu_attention(struct kernels *k, const struct attention *op)
{
	void *scratch;

	TRY(need_scratch(k, simd(k)->attention_scratch(op, k->threads), &scratch));
	simd(k)->attention(op, scratch);
	return STATUS_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static enum status cpu_norm(struct kernels *k, const struct norm *op)
{
	simd(k)->norm(op);
	return STATUS_OK;
}

static enum status cpu_norm_residual(struct kernels *k, const struct norm_residual *op)
{
	simd(k)->norm_residual(op);
	return STATUS_OK;
}

static enum status cpu_group_norm(struct kernels *k, const struct group_norm *op)
{
	void *scratch;

	TRY(need_scratch(k, simd(k)->group_norm_scratch(op, k->threads), &scratch));
	simd(k)->group_norm(op, scratch);
	return STATUS_OK;
}

static enum status cpu_qk_rope(struct kernels *k, const struct qk_rope *op)
{
	simd(k)->qk_rope(op);
	return STATUS_OK;
}

static enum status cpu_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	simd(k)->glu(f, &gate, &up, &y);
	return STATUS_OK;
}

static enum status cpu_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	simd(k)->gated_add(&x, gate, &stream);
	return STATUS_OK;
}

static enum status cpu_add_row(struct kernels *k, struct tensor row, struct tensor y)
{
	simd(k)->add_row(row.data, &y);
	return STATUS_OK;
}

static enum status cpu_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	simd(k)->unary(f, &x, &y);
	return STATUS_OK;
}

static enum status cpu_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	simd(k)->to_rgb8(&x, rgb);
	return STATUS_OK;
}

const struct backend backend_cpu = {
	.name = "cpu",
	.open = cpu_open,
	.close = cpu_close,
	.map = memory_map,
	.unmap = memory_unmap,
	.discard = memory_discard,
	.copy_in = memory_copy,
	.copy_out = memory_copy,
	.pack_begin = cpu_pack_begin,
	.pack_layout = cpu_pack_layout,
	.layout = cpu_layout,
	.pack_rows = cpu_pack_rows,
	.pack_free = cpu_pack_free,
	.linear = cpu_linear,
	.conv = cpu_conv,
	.attention = cpu_attention,
	.norm = cpu_norm,
	.norm_residual = cpu_norm_residual,
	.group_norm = cpu_group_norm,
	.qk_rope = cpu_qk_rope,
	.glu = cpu_glu,
	.gated_add = cpu_gated_add,
	.add_row = cpu_add_row,
	.unary = cpu_unary,
	.to_rgb8 = cpu_to_rgb8,
	/* latents: too small to be worth a second version */
	.axpby = ref_axpby,
	.clamp = ref_clamp,
	.resize_nearest = ref_resize_nearest,
	.halve = ref_halve,
	.fill_rows = ref_fill_rows,
	.patchify = ref_patchify,
	.unpatchify = ref_unpatchify,
	.to_nhwc = ref_to_nhwc,
	.all_finite = ref_all_finite,
};

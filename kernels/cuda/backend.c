/* backend: the table, and the devices. */
#include "kernels/cuda/cuda.h"
#include "kernels/plugin.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SM_MIN = 80, SM_FP8 = 89 };

/* ---- devices ----------------------------------------------------------------------------------------------------- */

enum status cuda_result(const struct cuda *c, int error, const char *operation)
{
	if (error == cudaSuccess)
		return STATUS_OK;
	return status_fail(error == cudaErrorMemoryAllocation ? STATUS_NO_MEMORY : STATUS_DEVICE, "%s: %s: %s (%s)",
		c->k->device, operation, cudaGetErrorString((cudaError_t)error), cudaGetErrorName((cudaError_t)error));
}

struct cuda *cuda_of(struct kernels *k)
{
	struct cuda *c = k->state;

	cudaSetDevice(c->device); /* a handle may have moved to another thread */
	return c;
}

uint64_t cuda_hash(const void *data, size_t size)
{
	const unsigned char *bytes = data;
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < size; i++)
		h = (h ^ bytes[i]) * 1099511628211u;
	return h ^ h >> 32;
}

static int count_devices(void)
{
	int n = 0;
	cudaError_t error = cudaGetDeviceCount(&n);

	if (error) {
		status_fail(STATUS_UNSUPPORTED, "the NVIDIA driver says: %s (%s)", cudaGetErrorString(error),
			cudaGetErrorName(error));
		return 0;
	}
	if (n < 1)
		status_fail(STATUS_UNSUPPORTED, "the NVIDIA driver knows no device");
	return n;
}

static enum status describe(int device, char *out, size_t size)
{
	struct cudaDeviceProp p;

	if (cudaGetDeviceProperties(&p, device))
		return status_fail(STATUS_DEVICE, "cuda:%d does not answer", device);
	snprintf(out, size, "%s, sm_%d%d, %.1f GiB", p.name, p.major, p.minor,
		(double)p.totalGlobalMem / (double)((size_t)1 << 30));
	return STATUS_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum status find_device(struct kernels *k, struct cuda *c)
{
	const int n = count_devices();
	struct cudaDeviceProp p;

	if (n < 1)
		return STATUS_UNSUPPORTED;
	c->device = atoi(k->device + strlen("cuda:"));
	if (c->device < 0 || c->device >= n)
		return status_fail(STATUS_UNSUPPORTED, "%s: there %s %d, the first is cuda:0", k->device,
			n == 1 ? "is" : "are", n);
	TRY(cuda_result(c, cudaSetDevice(c->device), "opening the device"));
	TRY(cuda_result(c, cudaGetDeviceProperties(&p, c->device), "opening the device"));
	c->sm = p.major * 10 + p.minor;
	TRY(describe(c->device, k->about, sizeof k->about));
	if (c->sm < SM_MIN)
		return status_fail(STATUS_UNSUPPORTED, "%s: %s is too old: sm_%d and later are supported", k->device,
			k->about, SM_MIN);
	c->tuning = tuning_open(p.name, cublasLtGetVersion());
	return STATUS_OK;
}

static bool switched_off(const char *variable)
{
	const char *text = getenv(variable);

	return text && strcmp(text, "off") == 0;
}

static enum status cuda_open(struct kernels *k)
{
	struct cuda *c = calloc(1, sizeof *c);

	if (!c)
		return status_fail(STATUS_NO_MEMORY, "no memory for the cuda backend");
	k->state = c;
	c->k = k;
	if (k->dtype == DTYPE_OTHER)
		k->dtype = DTYPE_BF16;
	TRY(find_device(k, c));
	if (k->weight_dtype == DTYPE_F8_E4M3 && c->sm < SM_FP8)
		return status_fail(STATUS_UNSUPPORTED, "%s: %s has no products in fp8 (sm_%d and later have); use int8",
			k->device, k->about, SM_FP8);
	c->eager = switched_off("PROMPTFS_CUDA_GRAPHS");
	TRY(cuda_result(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "creating a stream"));
	for (int i = 0; i < 2; i++)
		TRY(cuda_result(c, cudaEventCreateWithFlags(&c->step[i], cudaEventDisableTiming), "creating an event"));
	TRY(lt_open(c, &c->lt));
	dnn_open(c, &c->dnn);
	return STATUS_OK;
}

static void cuda_close(struct kernels *k)
{
	struct cuda *c = k->state;

	if (!c)
		return;
	cudaSetDevice(c->device);
	if (c->stream)
		cudaStreamSynchronize(c->stream);
	cuda_forget_recordings(c);
	dnn_close(c->dnn);
	lt_close(c->lt);
	tuning_close(c->tuning);
	cuda_memory_close(c);
	for (int i = 0; i < 2; i++)
		if (c->step[i])
			cudaEventDestroy(c->step[i]);
	if (c->stream)
		cudaStreamDestroy(c->stream);
	free(c);
}

static enum status cuda_pace(struct kernels *k)
{
	struct cuda *c = cuda_of(k);
	const int i = c->steps++ & 1;

	TRY(cuda_not_recorded(c, "waiting"));
	if (c->steps > 2)
		TRY(cuda_result(c, cudaEventSynchronize(c->step[i]), "a step"));
	return cuda_result(c, cudaEventRecord(c->step[i], c->stream), "a step");
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static enum status pack_begin(struct kernels *k, struct weight *w)
{
	w->len = w->dtype == k->dtype ? (size_t)(w->n * w->k * w->kernel * w->kernel) * dtype_size(k->dtype)
				      : lt_codes_len(w);
	return cuda_map(k, w->len, &w->data);
}

/* The rows of a convolution come as [out, in, kernel, kernel] and are turned on the device. */
static enum status pack_conv(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	struct cuda *c = cuda_of(k);
	const size_t row = (size_t)(w->k * w->kernel * w->kernel) * dtype_size(k->dtype);
	void *data;

	TRY(cuda_scratch(c, SCRATCH_RESULT, (size_t)count * row, &data));
	TRY(cuda_copy_in(k, data, rows, (size_t)count * row));
	return cuda_result(c,
		cuda_conv_layout(c->stream, data, count, w->k, w->kernel, dtype_size(k->dtype),
			(char *)w->data + (size_t)first * row),
		"packing a convolution");
}

static enum status pack_codes(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	struct cuda *c = cuda_of(k);
	const enum quantized to = w->dtype == DTYPE_I8 ? QUANTIZED_I8 : QUANTIZED_E4M3;
	const size_t len = (size_t)(count * w->k) * dtype_size(k->dtype);
	struct tensor x;
	void *data;

	TRY(cuda_scratch(c, SCRATCH_RESULT, len, &data));
	TRY(cuda_copy_in(k, data, rows, len));
	x = tensor_view(data, k->dtype, 2, (int64_t[]){ count, w->k });
	return cuda_result(c,
		cuda_quantize_rows(c->stream, to, &x, (char *)w->data + first * w->k, lt_scales(w) + first),
		"bringing a matrix to 8 bits");
}

static enum status pack_rows(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	const size_t row = (size_t)w->k * dtype_size(k->dtype);

	if (w->dtype != k->dtype)
		return pack_codes(k, w, first, count, rows);
	if (w->kind == WEIGHT_CONV && w->kernel > 1)
		return pack_conv(k, w, first, count, rows);
	return cuda_copy_in(k, (char *)w->data + (size_t)first * row, rows, (size_t)count * row);
}

/* A table's layout is its copy in bf16, or itself; see lt.c. */
static void pack_free(struct kernels *k, struct weight *w)
{
	if (w->kind == WEIGHT_TABLE && w->layout != w->data)
		cuda_unmap(k, w->layout, (size_t)tensor_count(&w->table) * 2);
	w->layout = NULL;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static enum status linear(struct kernels *k, const struct linear *op)
{
	return lt_linear(cuda_of(k), op);
}

/* A convolution of single places is a product. */
static enum status conv_as_linear(struct kernels *k, const struct conv *op)
{
	const int64_t places = op->x.dim[0] * op->x.dim[1];

	return linear(
		k, &(struct linear){ .x = tensor_view(op->x.data, op->x.dtype, 2, (int64_t[]){ places, op->w->k }),
			   .w = op->w,
			   .bias = op->bias,
			   .accumulate = op->accumulate,
			   .y = tensor_view(op->y.data, op->y.dtype, 2, (int64_t[]){ places, op->w->n }) });
}

static enum status conv(struct kernels *k, const struct conv *op)
{
	struct cuda *c = cuda_of(k);
	bool done;

	if (op->w->kernel == 1 && !op->upsample && op->stride < 2)
		return conv_as_linear(k, op);
	TRY(dnn_conv(c, op, &done));
	return done ? STATUS_OK : cuda_result(c, cuda_conv(c->stream, op), "a convolution");
}

static enum status attention(struct kernels *k, const struct attention *op)
{
	struct cuda *c = cuda_of(k);
	bool done;

	TRY(dnn_attention(c, op, &done));
	return done ? STATUS_OK : cuda_result(c, cuda_attention(c->stream, op), "attention");
}

static enum status norm(struct kernels *k, const struct norm *op)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_norm(c->stream, op), "a norm");
}

static enum status norm_residual(struct kernels *k, const struct norm_residual *op)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_norm_residual(c->stream, op), "a norm");
}

static enum status group_norm(struct kernels *k, const struct group_norm *op)
{
	struct cuda *c = cuda_of(k);
	void *scratch;

	TRY(cuda_scratch(c, SCRATCH_SUMS, cuda_group_norm_scratch(op), &scratch));
	return cuda_result(c, cuda_group_norm(c->stream, op, scratch), "a group norm");
}

static enum status qk_rope(struct kernels *k, const struct qk_rope *op)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_qk_rope(c->stream, op), "rotary positions");
}

static enum status glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_glu(c->stream, f, &gate, &up, &y), "a gated unit");
}

static enum status gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_gated_add(c->stream, &x, gate, &stream), "a residual");
}

static enum status add_row(struct kernels *k, struct tensor row, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_add_row(c->stream, &row, &y), "adding a row");
}

static enum status clamp(struct kernels *k, float low, float high, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_clamp(c->stream, low, high, &y), "clamping");
}

static enum status resize_nearest(struct kernels *k, struct tensor x, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_resize_nearest(c->stream, &x, &y), "resizing a picture");
}

static enum status halve(struct kernels *k, struct tensor x, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_halve(c->stream, &x, &y), "halving a picture");
}

static enum status unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_unary(c->stream, f, &x, &y), "an elementwise operation");
}

static enum status axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_axpby(c->stream, a, &x, b, &y), "a sum");
}

static enum status fill_rows(struct kernels *k, struct tensor row, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_fill_rows(c->stream, &row, &y), "filling rows");
}

static enum status patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_patchify(c->stream, &latents, patch, &rows), "patches");
}

static enum status unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_unpatchify(c->stream, &rows, patch, scale, &latents), "patches");
}

static enum status to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y)
{
	struct cuda *c = cuda_of(k);

	return cuda_result(c, cuda_to_nhwc(c->stream, &x, scale, shift, &y), "turning a picture");
}

static enum status to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	const size_t len = (size_t)tensor_count(&x);
	struct cuda *c = cuda_of(k);
	void *pixels;

	TRY(cuda_scratch(c, SCRATCH_RESULT, len, &pixels));
	TRY(cuda_result(c, cuda_to_rgb8(c->stream, &x, pixels), "making pixels"));
	return cuda_copy_out(k, rgb, pixels, len);
}

static enum status all_finite(struct kernels *k, struct tensor x, bool *out)
{
	struct cuda *c = cuda_of(k);
	int32_t found = 0;
	void *flag;

	TRY(cuda_scratch(c, SCRATCH_SUMS, sizeof found, &flag));
	TRY(cuda_result(c, cudaMemsetAsync(flag, 0, sizeof found, c->stream), "looking for NaN"));
	if (tensor_count(&x) > 0)
		TRY(cuda_result(c, cuda_find_not_finite(c->stream, &x, flag), "looking for NaN"));
	TRY(cuda_copy_out(k, &found, flag, sizeof found));
	*out = found == 0;
	return STATUS_OK;
}

static const struct backend backend = {
	.name = "cuda",
	.open = cuda_open,
	.close = cuda_close,
	.map = cuda_map,
	.unmap = cuda_unmap,
	.discard = cuda_discard,
	.reserve = cuda_reserve,
	.commit = cuda_commit,
	.unreserve = cuda_unreserve,
	.memory = cuda_memory,
	.pace = cuda_pace,
	.repeat = cuda_repeat,
	.copy_in = cuda_copy_in,
	.copy_out = cuda_copy_out,
	.pack_begin = pack_begin,
	.pack_rows = pack_rows,
	.pack_free = pack_free,
	.linear = linear,
	.conv = conv,
	.attention = attention,
	.norm = norm,
	.norm_residual = norm_residual,
	.group_norm = group_norm,
	.qk_rope = qk_rope,
	.glu = glu,
	.gated_add = gated_add,
	.add_row = add_row,
	.clamp = clamp,
	.resize_nearest = resize_nearest,
	.halve = halve,
	.unary = unary,
	.axpby = axpby,
	.fill_rows = fill_rows,
	.patchify = patchify,
	.unpatchify = unpatchify,
	.to_nhwc = to_nhwc,
	.to_rgb8 = to_rgb8,
	.all_finite = all_finite,
};

static void *take_host(size_t len)
{
	void *data;

	return cudaMallocHost(&data, len) ? NULL : data;
}

static void give_host(void *data)
{
	cudaFreeHost(data);
}

const struct plugin *promptfs_cuda_plugin(void)
{
	static const struct plugin plugin = { .abi = PLUGIN_ABI,
		.backend_size = sizeof backend,
		.backend = &backend,
		.count = count_devices,
		.describe = describe,
		.take_host = take_host,
		.give_host = give_host };

	return &plugin;
}

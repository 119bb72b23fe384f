/* kernels: opening a backend, and the checks of every operation's arguments, once for all backends. */
#include "kernels/backend.h"
#include "kernels/plugin.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <omp.h>

/* ---- handle ------------------------------------------------------------------------------------------------------ */

static enum status pick(const char *device, const struct backend **out)
{
	const struct plugin *plugin;

	if (strcmp(device, "ref") == 0) {
		*out = &backend_ref;
	} else if (strcmp(device, "cpu") == 0) {
		*out = &backend_cpu;
	} else if (strncmp(device, "cuda:", 5) == 0) {
		if (plugin_cuda(&plugin) != STATUS_OK) {
			char why[256];

			snprintf(why, sizeof why, "%s", status_text());
			return status_fail(STATUS_UNSUPPORTED, "%s: %s; use --device cpu", device, why);
		}
		*out = plugin->backend;
	} else {
		return status_fail(
			STATUS_INVALID, "unknown device \"%s\"; known are auto, cpu, ref and cuda:N", device);
	}
	return STATUS_OK;
}

/* Of weights only. */
static bool is_small(enum dtype dtype)
{
	return dtype == DTYPE_I8 || dtype == DTYPE_F8_E4M3;
}

/* Those that this process may run on. */
static int processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0 ? CPU_COUNT(&set)
										  : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static enum status open_device(const char *device, enum dtype dtype, int threads, struct kernels **out)
{
	const struct backend *backend = NULL;
	struct kernels *k;
	enum status status;

	TRY(pick(device, &backend));
	if (dtype != DTYPE_F32 && dtype != DTYPE_BF16 && dtype != DTYPE_OTHER && !is_small(dtype))
		return status_fail(STATUS_UNSUPPORTED,
			"device %s does not compute in %s; f32, bf16 and int8 are supported", device,
			dtype_name(dtype));
	k = calloc(1, sizeof *k);
	if (!k)
		return status_fail(STATUS_NO_MEMORY, "no memory for a kernel handle");
	k->backend = backend;
	k->dtype = is_small(dtype) ? DTYPE_OTHER : dtype;
	k->weight_dtype = is_small(dtype) ? dtype : DTYPE_OTHER;
	k->threads = threads > 0 ? threads : processors();
	snprintf(k->device, sizeof k->device, "%s", device);
	status = backend->open(k);
	if (k->weight_dtype == DTYPE_OTHER)
		k->weight_dtype = k->dtype;
	if (status != STATUS_OK)
		kernels_close(k);
	else
		*out = k;
	return status;
}

/* The first GPU, or the cpu and why. */
static enum status open_best(enum dtype dtype, int threads, struct kernels **out)
{
	char why[sizeof(*out)->about];

	if (open_device("cuda:0", dtype, threads, out) == STATUS_OK)
		return STATUS_OK;
	snprintf(why, sizeof why, "no GPU: %s", status_text());
	TRY(open_device("cpu", dtype, threads, out));
	memcpy((*out)->about, why, sizeof why);
	return STATUS_OK;
}

enum status kernels_open(const char *device, enum dtype dtype, int threads, struct kernels **out)
{
	return strcmp(device, "auto") == 0 ? open_best(dtype, threads, out) : open_device(device, dtype, threads, out);
}

void kernels_close(struct kernels *k)
{
	if (!k)
		return;
	packed_free(k->packed);
	k->backend->close(k);
	free(k);
}

const char *kernels_about(const struct kernels *k)
{
	return k->about;
}

void kernels_list(char *out, size_t size)
{
	const struct plugin *plugin;
	size_t len = (size_t)snprintf(out, size, "cpu\n");
	char line[128];

	if (plugin_cuda(&plugin) != STATUS_OK) {
		snprintf(out + len, size - len, "no GPU: %s\n", status_text());
		return;
	}
	for (int i = 0, n = plugin->count(); i < n && len < size; i++)
		len += (size_t)snprintf(out + len, size - len, "cuda:%d %s\n", i,
			plugin->describe(i, line, sizeof line) == STATUS_OK ? line : status_text());
}

enum dtype kernels_dtype(const struct kernels *k)
{
	return k->dtype;
}

enum dtype kernels_weight_dtype(const struct kernels *k)
{
	return k->weight_dtype;
}

const char *kernels_device(const struct kernels *k)
{
	return k->device;
}

size_t kernels_memory(const struct kernels *k)
{
	return k->held;
}

size_t kernels_memory_peak(const struct kernels *k)
{
	return k->held_peak;
}

double kernels_flops(const struct kernels *k)
{
	return k->flops;
}

/* Books the multiply-adds of an operation that is about to run. */
static void count(struct kernels *k, double multiply_adds)
{
	k->flops += 2 * multiply_adds;
}

void kernels_hold(struct kernels *k, size_t more, size_t less)
{
	k->held += more - less;
	if (k->held > k->held_peak)
		k->held_peak = k->held;
}

bool kernels_own_memory(const struct kernels *k)
{
	return k->backend->memory != NULL;
}

enum status kernels_free_memory(struct kernels *k, uint64_t *free, uint64_t *total)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (k->backend->memory)
		return k->backend->memory(k, free, total);
	*free = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page;
	*total = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
	return STATUS_OK;
}

void kernels_limit_memory(struct kernels *k, uint64_t bytes)
{
	k->limit = bytes;
}

void kernels_arithmetic(const struct kernels *k, char *out, size_t size)
{
	struct stat st = { 0 };
	size_t len;

	if (k->backend->layout)
		k->backend->layout(k, out, size);
	else
		snprintf(out, size, "%s %s %s %s", k->backend->name, k->about, dtype_name(k->dtype),
			dtype_name(k->weight_dtype));
	stat("/proc/self/exe", &st);
	len = strlen(out);
	snprintf(out + len, size - len, " %jd %jd.%09ld", (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
		st.st_mtim.tv_nsec);
}

enum status kernels_pace(struct kernels *k)
{
	return k->backend->pace ? k->backend->pace(k) : STATUS_OK;
}

enum status kernels_repeat(struct kernels *k, repeat_run *run, void *context, const void *key, size_t key_size)
{
	if (key_size > REPEAT_KEY_MAX)
		return status_fail(STATUS_INTERNAL, "repeat: a key of %zu bytes", key_size);
	return k->backend->repeat ? k->backend->repeat(k, run, context, key, key_size) : run(context);
}

void kernels_use_threads(const struct kernels *k)
{
	omp_set_num_threads(k->threads);
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

enum accept {
	ACCEPT_ANY,     /* F32 or BF16 */
	ACCEPT_OPERAND, /* the handle's dtype */
	ACCEPT_F32,
};

enum layout {
	LAYOUT_ROWS,  /* the last stride is 1; rows (and heads) may be strided */
	LAYOUT_DENSE, /* contiguous */
};

static bool accepts(const struct kernels *k, enum accept accept, enum dtype dtype)
{
	switch (accept) {
	case ACCEPT_ANY:
		return dtype == DTYPE_F32 || dtype == DTYPE_BF16;
	case ACCEPT_OPERAND:
		return dtype == k->dtype;
	case ACCEPT_F32:
		break;
	}
	return dtype == DTYPE_F32;
}

/* Rows must not run into each other: stride[i] covers the dimensions inside it. */
static bool laid_out(const struct tensor *t, enum layout layout)
{
	if (tensor_count(t) == 0)
		return true;
	if (layout == LAYOUT_DENSE)
		return tensor_contiguous(t);
	if (t->dim[t->rank - 1] != 1 && t->stride[t->rank - 1] != 1)
		return false;
	for (int i = 0; i + 1 < t->rank; i++)
		if (t->dim[i] > 1 && t->stride[i] < t->dim[t->rank - 1])
			return false;
	return true;
}

static const char *shape_text(char *text, size_t size, int rank, const int64_t *dim)
{
	size_t len = 0;

	text[0] = '\0';
	for (int i = 0; i < rank && i < TENSOR_RANK_MAX && len < size; i++)
		len += (size_t)snprintf(text + len, size - len, i ? ", %lld" : "%lld", (long long)dim[i]);
	return text;
}

/* That tensor `name` of operation `op` has these dimensions (-1: any), a right dtype and a right layout. */
static enum status expect(const struct kernels *k, const char *op, const char *name, const struct tensor *t,
	enum accept accept, enum layout layout, int rank, const int64_t *dim)
{
	char got[96], wanted[96];
	bool right = t->rank == rank;

	for (int i = 0; right && i < rank; i++)
		right = t->dim[i] >= 0 && (dim[i] < 0 || t->dim[i] == dim[i]);
	if (!right)
		return status_fail(STATUS_INTERNAL, "%s: %s is [%s], expected [%s]", op, name,
			shape_text(got, sizeof got, t->rank, t->dim), shape_text(wanted, sizeof wanted, rank, dim));
	if (!accepts(k, accept, t->dtype))
		return status_fail(STATUS_INTERNAL, "%s: %s is %s, expected %s", op, name, dtype_name(t->dtype),
			accept == ACCEPT_ANY ? "f32 or bf16"
					     : dtype_name(accept == ACCEPT_OPERAND ? k->dtype : DTYPE_F32));
	if (!laid_out(t, layout))
		return status_fail(STATUS_INTERNAL, "%s: the strides of %s [%s] are not supported", op, name,
			shape_text(got, sizeof got, t->rank, t->dim));
	if (!t->data && tensor_count(t) > 0)
		return status_fail(STATUS_INTERNAL, "%s: %s has no data", op, name);
	return STATUS_OK;
}

static enum status expect_matrix(const struct kernels *k, const char *op, const char *name, const struct tensor *t,
	enum accept accept, int64_t rows, int64_t dim)
{
	return expect(k, op, name, t, accept, LAYOUT_ROWS, 2, (int64_t[]){ rows, dim });
}

static enum status expect_picture(const struct kernels *k, const char *op, const char *name, const struct tensor *t,
	enum accept accept, int64_t h, int64_t w, int64_t channels)
{
	return expect(k, op, name, t, accept, LAYOUT_DENSE, 3, (int64_t[]){ h, w, channels });
}

static enum status expect_heads(const struct kernels *k, const char *op, const char *name, const struct tensor *t,
	int64_t rows, int64_t heads, int64_t head_dim)
{
	return expect(k, op, name, t, ACCEPT_OPERAND, LAYOUT_ROWS, 3, (int64_t[]){ rows, heads, head_dim });
}

/* A table [n], where one is given. */
static enum status expect_table(const char *op, const char *name, const struct weight *w, int64_t n)
{
	if (w && (w->kind != WEIGHT_TABLE || tensor_count(&w->table) != n))
		return status_fail(STATUS_INTERNAL, "%s: %s is no table of %lld values", op, name, (long long)n);
	return STATUS_OK;
}

static enum status need(bool condition, const char *op, const char *what)
{
	return condition ? STATUS_OK : status_fail(STATUS_INTERNAL, "%s: %s", op, what);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static enum status check_copy(const char *op, const struct tensor *from, const struct tensor *to)
{
	bool same = from->rank == to->rank;

	for (int i = 0; same && i < from->rank; i++)
		same = from->dim[i] == to->dim[i];
	TRY(need(same, op, "the shapes differ"));
	TRY(need(tensor_contiguous(from) && tensor_contiguous(to), op, "a tensor is strided"));
	TRY(need(from->dtype == DTYPE_F32 || from->dtype == DTYPE_BF16 || from->dtype == DTYPE_F16, op,
		"the source is not f32, bf16 or f16"));
	return need(to->dtype == DTYPE_F32 || to->dtype == DTYPE_BF16, op, "the destination is not f32 or bf16");
}

enum status kernels_upload(struct kernels *k, const struct tensor *host, struct tensor device)
{
	const int64_t count = tensor_count(host);
	const size_t len = (size_t)count * dtype_size(device.dtype);
	void *converted;
	enum status status;

	TRY(check_copy("upload", host, &device));
	if (host->dtype == device.dtype)
		return k->backend->copy_in(k, device.data, host->data, len);
	TRY(memory_map(k, len, &converted));
	tensor_convert(host->data, host->dtype, converted, device.dtype, count);
	status = k->backend->copy_in(k, device.data, converted, len);
	memory_unmap(k, converted, len);
	return status;
}

enum status kernels_download(struct kernels *k, struct tensor device, const struct tensor *host)
{
	const int64_t count = tensor_count(host);
	const size_t len = (size_t)count * dtype_size(device.dtype);
	void *copy;
	enum status status;

	TRY(check_copy("download", &device, host));
	if (host->dtype == device.dtype)
		return k->backend->copy_out(k, host->data, device.data, len);
	TRY(memory_map(k, len, &copy));
	status = k->backend->copy_out(k, copy, device.data, len);
	if (status == STATUS_OK)
		tensor_convert(copy, device.dtype, host->data, host->dtype, count);
	memory_unmap(k, copy, len);
	return status;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

enum status kernels_linear(struct kernels *k, const struct linear *op)
{
	TRY(need(op->w && op->w->kind == WEIGHT_LINEAR, "linear", "w is no packed matrix"));
	TRY(expect_matrix(k, "linear", "x", &op->x, ACCEPT_OPERAND, -1, op->w->k));
	TRY(expect_matrix(k, "linear", "y", &op->y, op->accumulate ? ACCEPT_F32 : ACCEPT_ANY, op->x.dim[0], op->w->n));
	TRY(expect_table("linear", "bias", op->bias, op->w->n));
	TRY(need(op->activation >= ACTIVATION_NONE && op->activation <= ACTIVATION_QUICK_GELU, "linear",
		"no such activation"));
	if (tensor_count(&op->y) == 0)
		return STATUS_OK;
	count(k, (double)tensor_count(&op->y) * (double)op->w->k);
	kernels_use_threads(k);
	return k->backend->linear(k, op);
}

/* Rows (axis 0) or columns (axis 1) of a convolution's result. */
static int64_t conv_size(const struct conv *op, int axis)
{
	const int64_t n = op->x.dim[axis];

	if (op->stride == 2)
		return (n + 1) / 2;
	if (!op->upsample)
		return n;
	return n > 0 && op->y.dim[axis] == 2 * n - 1 ? 2 * n - 1 : 2 * n;
}

enum status kernels_conv(struct kernels *k, const struct conv *op)
{
	int64_t size[2];

	TRY(need(op->w && op->w->kind == WEIGHT_CONV, "conv", "w is no packed convolution kernel"));
	TRY(need(op->stride >= 0 && op->stride <= (op->upsample ? 1 : 2), "conv", "no such stride"));
	TRY(expect_picture(k, "conv", "x", &op->x, ACCEPT_OPERAND, -1, -1, op->w->k));
	for (int i = 0; i < 2; i++)
		size[i] = conv_size(op, i);
	TRY(expect_picture(
		k, "conv", "y", &op->y, op->accumulate ? ACCEPT_F32 : ACCEPT_ANY, size[0], size[1], op->w->n));
	TRY(expect_table("conv", "bias", op->bias, op->w->n));
	if (tensor_count(&op->y) == 0)
		return STATUS_OK;
	count(k, (double)tensor_count(&op->y) * (double)op->w->k * op->w->kernel * op->w->kernel);
	kernels_use_threads(k);
	return k->backend->conv(k, op);
}

enum status kernels_attention(struct kernels *k, const struct attention *op)
{
	const int64_t rows = op->q.dim[0], heads = op->q.dim[1], head_dim = op->q.dim[2];
	const int64_t keys = op->k.dim[0], kv_heads = op->k.dim[1];

	TRY(expect_heads(k, "attention", "q", &op->q, -1, -1, -1));
	TRY(expect_heads(k, "attention", "k", &op->k, -1, -1, head_dim));
	TRY(expect_heads(k, "attention", "v", &op->v, keys, kv_heads, head_dim));
	TRY(expect_heads(k, "attention", "out", &op->out, rows, heads, head_dim));
	TRY(need(kv_heads > 0 && heads % kv_heads == 0, "attention",
		"the query heads are no multiple of the key heads"));
	TRY(need(!op->causal || rows == keys, "attention", "causal, but the rows are not the keys"));
	if (op->bias.data)
		TRY(expect(k, "attention", "bias", &op->bias, ACCEPT_F32, LAYOUT_ROWS, 3,
			(int64_t[]){ op->bias.dim[0] == 1 ? 1 : heads, rows, keys }));
	if (tensor_count(&op->out) == 0)
		return STATUS_OK;
	TRY(need(keys > 0, "attention", "there are no keys"));
	/* scores and their sums; a causal row i has i + 1 keys */
	count(k, 2 * (double)tensor_count(&op->out) * (op->causal ? (double)(keys + 1) / 2 : (double)keys));
	kernels_use_threads(k);
	return k->backend->attention(k, op);
}

/* ---- norms and positions ----------------------------------------------------------------------------------------- */

enum status kernels_norm(struct kernels *k, const struct norm *op)
{
	TRY(expect_matrix(k, "norm", "x", &op->x, ACCEPT_ANY, -1, -1));
	TRY(expect_matrix(k, "norm", "y", &op->y, ACCEPT_ANY, op->x.dim[0], op->x.dim[1]));
	TRY(expect_table("norm", "weight", op->weight, op->x.dim[1]));
	TRY(expect_table("norm", "bias", op->bias, op->x.dim[1]));
	if (tensor_count(&op->y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->norm(k, op);
}

enum status kernels_norm_residual(struct kernels *k, const struct norm_residual *op)
{
	TRY(need(op->weight != NULL, "norm_residual", "there is no weight"));
	TRY(expect_matrix(k, "norm_residual", "x", &op->x, ACCEPT_ANY, -1, -1));
	TRY(expect_matrix(k, "norm_residual", "stream", &op->stream, ACCEPT_F32, op->x.dim[0], op->x.dim[1]));
	TRY(expect_table("norm_residual", "weight", op->weight, op->x.dim[1]));
	if (tensor_count(&op->x) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->norm_residual(k, op);
}

enum status kernels_group_norm(struct kernels *k, const struct group_norm *op)
{
	const bool norms = op->y.data || !op->moments.data; /* else: only moments */
	const int64_t channels = op->x.dim[2];

	TRY(expect_picture(k, "group_norm", "x", &op->x, ACCEPT_ANY, -1, -1, -1));
	TRY(need(op->groups > 0 && channels % op->groups == 0, "group_norm", "the groups do not divide the channels"));
	if (op->moments.data)
		TRY(expect(k, "group_norm", "moments", &op->moments, ACCEPT_F32, LAYOUT_DENSE, 2,
			(int64_t[]){ op->groups, 2 }));
	if (norms) {
		TRY(expect_picture(k, "group_norm", "y", &op->y, ACCEPT_ANY, op->x.dim[0], op->x.dim[1], channels));
		TRY(need(op->weight && op->bias, "group_norm", "there is no weight or no bias"));
		TRY(expect_table("group_norm", "weight", op->weight, channels));
		TRY(expect_table("group_norm", "bias", op->bias, channels));
	}
	if (tensor_count(&op->x) == 0)
		return need(norms, "group_norm", "an empty picture has no moments");
	kernels_use_threads(k);
	return k->backend->group_norm(k, op);
}

enum status kernels_qk_rope(struct kernels *k, const struct qk_rope *op)
{
	const int64_t head_dim = op->x.dim[2];

	TRY(expect_heads(k, "qk_rope", "x", &op->x, -1, -1, -1));
	TRY(need(head_dim % 2 == 0 && head_dim <= HEAD_DIM_MAX, "qk_rope", "head_dim is odd or above 1024"));
	TRY(expect_table("qk_rope", "weight", op->weight, head_dim));
	TRY(expect(k, "qk_rope", "table", &op->table, ACCEPT_F32, LAYOUT_DENSE, 3,
		(int64_t[]){ op->x.dim[0], head_dim / 2, 2 }));
	if (tensor_count(&op->x) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->qk_rope(k, op);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

enum status kernels_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y)
{
	TRY(need(f >= ACTIVATION_NONE && f <= ACTIVATION_QUICK_GELU, "glu", "no such activation"));
	TRY(expect_matrix(k, "glu", "gate", &gate, ACCEPT_ANY, -1, -1));
	TRY(expect_matrix(k, "glu", "up", &up, ACCEPT_ANY, gate.dim[0], gate.dim[1]));
	TRY(expect_matrix(k, "glu", "y", &y, ACCEPT_ANY, gate.dim[0], gate.dim[1]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->glu(k, f, gate, up, y);
}

enum status kernels_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y)
{
	TRY(need(f >= UNARY_COPY && f <= UNARY_MULTIPLY, "unary", "no such function"));
	TRY(expect_matrix(k, "unary", "x", &x, ACCEPT_ANY, -1, -1));
	TRY(expect_matrix(k, "unary", "y", &y, ACCEPT_ANY, x.dim[0], x.dim[1]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->unary(k, f, x, y);
}

enum status kernels_multiply(struct kernels *k, struct tensor x, struct tensor y)
{
	return kernels_unary(k, UNARY_MULTIPLY, x, y);
}

enum status kernels_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream)
{
	TRY(expect_matrix(k, "gated_add", "x", &x, ACCEPT_ANY, -1, -1));
	TRY(expect_matrix(k, "gated_add", "stream", &stream, ACCEPT_F32, x.dim[0], x.dim[1]));
	if (tensor_count(&x) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->gated_add(k, x, gate, stream);
}

enum status kernels_add_row(struct kernels *k, struct tensor row, struct tensor y)
{
	TRY(expect(k, "add_row", "row", &row, ACCEPT_F32, LAYOUT_DENSE, 1, (int64_t[]){ -1 }));
	TRY(expect_matrix(k, "add_row", "y", &y, ACCEPT_ANY, -1, row.dim[0]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->add_row(k, row, y);
}

enum status kernels_clamp(struct kernels *k, float low, float high, struct tensor y)
{
	TRY(need(low <= high, "clamp", "low is above high"));
	TRY(need(y.dtype == DTYPE_F32 && tensor_contiguous(&y), "clamp", "y is not f32 or strided"));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->clamp(k, low, high, y);
}

enum status kernels_resize_nearest(struct kernels *k, struct tensor x, struct tensor y)
{
	TRY(expect_picture(k, "resize_nearest", "x", &x, ACCEPT_ANY, -1, -1, -1));
	TRY(expect_picture(k, "resize_nearest", "y", &y, ACCEPT_ANY, -1, -1, x.dim[2]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	TRY(need(tensor_count(&x) > 0, "resize_nearest", "x is empty"));
	kernels_use_threads(k);
	return k->backend->resize_nearest(k, x, y);
}

enum status kernels_halve(struct kernels *k, struct tensor x, struct tensor y)
{
	TRY(expect_picture(k, "halve", "x", &x, ACCEPT_ANY, -1, -1, -1));
	TRY(expect_picture(k, "halve", "y", &y, ACCEPT_ANY, x.dim[0] / 2, x.dim[1] / 2, x.dim[2]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->halve(k, x, y);
}

enum status kernels_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y)
{
	TRY(need(x.dtype == DTYPE_F32 && y.dtype == DTYPE_F32, "axpby", "x or y is not f32"));
	TRY(need(tensor_count(&x) == tensor_count(&y), "axpby", "x and y differ in size"));
	TRY(need(tensor_contiguous(&x) && tensor_contiguous(&y), "axpby", "x or y is strided"));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->axpby(k, a, x, b, y);
}

enum status kernels_fill_rows(struct kernels *k, struct tensor row, struct tensor y)
{
	TRY(expect(k, "fill_rows", "row", &row, ACCEPT_F32, LAYOUT_DENSE, 1, (int64_t[]){ -1 }));
	TRY(expect_matrix(k, "fill_rows", "y", &y, ACCEPT_F32, -1, row.dim[0]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->fill_rows(k, row, y);
}

static enum status check_patches(
	struct kernels *k, const char *op, const struct tensor *latents, int patch, const struct tensor *rows)
{
	const int64_t c = latents->dim[0], h = latents->dim[1], w = latents->dim[2];

	TRY(expect(k, op, "latents", latents, ACCEPT_F32, LAYOUT_DENSE, 3, (int64_t[]){ -1, -1, -1 }));
	TRY(need(patch > 0 && h % patch == 0 && w % patch == 0, op, "the patch does not divide the latents"));
	return expect_matrix(k, op, "rows", rows, ACCEPT_ANY, (h / patch) * (w / patch), (int64_t)patch * patch * c);
}

enum status kernels_patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows)
{
	TRY(check_patches(k, "patchify", &latents, patch, &rows));
	if (tensor_count(&rows) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->patchify(k, latents, patch, rows);
}

enum status kernels_unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents)
{
	TRY(check_patches(k, "unpatchify", &latents, patch, &rows));
	if (tensor_count(&latents) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->unpatchify(k, rows, patch, scale, latents);
}

enum status kernels_to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y)
{
	TRY(expect(k, "to_nhwc", "x", &x, ACCEPT_F32, LAYOUT_DENSE, 3, (int64_t[]){ -1, -1, -1 }));
	TRY(expect_picture(k, "to_nhwc", "y", &y, ACCEPT_ANY, x.dim[1], x.dim[2], x.dim[0]));
	if (tensor_count(&y) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->to_nhwc(k, x, scale, shift, y);
}

enum status kernels_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb)
{
	TRY(expect_picture(k, "to_rgb8", "x", &x, ACCEPT_ANY, -1, -1, 3));
	if (tensor_count(&x) == 0)
		return STATUS_OK;
	kernels_use_threads(k);
	return k->backend->to_rgb8(k, x, rgb);
}

enum status kernels_all_finite(struct kernels *k, struct tensor x, bool *out)
{
	TRY(need(x.dtype == DTYPE_F32 || x.dtype == DTYPE_BF16, "all_finite", "x is not f32 or bf16"));
	TRY(need(tensor_contiguous(&x), "all_finite", "x is strided"));
	kernels_use_threads(k);
	return k->backend->all_finite(k, x, out);
}

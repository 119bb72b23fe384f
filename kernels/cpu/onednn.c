/* onednn: see onednn.h. */
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/onednn_api.h"

#include <stdio.h>

/* What makes one primitive differ from another.  All int64_t, so that keys compare as bytes. */
struct key {
	int64_t kind, n, k, kernel;
	int64_t rows, columns;      /* linear: m and 0; conv: output height and width */
	int64_t x_stride, y_stride; /* linear: elements from row to row */
	int64_t halo;               /* conv: rows of x above and below y's */
	int64_t stride;             /* conv: 1 or 2 */
	int64_t x_rows, x_columns;  /* conv: input height and width */
	int64_t y_dtype, bias, activation, accumulate;
};

struct product {
	struct key key;
	int64_t last_use; /* 0: a free slot */
	dnnl_primitive_t primitive;
	dnnl_memory_t x, w, bias, y, scratch;
	size_t scratch_len;
	/* Where the primitive wants its weights in another layout than they were packed in; NULL and 0 elsewhere. */
	dnnl_primitive_t relayout;
	dnnl_memory_t packed;
	size_t w_len;
};

/* In the names of oneDNN's plain loops, hundreds of times slower than anything else of it. */
static const char REFERENCE[] = "ref";

/* A pass of the largest model has about 40 shapes; making one takes 0.3 ms for products and 5 ms for convolutions. */
enum { N_PRODUCTS = 128 };

struct onednn {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_data_type_t operand;
	struct product products[N_PRODUCTS];
	int64_t n_uses;
	void *scratch;
	size_t scratch_len;
};

static enum status failed(const char *op, dnnl_status_t status)
{
	switch (status) {
	case dnnl_success:
		return STATUS_OK;
	case dnnl_out_of_memory:
		return status_fail(STATUS_NO_MEMORY, "%s: oneDNN is out of memory", op);
	case dnnl_unimplemented:
		return status_fail(STATUS_UNSUPPORTED, "%s: oneDNN has no implementation for this processor", op);
	default:
		return status_fail(STATUS_INTERNAL, "%s: oneDNN refused with status %d", op, (int)status);
	}
}

static dnnl_data_type_t data_type(enum dtype dtype)
{
	return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

#if defined(__x86_64__)
static bool has_isa(int needed)
{
	return ((int)dnnl_get_effective_cpu_isa() & needed) == needed;
}

bool onednn_has_bf16(void)
{
	return has_isa(dnnl_cpu_isa_avx512_core_bf16);
}

bool onednn_has_amx(void)
{
	return has_isa(dnnl_cpu_isa_avx512_core_amx);
}
#else
bool onednn_has_bf16(void)
{
	return false;
}
#endif

void onednn_name(char *out, size_t size)
{
	const dnnl_version_t *v = dnnl_version();

	snprintf(out, size, "oneDNN %d.%d.%d %s isa %x", v->major, v->minor, v->patch, v->hash,
		(unsigned)dnnl_get_effective_cpu_isa());
}

/* ---- making a primitive ------------------------------------------------------------------------------------------ */

struct shape {
	desc x, w, bias, y;
};

static void shape_free(struct shape *s)
{
	desc_free(s->x);
	desc_free(s->w);
	desc_free(s->bias);
	desc_free(s->y);
}

/* The weight's own layout, or one for oneDNN to choose. */
static desc weight_desc(const struct onednn *o, const struct key *key, const struct weight *w)
{
	if (w)
		return desc_copy(w->layout);
	if (key->kind == WEIGHT_LINEAR)
		return desc_new(2, (int64_t[]){ key->k, key->n }, o->operand, NULL);
	return desc_new(4, (int64_t[]){ key->n, key->k, key->kernel, key->kernel }, o->operand, NULL);
}

static bool shape_linear(const struct onednn *o, const struct key *key, struct shape *s)
{
	s->x = desc_new(2, (int64_t[]){ key->rows, key->k }, o->operand, (int64_t[]){ key->x_stride, 1 });
	s->y = desc_new(2, (int64_t[]){ key->rows, key->n }, data_type((enum dtype)key->y_dtype),
		(int64_t[]){ key->y_stride, 1 });
	if (key->bias)
		s->bias = desc_new(2, (int64_t[]){ 1, key->n }, dnnl_f32, (int64_t[]){ key->n, 1 });
	return s->x && s->y && s->w && (s->bias || !key->bias);
}

/* [1, channels, h, w] with channels innermost. */
static desc picture_desc(int64_t h, int64_t w, int64_t channels, dnnl_data_type_t type)
{
	return desc_new(
		4, (int64_t[]){ 1, channels, h, w }, type, (int64_t[]){ h * w * channels, 1, w * channels, channels });
}

static bool shape_conv(const struct onednn *o, const struct key *key, struct shape *s)
{
	s->x = picture_desc(key->x_rows, key->x_columns, key->k, o->operand);
	s->y = picture_desc(key->rows, key->columns, key->n, data_type((enum dtype)key->y_dtype));
	if (key->bias)
		s->bias = desc_new(1, (int64_t[]){ key->n }, dnnl_f32, (int64_t[]){ 1 });
	return s->x && s->y && s->w && (s->bias || !key->bias);
}

static dnnl_status_t append_activation(dnnl_post_ops_t ops, enum activation activation)
{
	switch (activation) {
	case ACTIVATION_NONE:
		break;
	case ACTIVATION_SILU:
		return append_eltwise(ops, dnnl_eltwise_swish, 1.0f);
	case ACTIVATION_GELU:
		return append_eltwise(ops, dnnl_eltwise_gelu_erf, 0.0f);
	case ACTIVATION_GELU_TANH:
		return append_eltwise(ops, dnnl_eltwise_gelu_tanh, 0.0f);
	case ACTIVATION_QUICK_GELU:
		return append_eltwise(ops, dnnl_eltwise_swish, 1.702f);
	}
	return dnnl_success;
}

static dnnl_status_t set_attributes(dnnl_primitive_attr_t attr, const struct key *key)
{
	dnnl_post_ops_t ops;
	dnnl_status_t status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);

	if (status != dnnl_success || (status = dnnl_post_ops_create(&ops)) != dnnl_success)
		return status;
	status = append_activation(ops, (enum activation)key->activation);
	if (status == dnnl_success && key->accumulate)
		status = append_sum(ops);
	if (status == dnnl_success)
		status = dnnl_primitive_attr_set_post_ops(attr, ops);
	dnnl_post_ops_destroy(ops);
	return status;
}

/* oneDNN 2.6 with AMX runs the last columns of such x, where rows or columns of y are left over, with the tiles of
 * whole blocks: an illegal instruction (brgemm_matmul.cpp, is_tile_reconf_required). */
static bool tiles_fail(const struct key *key)
{
	return key->k % 32 == 31;
}

/* w NULL: the weight's layout is for oneDNN to choose. */
static dnnl_status_t make_pd(
	struct onednn *o, const struct key *key, const struct weight *w, dnnl_primitive_desc_t *out)
{
	struct shape s = { .w = weight_desc(o, key, w) };
	const bool linear = key->kind == WEIGHT_LINEAR;
	dnnl_primitive_attr_t attr = NULL;
	dnnl_status_t status = dnnl_out_of_memory;

	if (!(linear ? shape_linear(o, key, &s) : shape_conv(o, key, &s)))
		goto out;
	if ((status = dnnl_primitive_attr_create(&attr)) != dnnl_success ||
		(status = set_attributes(attr, key)) != dnnl_success)
		goto out;
	if (linear) {
		status = pd_matmul(o->engine, s.x, s.w, s.bias, s.y, attr, tiles_fail(key) ? "amx" : NULL, out);
	} else {
		const dnnl_dims_t padding = { key->halo ? 0 : key->kernel / 2, key->kernel / 2 };

		status = pd_conv(o->engine, s.x, s.w, s.bias, s.y, (int)key->stride, padding, attr, out);
	}
out:
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	shape_free(&s);
	return status;
}

/* ---- packing ----------------------------------------------------------------------------------------------------- */

enum status onednn_pack_layout(struct onednn *o, struct weight *w)
{
	/* a typical size; every other one uses the layout that comes out */
	struct key key = {
		.kind = w->kind, .n = w->n, .k = w->k, .kernel = w->kernel, .bias = 1, .y_dtype = DTYPE_F32
	};
	dnnl_primitive_desc_t pd;

	key.rows = w->kind == WEIGHT_LINEAR ? 512 : 64;
	key.columns = w->kind == WEIGHT_LINEAR ? 0 : 64;
	key.x_stride = w->k;
	key.y_stride = w->n;
	key.stride = 1;
	key.x_rows = key.rows;
	key.x_columns = key.columns;
	TRY(failed("pack", make_pd(o, &key, NULL, &pd)));
	w->layout = desc_copy(desc_of(pd, dnnl_query_weights_md, 0));
	dnnl_primitive_desc_destroy(pd);
	if (!w->layout)
		return status_fail(STATUS_NO_MEMORY, "pack: no memory for a layout");
	w->len = desc_len(w->layout);
	return STATUS_OK;
}

void onednn_pack_free(struct weight *w)
{
	desc_free(w->layout);
	w->layout = NULL;
}

static dnnl_status_t reorder(struct onednn *o, desc from, const void *from_data, desc to, void *to_data)
{
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t primitive = NULL;
	dnnl_memory_t x = NULL, y = NULL;
	dnnl_status_t status = pd_reorder(o->engine, from, to, &pd);

	if (status == dnnl_success)
		status = dnnl_primitive_create(&primitive, pd);
	if (status == dnnl_success)
		status = dnnl_memory_create(&x, from, o->engine, (void *)(uintptr_t)from_data);
	if (status == dnnl_success)
		status = dnnl_memory_create(&y, to, o->engine, to_data);
	if (status == dnnl_success) {
		const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, x }, { DNNL_ARG_TO, y } };

		status = dnnl_primitive_execute(primitive, o->stream, 2, args);
	}
	dnnl_stream_wait(o->stream);
	if (y)
		dnnl_memory_destroy(y);
	if (x)
		dnnl_memory_destroy(x);
	if (primitive)
		dnnl_primitive_destroy(primitive);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	return status;
}

/* The block's rows are output channels: dimension 1 of a matrix [k, n], dimension 0 of a kernel [n, k, h, w]. */
enum status onednn_pack_rows(
	struct onednn *o, struct weight *w, enum dtype dtype, int64_t first, int64_t count, const void *rows)
{
	const int64_t kernel = w->kernel, area = kernel * kernel;
	desc from, to;
	dnnl_status_t status = dnnl_out_of_memory;

	if (w->kind == WEIGHT_LINEAR) {
		from = desc_new(2, (int64_t[]){ w->k, count }, data_type(dtype), (int64_t[]){ 1, w->k });
		to = desc_part(w->layout, 2, (int64_t[]){ w->k, count }, (int64_t[]){ 0, first });
	} else {
		from = desc_new(4, (int64_t[]){ count, w->k, kernel, kernel }, data_type(dtype),
			(int64_t[]){ w->k * area, area, kernel, 1 });
		to = desc_part(w->layout, 4, (int64_t[]){ count, w->k, kernel, kernel }, (int64_t[]){ first, 0, 0, 0 });
	}
	if (from && to)
		status = reorder(o, from, rows, to, w->data);
	desc_free(from);
	desc_free(to);
	return failed("pack", status);
}

/* ---- the cache of primitives ------------------------------------------------------------------------------------- */

static void product_free(struct product *p)
{
	const dnnl_memory_t memories[] = { p->x, p->w, p->bias, p->y, p->scratch, p->packed };

	for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
		if (memories[i])
			dnnl_memory_destroy(memories[i]);
	if (p->primitive)
		dnnl_primitive_destroy(p->primitive);
	if (p->relayout)
		dnnl_primitive_destroy(p->relayout);
	*p = (struct product){ 0 };
}

/* Replaces *pd, which would run plain loops in the layout that the weight was packed in, by one in another layout, if
 * that is better: narrow pictures want smaller blocks of channels. */
static dnnl_status_t choose_layout(
	struct onednn *o, const struct key *key, const struct weight *w, struct product *p, dnnl_primitive_desc_t *pd)
{
	dnnl_primitive_desc_t other = NULL, relayout = NULL;
	dnnl_status_t status = make_pd(o, key, NULL, &other);

	if (status != dnnl_success || pd_is(other, REFERENCE)) {
		if (other)
			dnnl_primitive_desc_destroy(other);
		return dnnl_success;
	}
	dnnl_primitive_desc_destroy(*pd);
	*pd = other;
	p->w_len = (desc_len(desc_of(other, dnnl_query_weights_md, 0)) + 63) / 64 * 64;
	status = pd_reorder(o->engine, w->layout, desc_of(other, dnnl_query_weights_md, 0), &relayout);
	if (status == dnnl_success)
		status = dnnl_primitive_create(&p->relayout, relayout);
	if (status == dnnl_success)
		status = dnnl_memory_create(&p->packed, w->layout, o->engine, DNNL_MEMORY_NONE);
	if (relayout)
		dnnl_primitive_desc_destroy(relayout);
	return status;
}

static dnnl_status_t product_init(struct onednn *o, const struct key *key, const struct weight *w, struct product *p)
{
	dnnl_primitive_desc_t pd;
	dnnl_status_t status = make_pd(o, key, w, &pd);

	if (status != dnnl_success)
		return status;
	const struct {
		dnnl_memory_t *memory;
		dnnl_query_t what;
		int index;
	} parts[] = {
		{ &p->x, dnnl_query_src_md, 0 },
		{ &p->w, dnnl_query_weights_md, 0 },
		{ &p->y, dnnl_query_dst_md, 0 },
		{ &p->scratch, dnnl_query_scratchpad_md, 0 },
		{ &p->bias, dnnl_query_weights_md, 1 },
	};
	if (pd_is(pd, REFERENCE))
		status = choose_layout(o, key, w, p, &pd);
	if (status == dnnl_success)
		status = dnnl_primitive_create(&p->primitive, pd);
	for (int i = 0; status == dnnl_success && i < (key->bias ? 5 : 4); i++)
		status = dnnl_memory_create(
			parts[i].memory, desc_of(pd, parts[i].what, parts[i].index), o->engine, DNNL_MEMORY_NONE);
	p->scratch_len = desc_len(desc_of(pd, dnnl_query_scratchpad_md, 0));
	p->key = *key;
	dnnl_primitive_desc_destroy(pd);
	if (status != dnnl_success)
		product_free(p);
	return status;
}

/* The product of this key, made if need be in place of the one unused for longest. */
static dnnl_status_t find_product(struct onednn *o, const struct key *key, const struct weight *w, struct product **out)
{
	struct product *oldest = &o->products[0];
	dnnl_status_t status;

	for (int i = 0; i < N_PRODUCTS; i++) {
		struct product *p = &o->products[i];

		if (p->last_use && memcmp(&p->key, key, sizeof *key) == 0) {
			p->last_use = ++o->n_uses;
			*out = p;
			return dnnl_success;
		}
		if (p->last_use < oldest->last_use)
			oldest = p;
	}
	product_free(oldest);
	status = product_init(o, key, w, oldest);
	if (status != dnnl_success)
		return status;
	oldest->last_use = ++o->n_uses;
	*out = oldest;
	return dnnl_success;
}

static enum status grow_scratch(struct onednn *o, struct kernels *k, size_t len)
{
	if (len <= o->scratch_len)
		return STATUS_OK;
	memory_unmap(k, o->scratch, o->scratch_len);
	kernels_hold(k, 0, o->scratch_len);
	o->scratch = NULL;
	o->scratch_len = 0;
	TRY(memory_map(k, len, &o->scratch));
	o->scratch_len = len;
	kernels_hold(k, len, 0);
	return STATUS_OK;
}

/* The weights in the primitive's own layout, at the start of scratch. */
static dnnl_status_t relayout(struct onednn *o, struct product *p, void *w)
{
	const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, p->packed }, { DNNL_ARG_TO, p->w } };
	dnnl_status_t status = dnnl_memory_set_data_handle(p->packed, w);

	if (status == dnnl_success)
		status = dnnl_memory_set_data_handle(p->w, o->scratch);
	if (status == dnnl_success)
		status = dnnl_primitive_execute(p->relayout, o->stream, 2, args);
	return status;
}

static dnnl_status_t execute(struct onednn *o, struct product *p, void *x, void *w, void *bias, void *y)
{
	const dnnl_exec_arg_t args[] = {
		{ DNNL_ARG_SRC, p->x },
		{ DNNL_ARG_WEIGHTS, p->w },
		{ DNNL_ARG_DST, p->y },
		{ DNNL_ARG_SCRATCHPAD, p->scratch },
		{ DNNL_ARG_BIAS, p->bias },
	};
	void *const data[] = { x, p->relayout ? o->scratch : w, y, (char *)o->scratch + p->w_len, bias };
	const int n = bias ? 5 : 4;
	dnnl_status_t status = p->relayout ? relayout(o, p, w) : dnnl_success;

	for (int i = 0; status == dnnl_success && i < n; i++)
		status = dnnl_memory_set_data_handle(args[i].memory, data[i]);
	if (status == dnnl_success)
		status = dnnl_primitive_execute(p->primitive, o->stream, n, args);
	if (status == dnnl_success)
		status = dnnl_stream_wait(o->stream);
	return status;
}

static enum status run(struct onednn *o, struct kernels *k, const char *op, const struct key *key,
	const struct weight *w, void *x, const struct weight *bias, void *y)
{
	struct product *p = NULL;

	TRY(failed(op, find_product(o, key, w, &p)));
	TRY(grow_scratch(o, k, p->w_len + p->scratch_len));
	return failed(op, execute(o, p, x, w->data, bias ? bias->data : NULL, y));
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

enum status onednn_linear(struct onednn *o, struct kernels *k, const struct linear *op)
{
	const int64_t m = op->x.dim[0];
	const struct key key = {
		.kind = WEIGHT_LINEAR,
		.n = op->w->n,
		.k = op->w->k,
		.kernel = 1,
		.rows = m,
		.x_stride = m > 1 ? op->x.stride[0] : op->w->k, /* the stride of one row says nothing */
		.y_stride = m > 1 ? op->y.stride[0] : op->w->n,
		.y_dtype = op->y.dtype,
		.bias = op->bias != NULL,
		.activation = op->activation,
		.accumulate = op->accumulate,
	};
	return run(o, k, "linear", &key, op->w, op->x.data, op->bias, op->y.data);
}

enum status onednn_conv(struct onednn *o, struct kernels *k, const struct conv *op, int halo)
{
	const struct key key = {
		.kind = WEIGHT_CONV,
		.n = op->w->n,
		.k = op->w->k,
		.kernel = op->w->kernel,
		.rows = op->y.dim[0],
		.columns = op->y.dim[1],
		.halo = halo,
		.stride = op->stride == 2 ? 2 : 1,
		.x_rows = op->x.dim[0],
		.x_columns = op->x.dim[1],
		.y_dtype = op->y.dtype,
		.bias = op->bias != NULL,
		.accumulate = op->accumulate,
	};
	return run(o, k, "conv", &key, op->w, op->x.data, op->bias, op->y.data);
}

enum status onednn_open(struct kernels *k, struct onednn **out)
{
	struct onednn *o = calloc(1, sizeof *o);
	dnnl_status_t status;

	if (!o)
		return status_fail(STATUS_NO_MEMORY, "no memory for oneDNN");
	o->operand = data_type(k->dtype);
	status = dnnl_engine_create(&o->engine, dnnl_cpu, 0);
	if (status == dnnl_success)
		status = dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags);
	if (status != dnnl_success)
		onednn_close(k, o);
	else
		*out = o;
	return failed("open", status);
}

void onednn_close(struct kernels *k, struct onednn *o)
{
	if (!o)
		return;
	for (int i = 0; i < N_PRODUCTS; i++)
		product_free(&o->products[i]);
	memory_unmap(k, o->scratch, o->scratch_len);
	if (o->stream)
		dnnl_stream_destroy(o->stream);
	if (o->engine)
		dnnl_engine_destroy(o->engine);
	free(o);
}

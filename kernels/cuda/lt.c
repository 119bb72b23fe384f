/* lt: matrix products by cuBLASLt.
 *
 * cuBLASLt counts by columns: y [m, n] by rows is D [n, m] by columns, x is B [k, m], and w, transposed, A [k, n].  So
 * the bias runs along D's rows, as its epilogue wants.  What the epilogues cannot do is left to cuda_epilogue; see
 * plan().
 *
 * A product of one shape always takes the same algorithm: the fastest of those that cuBLASLt proposes, measured at the
 * first use on this kind of device and remembered (tuning.c).
 */
#include "kernels/cuda/cuda.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1024, NEIGHBOURS = 16, PROPOSALS = 8, RUNS = 4 };

static const size_t WORKSPACE_LEN = (size_t)32 << 20;
/* Below this many operations a product takes as long as its launch, whatever the algorithm. */
static const double MEASURED_FROM = 1e7;

/* Everything that an algorithm depends on.  Compared by its bytes: no field is padding. */
struct key {
	int64_t m, n, k, x_stride, y_stride;
	int32_t in, out, epilogue, accumulate, scaled;
	int32_t align_x, align_w, align_y, align_bias, zero;
};

struct product {
	struct key key;
	cublasLtMatmulDesc_t how;
	cublasLtMatrixLayout_t w, x, y;
	cublasLtMatmulAlgo_t algo;
	bool possible;
};

struct lt {
	cublasLtHandle_t handle;
	struct product *slot[SLOTS];
};

static enum status lt_result(const struct cuda *c, cublasStatus_t status, const char *operation)
{
	if (status == CUBLAS_STATUS_SUCCESS)
		return STATUS_OK;
	return status_fail(status == CUBLAS_STATUS_ALLOC_FAILED ? STATUS_NO_MEMORY : STATUS_DEVICE,
		"%s: %s: %s (cuBLASLt)", c->k->device, operation, cublasLtGetStatusString(status));
}

enum status lt_open(struct cuda *c, struct lt **out)
{
	struct lt *lt = calloc(1, sizeof *lt);
	enum status status;

	if (!lt)
		return status_fail(STATUS_NO_MEMORY, "no memory for cuBLASLt");
	status = lt_result(c, cublasLtCreate(&lt->handle), "starting");
	if (status != STATUS_OK)
		free(lt);
	else
		*out = lt;
	return status;
}

static void free_product(struct product *p)
{
	if (!p)
		return;
	if (p->how)
		cublasLtMatmulDescDestroy(p->how);
	if (p->w)
		cublasLtMatrixLayoutDestroy(p->w);
	if (p->x)
		cublasLtMatrixLayoutDestroy(p->x);
	if (p->y)
		cublasLtMatrixLayoutDestroy(p->y);
	free(p);
}

void lt_close(struct lt *lt)
{
	if (!lt)
		return;
	for (int i = 0; i < SLOTS; i++)
		free_product(lt->slot[i]);
	cublasLtDestroy(lt->handle);
	free(lt);
}

/* ---- describing -------------------------------------------------------------------------------------------------- */

/* One product as cuBLASLt sees it. */
struct call {
	const void *x, *w, *bias;
	const float *x_scale, *w_scale; /* of each row, where the library multiplies by them */
	void *y;
	struct key key;
};

static int32_t alignment(const void *p)
{
	const uintptr_t low = (uintptr_t)p & -(uintptr_t)p;

	return p && low < 256 ? (int32_t)low : 256;
}

static cudaDataType_t type_of(enum dtype dtype)
{
	switch (dtype) {
	case DTYPE_BF16:
		return CUDA_R_16BF;
	case DTYPE_I8:
		return CUDA_R_8I;
	case DTYPE_F8_E4M3:
		return CUDA_R_8F_E4M3;
	default:
		return CUDA_R_32F;
	}
}

/* From one row to the next; of a single row the tensor may say anything. */
static int64_t row_stride(const struct tensor *t)
{
	return t->dim[0] > 1 ? t->stride[0] : t->dim[1];
}

static cublasStatus_t set(cublasLtMatmulDesc_t how, cublasLtMatmulDescAttributes_t what, const void *value, size_t size)
{
	return cublasLtMatmulDescSetAttribute(how, what, value, size);
}

static enum status describe(const struct cuda *c, const struct key *key, struct product *p)
{
	const int32_t transposed = CUBLAS_OP_T, by_row = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
	const uint32_t epilogue = (uint32_t)key->epilogue;
	const bool codes = key->in == CUDA_R_8I;
	cublasStatus_t s = cublasLtMatmulDescCreate(
		&p->how, codes ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, codes ? CUDA_R_32I : CUDA_R_32F);

	if (!s && key->scaled)
		s = set(p->how, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &by_row, sizeof by_row);
	if (!s && key->scaled)
		s = set(p->how, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &by_row, sizeof by_row);
	if (!s)
		s = set(p->how, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
	if (!s)
		s = set(p->how, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
	if (!s)
		s = cublasLtMatrixLayoutCreate(
			&p->w, (cudaDataType_t)key->in, (uint64_t)key->k, (uint64_t)key->n, key->k);
	if (!s)
		s = cublasLtMatrixLayoutCreate(
			&p->x, (cudaDataType_t)key->in, (uint64_t)key->k, (uint64_t)key->m, key->x_stride);
	if (!s)
		s = cublasLtMatrixLayoutCreate(
			&p->y, (cudaDataType_t)key->out, (uint64_t)key->n, (uint64_t)key->m, key->y_stride);
	return lt_result(c, s, "describing a matrix product");
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t preference, const struct key *key)
{
	const struct {
		cublasLtMatmulPreferenceAttributes_t what;
		uint32_t value;
	} alignments[] = {
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)key->align_w },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)key->align_x },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)key->align_y },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key->align_y },
	};
	cublasStatus_t s = cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_LEN, sizeof WORKSPACE_LEN);

	for (size_t i = 0; i < sizeof alignments / sizeof *alignments && !s; i++)
		s = cublasLtMatmulPreferenceSetAttribute(
			preference, alignments[i].what, &alignments[i].value, sizeof alignments[i].value);
	return s;
}

/* What cuBLASLt proposes, its favourite first; none is no error. */
static int propose(const struct lt *lt, const struct product *p, cublasLtMatmulHeuristicResult_t *out)
{
	cublasLtMatmulPreference_t preference;
	int found = 0, usable = 0;

	if (cublasLtMatmulPreferenceCreate(&preference))
		return 0;
	if (prefer(preference, &p->key) || cublasLtMatmulAlgoGetHeuristic(lt->handle, p->how, p->w, p->x, p->y, p->y,
						   preference, PROPOSALS, out, &found))
		found = 0;
	cublasLtMatmulPreferenceDestroy(preference);
	for (int i = 0; i < found; i++)
		if (out[i].state == CUBLAS_STATUS_SUCCESS && out[i].workspaceSize <= WORKSPACE_LEN)
			out[usable++] = out[i];
	return usable;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* The addresses that a description holds. */
static enum status bind(struct cuda *c, struct product *p, const struct call *call)
{
	cublasStatus_t s = CUBLAS_STATUS_SUCCESS;

	if (call->bias)
		s = set(p->how, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &call->bias, sizeof call->bias);
	if (!s && p->key.scaled)
		s = set(p->how, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &call->w_scale, sizeof call->w_scale);
	if (!s && p->key.scaled)
		s = set(p->how, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &call->x_scale, sizeof call->x_scale);
	return lt_result(c, s, "describing a matrix product");
}

static enum status run(struct cuda *c, struct product *p, const struct call *call, void *y)
{
	const float one = 1, beta = p->key.accumulate ? 1 : 0;
	const int32_t whole_one = 1, whole_zero = 0;
	const bool codes = p->key.in == CUDA_R_8I;
	void *workspace;

	TRY(cuda_scratch(c, SCRATCH_WORKSPACE, WORKSPACE_LEN, &workspace));
	TRY(bind(c, p, call));
	return lt_result(c,
		cublasLtMatmul(c->lt->handle, p->how, codes ? (const void *)&whole_one : &one, call->w, p->w, call->x,
			p->x, codes ? (const void *)&whole_zero : &beta, call->y, p->y, y, p->y, &p->algo, workspace,
			WORKSPACE_LEN, c->stream),
		"a matrix product");
}

/* Milliseconds of RUNS products, or a negative number where the algorithm does not run. */
static float measure(struct cuda *c, struct product *p, const struct call *call, void *y, cudaEvent_t event[2])
{
	float taken = -1;

	if (run(c, p, call, y) != STATUS_OK || cudaEventRecord(event[0], c->stream))
		return -1;
	for (int i = 0; i < RUNS; i++)
		if (run(c, p, call, y) != STATUS_OK)
			return -1;
	if (cudaEventRecord(event[1], c->stream) || cudaEventSynchronize(event[1]) ||
		cudaEventElapsedTime(&taken, event[0], event[1]))
		return -1;
	return taken;
}

/* Puts the fastest proposal into p->algo.  Without events, or where nothing could be measured, it is the first. */
static void choose(struct cuda *c, struct product *p, const struct call *call,
	const cublasLtMatmulHeuristicResult_t *of, int n, void *y)
{
	cudaEvent_t event[2] = { NULL, NULL };
	float best = -1;
	int winner = 0;

	if (!cudaEventCreate(&event[0]) && !cudaEventCreate(&event[1]))
		for (int i = 0; i < n; i++) {
			float taken;

			p->algo = of[i].algo;
			taken = measure(c, p, call, y, event);
			if (taken >= 0 && (best < 0 || taken < best)) {
				best = taken;
				winner = i;
			}
		}
	p->algo = of[winner].algo;
	for (int i = 0; i < 2; i++)
		if (event[i])
			cudaEventDestroy(event[i]);
}

/* A sum into y is measured into other memory. */
static void choose_aside(
	struct cuda *c, struct product *p, const struct call *call, const cublasLtMatmulHeuristicResult_t *of, int n)
{
	const size_t len = (size_t)(p->key.m * p->key.y_stride) * (p->key.out == CUDA_R_16BF ? 2 : 4);
	void *y = call->y;

	if (p->key.accumulate && cuda_map(c->k, len, &y) != STATUS_OK) {
		p->algo = of[0].algo;
		return;
	}
	choose(c, p, call, of, n, y);
	if (p->key.accumulate)
		cuda_unmap(c->k, y, len);
}

static bool remembered(struct cuda *c, struct product *p)
{
	cublasLtMatmulHeuristicResult_t result;

	return tuning_find(c->tuning, &p->key, sizeof p->key, &p->algo, sizeof p->algo) &&
	       !cublasLtMatmulAlgoCheck(c->lt->handle, p->how, p->w, p->x, p->y, p->y, &p->algo, &result) &&
	       result.workspaceSize <= WORKSPACE_LEN;
}

static void pick_algorithm(struct cuda *c, struct product *p, const struct call *call)
{
	cublasLtMatmulHeuristicResult_t proposals[PROPOSALS];
	const bool large = 2.0 * (double)p->key.m * (double)p->key.n * (double)p->key.k >= MEASURED_FROM;
	int n;

	p->possible = large && remembered(c, p);
	if (p->possible)
		return;
	n = propose(c->lt, p, proposals);
	p->possible = n > 0;
	if (n < 1)
		return;
	p->algo = proposals[0].algo;
	if (!large || n == 1)
		return;
	choose_aside(c, p, call, proposals, n);
	tuning_keep(c->tuning, &p->key, sizeof p->key, &p->algo, sizeof p->algo);
}

/* Where the product of this shape is, or goes: a shape whose neighbours are all taken replaces the first. */
static struct product **find_slot(struct lt *lt, const struct key *key)
{
	const uint64_t first = cuda_hash(key, sizeof *key);

	for (uint64_t i = 0; i < NEIGHBOURS; i++) {
		struct product **slot = &lt->slot[(first + i) % SLOTS];

		if (!*slot || memcmp(&(*slot)->key, key, sizeof *key) == 0)
			return slot;
	}
	return &lt->slot[first % SLOTS];
}

static enum status find_product(struct cuda *c, const struct call *call, struct product **out)
{
	struct product **slot = find_slot(c->lt, &call->key), *p = *slot;
	enum status status;

	if (!p || memcmp(&p->key, &call->key, sizeof p->key) != 0) {
		TRY(cuda_not_recorded(c, "measuring a matrix product"));
		p = calloc(1, sizeof *p);
		if (!p)
			return status_fail(STATUS_NO_MEMORY, "no memory for a matrix product");
		p->key = call->key;
		status = describe(c, &call->key, p);
		if (status == STATUS_OK)
			status = bind(c, p, call);
		if (status != STATUS_OK) {
			free_product(p);
			return status;
		}
		pick_algorithm(c, p, call);
		free_product(*slot);
		*slot = p;
	}
	*out = p;
	return STATUS_OK;
}

static enum status multiply_as(struct cuda *c, struct call *call, bool *done)
{
	struct product *p = NULL;

	call->key.align_x = alignment(call->x);
	call->key.align_w = alignment(call->w);
	call->key.align_y = alignment(call->y);
	call->key.align_bias = alignment(call->bias);
	TRY(find_product(c, call, &p));
	*done = p->possible;
	return p->possible ? run(c, p, call, call->y) : STATUS_OK;
}

/* y = x w^T (+ bias) (+ y), with the epilogue given; *done is false where cuBLASLt has nothing for it. */
static enum status multiply(struct cuda *c, const struct linear *op, cublasLtEpilogue_t epilogue, const void *bias,
	const struct tensor *y, bool accumulate, bool *done)
{
	struct call call = { .x = op->x.data, .w = op->w->data, .bias = bias, .y = y->data };

	call.key = (struct key){ .m = op->x.dim[0],
		.n = op->w->n,
		.k = op->w->k,
		.x_stride = row_stride(&op->x),
		.y_stride = row_stride(y),
		.in = (int32_t)type_of(op->x.dtype),
		.out = (int32_t)type_of(y->dtype),
		.epilogue = (int32_t)epilogue,
		.accumulate = accumulate };
	return multiply_as(c, &call, done);
}

/* ---- weights in 8 bits ------------------------------------------------------------------------------------------- */

/* x by rows as codes, and what is where in scratch. */
struct codes {
	enum quantized kind;
	const void *x, *w;
	const float *x_scale, *w_scale;
	void *sums;
};

static size_t round_up(size_t len)
{
	return (len + 255) / 256 * 256;
}

static enum status make_codes(struct cuda *c, const struct linear *op, struct codes *out)
{
	const size_t x_len = round_up((size_t)tensor_count(&op->x));
	const size_t scale_len = round_up((size_t)op->x.dim[0] * sizeof(float));
	char *data;
	void *scratch;

	TRY(cuda_scratch(c, SCRATCH_CODES, x_len + scale_len + (size_t)tensor_count(&op->y) * sizeof(float), &scratch));
	data = scratch;
	*out = (struct codes){ .kind = op->w->dtype == DTYPE_I8 ? QUANTIZED_I8 : QUANTIZED_E4M3,
		.x = data,
		.w = op->w->data,
		.x_scale = (const float *)(void *)(data + x_len),
		.w_scale = lt_scales(op->w),
		.sums = data + x_len + scale_len };
	return cuda_result(c, cuda_quantize_rows(c->stream, out->kind, &op->x, data, (float *)(void *)(data + x_len)),
		"bringing rows to 8 bits");
}

float *lt_scales(const struct weight *w)
{
	return (float *)(void *)((char *)w->data + round_up((size_t)(w->n * w->k)));
}

size_t lt_codes_len(const struct weight *w)
{
	return round_up((size_t)(w->n * w->k)) + (size_t)w->n * sizeof(float);
}

static struct call call_of(const struct linear *op, const struct codes *codes)
{
	return (struct call){ .x = codes->x,
		.w = codes->w,
		.y = codes->sums,
		.x_scale = codes->x_scale,
		.w_scale = codes->w_scale,
		.key = { .m = op->x.dim[0],
			.n = op->w->n,
			.k = op->w->k,
			.x_stride = op->w->k,
			.y_stride = op->w->n,
			.in = (int32_t)type_of(op->w->dtype),
			.out = op->w->dtype == DTYPE_I8 ? CUDA_R_32I : CUDA_R_32F,
			.epilogue = CUBLASLT_EPILOGUE_DEFAULT } };
}

/* Hopper's products of e4m3 multiply by the scales of rows themselves; where nothing is left to do then, y is made at
 * once. */
static enum status multiply_scaled(struct cuda *c, const struct linear *op, const struct codes *codes, bool *done)
{
	struct call call = call_of(op, codes);

	*done = false;
	if (codes->kind != QUANTIZED_E4M3 || c->sm != 90 || op->bias || op->activation != ACTIVATION_NONE)
		return STATUS_OK;
	call.y = op->y.data;
	call.key.y_stride = row_stride(&op->y);
	call.key.out = (int32_t)type_of(op->y.dtype);
	call.key.accumulate = op->accumulate;
	call.key.scaled = true;
	return multiply_as(c, &call, done);
}

static enum status linear_codes(struct cuda *c, const struct linear *op)
{
	struct codes codes;
	struct call call;
	bool done;

	TRY(make_codes(c, op, &codes));
	TRY(multiply_scaled(c, op, &codes, &done));
	if (done)
		return STATUS_OK;
	call = call_of(op, &codes);
	TRY(multiply_as(c, &call, &done));
	if (!done)
		TRY(cuda_result(c,
			cuda_multiply_codes(
				c->stream, codes.kind, codes.x, codes.w, op->x.dim[0], op->w->n, op->w->k, codes.sums),
			"a matrix product"));
	return cuda_result(c,
		cuda_scale_sums(c->stream, op->activation, codes.kind, codes.sums, codes.x_scale, codes.w_scale,
			op->bias ? op->bias->data : NULL, op->accumulate, &op->y),
		"scaling a matrix product");
}

/* ---- an operation ------------------------------------------------------------------------------------------------ */

/* Whether bf16 holds every value of a table; it waits for the device, once for each table. */
static enum status is_narrow(struct cuda *c, const struct tensor *table, bool *out)
{
	const size_t n = (size_t)tensor_count(table);
	float *values = malloc(n * sizeof *values);
	enum status status;

	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for a bias");
	status = cuda_copy_out(c->k, values, table->data, n * sizeof *values);
	*out = status == STATUS_OK;
	for (size_t i = 0; i < n && *out; i++)
		*out = bf16_to_f32(bf16_from_f32(values[i])) == values[i];
	free(values);
	return status;
}

/* cuBLASLt adds a bias of the result's own dtype: for results in bf16 a copy of it, made once, where that is exact, as
 * it is of weights in bf16; else *out is NULL.  The table's layout is the copy, or the table itself: there can be none.
 */
static enum status narrow_bias(struct cuda *c, const struct weight *bias, const void **out)
{
	struct weight *owner = (struct weight *)(uintptr_t)bias; /* the copy is the backend's part of it */
	const struct tensor from = tensor_view(bias->data, DTYPE_F32, 1, (int64_t[]){ tensor_count(&bias->table) });
	struct tensor to;
	void *data;
	bool narrow = false;

	if (!owner->layout) {
		TRY(is_narrow(c, &from, &narrow));
		if (narrow) {
			TRY(cuda_map(c->k, (size_t)from.dim[0] * 2, &data));
			to = tensor_view(data, DTYPE_BF16, 1, from.dim);
			owner->layout = data;
			TRY(cuda_result(c, cuda_convert(c->stream, &from, &to), "converting a bias"));
		} else {
			owner->layout = owner->data;
		}
	}
	*out = owner->layout == owner->data ? NULL : owner->layout;
	return STATUS_OK;
}

/* What the library does of an operation, and what is left for cuda_epilogue. */
struct plan {
	cublasLtEpilogue_t epilogue;
	const void *bias; /* what the library adds */
	bool rest;        /* the product goes to scratch, in f32, and cuda_epilogue does bias and activation */
};

/* cuBLASLt's GELU is the one with tanh, and good to bf16 only. */
static enum status plan(struct cuda *c, const struct linear *op, struct plan *out)
{
	const bool gelu = op->activation == ACTIVATION_GELU_TANH && c->k->dtype == DTYPE_BF16 && !op->accumulate;

	*out = (struct plan){ .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
	out->rest = op->activation != ACTIVATION_NONE && !gelu;
	if (out->rest)
		return STATUS_OK;
	if (op->bias && op->y.dtype == DTYPE_BF16)
		TRY(narrow_bias(c, op->bias, &out->bias));
	else if (op->bias)
		out->bias = op->bias->data;
	out->rest = op->bias && !out->bias;
	if (gelu)
		out->epilogue = out->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
	else if (out->bias)
		out->epilogue = CUBLASLT_EPILOGUE_BIAS;
	if (out->rest)
		out->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
	return STATUS_OK;
}

enum status lt_linear(struct cuda *c, const struct linear *op)
{
	struct tensor y = op->y;
	struct plan p;
	bool done;
	void *data;

	if (op->w->dtype != c->k->dtype)
		return linear_codes(c, op);
	TRY(plan(c, op, &p));
	if (p.rest) {
		TRY(cuda_scratch(c, SCRATCH_RESULT, (size_t)tensor_count(&op->y) * sizeof(float), &data));
		y = tensor_view(data, DTYPE_F32, 2, op->y.dim);
	}
	TRY(multiply(c, op, p.epilogue, p.bias, &y, op->accumulate && !p.rest, &done));
	if (!done)
		return cuda_result(c, cuda_linear(c->stream, op), "a matrix product");
	if (!p.rest)
		return STATUS_OK;
	return cuda_result(c,
		cuda_epilogue(c->stream, op->activation, &y, op->bias ? op->bias->data : NULL, op->accumulate, &op->y),
		"an activation");
}

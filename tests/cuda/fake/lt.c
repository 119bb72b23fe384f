/* lt: as much of cuBLASLt as kernels/cuda/lt.c asks for: products by columns, as its descriptors say them, with the
 * rules that the library's documentation has for them.
 */
#include <cublasLt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fp8.h"
#include "kernels/kernels.h"
#include "tests/cuda/fake/fake.h"

struct how {
	cublasComputeType_t compute;
	int32_t transposed, a_mode, b_mode;
	uint32_t epilogue;
	const void *bias;
	const float *a_scale, *b_scale;
};

struct layout {
	cudaDataType_t type;
	uint64_t rows, columns;
	int64_t stride;
};

struct preference {
	uint32_t align[4]; /* A, B, C, D */
	size_t workspace;
};

/* What an algorithm promised to be called with. */
struct algo {
	uint32_t align[4];
	int64_t k;
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
	*out = (cublasLtHandle_t)malloc(1);
	return *out ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
	free(handle);
	return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
	return 1;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
	return status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : "another status";
}

/* ---- descriptors */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale)
{
	struct how *how = calloc(1, sizeof *how);

	how->compute = compute;
	how->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
	*out = (cublasLtMatmulDesc_t)how;
	return (compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F) ||
			       (compute == CUBLAS_COMPUTE_32I && scale == CUDA_R_32I)
		       ? CUBLAS_STATUS_SUCCESS
		       : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t how)
{
	free(how);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(
	cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what, const void *value, size_t size)
{
	struct how *how = (struct how *)desc;
	const struct {
		cublasLtMatmulDescAttributes_t what;
		void *at;
		size_t size;
	} known[] = { { CUBLASLT_MATMUL_DESC_TRANSA, &how->transposed, sizeof how->transposed },
		{ CUBLASLT_MATMUL_DESC_EPILOGUE, &how->epilogue, sizeof how->epilogue },
		{ CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &how->a_mode, sizeof how->a_mode },
		{ CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &how->b_mode, sizeof how->b_mode },
		{ CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &how->a_scale, sizeof how->a_scale },
		{ CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &how->b_scale, sizeof how->b_scale },
		{ CUBLASLT_MATMUL_DESC_BIAS_POINTER, &how->bias, sizeof how->bias } };

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].what == what && known[i].size == size) {
			memcpy(known[i].at, value, size);
			return CUBLAS_STATUS_SUCCESS;
		}
	return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(
	cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t columns, int64_t stride)
{
	struct layout *layout = malloc(sizeof *layout);

	*layout = (struct layout){ type, rows, columns, stride };
	*out = (cublasLtMatrixLayout_t)layout;
	return stride >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
	free(layout);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
	*out = (cublasLtMatmulPreference_t)calloc(1, sizeof(struct preference));
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
	free(preference);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
	cublasLtMatmulPreferenceAttributes_t what, const void *value, size_t size)
{
	static const cublasLtMatmulPreferenceAttributes_t aligns[] = { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES };
	struct preference *p = (struct preference *)preference;

	if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && size == sizeof p->workspace) {
		memcpy(&p->workspace, value, size);
		return CUBLAS_STATUS_SUCCESS;
	}
	for (int i = 0; i < 4; i++)
		if (aligns[i] == what && size == sizeof p->align[i]) {
			memcpy(&p->align[i], value, size);
			return CUBLAS_STATUS_SUCCESS;
		}
	return CUBLAS_STATUS_INVALID_VALUE;
}

/* ---- products */

static size_t size_of(cudaDataType_t type)
{
	return type == CUDA_R_16BF ? 2 : 4;
}

static float value(const void *data, cudaDataType_t type, int64_t i)
{
	switch (type) {
	case CUDA_R_16BF:
		return bf16_to_f32(((const uint16_t *)data)[i]);
	case CUDA_R_8I:
		return ((const int8_t *)data)[i];
	case CUDA_R_8F_E4M3:
		return e4m3_to_f32(((const uint8_t *)data)[i]);
	default:
		return ((const float *)data)[i];
	}
}

static void put(void *data, cudaDataType_t type, int64_t i, double x)
{
	if (type == CUDA_R_16BF)
		((uint16_t *)data)[i] = bf16_from_f32((float)x);
	else if (type == CUDA_R_32I)
		((int32_t *)data)[i] = (int32_t)x;
	else
		((float *)data)[i] = (float)x;
}

/* Types that go together; of 8 bits only matrices whose rows are whole 16 bytes. */
static bool fit(const struct how *how, const struct layout *a, const struct layout *d)
{
	switch (a->type) {
	case CUDA_R_16BF:
		return how->compute == CUBLAS_COMPUTE_32F && (d->type == CUDA_R_16BF || d->type == CUDA_R_32F);
	case CUDA_R_32F:
		return how->compute == CUBLAS_COMPUTE_32F && d->type == CUDA_R_32F;
	case CUDA_R_8I:
		return how->compute == CUBLAS_COMPUTE_32I && d->type == CUDA_R_32I && a->rows % 4 == 0 &&
		       d->rows % 4 == 0;
	default:
		return how->compute == CUBLAS_COMPUTE_32F && a->rows % 16 == 0 && d->rows % 16 == 0;
	}
}

static cublasStatus_t check(const struct how *how, const struct layout *a, const struct layout *b,
	const struct layout *c, const struct layout *d)
{
	const bool shapes = how->transposed == CUBLAS_OP_T && a->rows == b->rows && d->rows == a->columns &&
			    d->columns == b->columns && c->rows == d->rows && c->columns == d->columns;

	if (!shapes || a->type != b->type || c->type != d->type)
		return CUBLAS_STATUS_INVALID_VALUE;
	return fit(how, a, d) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
	cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
	cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t *out, int *found)
{
	const struct preference *p = (const struct preference *)preference;
	cublasStatus_t status = check((const struct how *)how, (const struct layout *)a, (const struct layout *)b,
		(const struct layout *)c, (const struct layout *)d);
	struct algo algo = { .k = (int64_t)((const struct layout *)a)->rows };

	*found = 0;
	if (status)
		return status;
	memcpy(algo.align, p->align, sizeof algo.align);
	for (int i = 0; i < 2 && i < wanted; i++) {
		memset(&out[i], 0, sizeof out[i]);
		memcpy(&out[i].algo, &algo, sizeof algo);
		out[i].workspaceSize = p->workspace;
		*found = i + 1;
	}
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t how, cublasLtMatrixLayout_t a,
	cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
	cublasLtMatmulHeuristicResult_t *out)
{
	memset(out, 0, sizeof *out);
	return check((const struct how *)how, (const struct layout *)a, (const struct layout *)b,
		(const struct layout *)c, (const struct layout *)d);
}

static float gelu_tanh(float x)
{
	return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

static bool aligned(const void *data, uint32_t to)
{
	return to && (uintptr_t)data % to == 0;
}

/* A product with all that it was called with, but for the matrices' values. */
struct call {
	struct how how;
	struct layout a_layout, b_layout, d_layout;
	const void *a, *b, *c;
	void *d, *workspace;
	size_t workspace_size;
	double scale, keep;
};

/* One element of D, by columns. */
static double element(const struct call *p, int64_t i, int64_t j)
{
	const struct layout *la = &p->a_layout, *lb = &p->b_layout, *ld = &p->d_layout;
	const bool by_row =
		p->how.a_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F && p->how.b_mode == p->how.a_mode;
	double sum = 0;

	for (int64_t k = 0; k < (int64_t)la->rows; k++)
		sum += (double)value(p->a, la->type, i * la->stride + k) *
		       (double)value(p->b, lb->type, j * lb->stride + k);
	if (by_row)
		sum *= (double)p->how.a_scale[i] * (double)p->how.b_scale[j];
	sum = p->scale * sum + (p->keep != 0 ? p->keep * (double)value(p->c, ld->type, j * ld->stride + i) : 0);
	if (p->how.epilogue & CUBLASLT_EPILOGUE_BIAS)
		sum += (double)value(p->how.bias, ld->type, i);
	return p->how.epilogue & CUBLASLT_EPILOGUE_GELU ? (double)gelu_tanh((float)sum) : sum;
}

static void run_call(const void *data)
{
	const struct call *p = data;

	memset(p->workspace, 0xee, p->workspace_size);
	for (int64_t j = 0; j < (int64_t)p->d_layout.columns; j++)
		for (int64_t i = 0; i < (int64_t)p->d_layout.rows; i++)
			put(p->d, p->d_layout.type, j * p->d_layout.stride + i, element(p, i, j));
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
	cublasLtMatrixLayout_t a_desc, const void *b, cublasLtMatrixLayout_t b_desc, const void *beta, const void *c,
	cublasLtMatrixLayout_t c_desc, void *d, cublasLtMatrixLayout_t d_desc, const cublasLtMatmulAlgo_t *chosen,
	void *workspace, size_t workspace_size, cudaStream_t stream)
{
	struct call p = { .how = *(const struct how *)desc,
		.a_layout = *(const struct layout *)a_desc,
		.b_layout = *(const struct layout *)b_desc,
		.d_layout = *(const struct layout *)d_desc,
		.a = a,
		.b = b,
		.c = c,
		.d = d,
		.workspace = workspace,
		.workspace_size = workspace_size };
	const bool whole = p.how.compute == CUBLAS_COMPUTE_32I, bias = p.how.epilogue & CUBLASLT_EPILOGUE_BIAS;
	cublasStatus_t status = check(&p.how, &p.a_layout, &p.b_layout, (const struct layout *)c_desc, &p.d_layout);
	struct algo algo;

	p.scale = whole ? *(const int32_t *)alpha : (double)*(const float *)alpha;
	p.keep = whole ? *(const int32_t *)beta : (double)*(const float *)beta;
	memcpy(&algo, chosen, sizeof algo);
	if (status)
		return status;
	if (algo.k != (int64_t)p.a_layout.rows || !aligned(a, algo.align[0]) || !aligned(b, algo.align[1]) ||
		!aligned(c, algo.align[2]) || (bias && !aligned(p.how.bias, (uint32_t)size_of(p.d_layout.type))))
		return CUBLAS_STATUS_INVALID_VALUE;
	fake_enqueue(run_call, &p, sizeof p);
	return CUBLAS_STATUS_SUCCESS;
}

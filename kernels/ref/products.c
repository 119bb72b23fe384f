/* products of the reference backend: linear, conv, attention.  Weights stay [rows, row_len] as they came; in 8 bits
 * they are the codes of all rows, then the scales. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t row_len(const struct weight *w)
{
	return w->k * w->kernel * w->kernel;
}

enum status ref_pack_begin(struct kernels *k, struct weight *w)
{
	const size_t scales = w->dtype == DTYPE_I8 ? (size_t)w->n * sizeof(float) : 0;
	const size_t len = (size_t)(w->n * row_len(w)) * dtype_size(w->dtype) + scales;

	TRY(memory_map(k, len, &w->data));
	w->len = len;
	return STATUS_OK;
}

/* The scale of row i; not aligned. */
static char *scale_at(const struct weight *w, int64_t i)
{
	return (char *)w->data + w->n * w->k + i * (int64_t)sizeof(float);
}

static enum status pack_codes(struct kernels *k, struct weight *w, int64_t first, int64_t count, const char *rows)
{
	const int64_t row_size = w->k * (int64_t)dtype_size(k->dtype);
	float *row = malloc((size_t)w->k * sizeof *row);

	if (!row)
		return status_fail(STATUS_NO_MEMORY, "no memory for a row of %lld values", (long long)w->k);
	for (int64_t i = 0; i < count; i++) {
		float scale;

		tensor_convert(rows + i * row_size, k->dtype, row, DTYPE_F32, w->k);
		scale = tensor_quantise(row, w->k, (int8_t *)w->data + (first + i) * w->k);
		memcpy(scale_at(w, first + i), &scale, sizeof scale);
	}
	free(row);
	return STATUS_OK;
}

enum status ref_pack_rows(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows)
{
	const int64_t row_size = row_len(w) * (int64_t)dtype_size(k->dtype);

	if (w->dtype == DTYPE_I8)
		return pack_codes(k, w, first, count, rows);
	memcpy((char *)w->data + first * row_size, rows, (size_t)(count * row_size));
	return STATUS_OK;
}

void ref_pack_free(struct kernels *k, struct weight *w)
{
}

/* The packed weight as a matrix [n, row_len]. */
static struct tensor weight_matrix(struct kernels *k, const struct weight *w)
{
	return tensor_view(w->data, k->dtype, 2, (int64_t[]){ w->n, row_len(w) });
}

static double table_value(const struct weight *table, int64_t i, double otherwise)
{
	return table ? ((const float *)table->table.data)[i] : otherwise;
}

/* y [i, j] from the product without its bias. */
static void finish(const struct linear *op, int64_t i, int64_t j, double sum)
{
	sum = ref_activate(op->activation, sum + table_value(op->bias, j, 0));
	if (op->accumulate)
		sum += ref_get(&op->y, i, j, 0);
	ref_set(&op->y, i, j, 0, (float)sum);
}

static void linear_codes(const struct linear *op, int64_t i, const int8_t *x, float x_scale)
{
	for (int64_t j = 0; j < op->w->n; j++) {
		const int8_t *w = (const int8_t *)op->w->data + j * op->w->k;
		int32_t sum = 0;
		float w_scale;

		for (int64_t l = 0; l < op->w->k; l++)
			sum += x[l] * w[l];
		memcpy(&w_scale, scale_at(op->w, j), sizeof w_scale);
		finish(op, i, j, (double)sum * x_scale * w_scale);
	}
}

static enum status linear_i8(const struct linear *op)
{
	const int64_t k = op->w->k;
	float *row = malloc((size_t)k * (sizeof *row + 1));
	int8_t *codes = (int8_t *)(row + k);

	if (!row)
		return status_fail(STATUS_NO_MEMORY, "no memory for a row of %lld values", (long long)k);
	for (int64_t i = 0; i < op->x.dim[0]; i++) {
		for (int64_t l = 0; l < k; l++)
			row[l] = ref_get(&op->x, i, l, 0);
		linear_codes(op, i, codes, tensor_quantise(row, k, codes));
	}
	free(row);
	return STATUS_OK;
}

enum status ref_linear(struct kernels *k, const struct linear *op)
{
	const struct tensor w = weight_matrix(k, op->w);

	if (op->w->dtype == DTYPE_I8)
		return linear_i8(op);
	for (int64_t i = 0; i < op->x.dim[0]; i++)
		for (int64_t j = 0; j < op->w->n; j++) {
			double sum = 0;

			for (int64_t l = 0; l < op->w->k; l++)
				sum += (double)ref_get(&op->x, i, l, 0) * ref_get(&w, j, l, 0);
			finish(op, i, j, sum);
		}
	return STATUS_OK;
}

/* One output value: the kernel of channel `channel` over the (enlarged, cropped) picture around the place of (row,
 * column). */
static double conv_value(const struct conv *op, const struct tensor *w, int64_t row, int64_t column, int64_t channel)
{
	const int64_t kernel = op->w->kernel, half = kernel / 2, shrink = op->upsample ? 2 : 1;
	const int64_t stride = op->stride == 2 ? 2 : 1;
	const int64_t height = op->upsample ? op->y.dim[0] : op->x.dim[0];
	const int64_t width = op->upsample ? op->y.dim[1] : op->x.dim[1];
	double sum = table_value(op->bias, channel, 0);

	for (int64_t dy = 0; dy < kernel; dy++)
		for (int64_t dx = 0; dx < kernel; dx++) {
			const int64_t y = stride * row + dy - half, x = stride * column + dx - half;

			if (y < 0 || y >= height || x < 0 || x >= width)
				continue;
			for (int64_t in = 0; in < op->w->k; in++)
				sum += (double)ref_get(&op->x, y / shrink, x / shrink, in) *
				       ref_get(w, channel, (in * kernel + dy) * kernel + dx, 0);
		}
	return sum;
}

enum status ref_conv(struct kernels *k, const struct conv *op)
{
	const struct tensor w = weight_matrix(k, op->w);

	for (int64_t row = 0; row < op->y.dim[0]; row++)
		for (int64_t column = 0; column < op->y.dim[1]; column++)
			for (int64_t channel = 0; channel < op->y.dim[2]; channel++) {
				double sum = conv_value(op, &w, row, column, channel);

				if (op->accumulate)
					sum += ref_get(&op->y, row, column, channel);
				ref_set(&op->y, row, column, channel, (float)sum);
			}
	return STATUS_OK;
}

/* p [keys] = softmax of the scores of one query. */
static void softmax_scores(const struct attention *op, int64_t row, int64_t head, int64_t kv_head, double *p)
{
	const int64_t keys = op->k.dim[0];
	double max = -INFINITY, total = 0;

	for (int64_t j = 0; j < keys; j++) {
		p[j] = 0;
		for (int64_t l = 0; l < op->q.dim[2]; l++)
			p[j] += (double)ref_get(&op->q, row, head, l) * ref_get(&op->k, j, kv_head, l);
		p[j] *= op->scale;
		if (op->bias.data)
			p[j] += ref_get(&op->bias, op->bias.dim[0] == 1 ? 0 : head, row, j);
		if (op->causal && j > row)
			p[j] = -INFINITY;
		max = fmax(max, p[j]);
	}
	for (int64_t j = 0; j < keys; j++)
		total += p[j] = exp(p[j] - max);
	for (int64_t j = 0; j < keys; j++)
		p[j] /= total;
}

enum status ref_attention(struct kernels *k, const struct attention *op)
{
	const int64_t keys = op->k.dim[0], heads = op->q.dim[1], share = heads / op->k.dim[1];
	double *p = malloc((size_t)keys * sizeof *p);

	if (!p)
		return status_fail(STATUS_NO_MEMORY, "attention: no memory for %lld scores", (long long)keys);
	for (int64_t row = 0; row < op->q.dim[0]; row++)
		for (int64_t head = 0; head < heads; head++) {
			softmax_scores(op, row, head, head / share, p);
			for (int64_t l = 0; l < op->q.dim[2]; l++) {
				double sum = 0;

				for (int64_t j = 0; j < keys; j++)
					sum += p[j] * ref_get(&op->v, j, head / share, l);
				ref_set(&op->out, row, head, l, (float)sum);
			}
		}
	free(p);
	return STATUS_OK;
}

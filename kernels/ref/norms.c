/* norms and positions of the reference backend. */
#include "kernels/ref/ref.h"

#include <math.h>

static double table_value(const struct weight *table, int64_t i, double otherwise)
{
	return table ? ((const float *)table->table.data)[i] : otherwise;
}

static double row_mean(const struct tensor *x, int64_t row)
{
	double sum = 0;

	for (int64_t j = 0; j < x->dim[1]; j++)
		sum += ref_get(x, row, j, 0);
	return sum / (double)x->dim[1];
}

/* 1 / sqrt(mean((x - mean)^2) + eps) */
static double row_scale(const struct tensor *x, int64_t row, double mean, float eps)
{
	double sum = 0;

	for (int64_t j = 0; j < x->dim[1]; j++) {
		const double d = ref_get(x, row, j, 0) - mean;

		sum += d * d;
	}
	return 1 / sqrt(sum / (double)x->dim[1] + eps);
}

enum status ref_norm(struct kernels *k, const struct norm *op)
{
	for (int64_t i = 0; i < op->x.dim[0]; i++) {
		const double mean = op->rms ? 0 : row_mean(&op->x, i);
		const double scale = row_scale(&op->x, i, mean, op->eps);

		for (int64_t j = 0; j < op->x.dim[1]; j++) {
			double y = (ref_get(&op->x, i, j, 0) - mean) * scale * table_value(op->weight, j, 1);

			y = y * (1 + (op->scale ? (double)op->scale[j] : 0)) + table_value(op->bias, j, 0);
			ref_set(&op->y, i, j, 0, (float)(y + (op->shift ? (double)op->shift[j] : 0)));
		}
	}
	return STATUS_OK;
}

enum status ref_norm_residual(struct kernels *k, const struct norm_residual *op)
{
	for (int64_t i = 0; i < op->x.dim[0]; i++) {
		const double scale = row_scale(&op->x, i, 0, op->eps);

		for (int64_t j = 0; j < op->x.dim[1]; j++) {
			double y = ref_get(&op->x, i, j, 0) * scale * table_value(op->weight, j, 1);

			y *= op->gate ? (double)op->gate[j] : 1;
			ref_set(&op->stream, i, j, 0, (float)(ref_get(&op->stream, i, j, 0) + y));
		}
	}
	return STATUS_OK;
}

/* Mean and variance of the channels first .. first + count - 1 over the whole picture. */
static void group_statistics(const struct tensor *x, int64_t first, int64_t count, double *mean, double *variance)
{
	const int64_t places = x->dim[0] * x->dim[1];
	const struct tensor flat = tensor_view(x->data, x->dtype, 2, (int64_t[]){ places, x->dim[2] });
	double sum = 0, squares = 0;

	for (int64_t i = 0; i < places; i++)
		for (int64_t c = first; c < first + count; c++)
			sum += ref_get(&flat, i, c, 0);
	*mean = sum / (double)(places * count);
	for (int64_t i = 0; i < places; i++)
		for (int64_t c = first; c < first + count; c++) {
			const double d = ref_get(&flat, i, c, 0) - *mean;

			squares += d * d;
		}
	*variance = squares / (double)(places * count);
}

enum status ref_group_norm(struct kernels *k, const struct group_norm *op)
{
	const int64_t places = op->x.dim[0] * op->x.dim[1], channels = op->x.dim[2], count = channels / op->groups;
	const struct tensor x = tensor_view(op->x.data, op->x.dtype, 2, (int64_t[]){ places, channels });
	const struct tensor y = tensor_view(op->y.data, op->y.dtype, 2, (int64_t[]){ places, channels });

	for (int64_t first = 0; first < channels; first += count) {
		float *moments = op->moments.data ? (float *)op->moments.data + 2 * (first / count) : NULL;
		double mean, variance, scale;

		if (moments && op->y.data) {
			mean = (double)moments[0];
			variance = (double)moments[1];
		} else {
			group_statistics(&op->x, first, count, &mean, &variance);
		}
		if (!op->y.data) {
			moments[0] = (float)mean;
			moments[1] = (float)variance;
			continue;
		}
		scale = 1 / sqrt(variance + (double)op->eps);
		for (int64_t i = 0; i < places; i++)
			for (int64_t c = first; c < first + count; c++) {
				double v = (ref_get(&x, i, c, 0) - mean) * scale;

				v = v * table_value(op->weight, c, 1) + table_value(op->bias, c, 0);
				v = v * (1 + (op->scale ? (double)op->scale[c] : 0)) +
				    (op->shift ? (double)op->shift[c] : 0);
				ref_set(&y, i, c, 0, (float)(op->silu ? v / (1 + exp(-v)) : v));
			}
	}
	return STATUS_OK;
}

static void rope_head(const struct qk_rope *op, int64_t row, int64_t head)
{
	const int64_t head_dim = op->x.dim[2], half = head_dim / 2;
	double normed[HEAD_DIM_MAX], squares = 0, scale;

	for (int64_t l = 0; l < head_dim; l++) {
		normed[l] = ref_get(&op->x, row, head, l);
		squares += normed[l] * normed[l];
	}
	scale = op->weight ? 1 / sqrt(squares / (double)head_dim + op->eps) : 1;
	for (int64_t l = 0; l < head_dim; l++)
		normed[l] *= scale * table_value(op->weight, l, 1);
	for (int64_t i = 0; i < half; i++) {
		const int64_t a = op->interleaved ? 2 * i : i, b = op->interleaved ? 2 * i + 1 : i + half;
		const double c = ref_get(&op->table, row, i, 0), s = ref_get(&op->table, row, i, 1);

		ref_set(&op->x, row, head, a, (float)(normed[a] * c - normed[b] * s));
		ref_set(&op->x, row, head, b, (float)(normed[b] * c + normed[a] * s));
	}
}

enum status ref_qk_rope(struct kernels *k, const struct qk_rope *op)
{
	for (int64_t row = 0; row < op->x.dim[0]; row++)
		for (int64_t head = 0; head < op->x.dim[1]; head++)
			rope_head(op, row, head);
	return STATUS_OK;
}

/* lora_product: what a module adds to a weight.
 *
 *     LoRA    up down               LoHa    (1a 1b) o (2a 2b)               LoKr    1 (x) 2, each whole or a product
 *
 * A convolution's kernel belongs to the columns.  Where there is a middle factor [r, s, kernel] (CP, Tucker), the
 * product is a' (middle (b)): its second dimension meets b's rows, its first a's columns; LyCORIS stores a turned.
 * All is times alpha / rank.
 *
 * DoRA (arXiv 2402.09353) as PEFT has it, with the scale in it: W' = m / |W + s D| (W + s D), the norm over an output's
 * weights.  Of several at once each scales what the ones before it made, by a norm of the model's own W with its D
 * alone. LyCORIS also has the norm over an input's weights.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/lora_private.h"

/* A factor as a matrix; a convolution's further dimensions are columns. */
struct matrix {
	float *at;
	int64_t rows, columns;
	int rank;
	int64_t dim[TENSOR_RANK_MAX];
};

static enum status fail_shape(const struct lora *l, const struct module *m)
{
	return status_fail(
		STATUS_INVALID, "LoRA %s: %s does not have the shape of the model's weight", l->path, m->name);
}

/* No weight has a longer side; what a file claims beyond that would overflow in products. */
static const int64_t side_max = INT64_C(1) << 30;

/* most: how many values it may have, so that a file cannot ask for more than the weight that it changes. */
static enum status new_matrix(
	const struct lora *l, const struct module *m, int64_t most, int64_t rows, int64_t columns, struct matrix *out)
{
	*out = (struct matrix){ .rows = rows, .columns = columns, .rank = 2, .dim = { rows, columns } };
	if (rows > side_max || columns > side_max || rows * columns > most)
		return fail_shape(l, m);
	out->at = calloc((size_t)(rows * columns) + 1, sizeof *out->at);
	return out->at ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory for a product", l->path);
}

static enum status read_matrix(const struct lora *l, const char *key, struct matrix *m)
{
	TRY(lora_read(l, key, &m->at, &m->rank, m->dim));
	for (int i = 0; i < m->rank; i++)
		if (m->dim[i] < 1 || m->dim[i] > side_max)
			return status_fail(STATUS_INVALID, "LoRA %s: %s has no shape of a factor", l->path, key);
	m->rows = m->rank ? m->dim[0] : 1;
	m->columns = 1;
	for (int i = 1; i < m->rank; i++)
		m->columns *= m->dim[i];
	return STATUS_OK;
}

/* A rank above a weight's sides makes factors larger than the weight, but not by much. */
enum { RANK_EXCESS = 64 };

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* What two factors are multiplied of; whole stands in their place where it is there. */
struct product {
	enum factor whole, a, b, mid;
	bool turned; /* a, where there is a middle factor */
};

static const struct product lora_product = { FACTORS, UP, DOWN, MID, false };
static const struct product hadamard[2] = { { FACTORS, HADA_1A, HADA_1B, HADA_1MID, true },
	{ FACTORS, HADA_2A, HADA_2B, HADA_2MID, true } };
static const struct product kronecker[2] = { { KRON_1, KRON_1A, KRON_1B, FACTORS, false },
	{ KRON_2, KRON_2A, KRON_2B, KRON_2MID, true } };

static const char *find_key(const struct module *m, enum factor f)
{
	return f == FACTORS ? NULL : m->key[f];
}

static enum status turn(const struct lora *l, const struct module *m, struct matrix *a)
{
	struct matrix turned;

	TRY(new_matrix(l, m, INT64_MAX, a->columns, a->rows, &turned));
	for (int64_t i = 0; i < a->rows; i++)
		for (int64_t j = 0; j < a->columns; j++)
			turned.at[j * a->rows + i] = a->at[i * a->columns + j];
	free(a->at);
	*a = turned;
	return STATUS_OK;
}

static void multiply(const struct matrix *a, const struct matrix *b, float *out)
{
	for (int64_t i = 0; i < a->rows; i++)
		for (int64_t r = 0; r < a->columns; r++)
			for (int64_t j = 0; j < b->columns; j++)
				out[i * b->columns + j] += a->at[i * a->columns + r] * b->at[r * b->columns + j];
}

/* mid [r, s, kernel], b [s, n]: b becomes [r, n * kernel]. */
static void fold(const struct matrix *mid, const struct matrix *b, struct matrix *out)
{
	int64_t kernel = mid->columns / mid->dim[1], inputs = b->columns;

	for (int64_t r = 0; r < mid->rows; r++)
		for (int64_t s = 0; s < b->rows; s++)
			for (int64_t i = 0; i < inputs; i++)
				for (int64_t k = 0; k < kernel; k++)
					out->at[(r * inputs + i) * kernel + k] +=
						mid->at[r * mid->columns + s * kernel + k] * b->at[s * inputs + i];
}

static enum status fold_mid(
	const struct lora *l, const struct module *m, const char *key, int64_t most, struct matrix *b)
{
	struct matrix mid = { 0 }, folded = { 0 };
	enum status status = read_matrix(l, key, &mid);

	if (status == STATUS_OK && (mid.rank < 2 || mid.dim[1] != b->rows))
		status = fail_shape(l, m);
	if (status == STATUS_OK)
		status = new_matrix(
			l, m, RANK_EXCESS * most, mid.rows, b->columns * (mid.columns / mid.dim[1]), &folded);
	if (status == STATUS_OK) {
		fold(&mid, b, &folded);
		free(b->at);
		*b = folded;
	}
	free(mid.at);
	return status;
}

/* Both factors, ready to be multiplied; *rank is the second one's. */
static enum status read_pair(const struct lora *l, const struct module *m, const struct product *p, int64_t most,
	struct matrix *a, struct matrix *b, int64_t *rank)
{
	const char *mid = find_key(m, p->mid);

	TRY(read_matrix(l, m->key[p->a], a));
	TRY(read_matrix(l, m->key[p->b], b));
	*rank = b->rows;
	if (mid)
		TRY(fold_mid(l, m, mid, most, b));
	if (mid && p->turned)
		TRY(turn(l, m, a));
	return a->columns == b->rows ? STATUS_OK : fail_shape(l, m);
}

/* *rank: the product's, or 0 of a whole factor. */
static enum status read_product(const struct lora *l, const struct module *m, const struct product *p, int64_t most,
	struct matrix *out, int64_t *rank)
{
	const char *whole = find_key(m, p->whole);
	struct matrix a = { 0 }, b = { 0 };
	enum status status;

	*rank = 0;
	if (whole)
		return read_matrix(l, whole, out);
	status = read_pair(l, m, p, most, &a, &b, rank);
	if (status == STATUS_OK)
		status = new_matrix(l, m, most, a.rows, b.columns, out);
	if (status == STATUS_OK)
		multiply(&a, &b, out->at);
	free(a.at);
	free(b.at);
	return status;
}

static enum status make_hadamard(
	const struct lora *l, const struct module *m, int64_t most, struct matrix *out, int64_t *rank)
{
	struct matrix other = { 0 };
	int64_t second;
	enum status status = read_product(l, m, &hadamard[0], most, out, rank);

	if (status == STATUS_OK)
		status = read_product(l, m, &hadamard[1], most, &other, &second);
	if (status == STATUS_OK && (other.rows != out->rows || other.columns != out->columns))
		status = fail_shape(l, m);
	for (int64_t i = 0; status == STATUS_OK && i < out->rows * out->columns; i++)
		out->at[i] *= other.at[i];
	free(other.at);
	return status;
}

/* The kernel of the second one stays last: its columns are repeated as a whole. */
static enum status make_kronecker(
	const struct lora *l, const struct module *m, int64_t most, struct matrix *out, int64_t *rank)
{
	struct matrix a = { 0 }, b = { 0 };
	int64_t first = 0, second = 0;
	enum status status = read_product(l, m, &kronecker[0], most, &a, &first);

	if (status == STATUS_OK)
		status = read_product(l, m, &kronecker[1], most, &b, &second);
	if (status == STATUS_OK)
		status = new_matrix(l, m, most, a.rows * b.rows, a.columns * b.columns, out);
	for (int64_t i = 0; status == STATUS_OK && i < out->rows; i++)
		for (int64_t j = 0; j < out->columns; j++)
			out->at[i * out->columns + j] = a.at[i / b.rows * a.columns + j / b.columns] *
							b.at[i % b.rows * b.columns + j % b.columns];
	*rank = second ? second : first;
	free(a.at);
	free(b.at);
	return status;
}

/* What is added at scale 1, in rows and columns of the original weight. */
static enum status make_change(const struct lora *l, const struct module *m, int64_t most, struct matrix *out)
{
	int64_t rank = 0;
	double by = 1;

	*out = (struct matrix){ 0 };
	if (m->key[DOWN])
		TRY(read_product(l, m, &lora_product, most, out, &rank));
	else if (m->key[HADA_1A])
		TRY(make_hadamard(l, m, most, out, &rank));
	else
		TRY(make_kronecker(l, m, most, out, &rank));
	/* whole factors have no rank, and their alpha means nothing */
	if (rank > 0 && !isnan(m->alpha))
		by = m->alpha / (m->root ? sqrt((double)rank) : (double)rank);
	for (int64_t i = 0; i < out->rows * out->columns; i++)
		out->at[i] = (float)(by * (double)out->at[i]);
	return STATUS_OK;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

/* A weight under change. */
struct sum {
	int64_t rows, columns;
	const float *base; /* as the model has it; only where a module needs it */
	float *values;
};

static bool fits(const struct target *t, const struct matrix *change, int64_t rows, int64_t columns)
{
	if (change->columns != columns)
		return false;
	return t->of ? change->rows % t->of == 0 && change->rows / t->of * t->count == rows : change->rows == rows;
}

/* The row of the product that belongs to row i of the weight. */
static int64_t find_row(const struct target *t, const struct matrix *change, int64_t rows, int64_t i)
{
	int64_t first = t->of ? change->rows / t->of * t->from : 0;

	return first + (t->how == NAMES_SWAP ? (i + rows / 2) % rows : i);
}

static void add_rows(const struct target *t, const struct matrix *change, double scale, const struct sum *s)
{
	for (int64_t i = 0; i < s->rows; i++) {
		const float *row = change->at + find_row(t, change, s->rows, i) * s->columns;

		for (int64_t j = 0; j < s->columns; j++)
			s->values[i * s->columns + j] += (float)(scale * (double)row[j]);
	}
}

/* ---- DoRA -------------------------------------------------------------------------------------------------------- */

/* The magnitudes: one for each output, or one for each input (then *per_input). */
static enum status read_magnitude(const struct lora *l, const struct module *m, const struct target *t,
	const struct matrix *change, struct matrix *out, bool *per_input)
{
	const char *key = m->key[m->key[MAGNITUDE] ? MAGNITUDE : DORA_SCALE];
	int64_t n;

	TRY(read_matrix(l, key, out));
	n = out->rows * out->columns;
	*per_input = m->key[DORA_SCALE] && out->rank > 1 && out->dim[0] == 1 && change->rows > 1;
	if (!*per_input)
		return n == change->rows ? STATUS_OK : fail_shape(l, m);
	/* shares of one original weight would need the norm over all of it */
	return n > 0 && change->columns % n == 0 && !t->of ? STATUS_OK : fail_shape(l, m);
}

/* Weights that share a magnitude: n of them from `at` on, in runs of `run` that lie `step` apart. */
struct group {
	int64_t at, n, run, step;
};

static int64_t place(const struct group *g, int64_t i)
{
	return g->at + i / g->run * g->step + i % g->run;
}

static void scale_group(const struct sum *s, const float *change, const struct group *g, double scale, double magnitude)
{
	double square = 0, by;

	for (int64_t i = 0; i < g->n; i++) {
		double w = s->base[place(g, i)] + scale * (double)change[i];

		square += w * w;
	}
	by = magnitude / sqrt(square);
	for (int64_t i = 0; i < g->n; i++) {
		float *value = &s->values[place(g, i)];

		*value = (float)(by * ((double)*value + scale * (double)change[i]));
	}
}

static void scale_outputs(const struct target *t, const struct matrix *change, const struct matrix *magnitude,
	double scale, const struct sum *s)
{
	for (int64_t i = 0; i < s->rows; i++) {
		int64_t row = find_row(t, change, s->rows, i);
		struct group g = { i * s->columns, s->columns, s->columns, 0 };

		scale_group(s, change->at + row * s->columns, &g, scale, (double)magnitude->at[row]);
	}
}

static enum status scale_inputs(const struct lora *l, const struct module *m, const struct matrix *change,
	const struct matrix *magnitude, double scale, const struct sum *s)
{
	int64_t inputs = magnitude->rows * magnitude->columns, kernel = s->columns / inputs, n = s->rows * kernel;
	struct matrix gathered;

	TRY(new_matrix(l, m, n, 1, n, &gathered));
	for (int64_t j = 0; j < inputs; j++) {
		struct group g = { j * kernel, n, kernel, s->columns };

		for (int64_t i = 0; i < n; i++)
			gathered.at[i] = change->at[place(&g, i)];
		scale_group(s, gathered.at, &g, scale, (double)magnitude->at[j]);
	}
	free(gathered.at);
	return STATUS_OK;
}

static bool is_dora(const struct module *m)
{
	return m->key[MAGNITUDE] || m->key[DORA_SCALE];
}

static enum status add_dora(const struct lora *l, const struct module *m, const struct target *t,
	const struct matrix *change, const struct sum *s)
{
	struct matrix magnitude = { 0 };
	bool per_input = false;
	enum status status = read_magnitude(l, m, t, change, &magnitude, &per_input);

	if (status == STATUS_OK && per_input && t->how != NAMES_SWAP)
		status = scale_inputs(l, m, change, &magnitude, l->scale, s);
	else if (status == STATUS_OK && per_input)
		status = fail_shape(l, m);
	else if (status == STATUS_OK)
		scale_outputs(t, change, &magnitude, l->scale, s);
	free(magnitude.at);
	return status;
}

/* ---- a tensor ---------------------------------------------------------------------------------------------------- */

static enum status add_one(const struct lora *l, const struct target *t, const struct sum *s)
{
	const struct module *m = &l->module[t->module];
	int64_t most = s->rows * s->columns * (t->of ? t->of : 1); /* of all shares */
	struct matrix change;
	enum status status = make_change(l, m, most, &change);

	if (status == STATUS_OK && !fits(t, &change, s->rows, s->columns))
		status = fail_shape(l, m);
	if (status == STATUS_OK && is_dora(m))
		status = add_dora(l, m, t, &change, s);
	else if (status == STATUS_OK)
		add_rows(t, &change, l->scale, s);
	free(change.at);
	return status;
}

static bool needs_base(const struct lora_set *s, const char *part, const char *tensor)
{
	for (int i = 0; i < s->n; i++)
		for (int j = 0; j < s->lora[i].n_targets; j++) {
			const struct target *t = &s->lora[i].target[j];

			if (lora_is_target(t, part, tensor) && is_dora(&s->lora[i].module[t->module]))
				return true;
		}
	return false;
}

static enum status add_all(const struct lora_set *s, const char *part, const char *tensor, const struct sum *sum)
{
	for (int i = 0; i < s->n; i++)
		for (int j = 0; j < s->lora[i].n_targets; j++)
			if (lora_is_target(&s->lora[i].target[j], part, tensor))
				TRY(add_one(&s->lora[i], &s->lora[i].target[j], sum));
	return STATUS_OK;
}

enum status lora_add(
	const struct lora_set *s, const char *part, const char *tensor, int64_t rows, int64_t columns, float *values)
{
	size_t size = (size_t)(rows * columns) * sizeof *values;
	float *base = NULL;
	enum status status;

	if (!s)
		return STATUS_OK;
	if (needs_base(s, part, tensor)) {
		base = malloc(size + 1);
		if (!base)
			return status_fail(STATUS_NO_MEMORY, "tensor %s: no memory for its LoRA", tensor);
		memcpy(base, values, size);
	}
	status = add_all(s, part, tensor, &(struct sum){ rows, columns, base, values });
	free(base);
	return status;
}

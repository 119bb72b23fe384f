/* weight: packing, the same for every backend.  Rows are checked for NaN and infinity and brought to the handle's dtype
 * in blocks, so that the memory beside the packed copy stays at one block however large the matrix is. */
#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>

static enum status check_source(const char *op, const struct tensor *t, int rank_min, int rank_max)
{
	if (t->rank < rank_min || t->rank > rank_max || !tensor_contiguous(t) || tensor_count(t) < 1)
		return status_fail(STATUS_INTERNAL, "%s: the source of rank %d is empty, strided or of the wrong rank",
			op, t->rank);
	if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
		return status_fail(
			STATUS_UNSUPPORTED, "holds %s; f32, bf16 and f16 are supported", dtype_name(t->dtype));
	return STATUS_OK;
}

/* Rows of one source in dtype `to`: in place where nothing has to change, else in `staging`.  The check for NaN and
 * infinity comes after conversion, so that an f32 that rounds to infinity in bf16 is found too. */
static enum status stage(const struct tensor *t, int64_t row_len, int64_t first, int64_t count, enum dtype to,
	void *staging, const void **out)
{
	const int64_t from_size = row_len * (int64_t)dtype_size(t->dtype), to_size = row_len * (int64_t)dtype_size(to);
	char *from = (char *)t->data + first * from_size, *rows = t->dtype == to ? from : staging;
	int64_t bad = INT64_MAX;

#pragma omp parallel for schedule(static) reduction(min : bad) if (count * row_len > 1 << 16)
	for (int64_t i = 0; i < count; i++) {
		if (rows != from)
			tensor_convert(from + i * from_size, t->dtype, rows + i * to_size, to, row_len);
		if (!tensor_finite(rows + i * to_size, to, row_len))
			bad = i < bad ? i : bad;
	}
	if (bad != INT64_MAX)
		return status_fail(STATUS_CORRUPT, "holds NaN or infinity (row %lld)", (long long)(first + bad));
	*out = rows;
	return STATUS_OK;
}

static enum status new_weight(
	enum weight_kind kind, enum dtype dtype, int64_t n, int64_t k, int kernel, struct weight **out)
{
	struct weight *w = calloc(1, sizeof *w);

	if (!w)
		return status_fail(STATUS_NO_MEMORY, "no memory for a weight");
	w->kind = kind;
	w->dtype = dtype;
	w->n = n;
	w->k = k;
	w->kernel = kernel;
	*out = w;
	return STATUS_OK;
}

/* One block of rows of a part, at row `at` of the packed matrix. */
static enum status pack_block(struct kernels *k, struct weight *w, const struct tensor *part, int64_t first,
	int64_t count, int64_t at, void *staging)
{
	const void *rows;

	TRY(stage(part, w->k * w->kernel * w->kernel, first, count, k->dtype, staging, &rows));
	return k->backend->pack_rows(k, w, at, count, rows);
}

/* A block that crosses from one part to the next is gathered in staging; only those few rows are, since writing new
 * pages costs more than packing them. */
static enum status pack_joined(struct kernels *k, struct weight *w, const struct tensor **part, int64_t *done,
	int64_t at, int64_t count, char *staging)
{
	const int64_t row_size = w->k * (int64_t)dtype_size(k->dtype);

	for (int64_t filled = 0; filled < count;) {
		const int64_t left = (*part)->dim[0] - *done, take = left < count - filled ? left : count - filled;
		char *to = staging + filled * row_size;
		const void *rows;

		TRY(stage(*part, w->k, *done, take, k->dtype, to, &rows));
		if (rows != to)
			memcpy(to, rows, (size_t)(take * row_size));
		filled += take;
		*done += take;
		if (take == left) {
			++*part;
			*done = 0;
		}
	}
	return k->backend->pack_rows(k, w, at, count, staging);
}

/* Rows to pack next at row `at`, of which `left` are the part's own: as many as fit a block and end at a border. */
static int64_t run_of(int64_t left, int64_t at, int64_t n)
{
	const int64_t count = left < PACK_ROWS ? left : PACK_ROWS;

	return at + count == n ? count : count / PACK_ALIGN * PACK_ALIGN;
}

static enum status pack_parts(struct kernels *k, struct weight *w, const struct tensor *part, void *staging)
{
	int64_t done = 0, count; /* done: rows of *part packed already */

	for (int64_t at = 0; at < w->n; at += count) {
		count = run_of(part->dim[0] - done, at, w->n);
		if (count == 0) {
			count = w->n - at < PACK_ALIGN ? w->n - at : PACK_ALIGN;
			TRY(pack_joined(k, w, &part, &done, at, count, staging));
			continue;
		}
		TRY(pack_block(k, w, part, done, count, at, staging));
		done += count;
		if (done == part->dim[0]) {
			part++;
			done = 0;
		}
	}
	return STATUS_OK;
}

static enum status pack_whole(struct kernels *k, struct weight *w, const struct tensor *source, void *staging)
{
	return pack_block(k, w, source, 0, w->n, 0, staging);
}

typedef enum status pack_rows(struct kernels *k, struct weight *w, const struct tensor *source, void *staging);

static enum status pack_anew(
	struct kernels *k, struct weight *w, const struct tensor *source, size_t staging_len, pack_rows *pack)
{
	void *staging = NULL;
	enum status status = memory_map(k, staging_len, &staging);

	if (status == STATUS_OK)
		status = k->backend->pack_begin(k, w);
	if (status == STATUS_OK && k->backend->pack_rows)
		status = pack(k, w, source, staging);
	memory_unmap(k, staging, staging_len);
	if (status == STATUS_OK)
		packed_add(k, w);
	return status;
}

/* Takes the values from a copy on disk, or packs them; frees w on failure. */
static enum status pack_values(
	struct kernels *k, struct weight *w, const struct tensor *source, size_t staging_len, pack_rows *pack)
{
	enum status status = packed_take(k, w) ? STATUS_OK : pack_anew(k, w, source, staging_len, pack);

	kernels_hold(k, w->len, 0);
	if (status != STATUS_OK)
		weight_free(k, w);
	return status;
}

static enum status pack_linear(
	struct kernels *k, enum dtype dtype, int n_parts, const struct tensor *parts, struct weight **out)
{
	struct weight *w = NULL;
	size_t staging_len;
	enum status status;
	int64_t n = 0;

	if (n_parts < 1)
		return status_fail(STATUS_INTERNAL, "pack_linear: no parts");
	for (int i = 0; i < n_parts; i++) {
		TRY(check_source("pack_linear", &parts[i], 2, 2));
		if (parts[i].dim[1] != parts[0].dim[1])
			return status_fail(STATUS_INTERNAL, "pack_linear: part %d has %lld columns, part 0 %lld", i,
				(long long)parts[i].dim[1], (long long)parts[0].dim[1]);
		n += parts[i].dim[0];
	}
	kernels_use_threads(k);
	TRY(new_weight(WEIGHT_LINEAR, dtype, n, parts[0].dim[1], 1, &w));
	staging_len = (size_t)((n < PACK_ROWS ? n : PACK_ROWS) * w->k) * dtype_size(k->dtype);
	status = pack_values(k, w, parts, staging_len, pack_parts);
	if (status == STATUS_OK)
		*out = w;
	return status;
}

enum status kernels_pack_linear(struct kernels *k, int n_parts, const struct tensor *parts, struct weight **out)
{
	return pack_linear(k, k->dtype, n_parts, parts, out);
}

enum status kernels_pack_block(struct kernels *k, int n_parts, const struct tensor *parts, struct weight **out)
{
	const bool too_wide = k->weight_dtype == DTYPE_I8 && n_parts > 0 && parts[0].dim[1] > I8_COLUMNS_MAX;

	return pack_linear(k, too_wide ? k->dtype : k->weight_dtype, n_parts, parts, out);
}

enum status kernels_pack_conv(struct kernels *k, const struct tensor *source, struct weight **out)
{
	struct weight *w = NULL;
	size_t staging_len;
	enum status status;

	TRY(check_source("pack_conv", source, 4, 4));
	staging_len = (size_t)tensor_count(source) * dtype_size(k->dtype);
	if (source->dim[2] != source->dim[3] || (source->dim[2] != 1 && source->dim[2] != 3))
		return status_fail(STATUS_INTERNAL,
			"pack_conv: the kernel is %lld x %lld; 1 x 1 and 3 x 3 are supported",
			(long long)source->dim[2], (long long)source->dim[3]);
	kernels_use_threads(k);
	TRY(new_weight(WEIGHT_CONV, k->dtype, source->dim[0], source->dim[1], (int)source->dim[2], &w));
	status = pack_values(k, w, source, staging_len, pack_whole);
	if (status == STATUS_OK)
		*out = w;
	return status;
}

static enum status fill_table(struct kernels *k, struct weight *w, const struct tensor *source, void *staging)
{
	const int64_t rows = source->rank == 2 ? source->dim[0] : 1, row_len = tensor_count(source) / rows;
	const void *values = NULL;

	if (k->backend->pack_rows)
		TRY(stage(source, row_len, 0, rows, DTYPE_F32, staging, &values));
	TRY(k->backend->map(k, (size_t)tensor_count(source) * sizeof(float), &w->data));
	w->len = (size_t)tensor_count(source) * sizeof(float);
	w->table = tensor_view(w->data, DTYPE_F32, source->rank, source->dim);
	return k->backend->copy_in(k, w->data, values, w->len);
}

enum status kernels_pack_table(struct kernels *k, const struct tensor *source, struct weight **out)
{
	struct weight *w = NULL;
	void *staging = NULL;
	size_t staging_len;
	enum status status;

	TRY(check_source("pack_table", source, 1, 2));
	staging_len = (size_t)tensor_count(source) * sizeof(float);
	kernels_use_threads(k);
	TRY(new_weight(WEIGHT_TABLE, DTYPE_F32, source->dim[0], source->rank == 2 ? source->dim[1] : 1, 1, &w));
	status = memory_map(k, staging_len, &staging);
	if (status == STATUS_OK)
		status = fill_table(k, w, source, staging);
	memory_unmap(k, staging, staging_len);
	kernels_hold(k, w->len, 0);
	if (status != STATUS_OK)
		weight_free(k, w);
	else
		*out = w;
	return status;
}

const struct tensor *weight_table(const struct weight *w)
{
	return &w->table;
}

void weight_free(struct kernels *k, struct weight *w)
{
	if (!w)
		return;
	if (w->kind != WEIGHT_TABLE || w->layout)
		k->backend->pack_free(k, w);
	if (w->data)
		k->backend->unmap(k, w->data, w->len);
	kernels_hold(k, 0, w->len);
	free(w);
}

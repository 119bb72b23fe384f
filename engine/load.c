/* load: weights by table. */
#include "engine/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct weight **field(const struct load_entry *e, void *base)
{
	return (struct weight **)(void *)((char *)base + e->offset);
}

/* The shape an entry's part has in the file; returns its rank. */
static int shape(const struct loader *l, const struct load_entry *e, int part, int64_t dim[4])
{
	int64_t rows = l->dims[e->part[part].rows], columns = l->dims[e->columns];
	int rank = 2;

	memcpy(dim, (int64_t[]){ rows, columns, 1, 1 }, 4 * sizeof *dim);
	switch (e->kind) {
	case LOAD_VECTOR:
	case LOAD_PATCH_VECTOR:
		rank = 1;
		break;
	case LOAD_ROW:
		memcpy(dim, (int64_t[]){ 1, rows }, 2 * sizeof *dim);
		break;
	case LOAD_TABLES:
		memcpy(dim, (int64_t[]){ 1, rows, columns }, 3 * sizeof *dim);
		rank = 3;
		break;
	case LOAD_CONV_3:
		dim[2] = dim[3] = 3;
		rank = 4;
		break;
	case LOAD_PATCH_CONV:
		memcpy(dim, (int64_t[]){ rows, columns / 4, 2, 2 }, 4 * sizeof *dim);
		rank = 4;
		break;
	case LOAD_CONV_1:
	case LOAD_CONV_LINEAR:
		rank = 4;
		break;
	default:
		break;
	}
	return rank;
}

/* The same values in another shape that files have; returns its rank, 0: none. */
static int other_shape(const struct loader *l, const struct load_entry *e, int part, int64_t dim[4])
{
	static const enum load_kind pairs[][2] = { { LOAD_LINEAR_1X1, LOAD_CONV_LINEAR },
		{ LOAD_PATCH_COLUMNS, LOAD_PATCH_CONV } };
	struct load_entry other = *e;

	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
		for (int j = 0; j < 2; j++)
			if (e->kind == pairs[i][j]) {
				other.kind = pairs[i][1 - j];
				return shape(l, &other, part, dim);
			}
	return 0;
}

/* The tensor in the shape in which it is packed. */
static enum status find_part(
	const struct loader *l, const struct load_entry *e, int part, const char *name, struct tensor *out)
{
	int64_t dim[4], other[4], rows = l->dims[e->part[part].rows], columns = l->dims[e->columns];
	int rank = shape(l, e, part, dim), other_rank = other_shape(l, e, part, other);

	if (other_rank && weights_rank(l->weights, name) == other_rank) {
		memcpy(dim, other, sizeof dim);
		rank = other_rank;
	}
	TRY(weights_find(l->weights, name, rank, dim, out));
	if (e->kind == LOAD_ROW)
		*out = tensor_view(out->data, out->dtype, 1, &rows);
	else if (e->kind == LOAD_TABLES || other_rank)
		*out = tensor_view(out->data, out->dtype, 2, (int64_t[]){ rows, columns });
	return STATUS_OK;
}

/* Copies `n` values of `size` bytes, (channel, dy, dx) in the source, (dy, dx, channel) in the result. */
static void reorder(const char *from, int64_t n, size_t size, char *to)
{
	int64_t channels = n / 4;

	for (int64_t channel = 0; channel < channels; channel++)
		for (int64_t place = 0; place < 4; place++)
			memcpy(to + (size_t)(place * channels + channel) * size,
				from + (size_t)(channel * 4 + place) * size, size);
}

/* A matrix or vector of patches in the order of kernels_patchify. */
static enum status pack_patches(
	const struct loader *l, const struct load_entry *e, const struct tensor *source, struct weight **out)
{
	size_t size = dtype_size(source->dtype), len = (size_t)tensor_count(source) * size;
	int64_t columns = source->rank == 2 ? source->dim[1] : 1;
	struct tensor ordered = *source;
	enum status status;

	ordered.data = malloc(len);
	if (!ordered.data)
		return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes", len);
	if (e->kind == LOAD_PATCH_COLUMNS || e->kind == LOAD_PATCH_CONV)
		for (int64_t row = 0; row < source->dim[0]; row++) {
			size_t offset = (size_t)(row * columns) * size;

			reorder((char *)source->data + offset, columns, size, (char *)ordered.data + offset);
		}
	else
		reorder(source->data, source->dim[0], (size_t)columns * size, ordered.data);
	status = e->kind == LOAD_PATCH_VECTOR ? kernels_pack_table(l->k, &ordered, out)
					      : kernels_pack_linear(l->k, 1, &ordered, out);
	free(ordered.data);
	return status;
}

static enum status pack(const struct loader *l, const struct load_entry *e, int n_parts, const struct tensor *parts,
	struct weight **out)
{
	switch (e->kind) {
	case LOAD_VECTOR:
	case LOAD_ROW:
	case LOAD_TABLE:
	case LOAD_TABLES:
		return kernels_pack_table(l->k, parts, out);
	case LOAD_LINEAR:
	case LOAD_LINEAR_1X1:
	case LOAD_CONV_LINEAR:
		return kernels_pack_linear(l->k, n_parts, parts, out);
	case LOAD_BLOCK:
		return kernels_pack_block(l->k, n_parts, parts, out);
	case LOAD_PATCH_COLUMNS:
	case LOAD_PATCH_CONV:
	case LOAD_PATCH_ROWS:
	case LOAD_PATCH_VECTOR:
		return pack_patches(l, e, parts, out);
	default:
		return kernels_pack_conv(l->k, parts, out);
	}
}

static enum status load_entry(
	const struct loader *l, const char *prefix, const struct load_entry *e, struct weight **out)
{
	struct tensor parts[LOAD_PARTS];
	char name[256] = "";
	enum status status;
	int n = 0;

	for (; n < LOAD_PARTS && e->part[n].name; n++) {
		snprintf(name, sizeof name, "%s%s", prefix, e->part[n].name);
		TRY(find_part(l, e, n, name, &parts[n]));
		if (e->kind == LOAD_BLOCK)
			weights_note_block(l->weights, l->dims[e->part[n].rows], l->dims[e->columns]);
	}
	if (!parts[0].data)
		return STATUS_OK; /* a survey */
	status = pack(l, e, n, parts, out);
	if (status != STATUS_OK)
		return status_prefix(status, "%s: %s: ", weights_path(l->weights, name), name);
	for (int i = 0; i < n; i++)
		weights_release(l->weights, &parts[i]);
	return STATUS_OK;
}

enum status load_table(const struct loader *l, const char *prefix, const struct load_entry *table, int n, void *base)
{
	for (int i = 0; i < n; i++)
		TRY(load_entry(l, prefix, &table[i], field(&table[i], base)));
	return STATUS_OK;
}

void load_free(struct kernels *k, const struct load_entry *table, int n, void *base)
{
	for (int i = 0; i < n; i++) {
		struct weight **w = field(&table[i], base);

		weight_free(k, *w);
		*w = NULL;
	}
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

static void *member(const struct load_group *g, int64_t i)
{
	return (char *)g->base + (size_t)i * g->size;
}

/* What stands before the names of struct i of the group. */
static void prefix_of(const struct load_group *g, int64_t i, char *out, size_t len)
{
	if (g->list[0])
		snprintf(out, len, "%s.%lld.", g->list, (long long)i);
	else
		out[0] = 0;
}

enum status load_groups(const struct loader *l, const struct load_group *groups, int n)
{
	char prefix[128];

	for (int i = 0; i < n; i++)
		for (int64_t j = 0; j < groups[i].count; j++) {
			prefix_of(&groups[i], j, prefix, sizeof prefix);
			TRY(load_table(l, prefix, groups[i].table, groups[i].n, member(&groups[i], j)));
		}
	return STATUS_OK;
}

void load_groups_free(struct kernels *k, const struct load_group *groups, int n)
{
	for (int i = 0; i < n; i++)
		for (int64_t j = 0; groups[i].base && j < groups[i].count; j++)
			load_free(k, groups[i].table, groups[i].n, member(&groups[i], j));
}

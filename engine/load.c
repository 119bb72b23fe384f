/* load: weights by table. */
#include "engine/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct weight **field(const struct load_entry *e, void *base)
{
	return (struct weight **)(void *)((char *)base + e->offset);
}

/* The shape an entry's part must have in the file; returns its rank. */
static int shape(const struct loader *l, const struct load_entry *e, int part, int64_t dim[4])
{
	int64_t rows = l->dims[e->part[part].rows], columns = l->dims[e->columns];
	int64_t side = e->kind == LOAD_CONV_3 ? 3 : 1;

	switch (e->kind) {
	case LOAD_VECTOR:
	case LOAD_PATCH_VECTOR:
		dim[0] = rows;
		return 1;
	case LOAD_ROW:
		dim[0] = 1;
		dim[1] = rows;
		return 2;
	case LOAD_LINEAR:
	case LOAD_BLOCK:
	case LOAD_LINEAR_1X1:
	case LOAD_PATCH_COLUMNS:
	case LOAD_PATCH_ROWS:
		dim[0] = rows;
		dim[1] = columns;
		return 2;
	default:
		dim[0] = rows;
		dim[1] = columns;
		dim[2] = dim[3] = side;
		return 4;
	}
}

static enum status find_part(
	const struct loader *l, const struct load_entry *e, int part, const char *name, struct tensor *out)
{
	int64_t dim[4] = { 1, 1, 1, 1 };
	int rank = shape(l, e, part, dim);

	if (e->kind == LOAD_LINEAR_1X1 || e->kind == LOAD_PATCH_COLUMNS) {
		int64_t patch = e->kind == LOAD_PATCH_COLUMNS ? 2 : 1;
		int64_t kernel[4] = { dim[0], dim[1] / (patch * patch), patch, patch };
		struct tensor t;

		TRY(weights_find(l->weights, name, 0, NULL, &t));
		if (t.rank == 4) {
			TRY(weights_find(l->weights, name, 4, kernel, &t));
			*out = tensor_view(t.data, t.dtype, 2, dim);
			return STATUS_OK;
		}
	}
	TRY(weights_find(l->weights, name, rank, dim, out));
	if (e->kind == LOAD_ROW)
		*out = tensor_view(out->data, out->dtype, 1, &dim[1]);
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
	if (e->kind == LOAD_PATCH_COLUMNS)
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
		return kernels_pack_table(l->k, parts, out);
	case LOAD_LINEAR:
	case LOAD_LINEAR_1X1:
		return kernels_pack_linear(l->k, n_parts, parts, out);
	case LOAD_BLOCK:
		return kernels_pack_block(l->k, n_parts, parts, out);
	case LOAD_PATCH_COLUMNS:
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
	}
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

bool load_names(const struct load_entry *table, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		for (int part = 0; part < LOAD_PARTS && table[i].part[part].name; part++)
			if (!strcmp(table[i].part[part].name, name))
				return true;
	return false;
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

/* Whether the group reads `name`. */
static bool group_names(const struct load_group *g, const char *name)
{
	size_t len = strlen(g->list);
	char prefix[128];
	int64_t i;

	if (len == 0)
		return g->count > 0 && load_names(g->table, g->n, name);
	if (strncmp(name, g->list, len) != 0 || name[len] != '.')
		return false;
	i = strtoll(name + len + 1, NULL, 10);
	snprintf(prefix, sizeof prefix, "%s.%lld.", g->list, (long long)i);
	len = strlen(prefix);
	return i >= 0 && i < g->count && strncmp(name, prefix, len) == 0 && load_names(g->table, g->n, name + len);
}

static enum status check_all_read(const struct weights *w, const struct load_group *groups, int n)
{
	for (int64_t i = 0; i < weights_count(w); i++) {
		const char *name = weights_name(w, i);
		bool read = false;

		for (int j = 0; j < n && !read; j++)
			read = group_names(&groups[j], name);
		if (!read)
			return status_fail(STATUS_CORRUPT, "%s: %s is no part of a model with this configuration",
				weights_path(w, name), name);
	}
	return STATUS_OK;
}

/* What stands before the names of struct i of the group. */
static void prefix_of(const struct load_group *g, int64_t i, char *out, size_t len)
{
	if (g->list[0])
		snprintf(out, len, "%s.%lld.", g->list, (long long)i);
	else
		out[0] = 0;
}

static void list_struct(const struct loader *l, const struct load_group *g, int64_t i, load_visit *visit, void *context)
{
	char prefix[128], name[256];

	prefix_of(g, i, prefix, sizeof prefix);
	for (int entry = 0; entry < g->n; entry++)
		for (int part = 0; part < LOAD_PARTS && g->table[entry].part[part].name; part++) {
			int64_t dim[4] = { 1, 1, 1, 1 };
			int rank = shape(l, &g->table[entry], part, dim);

			snprintf(name, sizeof name, "%s%s", prefix, g->table[entry].part[part].name);
			visit(context, name, rank, dim);
		}
}

void load_groups_list(const int64_t *dims, const struct load_group *groups, int n, load_visit *visit, void *context)
{
	struct loader l = { NULL, NULL, dims };

	for (int i = 0; i < n; i++)
		for (int64_t j = 0; j < groups[i].count; j++)
			list_struct(&l, &groups[i], j, visit, context);
}

enum status load_groups(const struct loader *l, const struct load_group *groups, int n)
{
	char prefix[128];

	for (int i = 0; i < n; i++)
		for (int64_t j = 0; j < groups[i].count; j++) {
			prefix_of(&groups[i], j, prefix, sizeof prefix);
			TRY(load_table(l, prefix, groups[i].table, groups[i].n, member(&groups[i], j)));
		}
	return check_all_read(l->weights, groups, n);
}

void load_groups_free(struct kernels *k, const struct load_group *groups, int n)
{
	for (int i = 0; i < n; i++)
		for (int64_t j = 0; groups[i].base && j < groups[i].count; j++)
			load_free(k, groups[i].table, groups[i].n, member(&groups[i], j));
}

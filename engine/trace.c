/* trace: host copies of a job's stages. */
#include "engine/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/weights.h"

struct trace {
	struct named_tensor *items;
	int n_items, capacity;
};

enum status trace_new(struct trace **out)
{
	struct trace *t = calloc(1, sizeof *t);

	if (!t)
		return status_fail(STATUS_NO_MEMORY, "no memory for a trace");
	*out = t;
	return STATUS_OK;
}

void trace_free(struct trace *t)
{
	if (!t)
		return;
	for (int i = 0; i < t->n_items; i++)
		free(t->items[i].tensor.data);
	free(t->items);
	free(t);
}

/* A new item with room for its values. */
static enum status add(
	struct trace *t, const char *name, enum dtype dtype, int rank, const int64_t *dim, struct tensor **out)
{
	struct named_tensor *item;
	void *data;

	if (t->n_items == t->capacity) {
		int capacity = t->capacity ? 2 * t->capacity : 32;
		struct named_tensor *items = realloc(t->items, (size_t)capacity * sizeof *items);

		if (!items)
			return status_fail(STATUS_NO_MEMORY, "no memory for a trace");
		t->items = items;
		t->capacity = capacity;
	}
	item = &t->items[t->n_items];
	item->tensor = tensor_view(NULL, dtype, rank, dim);
	data = malloc((size_t)tensor_count(&item->tensor) * dtype_size(dtype) + 1);
	if (!data)
		return status_fail(STATUS_NO_MEMORY, "no memory for a trace");
	item->tensor.data = data;
	snprintf(item->name, sizeof item->name, "%s", name);
	t->n_items++;
	*out = &item->tensor;
	return STATUS_OK;
}

enum status trace_tensor(struct trace *t, struct kernels *k, struct tensor device, const char *format, ...)
{
	char name[64];
	va_list args;
	struct tensor *host;

	if (!t)
		return STATUS_OK;
	va_start(args, format);
	vsnprintf(name, sizeof name, format, args);
	va_end(args);
	TRY(add(t, name, DTYPE_F32, device.rank, device.dim, &host));
	return kernels_download(k, device, host);
}

enum status trace_floats(struct trace *t, const char *name, const float *values, int64_t count)
{
	struct tensor *host;

	if (!t)
		return STATUS_OK;
	TRY(add(t, name, DTYPE_F32, 1, &count, &host));
	memcpy(host->data, values, (size_t)count * sizeof *values);
	return STATUS_OK;
}

enum status trace_ids(struct trace *t, const char *name, const int64_t *ids, int64_t count)
{
	struct tensor *host;

	if (!t)
		return STATUS_OK;
	TRY(add(t, name, DTYPE_I64, 1, &count, &host));
	memcpy(host->data, ids, (size_t)count * sizeof *ids);
	return STATUS_OK;
}

enum status trace_picture(struct trace *t, struct kernels *k, struct tensor device, const char *name)
{
	int64_t height = device.dim[0], width = device.dim[1], pixels = height * width;
	struct tensor *planes, rows = tensor_view(NULL, DTYPE_F32, 3, device.dim);
	float *plane;
	enum status status;

	if (!t)
		return STATUS_OK;
	TRY(add(t, name, DTYPE_F32, 3, (int64_t[]){ 3, height, width }, &planes));
	rows.data = malloc((size_t)pixels * 3 * sizeof(float));
	if (!rows.data)
		return status_fail(STATUS_NO_MEMORY, "no memory for a trace");
	status = kernels_download(k, device, &rows);
	plane = planes->data;
	for (int64_t i = 0; status == STATUS_OK && i < pixels; i++)
		for (int64_t c = 0; c < 3; c++)
			plane[c * pixels + i] = ((const float *)rows.data)[i * 3 + c];
	free(rows.data);
	return status;
}

enum status trace_pixels(struct trace *t, const char *name, const uint8_t *rgb, int64_t height, int64_t width)
{
	struct tensor *host;

	if (!t)
		return STATUS_OK;
	TRY(add(t, name, DTYPE_U8, 3, (int64_t[]){ height, width, 3 }, &host));
	memcpy(host->data, rgb, (size_t)(height * width * 3));
	return STATUS_OK;
}

enum status trace_write(const struct trace *t, const char *path)
{
	return weights_write(path, t->n_items, t->items);
}

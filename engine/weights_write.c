/* weights_write: tensors to one safetensors file, for traces. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/weights.h"

static const char *written_type(enum dtype dtype)
{
	switch (dtype) {
	case DTYPE_F32:
		return "F32";
	case DTYPE_I64:
		return "I64";
	case DTYPE_U8:
		return "U8";
	default:
		return NULL;
	}
}

static size_t tensor_len(const struct tensor *t)
{
	return (size_t)tensor_count(t) * dtype_size(t->dtype);
}

static enum status describe(const struct named_tensor *named, uint64_t offset, json_t *header)
{
	const struct tensor *t = &named->tensor;
	const char *type = written_type(t->dtype);
	json_t *shape, *info;

	if (!memchr(named->name, 0, sizeof named->name))
		return status_fail(STATUS_INTERNAL, "weights_write: a name is too long");
	if (!type || !tensor_contiguous(t))
		return status_fail(
			STATUS_INTERNAL, "weights_write: tensor %s is neither contiguous F32, I64 nor U8", named->name);
	if (json_object_get(header, named->name))
		return status_fail(STATUS_INTERNAL, "weights_write: tensor %s is there twice", named->name);
	shape = json_array();
	for (int i = 0; i < t->rank; i++)
		json_array_append_new(shape, json_integer(t->dim[i]));
	info = json_pack("{s:s, s:o, s:[I, I]}", "dtype", type, "shape", shape, "data_offsets", (json_int_t)offset,
		(json_int_t)(offset + tensor_len(t)));
	if (json_object_set_new(header, named->name, info)) /* takes info, NULL and on failure too */
		return status_fail(
			STATUS_INTERNAL, "weights_write: tensor %s: no valid name, or no memory", named->name);
	return STATUS_OK;
}

/* Length and text of the header, padded with spaces so that the data is aligned. */
static enum status make_header(int n, const struct named_tensor *tensors, struct bytes *out)
{
	json_t *header = json_object();
	uint64_t offset = 0, len;
	char *text = NULL;
	enum status status = header ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a header");

	for (int i = 0; i < n && status == STATUS_OK; i++) {
		status = describe(&tensors[i], offset, header);
		offset += tensor_len(&tensors[i].tensor);
	}
	if (status == STATUS_OK) {
		text = json_dumps(header, JSON_COMPACT);
		len = text ? (strlen(text) + 7) / 8 * 8 : 0;
		status = text ? bytes_add(out, &len, sizeof len)
			      : status_fail(STATUS_NO_MEMORY, "no memory for a header");
		if (status == STATUS_OK)
			status = bytes_print(out, "%-*s", (int)len, text);
	}
	free(text);
	json_decref(header);
	return status;
}

static bool write_file(FILE *file, const struct bytes *header, int n, const struct named_tensor *tensors)
{
	bool good = fwrite(header->data, 1, header->len, file) == header->len;

	for (int i = 0; i < n && good; i++) {
		size_t len = tensor_len(&tensors[i].tensor);

		good = fwrite(tensors[i].tensor.data, 1, len, file) == len;
	}
	return fflush(file) == 0 && good;
}

static enum status write_and_rename(
	const char *temporary, const char *path, const struct bytes *header, int n, const struct named_tensor *tensors)
{
	FILE *file = fopen(temporary, "wxe");
	bool good;

	if (!file)
		return status_fail(STATUS_IO, "%s: cannot create: %s", temporary, strerror(errno));
	good = write_file(file, header, n, tensors) && fsync(fileno(file)) == 0;
	good = (fclose(file) == 0) && good && rename(temporary, path) == 0;
	if (!good) {
		status_fail(STATUS_IO, "%s: cannot write: %s", path, strerror(errno));
		unlink(temporary);
		return STATUS_IO;
	}
	return STATUS_OK;
}

enum status weights_write(const char *path, int n, const struct named_tensor *tensors)
{
	struct bytes header = { 0 }, temporary = { 0 };
	enum status status = make_header(n, tensors, &header);

	if (status == STATUS_OK)
		status = bytes_print(&temporary, "%s.%ld.tmp", path, (long)getpid());
	if (status == STATUS_OK)
		status = write_and_rename((char *)temporary.data, path, &header, n, tensors);
	bytes_free(&header);
	bytes_free(&temporary);
	return status;
}

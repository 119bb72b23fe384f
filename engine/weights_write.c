/* weights_write: tensors to one safetensors file, for traces. */
#include <stdio.h>
#include <string.h>

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/new_file.h"
#include "engine/safetensors.h"
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

	if (!memchr(named->name, 0, sizeof named->name))
		return status_fail(STATUS_INTERNAL, "weights_write: a name is too long");
	if (!type || !tensor_contiguous(t))
		return status_fail(
			STATUS_INTERNAL, "weights_write: tensor %s is neither contiguous F32, I64 nor U8", named->name);
	if (json_object_get(header, named->name))
		return status_fail(STATUS_INTERNAL, "weights_write: tensor %s is there twice", named->name);
	return safetensors_describe(header, named->name, type, t->rank, t->dim, offset, tensor_len(t));
}

static enum status make_header(int n, const struct named_tensor *tensors, struct bytes *out)
{
	json_t *header = json_object();
	uint64_t offset = 0;
	enum status status = header ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a header");

	for (int i = 0; i < n && status == STATUS_OK; i++) {
		status = describe(&tensors[i], offset, header);
		offset += tensor_len(&tensors[i].tensor);
	}
	if (status == STATUS_OK)
		status = safetensors_print(header, out);
	json_decref(header);
	return status;
}

static enum status write_all(FILE *file, const struct bytes *header, int n, const struct named_tensor *tensors)
{
	bool good = fwrite(header->data, 1, header->len, file) == header->len;

	for (int i = 0; i < n && good; i++) {
		size_t len = tensor_len(&tensors[i].tensor);

		good = fwrite(tensors[i].tensor.data, 1, len, file) == len;
	}
	return good ? STATUS_OK : new_file_fail();
}

enum status weights_write(const char *path, int n, const struct named_tensor *tensors)
{
	struct bytes header = { 0 };
	struct new_file file;
	enum status status = make_header(n, tensors, &header);

	if (status == STATUS_OK)
		status = new_file_open(path, &file);
	if (status == STATUS_OK)
		status = new_file_close(&file, write_all(file.file, &header, n, tensors));
	bytes_free(&header);
	return status;
}

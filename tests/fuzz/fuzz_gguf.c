/* Any bytes as a GGUF file: refused, or every tensor lies inside and can be decoded. */
#include <stdlib.h>

#include "engine/gguf.h"
#include "engine/stored.h"

enum { VALUES_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stored_tensor *list = NULL;
	int64_t count = 0;

	if (gguf_parse(data, size, &list, &count) != STATUS_OK)
		return 0;
	for (int64_t i = 0; i < count; i++) {
		float *values = list[i].count <= VALUES_MAX ? malloc((size_t)list[i].count * sizeof *values + 1) : NULL;

		if (list[i].data < data || list[i].len > (size_t)(data + size - list[i].data))
			abort();
		if (values && stored_can_be_floats(&list[i]))
			stored_to_floats(&list[i], values);
		free(values);
	}
	stored_tensors_free(list, count);
	return 0;
}

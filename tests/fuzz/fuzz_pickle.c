/* Any bytes as a PyTorch checkpoint: refused, or every tensor lies inside; nothing is run. */
#include <stdlib.h>

#include "engine/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stored_tensor *list = NULL;
	int64_t count = 0;

	if (pickle_parse(data, size, &list, &count) != STATUS_OK)
		return 0;
	for (int64_t i = 0; i < count; i++)
		if (list[i].data < data || list[i].len > (size_t)(data + size - list[i].data))
			abort();
	stored_tensors_free(list, count);
	return 0;
}

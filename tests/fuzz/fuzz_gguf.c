/* Any bytes as a GGUF file: its header is accepted or refused, and nothing outside is read. */
#include <stdint.h>

#include "engine/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	gguf_check(data, size);
	return 0;
}

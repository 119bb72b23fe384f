/* Any bytes as a tokenizer.json; one that opens encodes a text that has something of everything. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = "ab abc<x> \n\n12 e\xcc\x81\xcc\xa3 \xe1\x86\xa7\0 'S <|im_end|>";
	struct tokenizer *t = NULL;
	struct token_ids ids = { 0 };
	char path[40];
	int fd = memfd_create("tokenizer.json", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (tokenizer_open(path, &t) == STATUS_OK && tokenizer_encode(t, text, sizeof text - 1, &ids) == STATUS_OK)
		for (int64_t i = 0; i < ids.count; i++)
			if (ids.id[i] < 0 || ids.id[i] >= tokenizer_size(t))
				abort();
	token_ids_free(&ids);
	tokenizer_close(t);
	close(fd);
	return 0;
}

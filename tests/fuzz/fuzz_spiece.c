/* Any bytes as a SentencePiece model; one that opens encodes a text that has something of everything. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/tokenizer_unigram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] =
		"ab A\xcc\x81 abc \n\n12 e\xcc\x81\xcc\xa3 \xe1\x86\xa7\0 \xe2\x96\x81\xe2\x96\x81 </s>";
	struct unigram *u = NULL;
	struct token_ids ids = { 0 };
	char path[40];
	int fd = memfd_create("spiece.model", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (unigram_open_spiece(path, &u) == STATUS_OK && unigram_encode(u, text, sizeof text - 1, &ids) == STATUS_OK)
		for (int64_t i = 0; i < ids.count; i++)
			if (ids.id[i] < 0 || ids.id[i] >= unigram_size(u))
				abort();
	token_ids_free(&ids);
	unigram_close(u);
	close(fd);
	return 0;
}

/* Any text through a small tokenizer with the pattern of Qwen: it is encoded if it is UTF-8, byte for byte. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* All bytes, a few merges, no normalizer: ids 0..255 are the bytes themselves. */
static struct tokenizer *open_tokenizer(void)
{
	int fd = memfd_create("tokenizer.json", MFD_CLOEXEC), other = 0x100;
	FILE *file = fdopen(fd, "w");
	struct tokenizer *t = NULL;
	char path[40];

	fputs("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"aa\":256,\"aaaa\":257,\"ab\":258", file);
	for (int byte = 0; byte < 256; byte++) {
		int prints = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);

		fprintf(file, ",\"\\u%04x\":%d", prints ? byte : other, byte);
		other += !prints;
	}
	fputs("},\"merges\":[\"a a\",\"aa aa\",\"a "
	      "b\"]},\"added_tokens\":[{\"id\":300,\"content\":\"<x>\"}],\"pre_tokenizer\":"
	      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{"
	      "\"Regex\":"
	      "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
	      "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*"
	      "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"
	      "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}}",
		file);
	fflush(file);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (tokenizer_open(path, &t) != STATUS_OK) {
		fprintf(stderr, "%s\n", status_text());
		abort();
	}
	fclose(file);
	return t;
}

static size_t bytes_of(int64_t id)
{
	return id < 256 ? 1 : id == 257 ? 4 : id == 300 ? 3 : 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tokenizer *t;
	struct token_ids ids = { 0 };
	size_t len = 0;

	if (!t)
		t = open_tokenizer();
	if (tokenizer_encode(t, (const char *)data, size, &ids) == STATUS_OK) {
		for (int64_t i = 0; i < ids.count; i++)
			len += bytes_of(ids.id[i]);
		if (len != size)
			abort();
	}
	token_ids_free(&ids);
	return 0;
}

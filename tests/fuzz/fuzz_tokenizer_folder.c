/* Any bytes as the files of CLIP's tokenizer, one after the other with a NUL between: vocab.json, merges.txt,
 * tokenizer_config.json, special_tokens_map.json. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILES = 4 };

static char folder[] = "/tmp/promptfs-fuzz-XXXXXX";
static char path[FILES][80];

static void remove_folder(void)
{
	for (int i = 0; i < FILES; i++)
		unlink(path[i]);
	rmdir(folder);
}

static void make_folder(void)
{
	static const char *const names[FILES] = { "vocab.json", "merges.txt", "tokenizer_config.json",
		"special_tokens_map.json" };

	if (!mkdtemp(folder))
		abort();
	for (int i = 0; i < FILES; i++)
		snprintf(path[i], sizeof path[i], "%s/%s", folder, names[i]);
	atexit(remove_folder);
}

/* An empty file would be malformed JSON: those that the data does not reach are not there. */
static void write_files(const uint8_t *data, size_t size)
{
	for (int i = 0; i < FILES; i++) {
		const uint8_t *end = size ? memchr(data, 0, size) : NULL;
		size_t len = end ? (size_t)(end - data) : size;
		FILE *file;

		unlink(path[i]);
		if (!size)
			continue;
		file = fopen(path[i], "wb");
		if (!file || fwrite(data, 1, len, file) != len || fclose(file))
			abort();
		data += end ? len + 1 : len;
		size -= end ? len + 1 : len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = "ab ABC <|endoftext|> \n\n12 e\xcc\x81\xcc\xa3 \xc4\xb0\0 'S !!";
	struct tokenizer *t = NULL;
	struct token_ids ids = { 0 };

	if (!*path[0])
		make_folder();
	write_files(data, size);
	if (tokenizer_open(folder, &t) == STATUS_OK &&
		tokenizer_encode_padded(t, text, sizeof text - 1, 20, &ids) == STATUS_OK) {
		if (ids.count != 20)
			abort();
		for (int64_t i = 0; i < ids.count; i++)
			if (ids.id[i] < 0 || ids.id[i] >= tokenizer_size(t))
				abort();
	}
	token_ids_free(&ids);
	tokenizer_close(t);
	return 0;
}

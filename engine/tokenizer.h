/* tokenizer: text to token ids by a Hugging Face tokenizer.json of the byte-level BPE kind (Qwen2/Qwen3).
 *
 * What is read from the file: added tokens (matched first, in the raw text, longest at a position), the NFC normalizer,
 * the Split pattern (PCRE2 with Unicode properties), vocabulary and merges.  Any other normalizer, pre-tokenizer or
 * model is STATUS_UNSUPPORTED by name; malformed files are STATUS_CORRUPT; both name the file.
 *
 * Threads: an open tokenizer may be used by several threads at once.
 */
#ifndef PROMPTFS_ENGINE_TOKENIZER_H
#define PROMPTFS_ENGINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct tokenizer;

struct token_ids {
	int64_t *id; /* owned; free with token_ids_free */
	int64_t count, capacity;
};

enum status tokenizer_open(const char *path, struct tokenizer **out);
void tokenizer_close(struct tokenizer *t); /* NULL is allowed */

/* Appends the ids of text (UTF-8, may hold NULs). Invalid UTF-8 is STATUS_INVALID. */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, struct token_ids *out);

/* The id of a token as written ("<|endoftext|>"), or -1; one more than the largest id. */
int64_t tokenizer_find(const struct tokenizer *t, const char *token);
int64_t tokenizer_size(const struct tokenizer *t);

void token_ids_free(struct token_ids *ids);

#endif

/* tokenizer: text to token ids, as the Hugging Face "fast" tokenizers do it.
 *
 * Three kinds are read, recognised by the files:
 *   byte-level BPE (Qwen2/Qwen3)   tokenizer.json
 *   CLIP's BPE                     tokenizer.json, or vocab.json and merges.txt
 *   T5's Unigram                   tokenizer.json, or spiece.model (SentencePiece)
 * with special tokens from tokenizer_config.json and special_tokens_map.json beside them.  Any other normalizer,
 * pre-tokenizer or model is STATUS_UNSUPPORTED by name; malformed files are STATUS_CORRUPT; both name the file.
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

/* path: a component's folder, or its tokenizer.json. */
enum status tokenizer_open(const char *path, struct tokenizer **out);
void tokenizer_close(struct tokenizer *t); /* NULL is allowed */

/* Appends the ids of text (UTF-8, may hold NULs), without those that begin and end it. Invalid UTF-8 is STATUS_INVALID.
 */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, struct token_ids *out);

/* Appends exactly `length` ids: the beginning token (CLIP), the text cut to what fits, the end token (CLIP, T5), and
 * padding: padding="max_length", truncation=True of the reference.  Some tokenizers have no token to pad with: then
 * texts that need it are STATUS_UNSUPPORTED. */
enum status tokenizer_encode_padded(
	const struct tokenizer *t, const char *text, size_t len, int64_t length, struct token_ids *out);

/* The second half of that: ids are those of a text.  *text: which of the `length` ids are the text's. */
struct token_range {
	int64_t first, count;
};
enum status tokenizer_pad(const struct tokenizer *t, const struct token_ids *ids, int64_t length, struct token_ids *out,
	struct token_range *text);

/* The id of a token as written ("<|endoftext|>"), or -1; one more than the largest id. */
int64_t tokenizer_find(const struct tokenizer *t, const char *token);
int64_t tokenizer_size(const struct tokenizer *t);

void token_ids_free(struct token_ids *ids);

#endif

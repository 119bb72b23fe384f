/* tokenizer_unigram: T5's tokenizer: a table of normalizations, words beginning with U+2581, and of all ways to split a
 * word into tokens the likeliest.  Used by tokenizer alone.
 *
 * Papers: Subword Regularization, arXiv 1804.10959; SentencePiece, arXiv 1808.06226.  References: Hugging Face
 * tokenizers, models/unigram/model.rs; spm_precompiled; transformers, models/t5/tokenization_t5.py.
 *
 * Threads: an open model may be used by several at once.
 */
#ifndef PROMPTFS_ENGINE_TOKENIZER_UNIGRAM_H
#define PROMPTFS_ENGINE_TOKENIZER_UNIGRAM_H

#include <jansson.h>

#include "engine/tokenizer.h"

struct unigram;

/* root: a tokenizer.json.  Messages begin with `where`. */
enum status unigram_open(const char *where, const json_t *root, struct unigram **out);
/* A SentencePiece model, to which T5 adds <extra_id_99> ... <extra_id_0>. */
enum status unigram_open_spiece(const char *path, struct unigram **out);
void unigram_close(struct unigram *u); /* NULL is allowed */

int64_t unigram_find(const struct unigram *u, const char *token, size_t len); /* -1 if there is none */
int64_t unigram_size(const struct unigram *u);

/* Appends the ids of a text that is valid UTF-8. */
enum status unigram_encode(const struct unigram *u, const char *text, size_t len, struct token_ids *out);

#endif

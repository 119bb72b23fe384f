/* tokenizer_bpe: byte-level byte pair encoding, the model part of a tokenizer.json.  Used by tokenizer alone.
 *
 * A piece of text becomes one symbol a byte (CLIP: the last byte's has a suffix, "</w>"); then the neighbours whose
 * merge stands first in the list are joined, the leftmost first, until no merge applies.
 *
 * Threads: an open model may be used by several at once, each with a scratch of its own.
 */
#ifndef PROMPTFS_ENGINE_TOKENIZER_BPE_H
#define PROMPTFS_ENGINE_TOKENIZER_BPE_H

#include <jansson.h>

#include "engine/tokenizer.h"

enum { TOKEN_ID_MAX = (1 << 24) - 1 };

struct bpe;

/* Buffers of bpe_encode, grown as needed; zero-initialise, bpe_scratch_fini. */
struct bpe_scratch {
	struct bpe_symbol *symbol;
	struct bpe_merge *heap;
	size_t n_symbols; /* room; twice as many on the heap */
};

/* model: the value of "model".  Messages begin with `where`. */
enum status bpe_open(const char *where, const json_t *model, struct bpe **out);
void bpe_close(struct bpe *b); /* NULL is allowed */

/* Whether every byte has a token, without which text would be lost. */
enum status bpe_check_bytes(const struct bpe *b, const char *where);

int64_t bpe_find(const struct bpe *b, const char *token, size_t len); /* -1 if there is none */
int64_t bpe_size(const struct bpe *b);                                /* one more than the largest id */

/* Appends the ids of a piece, in O(n log n). */
enum status bpe_encode(
	const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len, struct token_ids *out);
void bpe_scratch_fini(struct bpe_scratch *s);

/* Appends one id. */
enum status token_ids_add(struct token_ids *ids, int64_t id);

#endif

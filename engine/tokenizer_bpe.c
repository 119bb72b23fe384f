/* tokenizer_bpe: byte-level byte pair encoding. */
#include "engine/tokenizer_bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/bytes.h"
#include "engine/json.h"

enum { NONE = -1, SUFFIX_MAX = 15 };

struct token {
	size_t offset, len; /* in the pool */
	int32_t id;
};

/* Joining left and right gives id; rank is the place in the list of merges. */
struct pair {
	int32_t left, right; /* left: NONE in a free slot */
	int32_t rank, id;
};

struct bpe {
	struct bytes pool; /* the tokens' texts, one after the other */
	struct token *token;
	size_t n_tokens;
	uint32_t *token_slot;   /* open addressing: index + 1 into token, 0 when free */
	struct pair *pair_slot; /* open addressing */
	size_t token_mask, pair_mask;
	int32_t byte_id[256]; /* NONE: not in the vocabulary */
	int32_t last_id[256]; /* of a word's last byte: with the suffix, where there is one */
	int64_t size;
};

/* ---- tables ------------------------------------------------------------------------------------------------------ */

/* At most half of the slots are taken. */
static size_t slots_for(size_t count)
{
	size_t slots = 16;

	while (slots < 2 * count)
		slots *= 2;
	return slots;
}

/* The slot of a token, or the free one where it belongs. */
static uint32_t *token_slot(const struct bpe *b, const char *text, size_t len)
{
	for (size_t i = XXH3_64bits(text, len);; i++) {
		uint32_t *slot = &b->token_slot[i & b->token_mask];
		const struct token *t = *slot ? &b->token[*slot - 1] : NULL;

		if (!t || (t->len == len && !memcmp(b->pool.data + t->offset, text, len)))
			return slot;
	}
}

static struct pair *pair_slot(const struct bpe *b, int32_t left, int32_t right)
{
	int32_t key[2] = { left, right };

	for (size_t i = XXH3_64bits(key, sizeof key);; i++) {
		struct pair *p = &b->pair_slot[i & b->pair_mask];

		if (p->left == NONE || (p->left == left && p->right == right))
			return p;
	}
}

int64_t bpe_find(const struct bpe *b, const char *token, size_t len)
{
	uint32_t slot = *token_slot(b, token, len);

	return slot ? b->token[slot - 1].id : NONE;
}

int64_t bpe_size(const struct bpe *b)
{
	return b->size;
}

/* ---- the vocabulary ---------------------------------------------------------------------------------------------- */

/* Vocabularies write each byte as one character: those that Latin-1 prints as themselves, the others, in order, as
 * U+0100 and following (a space is U+0120). */
static bool prints(int byte)
{
	return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

static void find_bytes(struct bpe *b, const char *suffix)
{
	int other = 0x100;

	for (int byte = 0; byte < 256; byte++) {
		int character = prints(byte) ? byte : other++;
		size_t len = character < 0x80 ? 1 : 2;
		char text[2 + SUFFIX_MAX + 1] = { (char)(0xc0 | character >> 6), (char)(0x80 | (character & 0x3f)) };

		if (character < 0x80)
			text[0] = (char)character;
		b->byte_id[byte] = (int32_t)bpe_find(b, text, len);
		strcpy(text + len, suffix);
		b->last_id[byte] = (int32_t)bpe_find(b, text, strlen(text));
	}
}

enum status bpe_check_bytes(const struct bpe *b, const char *where)
{
	for (int byte = 0; byte < 256; byte++)
		if (b->byte_id[byte] == NONE || b->last_id[byte] == NONE)
			return status_fail(STATUS_UNSUPPORTED,
				"%s: no byte-level vocab: it has no token for the byte %#04x", where, byte);
	return STATUS_OK;
}

static enum status add_token(struct bpe *b, const char *where, const char *text, const json_t *id)
{
	struct token *t = &b->token[b->n_tokens];

	if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > TOKEN_ID_MAX)
		return status_fail(STATUS_CORRUPT, "%s: vocab: the id of %.40s must be a number from 0 to %d", where,
			text, TOKEN_ID_MAX);
	*t = (struct token){ b->pool.len, strlen(text), (int32_t)json_integer_value(id) };
	TRY(bytes_add(&b->pool, text, t->len));
	b->n_tokens++;
	*token_slot(b, text, t->len) = (uint32_t)b->n_tokens; /* keys of an object are there once */
	if (b->size <= t->id)
		b->size = t->id + 1;
	return STATUS_OK;
}

static enum status load_vocab(struct bpe *b, const char *where, const json_t *vocab)
{
	size_t count = json_object_size(vocab), slots = slots_for(count);
	const char *text;
	const json_t *id;

	if (!json_is_object(vocab) || !count)
		return status_fail(STATUS_CORRUPT, "%s: vocab must be an object of tokens and their ids", where);
	b->token = calloc(count, sizeof *b->token);
	b->token_slot = calloc(slots, sizeof *b->token_slot);
	b->token_mask = slots - 1;
	if (!b->token || !b->token_slot)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for a vocab of %zu", where, count);
	json_object_foreach ((json_t *)vocab, text, id)
		TRY(add_token(b, where, text, id));
	return STATUS_OK;
}

/* ---- merges ------------------------------------------------------------------------------------------------------ */

struct parts {
	const char *left, *right;
	size_t left_len, right_len;
};

/* ["a", "b"], or in older files "a b". */
static bool split_merge(const json_t *merge, struct parts *out)
{
	const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;

	*out = (struct parts){ 0 };
	if (space) {
		*out = (struct parts){ text, space + 1, (size_t)(space - text), strlen(space + 1) };
	} else if (json_array_size(merge) == 2) {
		out->left = json_string_value(json_array_get(merge, 0));
		out->right = json_string_value(json_array_get(merge, 1));
		out->left_len = out->left ? strlen(out->left) : 0;
		out->right_len = out->right ? strlen(out->right) : 0;
	}
	return out->left_len && out->right_len;
}

static enum status add_merge(struct bpe *b, const char *where, size_t rank, const json_t *merge, struct bytes *joined)
{
	struct parts p;
	int64_t left, right, id;

	if (!split_merge(merge, &p))
		return status_fail(STATUS_CORRUPT, "%s: merge %zu is no pair of tokens", where, rank);
	joined->len = 0;
	TRY(bytes_add(joined, p.left, p.left_len));
	TRY(bytes_add(joined, p.right, p.right_len));
	left = bpe_find(b, p.left, p.left_len);
	right = bpe_find(b, p.right, p.right_len);
	id = bpe_find(b, (char *)joined->data, joined->len);
	if (left == NONE || right == NONE || id == NONE)
		return status_fail(STATUS_CORRUPT, "%s: merge %zu, %.*s and %.*s: %s is not in the vocab", where, rank,
			p.left_len < 40 ? (int)p.left_len : 40, p.left, p.right_len < 40 ? (int)p.right_len : 40,
			p.right,
			left == NONE    ? "the first"
			: right == NONE ? "the second"
					: "what they make");
	*pair_slot(b, (int32_t)left, (int32_t)right) =
		(struct pair){ (int32_t)left, (int32_t)right, (int32_t)rank, (int32_t)id };
	return STATUS_OK;
}

static enum status load_merges(struct bpe *b, const char *where, const json_t *merges)
{
	size_t count = json_array_size(merges), slots = slots_for(count);
	struct bytes joined = { 0 };
	enum status status = STATUS_OK;

	if (!json_is_array(merges))
		return status_fail(STATUS_CORRUPT, "%s: merges must be a list", where);
	b->pair_slot = malloc(slots * sizeof *b->pair_slot);
	b->pair_mask = slots - 1;
	if (!b->pair_slot)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for %zu merges", where, count);
	for (size_t i = 0; i < slots; i++)
		b->pair_slot[i].left = NONE;
	for (size_t i = 0; i < count && status == STATUS_OK; i++)
		status = add_merge(b, where, i, json_array_get(merges, i), &joined);
	bytes_free(&joined);
	return status;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Options that change the ids, all of them off in byte-level models that we read. */
static enum status check_options(const char *where, const json_t *model)
{
	static const char *const names[] = { "dropout", "continuing_subword_prefix", "byte_fallback", "ignore_merges" };

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const json_t *value = json_object_get(model, names[i]);

		if (value && !json_is_null(value) && !json_is_false(value) &&
			!(json_is_string(value) && !json_string_length(value)))
			return status_fail(
				STATUS_UNSUPPORTED, "%s: the model's option %s is not supported", where, names[i]);
	}
	return STATUS_OK;
}

enum status bpe_open(const char *where, const json_t *model, struct bpe **out)
{
	const char *type = NULL, *suffix = "";
	struct bpe *b;
	enum status status;

	if (!json_is_object(model))
		return status_fail(STATUS_CORRUPT, "%s: model is missing or no object", where);
	TRY(json_get_string(model, where, "type", &type));
	if (!type || strcmp(type, "BPE"))
		return status_fail(STATUS_UNSUPPORTED, "%s: the model's type is %.40s; BPE is supported", where,
			type ? type : "missing");
	TRY(check_options(where, model));
	TRY(json_get_string(model, where, "end_of_word_suffix", &suffix));
	if (strlen(suffix) > SUFFIX_MAX)
		return status_fail(STATUS_UNSUPPORTED,
			"%s: an end_of_word_suffix of more than %d bytes is not supported", where, SUFFIX_MAX);
	b = calloc(1, sizeof *b);
	if (!b)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for a tokenizer", where);
	status = load_vocab(b, where, json_object_get(model, "vocab"));
	if (status == STATUS_OK) {
		find_bytes(b, suffix);
		status = load_merges(b, where, json_object_get(model, "merges"));
	}
	if (status != STATUS_OK) {
		bpe_close(b);
		return status;
	}
	*out = b;
	return STATUS_OK;
}

void bpe_close(struct bpe *b)
{
	if (!b)
		return;
	bytes_free(&b->pool);
	free(b->token);
	free(b->token_slot);
	free(b->pair_slot);
	free(b);
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

/* A doubly linked list in an array, in order of text. */
struct bpe_symbol {
	int32_t id;         /* NONE: joined to the one before */
	int32_t prev, next; /* NONE at the ends */
};

/* A merge that could be made when it was put on the heap. */
struct bpe_merge {
	int32_t rank, at, id; /* at: the left symbol */
};

static bool before(struct bpe_merge a, struct bpe_merge b)
{
	return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void push(struct bpe_merge *heap, size_t *n, struct bpe_merge m)
{
	size_t i = (*n)++;

	for (; i > 0 && before(m, heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = m;
}

static struct bpe_merge pop(struct bpe_merge *heap, size_t *n)
{
	struct bpe_merge top = heap[0], last = heap[--*n];
	size_t i = 0;

	for (size_t child = 1; child < *n; child = 2 * i + 1) {
		if (child + 1 < *n && before(heap[child + 1], heap[child]))
			child++;
		if (!before(heap[child], last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return top;
}

/* What symbol `at` and its right neighbour make; NULL if nothing. */
static const struct pair *pair_at(const struct bpe *b, const struct bpe_symbol *symbol, int32_t at)
{
	const struct pair *p;

	if (at == NONE || symbol[at].id == NONE || symbol[at].next == NONE)
		return NULL;
	p = pair_slot(b, symbol[at].id, symbol[symbol[at].next].id);
	return p->left == NONE ? NULL : p;
}

static void push_at(const struct bpe *b, struct bpe_scratch *s, size_t *n, int32_t at)
{
	const struct pair *p = pair_at(b, s->symbol, at);

	if (p)
		push(s->heap, n, (struct bpe_merge){ p->rank, at, p->id });
}

static void join(struct bpe_symbol *symbol, int32_t at, int32_t id)
{
	struct bpe_symbol *left = &symbol[at], *right = &symbol[left->next];

	left->id = id;
	left->next = right->next;
	if (right->next != NONE)
		symbol[right->next].prev = at;
	right->id = NONE;
}

/* The heap begins with less than n entries, and each of less than n joins takes one off and adds two at most. */
static enum status reserve(struct bpe_scratch *s, size_t len)
{
	void *symbol, *heap;

	if (len <= s->n_symbols)
		return STATUS_OK;
	if (len > INT32_MAX / 4)
		return status_fail(STATUS_INVALID, "a word of %zu bytes is too long", len);
	len = 2 * len + 64;
	symbol = realloc(s->symbol, len * sizeof *s->symbol);
	if (symbol)
		s->symbol = symbol;
	heap = realloc(s->heap, 2 * len * sizeof *s->heap);
	if (heap)
		s->heap = heap;
	if (!symbol || !heap)
		return status_fail(STATUS_NO_MEMORY, "no memory to tokenize a word of %zu bytes", len);
	s->n_symbols = len;
	return STATUS_OK;
}

enum status bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len, struct token_ids *out)
{
	size_t n = 0;

	TRY(reserve(s, len));
	for (size_t i = 0; i < len; i++)
		s->symbol[i] = (struct bpe_symbol){ b->byte_id[(unsigned char)piece[i]], (int32_t)i - 1,
			i + 1 < len ? (int32_t)i + 1 : NONE };
	if (len)
		s->symbol[len - 1].id = b->last_id[(unsigned char)piece[len - 1]];
	for (size_t i = 0; i < len; i++)
		push_at(b, s, &n, (int32_t)i);
	while (n) {
		struct bpe_merge m = pop(s->heap, &n);
		const struct pair *p = pair_at(b, s->symbol, m.at);

		if (!p || p->id != m.id) /* one of the two was joined elsewhere meanwhile */
			continue;
		join(s->symbol, m.at, m.id);
		push_at(b, s, &n, s->symbol[m.at].prev);
		push_at(b, s, &n, m.at);
	}
	for (int32_t i = 0; i != NONE && len; i = s->symbol[i].next)
		TRY(token_ids_add(out, s->symbol[i].id));
	return STATUS_OK;
}

void bpe_scratch_fini(struct bpe_scratch *s)
{
	free(s->symbol);
	free(s->heap);
	*s = (struct bpe_scratch){ 0 };
}

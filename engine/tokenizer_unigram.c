/* tokenizer_unigram: T5's tokenizer.
 *
 *     text -> normalized by the table -> words, each after U+2581 -> the likeliest tokens
 *
 * Traps, all of them what the Hugging Face library does: the table is asked for a whole grapheme first, if that has
 * less than 6 bytes, and takes the SHORTEST entry that the grapheme begins with, dropping the rest of it; unknown
 * characters cost 10 more than the worst token, and neighbours make one unknown token; every token can match in a text,
 * the special ones too; of equal paths the first found stays.
 */
#include "engine/tokenizer_unigram.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/tokenizer_bpe.h"
#include "engine/tokenizer_normalize.h"

enum { NONE = -1, TOKENS_MAX = 1 << 20, TOKEN_LEN_MAX = 1 << 10, EXTRA_IDS = 100, SPIECE_MAX_MIB = 64 };

/* A node of the trie is reached from its parent by a byte. */
struct edge {
	uint64_t key; /* parent << 8 | byte, + 1; 0 in a free slot */
	int32_t child;
};

struct unigram {
	double *score; /* of each id */
	int64_t size, room;
	struct edge *edge; /* open addressing */
	size_t edges, edge_mask;
	int32_t *token; /* of each node: its id, or NONE */
	size_t nodes, nodes_room;
	int64_t unknown;
	double unknown_score;
	uint32_t *unit; /* the table of normalizations: a double array trie into `replacement` */
	size_t units;
	struct bytes replacement; /* texts, each ending with a NUL */
};

/* ---- the trie of tokens ------------------------------------------------------------------------------------------ */

static struct edge *edge_slot(const struct unigram *u, int32_t parent, unsigned char byte)
{
	uint64_t key = ((uint64_t)parent << 8 | byte) + 1;

	for (size_t i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20);; i++) {
		struct edge *e = &u->edge[i & u->edge_mask];

		if (!e->key || e->key == key)
			return e;
	}
}

static int32_t child(const struct unigram *u, int32_t parent, unsigned char byte)
{
	const struct edge *e = edge_slot(u, parent, byte);

	return e->key ? e->child : NONE;
}

static enum status no_memory(void)
{
	return status_fail(STATUS_NO_MEMORY, "no memory for a tokenizer");
}

/* At most half of the slots are taken. */
static enum status grow_edges(struct unigram *u)
{
	struct edge *old = u->edge;
	size_t slots = old ? u->edge_mask + 1 : 0, wanted = slots ? 2 * slots : 1 << 12;

	if (2 * (u->edges + 1) <= slots)
		return STATUS_OK;
	u->edge = calloc(wanted, sizeof *u->edge);
	if (!u->edge) {
		u->edge = old;
		return no_memory();
	}
	u->edge_mask = wanted - 1;
	for (size_t i = 0; i < slots; i++)
		if (old[i].key)
			*edge_slot(u, (int32_t)((old[i].key - 1) >> 8), (unsigned char)(old[i].key - 1)) = old[i];
	free(old);
	return STATUS_OK;
}

static enum status add_node(struct unigram *u, int32_t *out)
{
	if (u->nodes == u->nodes_room) {
		size_t room = u->nodes_room ? 2 * u->nodes_room : 1 << 12;
		int32_t *grown = room < INT32_MAX ? realloc(u->token, room * sizeof *grown) : NULL;

		if (!grown)
			return no_memory();
		u->token = grown;
		u->nodes_room = room;
	}
	u->token[u->nodes] = NONE;
	*out = (int32_t)u->nodes++;
	return STATUS_OK;
}

static enum status add_path(struct unigram *u, const char *text, size_t len, int32_t *node)
{
	*node = 0;
	for (size_t i = 0; i < len; i++) {
		int32_t next = child(u, *node, (unsigned char)text[i]);

		if (next == NONE) {
			struct edge *e;

			TRY(grow_edges(u));
			TRY(add_node(u, &next));
			e = edge_slot(u, *node, (unsigned char)text[i]);
			*e = (struct edge){ ((uint64_t)*node << 8 | (unsigned char)text[i]) + 1, next };
			u->edges++;
		}
		*node = next;
	}
	return STATUS_OK;
}

/* The next id; of equal texts the last stays. */
static enum status add_token(struct unigram *u, const char *where, const char *text, size_t len, double score)
{
	int32_t node;

	if (!len || len > TOKEN_LEN_MAX)
		return status_fail(STATUS_CORRUPT, "%s: token %lld has %zu bytes; 1 to %d are allowed", where,
			(long long)u->size, len, TOKEN_LEN_MAX);
	if (!isfinite(score) || fabs(score) > 1e6)
		return status_fail(STATUS_CORRUPT, "%s: token %lld has no finite score", where, (long long)u->size);
	if (u->size == u->room) {
		int64_t room = u->room ? 2 * u->room : 1 << 12;
		double *grown = u->size < TOKENS_MAX ? realloc(u->score, (size_t)room * sizeof *grown) : NULL;

		if (!grown)
			return status_fail(
				STATUS_NO_MEMORY, "%s: no room for more than %lld tokens", where, (long long)u->size);
		u->score = grown;
		u->room = room;
	}
	TRY(add_path(u, text, len, &node));
	u->token[node] = (int32_t)u->size;
	u->score[u->size++] = score;
	return STATUS_OK;
}

int64_t unigram_find(const struct unigram *u, const char *token, size_t len)
{
	int32_t node = 0;

	for (size_t i = 0; i < len && node != NONE; i++)
		node = child(u, node, (unsigned char)token[i]);
	return node == NONE ? NONE : u->token[node];
}

int64_t unigram_size(const struct unigram *u)
{
	return u->size;
}

/* ---- loading: the table of normalizations ------------------------------------------------------------------------ */

static uint32_t little_endian(const unsigned char *b)
{
	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static bool is_utf8(const unsigned char *text, size_t len)
{
	utf8proc_int32_t c;

	for (size_t at = 0; at < len;) {
		utf8proc_ssize_t n = utf8proc_iterate(text + at, (utf8proc_ssize_t)(len - at), &c);

		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

/* The length of the trie in bytes, the trie, the texts. */
static enum status load_table(struct unigram *u, const char *where, const unsigned char *data, size_t len)
{
	size_t bytes = len >= 4 ? little_endian(data) : 0;

	if (!len)
		return STATUS_OK;
	if (bytes % 4 || !bytes || bytes > len - 4 || !is_utf8(data + 4 + bytes, len - 4 - bytes))
		return status_fail(STATUS_CORRUPT, "%s: precompiled_charsmap is malformed", where);
	u->units = bytes / 4;
	u->unit = malloc(u->units * sizeof *u->unit);
	if (!u->unit)
		return no_memory();
	for (size_t i = 0; i < u->units; i++)
		u->unit[i] = little_endian(data + 4 + 4 * i);
	return bytes_add(&u->replacement, data + 4 + bytes, len - 4 - bytes);
}

static int base64_value(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : NONE;
}

static enum status decode_base64(const char *where, const char *text, struct bytes *out)
{
	size_t len = strlen(text);
	uint32_t bits = 0;
	int n = 0;

	while (len && text[len - 1] == '=')
		len--;
	TRY(bytes_reserve(out, len / 4 * 3 + 3));
	for (size_t i = 0; i < len; i++) {
		int value = base64_value(text[i]);

		if (value == NONE)
			return status_fail(STATUS_CORRUPT, "%s: precompiled_charsmap is no base64", where);
		bits = bits << 6 | (uint32_t)value;
		n += 6;
		if (n >= 8) {
			n -= 8;
			out->data[out->len++] = (unsigned char)(bits >> n);
		}
	}
	return STATUS_OK;
}

/* ---- loading: tokenizer.json ------------------------------------------------------------------------------------- */

static enum status load_vocab(struct unigram *u, const char *where, const json_t *vocab)
{
	size_t count = json_array_size(vocab);

	if (!json_is_array(vocab) || !count || count > TOKENS_MAX)
		return status_fail(STATUS_CORRUPT, "%s: vocab must be a list of 1 to %d tokens", where, TOKENS_MAX);
	for (size_t i = 0; i < count; i++) {
		const json_t *entry = json_array_get(vocab, i), *text = json_array_get(entry, 0),
			     *score = json_array_get(entry, 1);

		if (json_array_size(entry) != 2 || !json_is_string(text) || !json_is_number(score))
			return status_fail(STATUS_CORRUPT, "%s: token %zu must be a text and its score", where, i);
		TRY(add_token(u, where, json_string_value(text), json_string_length(text), json_number_value(score)));
	}
	return STATUS_OK;
}

/* The one that has a table, among the normalizer's steps. */
static const json_t *find_table(const json_t *normalizer)
{
	const json_t *list = json_object_get(normalizer, "normalizers"), *step, *table;
	size_t i;

	json_array_foreach (list, i, step) {
		table = json_object_get(step, "precompiled_charsmap");
		if (table)
			return table;
	}
	return json_object_get(normalizer, "precompiled_charsmap");
}

static enum status load_normalizer(struct unigram *u, const char *where, const json_t *root)
{
	const json_t *table = find_table(json_object_get(root, "normalizer"));
	struct bytes data = { 0 };
	enum status status;

	if (!table || json_is_null(table))
		return STATUS_OK;
	if (!json_is_string(table))
		return status_fail(STATUS_CORRUPT, "%s: precompiled_charsmap must be a string", where);
	status = decode_base64(where, json_string_value(table), &data);
	if (status == STATUS_OK)
		status = load_table(u, where, data.data, data.len);
	bytes_free(&data);
	return status;
}

static enum status load_json(struct unigram *u, const char *where, const void *source)
{
	const json_t *root = source, *model = json_object_get(root, "model");
	bool byte_fallback = false;

	TRY(json_get_bool(model, where, "byte_fallback", &byte_fallback));
	if (byte_fallback)
		return status_fail(STATUS_UNSUPPORTED, "%s: the model's option byte_fallback is not supported", where);
	TRY(load_vocab(u, where, json_object_get(model, "vocab")));
	TRY(json_need_int(model, where, "unk_id", 0, u->size - 1, &u->unknown));
	return load_normalizer(u, where, root);
}

/* ---- loading: SentencePiece's protocol buffer -------------------------------------------------------------------- */

/* A message, or what is left of it. */
struct message {
	const unsigned char *at, *end;
};

struct field {
	unsigned number, type;
	uint64_t value;      /* types 0, 1, 5 */
	struct message body; /* type 2 */
};

enum { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };

static bool read_varint(struct message *m, uint64_t *out)
{
	*out = 0;
	for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
		unsigned char byte = *m->at++;

		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

static bool read_fixed(struct message *m, size_t len, uint64_t *out)
{
	if ((size_t)(m->end - m->at) < len)
		return false;
	*out = 0;
	for (size_t i = 0; i < len; i++)
		*out |= (uint64_t)m->at[i] << 8 * i;
	m->at += len;
	return true;
}

/* False at a malformed field. */
static bool read_field(struct message *m, struct field *f)
{
	uint64_t tag, len;

	*f = (struct field){ 0 };
	if (!read_varint(m, &tag) || tag >> 3 > UINT_MAX || tag >> 3 == 0)
		return false;
	f->number = (unsigned)(tag >> 3);
	f->type = tag & 7;
	switch (f->type) {
	case WIRE_VARINT:
		return read_varint(m, &f->value);
	case WIRE_64:
		return read_fixed(m, 8, &f->value);
	case WIRE_32:
		return read_fixed(m, 4, &f->value);
	case WIRE_BYTES:
		if (!read_varint(m, &len) || len > (uint64_t)(m->end - m->at))
			return false;
		f->body = (struct message){ m->at, m->at + len };
		m->at += len;
		return true;
	default:
		return false;
	}
}

/* Calls `take` for every field. */
static enum status read_message(struct unigram *u, const char *where, struct message m,
	enum status (*take)(struct unigram *u, const char *where, const struct field *f, void *context), void *context)
{
	while (m.at < m.end) {
		struct field f;

		if (!read_field(&m, &f))
			return status_fail(STATUS_CORRUPT, "%s: not a SentencePiece model, or a damaged one", where);
		TRY(take(u, where, &f, context));
	}
	return STATUS_OK;
}

struct piece {
	struct message text;
	float score;
	uint64_t type;
};

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_BYTE = 6 };

static enum status take_piece_field(struct unigram *u, const char *where, const struct field *f, void *context)
{
	struct piece *p = context;
	uint32_t bits = (uint32_t)f->value;

	if (f->number == 1 && f->type == WIRE_BYTES)
		p->text = f->body;
	else if (f->number == 2 && f->type == WIRE_32)
		memcpy(&p->score, &bits, sizeof bits);
	else if (f->number == 3 && f->type == WIRE_VARINT)
		p->type = f->value;
	return STATUS_OK;
}

static enum status take_piece(struct unigram *u, const char *where, const struct field *f)
{
	struct piece p = { .type = PIECE_NORMAL };

	TRY(read_message(u, where, f->body, take_piece_field, &p));
	if (p.type == PIECE_BYTE)
		return status_fail(STATUS_UNSUPPORTED, "%s: byte pieces are not supported", where);
	if (p.type == PIECE_UNKNOWN)
		u->unknown = u->size;
	return add_token(u, where, (const char *)p.text.at, p.text.at ? (size_t)(p.text.end - p.text.at) : 0, p.score);
}

static enum status take_trainer_field(struct unigram *u, const char *where, const struct field *f, void *context)
{
	enum { MODEL_TYPE = 3, UNIGRAM = 1 };

	if (f->number == MODEL_TYPE && f->type == WIRE_VARINT && f->value != UNIGRAM)
		return status_fail(STATUS_UNSUPPORTED, "%s: only Unigram models are supported", where);
	return STATUS_OK;
}

static enum status take_normalizer_field(struct unigram *u, const char *where, const struct field *f, void *context)
{
	enum { CHARSMAP = 2 };

	if (f->number != CHARSMAP || f->type != WIRE_BYTES)
		return STATUS_OK;
	if (u->unit)
		return status_fail(STATUS_CORRUPT, "%s: two tables of normalizations", where);
	return load_table(u, where, f->body.at, (size_t)(f->body.end - f->body.at));
}

static enum status take_model_field(struct unigram *u, const char *where, const struct field *f, void *context)
{
	enum { PIECES = 1, TRAINER, NORMALIZER };

	if (f->type != WIRE_BYTES)
		return STATUS_OK;
	switch (f->number) {
	case PIECES:
		return take_piece(u, where, f);
	case TRAINER:
		return read_message(u, where, f->body, take_trainer_field, NULL);
	case NORMALIZER:
		return read_message(u, where, f->body, take_normalizer_field, NULL);
	default:
		return STATUS_OK;
	}
}

static enum status load_spiece(struct unigram *u, const char *where, const void *source)
{
	const struct bytes *file = source;
	char name[20];

	u->unknown = NONE;
	TRY(read_message(u, where, (struct message){ file->data, file->data + file->len }, take_model_field, NULL));
	if (u->unknown == NONE)
		return status_fail(STATUS_CORRUPT, "%s: there is no token for what is unknown", where);
	for (int i = EXTRA_IDS - 1; i >= 0; i--) {
		snprintf(name, sizeof name, "<extra_id_%d>", i);
		TRY(add_token(u, where, name, strlen(name), 0));
	}
	return STATUS_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum status open_with(const char *where, const void *source,
	enum status (*load)(struct unigram *u, const char *where, const void *source), struct unigram **out)
{
	enum { UNKNOWN_PENALTY = 10 };
	struct unigram *u = calloc(1, sizeof *u);
	double least = DBL_MAX;
	int32_t root;
	enum status status = u ? grow_edges(u) : no_memory();

	if (status == STATUS_OK)
		status = add_node(u, &root);
	if (status == STATUS_OK)
		status = load(u, where, source);
	if (status != STATUS_OK) {
		unigram_close(u);
		return status;
	}
	for (int64_t i = 0; i < u->size; i++)
		least = fmin(least, u->score[i]);
	u->unknown_score = least - UNKNOWN_PENALTY;
	*out = u;
	return STATUS_OK;
}

enum status unigram_open(const char *where, const json_t *root, struct unigram **out)
{
	return open_with(where, root, load_json, out);
}

enum status unigram_open_spiece(const char *path, struct unigram **out)
{
	struct bytes file = { 0 };
	enum status status = bytes_read_file(&file, path, SPIECE_MAX_MIB);

	if (status == STATUS_OK)
		status = open_with(path, &file, load_spiece, out);
	bytes_free(&file);
	return status;
}

void unigram_close(struct unigram *u)
{
	if (!u)
		return;
	free(u->score);
	free(u->edge);
	free(u->token);
	free(u->unit);
	bytes_free(&u->replacement);
	free(u);
}

/* ---- encoding: normalization ------------------------------------------------------------------------------------- */

/* Where the double array says the children of a unit lie. */
static size_t unit_offset(uint32_t unit)
{
	return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* What the shortest entry with which text begins is replaced by; NULL when there is none. */
static const char *find_replacement(const struct unigram *u, const char *text, size_t len)
{
	enum { LEAF = 1 << 8 };
	size_t at = u->units ? unit_offset(u->unit[0]) : 0;

	for (size_t i = 0; i < len && text[i]; i++) {
		unsigned char byte = (unsigned char)text[i];
		uint32_t unit;

		at ^= byte;
		if (at >= u->units)
			return NULL;
		unit = u->unit[at];
		if ((unit & (1u << 31 | 0xff)) != byte)
			return NULL;
		at ^= unit_offset(unit);
		if (at >= u->units)
			return NULL;
		if (unit & LEAF) {
			size_t start = u->unit[at] & ~(1u << 31);

			return start < u->replacement.len ? (const char *)u->replacement.data + start : "";
		}
	}
	return NULL;
}

static enum status normalize_grapheme(const struct unigram *u, const char *text, size_t len, struct bytes *out)
{
	enum { SHORT = 6 };
	const char *replacement = len < SHORT ? find_replacement(u, text, len) : NULL;
	utf8proc_int32_t c;

	if (replacement)
		return bytes_add(out, replacement, strlen(replacement));
	for (size_t at = 0, n; at < len; at += n) {
		n = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c);
		replacement = find_replacement(u, text + at, n);
		if (replacement)
			TRY(bytes_add(out, replacement, strlen(replacement)));
		else
			TRY(bytes_add(out, text + at, n));
	}
	return STATUS_OK;
}

static enum status normalize(const struct unigram *u, const char *text, size_t len, struct bytes *out)
{
	utf8proc_int32_t before = 0, c, state = 0;
	size_t start = 0;

	for (size_t at = 0, n; at < len; at += n) {
		n = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c);
		if (at && utf8proc_grapheme_break_stateful(before, c, &state)) {
			TRY(normalize_grapheme(u, text + start, at - start, out));
			start = at;
		}
		before = c;
	}
	return normalize_grapheme(u, text + start, len - start, out);
}

/* ---- encoding: the likeliest path -------------------------------------------------------------------------------- */

/* The best way to a place in the text. */
struct step {
	double score;
	int32_t start; /* where its last token begins; NONE: not reached */
	int32_t id;
};

struct paths {
	struct step *step;
	size_t room;
	struct token_ids backwards;
};

static enum status reserve(struct paths *p, size_t len)
{
	struct step *grown;

	if (len >= INT32_MAX / 4)
		return status_fail(STATUS_INVALID, "a word of %zu bytes is too long", len);
	if (len + 1 > p->room) {
		grown = realloc(p->step, 2 * (len + 1) * sizeof *grown);
		if (!grown)
			return status_fail(STATUS_NO_MEMORY, "no memory to tokenize a word of %zu bytes", len);
		p->step = grown;
		p->room = 2 * (len + 1);
	}
	for (size_t i = 0; i <= len; i++)
		p->step[i] = (struct step){ 0, NONE, NONE };
	return STATUS_OK;
}

static void offer(struct step *to, double score, size_t start, int64_t id)
{
	if (to->start == NONE || score > to->score)
		*to = (struct step){ score, (int32_t)start, (int32_t)id };
}

/* All tokens that begin at `at`, where a character of n bytes stands. */
static void extend(const struct unigram *u, struct step *step, const char *piece, size_t len, size_t at, size_t n)
{
	double here = step[at].score;
	bool single = false;
	int32_t node = 0;

	for (size_t end = at; end < len;) {
		int32_t id;

		node = child(u, node, (unsigned char)piece[end++]);
		if (node == NONE)
			break;
		id = u->token[node];
		if (id == NONE)
			continue;
		offer(&step[end], u->score[id] + here, at, id);
		single = single || end - at == n;
	}
	if (!single)
		offer(&step[at + n], u->unknown_score + here, at, u->unknown);
}

static size_t character_length(const char *text, size_t len)
{
	size_t n = 1;

	while (n < len && ((unsigned char)text[n] & 0xc0) == 0x80)
		n++;
	return n;
}

static enum status encode_piece(
	const struct unigram *u, struct paths *p, const char *piece, size_t len, struct token_ids *out)
{
	int64_t last = NONE;

	TRY(reserve(p, len));
	for (size_t at = 0, n; at < len; at += n) {
		n = character_length(piece + at, len - at);
		if (at == 0 || p->step[at].start != NONE)
			extend(u, p->step, piece, len, at, n);
	}
	p->backwards.count = 0;
	for (size_t end = len; end; end = (size_t)p->step[end].start) {
		if (p->step[end].id != u->unknown || last != u->unknown)
			TRY(token_ids_add(&p->backwards, p->step[end].id));
		last = p->step[end].id;
	}
	for (int64_t i = p->backwards.count; i > 0; i--)
		TRY(token_ids_add(out, p->backwards.id[i - 1]));
	return STATUS_OK;
}

/* ---- encoding: words --------------------------------------------------------------------------------------------- */

static const char mark[] = "\xe2\x96\x81"; /* U+2581 */
enum { MARK_LEN = sizeof mark - 1 };

/* A word that begins with a mark; every mark in it begins a piece. */
static enum status encode_word(
	const struct unigram *u, struct paths *p, const struct bytes *word, struct token_ids *out)
{
	const char *text = (char *)word->data;
	size_t start = 0;

	for (size_t at = 1; at < word->len; at++) {
		if (word->len - at < MARK_LEN || memcmp(text + at, mark, MARK_LEN) != 0)
			continue;
		TRY(encode_piece(u, p, text + start, at - start, out));
		start = at;
	}
	return encode_piece(u, p, text + start, word->len - start, out);
}

static enum status encode_unmarked(const struct unigram *u, struct paths *p, struct bytes *word, const char *text,
	size_t len, struct token_ids *out)
{
	if (!len)
		return STATUS_OK;
	word->len = 0;
	if (len < MARK_LEN || memcmp(text, mark, MARK_LEN) != 0)
		TRY(bytes_add(word, mark, MARK_LEN));
	TRY(bytes_add(word, text, len));
	return encode_word(u, p, word, out);
}

static enum status encode_words(
	const struct unigram *u, struct paths *p, struct bytes *word, const struct bytes *text, struct token_ids *out)
{
	const char *data = (char *)text->data;
	utf8proc_int32_t c;
	size_t start = 0;

	for (size_t at = 0, n; at < text->len; at += n) {
		n = character_length(data + at, text->len - at);
		utf8proc_iterate((const utf8proc_uint8_t *)data + at, (utf8proc_ssize_t)n, &c);
		if (!character_is_space(c))
			continue;
		TRY(encode_unmarked(u, p, word, data + start, at - start, out));
		start = at + n;
	}
	return encode_unmarked(u, p, word, data + start, text->len - start, out);
}

enum status unigram_encode(const struct unigram *u, const char *text, size_t len, struct token_ids *out)
{
	struct bytes normalized = { 0 }, word = { 0 };
	struct paths paths = { 0 };
	enum status status = normalize(u, text, len, &normalized);

	if (status == STATUS_OK && normalized.len)
		status = encode_words(u, &paths, &word, &normalized, out);
	token_ids_free(&paths.backwards);
	free(paths.step);
	bytes_free(&word);
	bytes_free(&normalized);
	return status;
}

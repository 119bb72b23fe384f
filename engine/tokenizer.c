/* tokenizer: text to token ids.
 *
 *     text -> added tokens cut out -> normalized -> pieces by patterns -> bytes -> merges (tokenizer_bpe.c)
 *                                  -> T5: all the rest (tokenizer_unigram.c)
 *
 * Every kind becomes a tokenizer.json first (tokenizer_clip.c), except SentencePiece models.  A prompt comes from
 * anybody: every step is linear in it, but for the logarithm of the merges.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "engine/tokenizer.h"

#include <limits.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/tokenizer_bpe.h"
#include "engine/tokenizer_clip.h"
#include "engine/tokenizer_normalize.h"
#include "engine/tokenizer_special.h"
#include "engine/tokenizer_unigram.h"

enum { PATTERN_MAX = 16384, ADDED_MAX = 100000, TEXT_MAX = 64 << 20, PATTERNS = 2 };

struct added {
	char *text;
	size_t len;
	int64_t id;
	bool normalized;     /* matched in normalized text */
	bool lstrip, rstrip; /* takes the spaces before, after it */
};

struct tokenizer {
	struct bpe *bpe; /* one of the two */
	struct unigram *unigram;
	struct added *added; /* longest first */
	size_t n_added;
	bool first[2][256]; /* bytes that begin an added token; [1]: a normalized one */
	bool any_normalized;
	unsigned normalize;
	bool matches_only;             /* what the first pattern does not match is dropped */
	pcre2_code *pattern[PATTERNS]; /* pieces of the first are split by the second */
	int n_patterns;
	int64_t begin, end, pad; /* -1: none */
	int64_t size;
};

static int64_t find(const struct tokenizer *t, const char *token, size_t len)
{
	return t->bpe ? bpe_find(t->bpe, token, len) : unigram_find(t->unigram, token, len);
}

/* ---- loading: added tokens --------------------------------------------------------------------------------------- */

/* How a token would match otherwise than exactly. */
static enum status read_flags(const struct tokenizer *t, const char *where, const json_t *entry, struct added *a)
{
	bool single = false;

	TRY(json_get_bool(entry, where, "single_word", &single));
	TRY(json_get_bool(entry, where, "lstrip", &a->lstrip));
	TRY(json_get_bool(entry, where, "rstrip", &a->rstrip));
	TRY(json_get_bool(entry, where, "normalized", &a->normalized));
	if (single || (t->bpe && (a->lstrip || a->rstrip)))
		return status_fail(STATUS_UNSUPPORTED, "%s: added token %.40s: %s is not supported", where, a->text,
			single      ? "single_word"
			: a->lstrip ? "lstrip"
				    : "rstrip");
	return STATUS_OK;
}

static enum status read_id(
	const struct tokenizer *t, const char *where, const json_t *entry, const char *text, int64_t *id)
{
	int64_t known = find(t, text, strlen(text));

	*id = known;
	TRY(json_get_int(entry, where, "id", 0, TOKEN_ID_MAX, id));
	if (*id < 0)
		return status_fail(STATUS_CORRUPT, "%s: added token %.40s has no id", where, text);
	if (known >= 0 && known != *id)
		return status_fail(STATUS_CORRUPT, "%s: added token %.40s has the id %lld, but %lld in the vocab",
			where, text, (long long)*id, (long long)known);
	return STATUS_OK;
}

static enum status normalize_added(const struct tokenizer *t, struct added *a)
{
	struct bytes text = { 0 };

	TRY(normalize_text(t->normalize, a->text, a->len, &text));
	free(a->text);
	a->text = (char *)text.data;
	a->len = text.len;
	return STATUS_OK;
}

static enum status add_added(struct tokenizer *t, const char *where, const json_t *entry)
{
	struct added *a = &t->added[t->n_added];
	const char *text = NULL;

	if (!json_is_object(entry))
		return status_fail(STATUS_CORRUPT, "%s: added_tokens must hold objects", where);
	TRY(json_get_string(entry, where, "content", &text));
	if (!text || !*text)
		return status_fail(STATUS_CORRUPT, "%s: added token %zu has no content", where, t->n_added);
	*a = (struct added){ .text = strdup(text), .len = strlen(text) };
	if (!a->text)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for added tokens", where);
	t->n_added++;
	TRY(read_id(t, where, entry, text, &a->id));
	TRY(read_flags(t, where, entry, a));
	if (a->normalized)
		TRY(normalize_added(t, a));
	t->any_normalized = t->any_normalized || a->normalized;
	t->first[a->normalized][(unsigned char)*a->text] = true;
	if (t->size <= a->id)
		t->size = a->id + 1;
	return STATUS_OK;
}

static bool is_added(const struct tokenizer *t, const json_t *entry)
{
	const char *text = json_string_value(json_object_get(entry, "content"));

	for (size_t i = 0; i < t->n_added && text; i++)
		if (!strcmp(t->added[i].text, text))
			return true;
	return false;
}

static int longest_first(const void *a, const void *b)
{
	const struct added *x = a, *y = b;

	return (x->len < y->len) - (x->len > y->len);
}

/* Those of the file, then those that only its neighbours know. */
static enum status load_added(struct tokenizer *t, const char *where, const json_t *list, const json_t *special)
{
	size_t count = json_array_size(list), more = json_array_size(special);

	if ((list && !json_is_null(list) && !json_is_array(list)) || count > ADDED_MAX || more > ADDED_MAX)
		return status_fail(STATUS_CORRUPT, "%s: added_tokens must be a list of at most %d", where, ADDED_MAX);
	t->added = calloc(count + more + 1, sizeof *t->added);
	if (!t->added)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for added tokens", where);
	for (size_t i = 0; i < count; i++)
		TRY(add_added(t, where, json_array_get(list, i)));
	for (size_t i = 0; i < more; i++)
		if (!is_added(t, json_array_get(special, i)))
			TRY(add_added(t, where, json_array_get(special, i)));
	qsort(t->added, t->n_added, sizeof *t->added, longest_first);
	return STATUS_OK;
}

/* ---- loading: normalizer and pattern ----------------------------------------------------------------------------- */

/* The "type" of an object; "null" for none. */
static const char *type_of(const json_t *value)
{
	const char *type = json_string_value(json_object_get(value, "type"));

	if (!value || json_is_null(value))
		return "null";
	return type ? type : "missing";
}

/* The one replacement that is known: runs of spaces by one. */
static bool is_collapse(const json_t *step)
{
	const char *regex = json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
	const char *content = json_string_value(json_object_get(step, "content"));

	return !strcmp(type_of(step), "Replace") && regex && content && !strcmp(regex, "\\s+") && !strcmp(content, " ");
}

/* Steps must stand in the order in which normalize_text takes them. */
static enum status load_normalizer(struct tokenizer *t, const char *where, const json_t *normalizer)
{
	bool sequence = !strcmp(type_of(normalizer), "Sequence");
	const json_t *list = sequence ? json_object_get(normalizer, "normalizers") : NULL;
	size_t count = sequence ? json_array_size(list) : strcmp(type_of(normalizer), "null") != 0;

	for (size_t i = 0; i < count; i++) {
		const json_t *step = sequence ? json_array_get(list, i) : normalizer;
		const char *type = type_of(step);
		unsigned what = !strcmp(type, "NFC")         ? NORMALIZE_NFC
				: is_collapse(step)          ? NORMALIZE_SPACES
				: !strcmp(type, "Lowercase") ? NORMALIZE_LOWER
							     : 0;

		if (what <= t->normalize)
			return status_fail(
				STATUS_UNSUPPORTED, "%s: normalizer %.40s is not supported here", where, type);
		t->normalize |= what;
	}
	return STATUS_OK;
}

/* PCRE2's \s has U+180E, which left the spaces of Unicode with version 6.3 and is none in the library that the file was
 * made for: \s and \S are spelled as the property that both know. */
static enum status spell_spaces(const char *pattern, struct bytes *out)
{
	for (const char *c = pattern; *c; c++) {
		if (*c != '\\' || !c[1]) {
			TRY(bytes_add(out, c, 1));
			continue;
		}
		c++;
		if (*c == 's' || *c == 'S')
			TRY(bytes_print(out, "\\%c{White_Space}", *c == 's' ? 'p' : 'P'));
		else
			TRY(bytes_print(out, "\\%c", *c));
	}
	return STATUS_OK;
}

static enum status compile_spelled(const char *where, const struct bytes *pattern, pcre2_code **out)
{
	uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, empty = 0;
	PCRE2_UCHAR why[120] = "";
	PCRE2_SIZE at;
	int error;

	*out = pcre2_compile(pattern->data, pattern->len, options, &error, &at, NULL);
	if (!*out) {
		pcre2_get_error_message(error, why, sizeof why);
		return status_fail(
			STATUS_CORRUPT, "%s: the splitting pattern is no regular expression: %s", where, (char *)why);
	}
	pcre2_pattern_info(*out, PCRE2_INFO_MATCHEMPTY, &empty);
	if (empty)
		return status_fail(STATUS_UNSUPPORTED, "%s: the splitting pattern can match nothing at all", where);
	pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where it fails the pattern is interpreted */
	return STATUS_OK;
}

static enum status compile(struct tokenizer *t, const char *where, const char *pattern)
{
	struct bytes spelled = { 0 };
	enum status status = spell_spaces(pattern, &spelled);

	if (status == STATUS_OK)
		status = compile_spelled(where, &spelled, &t->pattern[t->n_patterns++]);
	bytes_free(&spelled);
	return status;
}

static enum status load_split(struct tokenizer *t, const char *where, const json_t *split)
{
	const char *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
	const char *behavior = "missing";
	bool invert = false;

	TRY(json_get_string(split, where, "behavior", &behavior));
	TRY(json_get_bool(split, where, "invert", &invert));
	t->matches_only = !strcmp(behavior, "Removed") && invert;
	if (t->n_patterns || !(t->matches_only || (!strcmp(behavior, "Isolated") && !invert)))
		return status_fail(STATUS_UNSUPPORTED,
			"%s: only one Split is supported, Isolated, or Removed and inverted", where);
	if (!pattern || !*pattern || strlen(pattern) > PATTERN_MAX)
		return status_fail(STATUS_CORRUPT, "%s: the splitting pattern must be a Regex of 1 to %d bytes", where,
			PATTERN_MAX);
	return compile(t, where, pattern);
}

/* With use_regex pieces are split once more, by GPT-2's pattern. */
static enum status load_byte_level(struct tokenizer *t, const char *where, const json_t *byte_level)
{
	static const char pattern[] =
		"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
	bool prefix = true, regex = true; /* what the library takes when they are missing */

	TRY(json_get_bool(byte_level, where, "add_prefix_space", &prefix));
	TRY(json_get_bool(byte_level, where, "use_regex", &regex));
	if (prefix || (regex && !t->matches_only))
		return status_fail(
			STATUS_UNSUPPORTED, "%s: ByteLevel with add_prefix_space or use_regex is not supported", where);
	return regex ? compile(t, where, pattern) : STATUS_OK;
}

/* A Split, then ByteLevel. */
static enum status load_pre_tokenizer(struct tokenizer *t, const char *where, const json_t *pre)
{
	bool sequence = !strcmp(type_of(pre), "Sequence"), byte_level = false;
	const json_t *list = sequence ? json_object_get(pre, "pretokenizers") : NULL;
	size_t count = sequence ? json_array_size(list) : 1;

	for (size_t i = 0; i < count; i++) {
		const json_t *step = sequence ? json_array_get(list, i) : pre;

		if (!strcmp(type_of(step), "Split") && !byte_level) {
			TRY(load_split(t, where, step));
		} else if (!strcmp(type_of(step), "ByteLevel") && !byte_level) {
			TRY(load_byte_level(t, where, step));
			byte_level = true;
		} else {
			return status_fail(STATUS_UNSUPPORTED, "%s: pre_tokenizer %.40s is not supported here", where,
				type_of(step));
		}
	}
	if (!t->n_patterns || !byte_level)
		return status_fail(STATUS_UNSUPPORTED, "%s: pre_tokenizer must be a Split and ByteLevel", where);
	return STATUS_OK;
}

/* ["<|endoftext|>", 49407] */
static enum status read_end(
	const struct tokenizer *t, const char *where, const json_t *post, const char *key, int64_t *id)
{
	const json_t *value = json_array_get(json_object_get(post, key), 1);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= t->size)
		return status_fail(STATUS_CORRUPT, "%s: post_processor: %s must be a token and its id", where, key);
	*id = json_integer_value(value);
	return STATUS_OK;
}

/* Others may add tokens in other places. */
static enum status load_post_processor(struct tokenizer *t, const char *where, const json_t *post)
{
	const char *type = type_of(post);

	if (!strcmp(type, "RobertaProcessing")) {
		TRY(read_end(t, where, post, "cls", &t->begin));
		return read_end(t, where, post, "sep", &t->end);
	}
	if (!strcmp(type, "null") || !strcmp(type, "ByteLevel"))
		return STATUS_OK;
	return status_fail(STATUS_UNSUPPORTED, "%s: post_processor %.40s is not supported", where, type);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static int64_t find_special(const struct tokenizer *t, const json_t *special, const char *key, const char *usual)
{
	const char *named = json_string_value(json_object_get(special, key));

	if (!named)
		named = usual;
	return named ? tokenizer_find(t, named) : -1;
}

/* How T5's tokenizer splits is fixed by its class, whatever else the file says. */
static enum status load_unigram(struct tokenizer *t, const char *where, const json_t *root, const json_t *special)
{
	if (root)
		TRY(unigram_open(where, root, &t->unigram));
	else
		TRY(unigram_open_spiece(where, &t->unigram));
	t->size = unigram_size(t->unigram);
	TRY(load_added(t, where, json_object_get(root, "added_tokens"), json_object_get(special, "added_tokens")));
	t->end = find_special(t, special, "eos_token", "</s>");
	t->pad = find_special(t, special, "pad_token", "<pad>");
	if (t->end < 0)
		return status_fail(STATUS_CORRUPT, "%s: there is no token to end a text", where);
	return STATUS_OK;
}

static enum status load_bpe(struct tokenizer *t, const char *where, const json_t *root, const json_t *special)
{
	TRY(bpe_open(where, json_object_get(root, "model"), &t->bpe));
	t->size = bpe_size(t->bpe);
	TRY(load_normalizer(t, where, json_object_get(root, "normalizer")));
	TRY(load_pre_tokenizer(t, where, json_object_get(root, "pre_tokenizer")));
	TRY(load_added(t, where, json_object_get(root, "added_tokens"),
		t->matches_only ? json_object_get(special, "added_tokens") : NULL));
	TRY(load_post_processor(t, where, json_object_get(root, "post_processor")));
	t->pad = find_special(t, special, "pad_token", t->end >= 0 ? "<|endoftext|>" : NULL);
	return bpe_check_bytes(t->bpe, where);
}

static enum status load(struct tokenizer *t, const char *where, const json_t *root, const json_t *special)
{
	if (!strcmp(type_of(json_object_get(root, "model")), "Unigram"))
		return load_unigram(t, where, root, special);
	return load_bpe(t, where, root, special);
}

static enum status load_json(struct tokenizer *t, const char *path, const json_t *special)
{
	json_t *root = NULL;
	enum status status;

	TRY(json_read_object(path, &root));
	status = load(t, path, root, special);
	json_decref(root);
	return status;
}

static enum status load_clip(struct tokenizer *t, const char *dir, const char *vocab, const json_t *special)
{
	json_t *root = NULL;
	enum status status;

	TRY(tokenizer_clip_json(dir, special, &root));
	status = load(t, vocab, root, special);
	json_decref(root);
	return status;
}

static enum status load_special_folder(struct tokenizer *t, const char *dir, const json_t *special)
{
	static const char *const names[] = { "tokenizer.json", "vocab.json", "spiece.model" };
	enum { JSON, CLIP, SPIECE, COUNT };
	char path[PATH_MAX];

	for (int i = 0; i < COUNT; i++) {
		if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) >= (int)sizeof path)
			return status_fail(STATUS_INVALID, "%.100s...: the path is too long", dir);
		if (access(path, F_OK) != 0)
			continue;
		return i == JSON   ? load_json(t, path, special)
		       : i == CLIP ? load_clip(t, dir, path, special)
				   : load_unigram(t, path, NULL, special);
	}
	return status_fail(STATUS_NO_MODEL, "%s: neither tokenizer.json nor vocab.json nor spiece.model is there", dir);
}

static enum status load_folder(struct tokenizer *t, const char *dir)
{
	json_t *special = NULL;
	enum status status;

	TRY(tokenizer_read_special(dir, &special));
	status = load_special_folder(t, dir, special);
	json_decref(special);
	return status;
}

static enum status load_path(struct tokenizer *t, const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return load_folder(t, path);
	if (!slash || strcmp(slash, "/tokenizer.json") != 0)
		return load_json(t, path, NULL);
	if (snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path) >= (int)sizeof dir)
		return status_fail(STATUS_INVALID, "%.100s...: the path is too long", path);
	return load_folder(t, *dir ? dir : "/");
}

enum status tokenizer_open(const char *path, struct tokenizer **out)
{
	struct tokenizer *t = calloc(1, sizeof *t);
	enum status status;

	if (!t)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for a tokenizer", path);
	t->begin = t->end = t->pad = -1;
	status = load_path(t, path);
	if (status != STATUS_OK) {
		tokenizer_close(t);
		return status;
	}
	*out = t;
	return STATUS_OK;
}

void tokenizer_close(struct tokenizer *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_added; i++)
		free(t->added[i].text);
	free(t->added);
	for (int i = 0; i < PATTERNS; i++)
		pcre2_code_free(t->pattern[i]);
	bpe_close(t->bpe);
	unigram_close(t->unigram);
	free(t);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

/* One call's buffers. */
struct run {
	const struct tokenizer *t;
	struct token_ids *out;
	struct bpe_scratch scratch;
	struct bytes normalized;
	pcre2_match_data *match[PATTERNS];
	pcre2_match_context *limits;
	pcre2_jit_stack *stack;
};

enum status token_ids_add(struct token_ids *ids, int64_t id)
{
	if (ids->count == ids->capacity) {
		int64_t capacity = ids->capacity ? 2 * ids->capacity : 64;
		int64_t *grown = realloc(ids->id, (size_t)capacity * sizeof *grown);

		if (!grown)
			return status_fail(STATUS_NO_MEMORY, "no memory for %lld token ids", (long long)capacity);
		ids->id = grown;
		ids->capacity = capacity;
	}
	ids->id[ids->count++] = id;
	return STATUS_OK;
}

/* The next match at or after `at`: false when there is none. */
static enum status next_match(struct run *r, int level, const char *text, size_t len, size_t at, bool *found)
{
	const pcre2_code *pattern = r->t->pattern[level];
	pcre2_match_data *data = r->match[level];
	const PCRE2_SIZE *match = pcre2_get_ovector_pointer(data);
	PCRE2_SPTR subject = (PCRE2_SPTR)text;
	int n = pcre2_match(pattern, subject, len, at, PCRE2_NO_UTF_CHECK, data, r->limits);

	if (n == PCRE2_ERROR_JIT_STACKLIMIT)
		n = pcre2_match(pattern, subject, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, r->limits);
	*found = n != PCRE2_ERROR_NOMATCH;
	/* \K and lookbehind can give matches that do not go forward */
	if (*found && (n < 0 || match[0] < at || match[1] <= match[0]))
		return status_fail(
			STATUS_UNSUPPORTED, "the tokenizer's pattern cannot split this text (PCRE2 says %d)", n);
	return STATUS_OK;
}

/* Pieces are what the pattern matches and what lies between. */
static enum status encode_pieces(struct run *r, int level, const char *text, size_t len)
{
	const PCRE2_SIZE *match;
	bool drop = level == 0 && r->t->matches_only, found = true;
	size_t at = 0;

	if (level == r->t->n_patterns)
		return bpe_encode(r->t->bpe, &r->scratch, text, len, r->out);
	match = pcre2_get_ovector_pointer(r->match[level]);
	while (at < len) {
		size_t start, end;

		TRY(next_match(r, level, text, len, at, &found));
		start = found ? match[0] : len;
		end = found ? match[1] : len;
		if (start > at && !drop)
			TRY(encode_pieces(r, level + 1, text + at, start - at));
		if (end > start)
			TRY(encode_pieces(r, level + 1, text + start, end - start));
		at = end;
	}
	return STATUS_OK;
}

/* ---- encoding: the whole text ------------------------------------------------------------------------------------ */

static const struct added *added_at(const struct tokenizer *t, bool normalized, const char *text, size_t len)
{
	if (!t->first[normalized][(unsigned char)*text])
		return NULL;
	for (size_t i = 0; i < t->n_added; i++) {
		const struct added *a = &t->added[i];

		if (a->normalized == normalized && a->len <= len && !memcmp(a->text, text, a->len))
			return a;
	}
	return NULL;
}

/* The length of text without the spaces at its end; the length of those at its beginning. */
static size_t trim_end(const char *text, size_t len)
{
	utf8proc_int32_t c;

	while (len) {
		size_t at = len - 1;

		while (at && ((unsigned char)text[at] & 0xc0) == 0x80)
			at--;
		if (utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c) <= 0 ||
			!character_is_space(c))
			break;
		len = at;
	}
	return len;
}

static size_t leading_spaces(const char *text, size_t len)
{
	utf8proc_int32_t c;
	size_t at = 0;

	while (at < len) {
		utf8proc_ssize_t n =
			utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c);

		if (n <= 0 || !character_is_space(c))
			break;
		at += (size_t)n;
	}
	return at;
}

/* Added tokens of one sort become ids, and what lies between goes to `section`. */
static enum status cut_added(struct run *r, bool normalized, const char *text, size_t len,
	enum status (*section)(struct run *r, const char *text, size_t len))
{
	size_t start = 0, at = 0;

	while (at < len) {
		const struct added *a = added_at(r->t, normalized, text + at, len - at);
		size_t between = at - start;

		if (!a) {
			at++;
			continue;
		}
		TRY(section(r, text + start, a->lstrip ? trim_end(text + start, between) : between));
		TRY(token_ids_add(r->out, a->id));
		at += a->len;
		if (a->rstrip)
			at += leading_spaces(text + at, len - at);
		start = at;
	}
	return section(r, text + start, len - start);
}

static enum status encode_normalized(struct run *r, const char *text, size_t len)
{
	return encode_pieces(r, 0, text, len);
}

static enum status encode_section(struct run *r, const char *text, size_t len)
{
	if (!len)
		return STATUS_OK;
	if (r->t->unigram)
		return unigram_encode(r->t->unigram, text, len, r->out);
	r->normalized.len = 0;
	TRY(normalize_text(r->t->normalize, text, len, &r->normalized));
	text = (const char *)r->normalized.data;
	if (r->t->any_normalized)
		return cut_added(r, true, text, r->normalized.len, encode_normalized);
	return encode_normalized(r, text, r->normalized.len);
}

static enum status check_utf8(const char *text, size_t len)
{
	utf8proc_int32_t c;

	for (size_t at = 0; at < len;) {
		utf8proc_ssize_t n =
			utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c);

		if (n <= 0)
			return status_fail(STATUS_INVALID, "the text is no valid UTF-8 at byte %zu", at);
		at += (size_t)n;
	}
	return STATUS_OK;
}

/* A match may go back over as much text as there is, and a hostile pattern not much further. */
static enum status open_run(struct run *r, size_t len)
{
	enum { STACK_FIRST = 32 << 10, STACK_MAX = 16 << 20, HEAP_KIB = 256 << 10, STEPS = 1000000 };

	r->limits = pcre2_match_context_create(NULL);
	r->stack = pcre2_jit_stack_create(STACK_FIRST, STACK_MAX, NULL);
	if (!r->limits || !r->stack)
		return status_fail(STATUS_NO_MEMORY, "no memory to split a text");
	for (int i = 0; i < r->t->n_patterns; i++) {
		r->match[i] = pcre2_match_data_create_from_pattern(r->t->pattern[i], NULL);
		if (!r->match[i])
			return status_fail(STATUS_NO_MEMORY, "no memory to split a text");
	}
	pcre2_jit_stack_assign(r->limits, NULL, r->stack);
	pcre2_set_match_limit(r->limits, STEPS + 4 * (uint32_t)len);
	pcre2_set_heap_limit(r->limits, HEAP_KIB);
	return STATUS_OK;
}

static void close_run(struct run *r)
{
	for (int i = 0; i < PATTERNS; i++)
		pcre2_match_data_free(r->match[i]);
	pcre2_match_context_free(r->limits);
	pcre2_jit_stack_free(r->stack);
	bpe_scratch_fini(&r->scratch);
	bytes_free(&r->normalized);
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, struct token_ids *out)
{
	struct run r = { .t = t, .out = out };
	int64_t count = out->count;
	enum status status;

	if (len > TEXT_MAX)
		return status_fail(STATUS_INVALID, "a text of %zu bytes is too long", len);
	TRY(check_utf8(text, len));
	status = open_run(&r, len);
	if (status == STATUS_OK)
		status = cut_added(&r, false, text, len, encode_section);
	close_run(&r);
	if (status != STATUS_OK)
		out->count = count;
	return status;
}

enum status tokenizer_pad(const struct tokenizer *t, const struct token_ids *ids, int64_t length, struct token_ids *out,
	struct token_range *text)
{
	int64_t room = length - (t->begin >= 0) - (t->end >= 0), wanted = out->count + length;

	if (room < 0)
		return status_fail(STATUS_INVALID, "a text cannot be cut to %lld tokens", (long long)length);
	if (ids->count < room && t->pad < 0)
		return status_fail(STATUS_UNSUPPORTED, "the tokenizer has no token to pad a text with");
	*text = (struct token_range){ t->begin >= 0, ids->count < room ? ids->count : room };
	if (t->begin >= 0)
		TRY(token_ids_add(out, t->begin));
	for (int64_t i = 0; i < text->count; i++)
		TRY(token_ids_add(out, ids->id[i]));
	if (t->end >= 0)
		TRY(token_ids_add(out, t->end));
	while (out->count < wanted)
		TRY(token_ids_add(out, t->pad));
	return STATUS_OK;
}

enum status tokenizer_encode_padded(
	const struct tokenizer *t, const char *text, size_t len, int64_t length, struct token_ids *out)
{
	struct token_ids ids = { 0 };
	struct token_range range;
	int64_t count = out->count;
	enum status status = tokenizer_encode(t, text, len, &ids);

	if (status == STATUS_OK)
		status = tokenizer_pad(t, &ids, length, out, &range);
	token_ids_free(&ids);
	if (status != STATUS_OK)
		out->count = count;
	return status;
}

int64_t tokenizer_find(const struct tokenizer *t, const char *token)
{
	size_t len = strlen(token);

	for (size_t i = 0; i < t->n_added; i++)
		if (t->added[i].len == len && !memcmp(t->added[i].text, token, len))
			return t->added[i].id;
	return find(t, token, len);
}

int64_t tokenizer_size(const struct tokenizer *t)
{
	return t->size;
}

void token_ids_free(struct token_ids *ids)
{
	free(ids->id);
	*ids = (struct token_ids){ 0 };
}

/* tokenizer: text to token ids by a Hugging Face tokenizer.json of the byte-level BPE kind.
 *
 *     text -> added tokens cut out -> NFC -> pieces by the pattern -> bytes -> merges (tokenizer_bpe.c)
 *
 * A prompt comes from anybody: every step is linear in it, but for the logarithm of the merges.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "engine/tokenizer.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/tokenizer_bpe.h"

enum { PATTERN_MAX = 16384, ADDED_MAX = 100000, TEXT_MAX = 64 << 20 };

struct added {
	char *text;
	size_t len;
	int64_t id;
};

struct tokenizer {
	struct bpe *bpe;
	struct added *added; /* longest first */
	size_t n_added;
	bool first[256]; /* bytes that begin an added token */
	bool nfc;
	pcre2_code *pattern;
	int64_t size;
};

/* ---- loading: added tokens --------------------------------------------------------------------------------------- */

/* How a token would match otherwise than exactly, in the raw text. */
static enum status check_flags(const char *where, const json_t *entry, const char *text)
{
	static const char *const names[] = { "single_word", "lstrip", "rstrip", "normalized" };

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		bool set = false;

		TRY(json_get_bool(entry, where, names[i], &set));
		if (set)
			return status_fail(STATUS_UNSUPPORTED, "%s: added token %.40s: %s is not supported", where,
				text, names[i]);
	}
	return STATUS_OK;
}

static enum status add_added(struct tokenizer *t, const char *where, const json_t *entry)
{
	struct added *a = &t->added[t->n_added];
	const char *text = NULL;
	int64_t id = -1, known;

	if (!json_is_object(entry))
		return status_fail(STATUS_CORRUPT, "%s: added_tokens must hold objects", where);
	TRY(json_get_string(entry, where, "content", &text));
	TRY(json_need_int(entry, where, "id", 0, TOKEN_ID_MAX, &id));
	if (!text || !*text)
		return status_fail(STATUS_CORRUPT, "%s: added token %lld has no content", where, (long long)id);
	TRY(check_flags(where, entry, text));
	known = bpe_find(t->bpe, text, strlen(text));
	if (known >= 0 && known != id)
		return status_fail(STATUS_CORRUPT, "%s: added token %.40s has the id %lld, but %lld in the vocab",
			where, text, (long long)id, (long long)known);
	*a = (struct added){ strdup(text), strlen(text), id };
	if (!a->text)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for added tokens", where);
	t->n_added++;
	t->first[(unsigned char)*text] = true;
	if (t->size <= id)
		t->size = id + 1;
	return STATUS_OK;
}

static int longest_first(const void *a, const void *b)
{
	const struct added *x = a, *y = b;

	return (x->len < y->len) - (x->len > y->len);
}

static enum status load_added(struct tokenizer *t, const char *where, const json_t *list)
{
	size_t count = json_array_size(list);

	if (!list || json_is_null(list))
		return STATUS_OK;
	if (!json_is_array(list) || count > ADDED_MAX)
		return status_fail(STATUS_CORRUPT, "%s: added_tokens must be a list of at most %d", where, ADDED_MAX);
	t->added = calloc(count + 1, sizeof *t->added);
	if (!t->added)
		return status_fail(STATUS_NO_MEMORY, "%s: no memory for added tokens", where);
	for (size_t i = 0; i < count; i++)
		TRY(add_added(t, where, json_array_get(list, i)));
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

static enum status load_normalizer(struct tokenizer *t, const char *where, const json_t *normalizer)
{
	const char *type = type_of(normalizer);

	t->nfc = !strcmp(type, "NFC");
	if (t->nfc || !strcmp(type, "null"))
		return STATUS_OK;
	return status_fail(STATUS_UNSUPPORTED, "%s: normalizer %.40s is not supported", where, type);
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

static enum status compile(struct tokenizer *t, const char *where, const struct bytes *pattern)
{
	uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, empty = 0;
	PCRE2_UCHAR why[120] = "";
	PCRE2_SIZE at;
	int error;

	t->pattern = pcre2_compile(pattern->data, pattern->len, options, &error, &at, NULL);
	if (!t->pattern) {
		pcre2_get_error_message(error, why, sizeof why);
		return status_fail(
			STATUS_CORRUPT, "%s: the splitting pattern is no regular expression: %s", where, (char *)why);
	}
	pcre2_pattern_info(t->pattern, PCRE2_INFO_MATCHEMPTY, &empty);
	if (empty)
		return status_fail(STATUS_UNSUPPORTED, "%s: the splitting pattern can match nothing at all", where);
	pcre2_jit_compile(t->pattern, PCRE2_JIT_COMPLETE); /* where it fails the pattern is interpreted */
	return STATUS_OK;
}

static enum status load_split(struct tokenizer *t, const char *where, const json_t *split)
{
	const char *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
	const char *behavior = NULL;
	struct bytes spelled = { 0 };
	bool invert = false;
	enum status status;

	TRY(json_get_string(split, where, "behavior", &behavior));
	TRY(json_get_bool(split, where, "invert", &invert));
	if (t->pattern || !behavior || strcmp(behavior, "Isolated") || invert)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: only one Split is supported, Isolated and not inverted", where);
	if (!pattern || !*pattern || strlen(pattern) > PATTERN_MAX)
		return status_fail(STATUS_CORRUPT, "%s: the splitting pattern must be a Regex of 1 to %d bytes", where,
			PATTERN_MAX);
	status = spell_spaces(pattern, &spelled);
	if (status == STATUS_OK)
		status = compile(t, where, &spelled);
	bytes_free(&spelled);
	return status;
}

static enum status check_byte_level(const char *where, const json_t *byte_level)
{
	bool prefix = true, regex = true; /* what the library takes when they are missing */

	TRY(json_get_bool(byte_level, where, "add_prefix_space", &prefix));
	TRY(json_get_bool(byte_level, where, "use_regex", &regex));
	if (prefix || regex)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: ByteLevel with add_prefix_space or use_regex is not supported", where);
	return STATUS_OK;
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
			TRY(check_byte_level(where, step));
			byte_level = true;
		} else {
			return status_fail(STATUS_UNSUPPORTED, "%s: pre_tokenizer %.40s is not supported here", where,
				type_of(step));
		}
	}
	if (!t->pattern || !byte_level)
		return status_fail(STATUS_UNSUPPORTED, "%s: pre_tokenizer must be a Split and ByteLevel", where);
	return STATUS_OK;
}

/* Others may add tokens. */
static enum status check_post_processor(const char *where, const json_t *post)
{
	const char *type = type_of(post);

	if (!strcmp(type, "null") || !strcmp(type, "ByteLevel"))
		return STATUS_OK;
	return status_fail(STATUS_UNSUPPORTED, "%s: post_processor %.40s is not supported", where, type);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum status load(struct tokenizer *t, const char *where, const json_t *root)
{
	TRY(bpe_open(where, json_object_get(root, "model"), &t->bpe));
	t->size = bpe_size(t->bpe);
	TRY(load_added(t, where, json_object_get(root, "added_tokens")));
	TRY(load_normalizer(t, where, json_object_get(root, "normalizer")));
	TRY(load_pre_tokenizer(t, where, json_object_get(root, "pre_tokenizer")));
	TRY(check_post_processor(where, json_object_get(root, "post_processor")));
	return bpe_check_bytes(t->bpe, where);
}

enum status tokenizer_open(const char *path, struct tokenizer **out)
{
	struct tokenizer *t;
	json_t *root = NULL;
	enum status status;

	TRY(json_read_object(path, &root));
	t = calloc(1, sizeof *t);
	status = t ? load(t, path, root) : status_fail(STATUS_NO_MEMORY, "%s: no memory for a tokenizer", path);
	json_decref(root);
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
	pcre2_code_free(t->pattern);
	bpe_close(t->bpe);
	free(t);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

/* One call's buffers. */
struct run {
	const struct tokenizer *t;
	struct token_ids *out;
	struct bpe_scratch scratch;
	pcre2_match_data *match;
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

/* Pieces are what the pattern matches and what lies between. */
static enum status encode_pieces(struct run *r, const char *text, size_t len)
{
	const PCRE2_SIZE *match = pcre2_get_ovector_pointer(r->match);
	size_t at = 0;

	while (at < len) {
		int found =
			pcre2_match(r->t->pattern, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, r->match, r->limits);

		if (found == PCRE2_ERROR_JIT_STACKLIMIT)
			found = pcre2_match(r->t->pattern, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
				r->match, r->limits);
		if (found == PCRE2_ERROR_NOMATCH)
			return bpe_encode(r->t->bpe, &r->scratch, text + at, len - at, r->out);
		/* \K and lookbehind can give matches that do not go forward */
		if (found < 0 || match[0] < at || match[1] <= match[0])
			return status_fail(STATUS_UNSUPPORTED,
				"the tokenizer's pattern cannot split this text (PCRE2 says %d)", found);
		if (match[0] > at)
			TRY(bpe_encode(r->t->bpe, &r->scratch, text + at, match[0] - at, r->out));
		TRY(bpe_encode(r->t->bpe, &r->scratch, text + match[0], match[1] - match[0], r->out));
		at = match[1];
	}
	return STATUS_OK;
}

/* ---- encoding: NFC ----------------------------------------------------------------------------------------------- */

/* Nothing below U+0300 combines, and UTF-8 writes everything from there with a lead byte of at least 0xcc. */
static bool surely_nfc(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] >= 0xcc)
			return false;
	return true;
}

/* By Unicode 15; the library of the reference knows version 9, and does not order the 108 marks that came since. */
static int combining_class(utf8proc_int32_t c)
{
	return utf8proc_get_property(c)->combining_class;
}

struct ordered {
	utf8proc_int32_t c;
	int32_t place;
	int class;
};

static int compare_ordered(const void *a, const void *b)
{
	const struct ordered *x = a, *y = b;

	return x->class != y->class ? x->class - y->class : (x->place > y->place) - (x->place < y->place);
}

/* Sorts a run of combining characters by class, keeping the order of equal ones. */
static enum status order_run(utf8proc_int32_t *run, size_t len)
{
	struct ordered *list;

	if (len < 2)
		return STATUS_OK;
	list = malloc(len * sizeof *list);
	if (!list)
		return status_fail(STATUS_NO_MEMORY, "no memory to normalize %zu characters", len);
	for (size_t i = 0; i < len; i++)
		list[i] = (struct ordered){ run[i], (int32_t)i, combining_class(run[i]) };
	qsort(list, len, sizeof *list, compare_ordered);
	for (size_t i = 0; i < len; i++)
		run[i] = list[i].c;
	free(list);
	return STATUS_OK;
}

static enum status order_marks(utf8proc_int32_t *c, size_t len)
{
	size_t start = 0;

	for (size_t i = 0; i < len; i++) {
		if (combining_class(c[i]))
			continue;
		TRY(order_run(c + start, i - start));
		start = i + 1;
	}
	return order_run(c + start, len - start);
}

static size_t count_characters(const char *text, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += (text[i] & 0xc0) != 0x80;
	return count;
}

/* Canonical decomposition, without order.  No character makes more than 4. */
static enum status decompose(const char *text, size_t len, utf8proc_int32_t **out, size_t *count)
{
	enum { PARTS = 4 };
	utf8proc_int32_t *c = malloc((PARTS * count_characters(text, len) + 1) * sizeof *c), one;
	size_t n = 0;
	int boundary = 0;

	if (!c)
		return status_fail(STATUS_NO_MEMORY, "no memory to normalize %zu bytes", len);
	for (size_t at = 0; at < len;) {
		/* the text was checked: what is read is a character */
		utf8proc_ssize_t parts;

		at += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &one);
		parts = utf8proc_decompose_char(one, c + n, PARTS, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
		if (parts < 0 || parts > PARTS) {
			free(c);
			return status_fail(STATUS_INTERNAL, "NFC: U+%04X has %td parts", (unsigned)one, parts);
		}
		n += (size_t)parts;
	}
	*out = c;
	*count = n;
	return STATUS_OK;
}

/* Canonical composition; gives the new length.  utf8proc (2.8) takes U+11A7 for a final consonant of Hangul and drops
 * it; as it composes with nothing, what lies between two of them is composed by itself. */
static size_t compose(utf8proc_int32_t *c, size_t count)
{
	enum { NO_FINAL = 0x11a7 };
	size_t start = 0, n = 0;

	for (size_t i = 0; i <= count; i++) {
		utf8proc_ssize_t len;

		if (i < count && c[i] != NO_FINAL)
			continue;
		len = utf8proc_normalize_utf32(
			c + start, (utf8proc_ssize_t)(i - start), UTF8PROC_COMPOSE | UTF8PROC_STABLE);
		memmove(c + n, c + start, (size_t)len * sizeof *c);
		n += (size_t)len;
		if (i < count)
			c[n++] = NO_FINAL;
		start = i + 1;
	}
	return n;
}

/* utf8proc_map would do, were it not for its ordering of marks, which exchanges neighbours: 1 MiB of them takes
 * minutes. */
static enum status encode_normalized(struct run *r, const char *text, size_t len)
{
	utf8proc_int32_t *c = NULL;
	utf8proc_ssize_t bytes;
	size_t count = 0;
	enum status status;

	if (!r->t->nfc || surely_nfc(text, len))
		return encode_pieces(r, text, len);
	TRY(decompose(text, len, &c, &count));
	status = order_marks(c, count);
	if (status == STATUS_OK) {
		/* rewrites the array as UTF-8, which is never longer */
		bytes = utf8proc_reencode(c, (utf8proc_ssize_t)compose(c, count), UTF8PROC_STABLE);
		status = bytes < 0 ? status_fail(STATUS_INTERNAL, "NFC: %s", utf8proc_errmsg(bytes))
				   : encode_pieces(r, (const char *)c, (size_t)bytes);
	}
	free(c);
	return status;
}

/* ---- encoding: the whole text ------------------------------------------------------------------------------------ */

static const struct added *added_at(const struct tokenizer *t, const char *text, size_t len)
{
	if (!t->first[(unsigned char)*text])
		return NULL;
	for (size_t i = 0; i < t->n_added; i++)
		if (t->added[i].len <= len && !memcmp(t->added[i].text, text, t->added[i].len))
			return &t->added[i];
	return NULL;
}

static enum status encode_text(struct run *r, const char *text, size_t len)
{
	size_t start = 0, at = 0;

	while (at < len) {
		const struct added *a = added_at(r->t, text + at, len - at);

		if (!a) {
			at++;
			continue;
		}
		TRY(encode_normalized(r, text + start, at - start));
		TRY(token_ids_add(r->out, a->id));
		at += a->len;
		start = at;
	}
	return encode_normalized(r, text + start, len - start);
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

	r->match = pcre2_match_data_create_from_pattern(r->t->pattern, NULL);
	r->limits = pcre2_match_context_create(NULL);
	r->stack = pcre2_jit_stack_create(STACK_FIRST, STACK_MAX, NULL);
	if (!r->match || !r->limits || !r->stack)
		return status_fail(STATUS_NO_MEMORY, "no memory to split a text");
	pcre2_jit_stack_assign(r->limits, NULL, r->stack);
	pcre2_set_match_limit(r->limits, STEPS + 4 * (uint32_t)len);
	pcre2_set_heap_limit(r->limits, HEAP_KIB);
	return STATUS_OK;
}

static void close_run(struct run *r)
{
	pcre2_match_data_free(r->match);
	pcre2_match_context_free(r->limits);
	pcre2_jit_stack_free(r->stack);
	bpe_scratch_fini(&r->scratch);
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
		status = encode_text(&r, text, len);
	close_run(&r);
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
	return bpe_find(t->bpe, token, len);
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

/* tokenizer_normalize: NFC by utf8proc's tables, in linear time; spaces; lower case. */
#include "engine/tokenizer_normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

bool character_is_space(int32_t c)
{
	return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* ---- NFC --------------------------------------------------------------------------------------------------------- */

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

/* The characters, or their canonical decomposition, without order.  No character makes more than 4. */
static enum status read_characters(const char *text, size_t len, bool decompose, utf8proc_int32_t **out, size_t *count)
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
		if (!decompose) {
			c[n++] = one;
			continue;
		}
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

/* ---- all --------------------------------------------------------------------------------------------------------- */

static enum status add_character(struct bytes *out, utf8proc_int32_t c)
{
	utf8proc_uint8_t text[4];

	return bytes_add(out, text, (size_t)utf8proc_encode_char(c, text));
}

/* By Unicode's full mapping: one character alone has two in lower case. */
static enum status add_lower(struct bytes *out, utf8proc_int32_t c)
{
	enum { I_WITH_DOT = 0x130, DOT_ABOVE = 0x307 };

	if (c != I_WITH_DOT)
		return add_character(out, utf8proc_tolower(c));
	TRY(add_character(out, 'i'));
	return add_character(out, DOT_ABOVE);
}

static enum status write_characters(unsigned what, const utf8proc_int32_t *c, size_t count, struct bytes *out)
{
	bool after_space = false;

	for (size_t i = 0; i < count; i++) {
		bool space = (what & NORMALIZE_SPACES) && character_is_space(c[i]);

		if (!space)
			TRY(what & NORMALIZE_LOWER ? add_lower(out, c[i]) : add_character(out, c[i]));
		else if (!after_space)
			TRY(add_character(out, ' '));
		after_space = space;
	}
	return STATUS_OK;
}

/* utf8proc_map would do, were it not for its ordering of marks, which exchanges neighbours: 1 MiB of them takes
 * minutes. */
enum status normalize_text(unsigned what, const char *text, size_t len, struct bytes *out)
{
	utf8proc_int32_t *c = NULL;
	bool nfc = (what & NORMALIZE_NFC) && !surely_nfc(text, len);
	size_t count = 0;
	enum status status;

	if (!nfc && !(what & (NORMALIZE_SPACES | NORMALIZE_LOWER)))
		return bytes_add(out, text, len);
	TRY(read_characters(text, len, nfc, &c, &count));
	status = nfc ? order_marks(c, count) : STATUS_OK;
	if (status == STATUS_OK)
		status = write_characters(what, c, nfc ? compose(c, count) : count, out);
	free(c);
	return status;
}

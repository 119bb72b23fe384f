/* gguf: the header of a GGUF file, checked completely.
 *
 *     "GGUF", u32 version, u64 tensors, u64 values
 *     values:  string key, u32 type, value            (a string is u64 length and bytes)
 *     tensors: string name, u32 rank, u64 dim[rank] (innermost first), u32 type, u64 offset
 *     padding to the alignment (general.alignment, 32), then the data section, from which offsets count
 */
#include "engine/gguf.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/gguf_blocks.h"

enum {
	RANK_MAX = 4,
	NAME_LEN_MAX = 255,
	KEY_LEN_MAX = 65535,
	NESTING_MAX = 8,
	ALIGNMENT_DEFAULT = 32,
	KEY_SIZE_MIN = 8 + 4 + 1, /* what a value takes at least: bounds the counts by the size of the file */
	TENSOR_SIZE_MIN = 8 + 4 + 4 + 8,
};

struct text {
	const char *at; /* not closed by a NUL */
	size_t len;
};

struct gguf_tensor {
	struct text name;
	int rank;
	uint64_t dim[RANK_MAX]; /* innermost first */
	uint32_t type;
	uint64_t offset, len; /* in the data section */
};

struct gguf {
	uint64_t n_values, n_tensors;
	struct text *key;
	struct gguf_tensor *tensor;
	uint64_t alignment;
	struct text architecture;
	const unsigned char *data; /* the data section */
};

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct reader {
	const unsigned char *start, *at, *end;
};

static size_t left(const struct reader *r)
{
	return (size_t)(r->end - r->at);
}

/* A little-endian number of `size` bytes. */
static enum status take_number(struct reader *r, size_t size, uint64_t *out)
{
	uint64_t x = 0;

	if (left(r) < size)
		return status_fail(STATUS_CORRUPT, "the file is truncated: it ends inside its header");
	for (size_t i = size; i > 0; i--)
		x = x << 8 | r->at[i - 1];
	r->at += size;
	*out = x;
	return STATUS_OK;
}

static enum status take_u32(struct reader *r, uint32_t *out)
{
	uint64_t x = 0;

	TRY(take_number(r, 4, &x));
	*out = (uint32_t)x;
	return STATUS_OK;
}

static enum status take_text(struct reader *r, struct text *out)
{
	uint64_t len = 0;

	TRY(take_number(r, 8, &len));
	if (len > left(r))
		return status_fail(STATUS_CORRUPT,
			"a string of length %llu at offset %td: the file is truncated or damaged",
			(unsigned long long)len, r->at - r->start);
	out->at = (const char *)r->at;
	out->len = (size_t)len;
	r->at += len;
	return STATUS_OK;
}

/* Keys and names go into messages of one line. */
static enum status take_name(struct reader *r, const char *what, size_t max, struct text *out)
{
	TRY(take_text(r, out));
	if (out->len < 1 || out->len > max)
		return status_fail(STATUS_CORRUPT, "a %s of length %zu; 1 to %zu are possible", what, out->len, max);
	for (size_t i = 0; i < out->len; i++)
		if ((unsigned char)out->at[i] < ' ' || out->at[i] == 127)
			return status_fail(STATUS_CORRUPT, "a %s holds a control character", what);
	return STATUS_OK;
}

static bool text_is(struct text text, const char *word)
{
	return text.len == strlen(word) && !memcmp(text.at, word, text.len);
}

static int print_len(struct text text)
{
	return text.len < 80 ? (int)text.len : 80;
}

static int compare_texts(const void *a, const void *b)
{
	const struct text *x = a, *y = b;
	int order = memcmp(x->at, y->at, x->len < y->len ? x->len : y->len);

	return order ? order : (x->len > y->len) - (x->len < y->len);
}

/* Sorts the list. */
static enum status check_unique(const char *what, struct text *list, uint64_t count)
{
	qsort(list, (size_t)count, sizeof *list, compare_texts);
	for (uint64_t i = 1; i < count; i++)
		if (!compare_texts(&list[i - 1], &list[i]))
			return status_fail(
				STATUS_CORRUPT, "%s %.*s is there twice", what, print_len(list[i]), list[i].at);
	return STATUS_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

enum value_type { VALUE_U32 = 4, VALUE_BOOL = 7, VALUE_STRING = 8, VALUE_ARRAY = 9, VALUE_COUNT = 13 };

/* Of a string and an array: the least they take. */
static const uint8_t value_size[VALUE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8 };

static enum status skip_value(struct reader *r, uint32_t type, int depth);

static enum status skip_array(struct reader *r, int depth)
{
	uint32_t type = 0;
	uint64_t count = 0;

	if (depth >= NESTING_MAX)
		return status_fail(
			STATUS_CORRUPT, "arrays are nested too deep: at most %d levels are possible", NESTING_MAX);
	TRY(take_u32(r, &type));
	TRY(take_number(r, 8, &count));
	if (type >= VALUE_COUNT)
		return status_fail(STATUS_CORRUPT, "an array of unknown value type %u", type);
	if (count > left(r) / value_size[type])
		return status_fail(STATUS_CORRUPT,
			"an array of length %llu at offset %td: the file is truncated or damaged",
			(unsigned long long)count, r->at - r->start);
	if (type != VALUE_STRING && type != VALUE_ARRAY && type != VALUE_BOOL) {
		r->at += count * value_size[type];
		return STATUS_OK;
	}
	for (uint64_t i = 0; i < count; i++)
		TRY(skip_value(r, type, depth + 1));
	return STATUS_OK;
}

static enum status skip_value(struct reader *r, uint32_t type, int depth)
{
	struct text text;
	uint64_t number = 0;

	if (type >= VALUE_COUNT)
		return status_fail(STATUS_CORRUPT, "unknown value type %u", type);
	if (type == VALUE_STRING)
		return take_text(r, &text);
	if (type == VALUE_ARRAY)
		return skip_array(r, depth);
	TRY(take_number(r, value_size[type], &number));
	if (type == VALUE_BOOL && number > 1)
		return status_fail(STATUS_CORRUPT, "a value of type bool is neither 0 nor 1");
	return STATUS_OK;
}

static enum status take_alignment(struct reader *r, uint32_t type, uint64_t *out)
{
	uint32_t alignment = 0;

	if (type != VALUE_U32)
		return status_fail(STATUS_CORRUPT, "its value type is %u, not u32", type);
	TRY(take_u32(r, &alignment));
	if (!alignment || alignment & (alignment - 1))
		return status_fail(STATUS_CORRUPT, "%u is no power of two", alignment);
	*out = alignment;
	return STATUS_OK;
}

static enum status take_value(struct reader *r, struct gguf *g, struct text *key)
{
	uint32_t type = 0;

	TRY(take_name(r, "metadata key", KEY_LEN_MAX, key));
	TRY(take_u32(r, &type));
	if (text_is(*key, "general.alignment"))
		return take_alignment(r, type, &g->alignment);
	if (text_is(*key, "general.architecture")) {
		if (type != VALUE_STRING)
			return status_fail(STATUS_CORRUPT, "its value type is %u, not string", type);
		return take_name(r, "general.architecture", NAME_LEN_MAX, &g->architecture);
	}
	return skip_value(r, type, 0);
}

static enum status take_values(struct reader *r, struct gguf *g)
{
	for (uint64_t i = 0; i < g->n_values; i++) {
		enum status status = take_value(r, g, &g->key[i]);

		if (status != STATUS_OK && g->key[i].len && g->key[i].len <= NAME_LEN_MAX)
			status_prefix(status, "metadata %.*s: ", print_len(g->key[i]), g->key[i].at);
		TRY(status);
	}
	return check_unique("metadata key", g->key, g->n_values);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static enum status take_shape(struct reader *r, struct gguf_tensor *t, uint64_t *values)
{
	uint32_t rank = 0;

	TRY(take_u32(r, &rank));
	if (rank > RANK_MAX)
		return status_fail(STATUS_CORRUPT, "%u dimensions; at most %d are possible", rank, RANK_MAX);
	t->rank = (int)rank;
	*values = 1;
	for (int i = 0; i < t->rank; i++) {
		TRY(take_number(r, 8, &t->dim[i]));
		/* int64_t is what tensors count in */
		if (t->dim[i] > INT64_MAX || __builtin_mul_overflow(*values, t->dim[i], values) || *values > INT64_MAX)
			return status_fail(STATUS_CORRUPT, "its dimensions are too large");
	}
	return STATUS_OK;
}

static enum status take_type(struct reader *r, struct gguf_tensor *t, uint64_t values)
{
	uint64_t row = t->rank ? t->dim[0] : 1;
	const struct gguf_block *block;

	TRY(take_u32(r, &t->type));
	block = gguf_block(t->type);
	if (!block)
		return status_fail(STATUS_CORRUPT, "unknown tensor type %u", t->type);
	if (row % (uint64_t)block->values)
		return status_fail(STATUS_CORRUPT, "rows of %llu values are no multiple of the %d in a block of %s",
			(unsigned long long)row, block->values, block->name);
	if (__builtin_mul_overflow(values / (uint64_t)block->values, (uint64_t)block->bytes, &t->len))
		return status_fail(STATUS_CORRUPT, "its dimensions are too large");
	return STATUS_OK;
}

static enum status take_tensor(struct reader *r, uint64_t alignment, struct gguf_tensor *t)
{
	uint64_t values = 0;

	TRY(take_name(r, "tensor's name", NAME_LEN_MAX, &t->name));
	TRY(take_shape(r, t, &values));
	TRY(take_type(r, t, values));
	TRY(take_number(r, 8, &t->offset));
	if (t->offset % alignment)
		return status_fail(STATUS_CORRUPT, "its offset %llu is no multiple of the alignment %llu",
			(unsigned long long)t->offset, (unsigned long long)alignment);
	return STATUS_OK;
}

static enum status take_tensors(struct reader *r, struct gguf *g)
{
	for (uint64_t i = 0; i < g->n_tensors; i++) {
		struct gguf_tensor *t = &g->tensor[i];
		enum status status = take_tensor(r, g->alignment, t);

		if (status != STATUS_OK && t->name.len && t->name.len <= NAME_LEN_MAX)
			status_prefix(status, "tensor %.*s: ", print_len(t->name), t->name.at);
		TRY(status);
	}
	return STATUS_OK;
}

/* Sorts the tensors by place, empty ones before what begins at the same byte. */
static int compare_places(const void *a, const void *b)
{
	const struct gguf_tensor *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->len > y->len) - (x->len < y->len);
}

static enum status check_places(struct reader *r, struct gguf *g)
{
	uint64_t header = (uint64_t)(r->at - r->start);
	uint64_t start = (header + g->alignment - 1) / g->alignment * g->alignment;
	uint64_t size = (uint64_t)(r->end - r->start), data_len = start < size ? size - start : 0, used = 0;

	g->data = r->start + (start < size ? start : size);
	qsort(g->tensor, (size_t)g->n_tensors, sizeof *g->tensor, compare_places);
	for (uint64_t i = 0; i < g->n_tensors; i++) {
		const struct gguf_tensor *t = &g->tensor[i];

		if (t->offset > data_len || t->len > data_len - t->offset)
			return status_fail(STATUS_CORRUPT,
				"tensor %.*s: %llu bytes at offset %llu lie beyond the end of the file: it "
				"is truncated or damaged",
				print_len(t->name), t->name.at, (unsigned long long)t->len,
				(unsigned long long)t->offset);
		if (t->offset < used)
			return status_fail(STATUS_CORRUPT, "tensor %.*s: its data overlaps another tensor's",
				print_len(t->name), t->name.at);
		used = t->offset + t->len;
	}
	return STATUS_OK;
}

static enum status check_names(const struct gguf *g)
{
	struct text *name = calloc((size_t)g->n_tensors + 1, sizeof *name);
	enum status status;

	if (!name)
		return status_fail(
			STATUS_NO_MEMORY, "no memory for the names of %llu tensors", (unsigned long long)g->n_tensors);
	for (uint64_t i = 0; i < g->n_tensors; i++)
		name[i] = g->tensor[i].name;
	status = check_unique("tensor", name, g->n_tensors);
	free(name);
	return status;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static enum status take_counts(struct reader *r, struct gguf *g)
{
	uint32_t version = 0;

	if (left(r) < 4 || memcmp(r->at, "GGUF", 4))
		return status_fail(STATUS_CORRUPT, "no GGUF file: the magic is missing");
	r->at += 4;
	TRY(take_u32(r, &version));
	if (!(version & 0xffff))
		return status_fail(STATUS_UNSUPPORTED,
			"a big-endian GGUF file (version %#x); only little-endian ones are known", version);
	if (version != 2 && version != 3)
		return status_fail(STATUS_UNSUPPORTED, "GGUF version %u; 2 and 3 are known", version);
	TRY(take_number(r, 8, &g->n_tensors));
	TRY(take_number(r, 8, &g->n_values));
	if (g->n_values > left(r) / KEY_SIZE_MIN)
		return status_fail(STATUS_CORRUPT, "a count of %llu metadata keys does not fit in the file",
			(unsigned long long)g->n_values);
	if (g->n_tensors > left(r) / TENSOR_SIZE_MIN)
		return status_fail(STATUS_CORRUPT, "a count of %llu tensors does not fit in the file",
			(unsigned long long)g->n_tensors);
	return STATUS_OK;
}

static enum status parse(struct reader *r, struct gguf *g)
{
	TRY(take_counts(r, g));
	g->key = calloc((size_t)g->n_values + 1, sizeof *g->key);
	g->tensor = calloc((size_t)g->n_tensors + 1, sizeof *g->tensor);
	if (!g->key || !g->tensor)
		return status_fail(STATUS_NO_MEMORY, "no memory for %llu values and %llu tensors",
			(unsigned long long)g->n_values, (unsigned long long)g->n_tensors);
	TRY(take_values(r, g));
	TRY(take_tensors(r, g));
	TRY(check_names(g));
	return check_places(r, g);
}

/* Of picture models and their text encoders, as converters name them; others are language models and the like. */
static bool paints(struct text architecture)
{
	static const char *const known[] = { "lumina2", "z_image", "flux", "flux2", "sd1", "sdxl", "sd3", "aura",
		"hidream", "cosmos", "ltxv", "hyvid", "wan", "qwen_image", "chroma", "pixart", "qwen3", "qwen2vl", "t5",
		"t5encoder", "clip" };

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (text_is(architecture, known[i]))
			return true;
	return !architecture.len; /* stable-diffusion.cpp writes none */
}

static enum status store(const struct gguf *g, const struct gguf_tensor *t, struct stored_tensor *out)
{
	out->name = strndup(t->name.at, t->name.len);
	if (!out->name)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	out->dtype = t->type == GGUF_F32    ? DTYPE_F32
		     : t->type == GGUF_F16  ? DTYPE_F16
		     : t->type == GGUF_BF16 ? DTYPE_BF16
					    : DTYPE_OTHER;
	out->coding = out->dtype == DTYPE_OTHER ? (int)t->type : 0;
	out->type = gguf_block(t->type)->name;
	out->rank = t->rank;
	out->count = 1;
	for (int i = 0; i < t->rank; i++) {
		out->dim[i] = (int64_t)t->dim[t->rank - 1 - i];
		out->count *= out->dim[i];
	}
	out->data = g->data + t->offset;
	out->len = (size_t)t->len;
	return STATUS_OK;
}

static enum status store_all(const struct gguf *g, struct stored_tensor **out, int64_t *count)
{
	struct stored_tensor *list = calloc((size_t)g->n_tensors + 1, sizeof *list);
	enum status status = STATUS_OK;

	if (!list)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	for (uint64_t i = 0; i < g->n_tensors && status == STATUS_OK; i++)
		status = store(g, &g->tensor[i], &list[i]);
	if (status != STATUS_OK) {
		stored_tensors_free(list, (int64_t)g->n_tensors);
		return status;
	}
	*out = list;
	*count = (int64_t)g->n_tensors;
	return STATUS_OK;
}

enum status gguf_parse(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count)
{
	struct reader r = { file, file, file + size };
	struct gguf g = { .alignment = ALIGNMENT_DEFAULT };
	enum status status = parse(&r, &g);

	if (status == STATUS_OK && !paints(g.architecture))
		status = status_fail(STATUS_UNSUPPORTED, "its architecture is %.*s, which is no picture model",
			print_len(g.architecture), g.architecture.at);
	if (status == STATUS_OK)
		status = store_all(&g, out, count);
	free(g.key);
	free(g.tensor);
	return status;
}

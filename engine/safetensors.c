/* safetensors: the header of one file, checked completely. */
#include "engine/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* The format allows 100 MB; a header of 10,000 tensors has 1 MB, and parsed JSON takes up to 40 times its text. */
enum { HEADER_MAX = 32 << 20, NAME_MAX_LEN = 255 };

/* The data section. */
struct section {
	const unsigned char *data;
	uint64_t len;
};

static const struct type {
	const char *name;
	int bits;
	enum dtype dtype;
} types[] = {
	{ "F32", 32, DTYPE_F32 },
	{ "BF16", 16, DTYPE_BF16 },
	{ "F16", 16, DTYPE_F16 },
	{ "U8", 8, DTYPE_U8 },
	{ "I64", 64, DTYPE_I64 },
	{ "F8_E4M3", 8, DTYPE_F8_E4M3 },
	{ "F8_E5M2", 8, DTYPE_F8_E5M2 },
	{ "BOOL", 8, DTYPE_OTHER },
	{ "I8", 8, DTYPE_OTHER },
	{ "I16", 16, DTYPE_OTHER },
	{ "U16", 16, DTYPE_OTHER },
	{ "I32", 32, DTYPE_OTHER },
	{ "U32", 32, DTYPE_OTHER },
	{ "U64", 64, DTYPE_OTHER },
	{ "F64", 64, DTYPE_OTHER },
	{ "C64", 64, DTYPE_OTHER },
	{ "F8_E4M3FNUZ", 8, DTYPE_OTHER },
	{ "F8_E5M2FNUZ", 8, DTYPE_OTHER },
	{ "F8_E8M0", 8, DTYPE_OTHER },
	{ "F6_E2M3", 6, DTYPE_OTHER },
	{ "F6_E3M2", 6, DTYPE_OTHER },
	{ "F4", 4, DTYPE_OTHER },
};

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

static enum status parse_type(const json_t *info, const char *name, const struct type **out)
{
	const char *text = json_string_value(json_object_get(info, "dtype"));

	if (!text)
		return status_fail(STATUS_CORRUPT, "tensor %s: its dtype must be a string", name);
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		if (!strcmp(types[i].name, text)) {
			*out = &types[i];
			return STATUS_OK;
		}
	}
	return status_fail(STATUS_CORRUPT, "tensor %s: unknown dtype %.32s", name, text);
}

static enum status parse_shape(const json_t *info, struct stored_tensor *t)
{
	const json_t *shape = json_object_get(info, "shape");
	int64_t count = 1;

	if (!json_is_array(shape))
		return status_fail(STATUS_CORRUPT, "tensor %s: its shape must be a list of numbers", t->name);
	if (json_array_size(shape) > STORED_RANK_MAX)
		return status_fail(STATUS_CORRUPT, "tensor %s: a shape of %zu dimensions; at most %d are possible",
			t->name, json_array_size(shape), STORED_RANK_MAX);
	t->rank = (int)json_array_size(shape);
	for (int i = 0; i < t->rank; i++) {
		const json_t *dim = json_array_get(shape, (size_t)i);

		if (!json_is_integer(dim) || json_integer_value(dim) < 0)
			return status_fail(
				STATUS_CORRUPT, "tensor %s: its shape must hold numbers of at least 0", t->name);
		t->dim[i] = json_integer_value(dim);
		if (__builtin_mul_overflow(count, t->dim[i], &count))
			return status_fail(STATUS_CORRUPT, "tensor %s: its shape is too large", t->name);
	}
	t->count = count;
	return STATUS_OK;
}

static enum status parse_extent(
	const json_t *info, const struct type *type, struct section section, struct stored_tensor *t)
{
	const json_t *offsets = json_object_get(info, "data_offsets");
	const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
	uint64_t from, to, bits;

	if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
		json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
		return status_fail(
			STATUS_CORRUPT, "tensor %s: data_offsets must be [begin, end], two integers in order", t->name);
	from = (uint64_t)json_integer_value(begin);
	to = (uint64_t)json_integer_value(end);
	if (to > section.len)
		return status_fail(STATUS_CORRUPT,
			"tensor %s: its data ends at offset %llu, beyond the %llu bytes there are: "
			"the file is truncated",
			t->name, (unsigned long long)to, (unsigned long long)section.len);
	if (__builtin_mul_overflow((uint64_t)t->count, (uint64_t)type->bits, &bits))
		return status_fail(STATUS_CORRUPT, "tensor %s: its shape is too large", t->name);
	if (bits % 8 || to - from != bits / 8)
		return status_fail(STATUS_CORRUPT,
			"tensor %s: its shape needs %llu bytes, but its data_offsets span %llu", t->name,
			(unsigned long long)(bits / 8), (unsigned long long)(to - from));
	t->data = section.data + from;
	t->len = (size_t)(to - from);
	return STATUS_OK;
}

/* Names go into messages of one line. */
static enum status check_name(const char *name)
{
	size_t len = strlen(name);

	if (len < 1 || len > NAME_MAX_LEN)
		return status_fail(
			STATUS_CORRUPT, "a tensor's name has %zu bytes; 1 to %d are possible", len, NAME_MAX_LEN);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] < ' ' || name[i] == 127)
			return status_fail(STATUS_CORRUPT, "a tensor's name holds a control character (byte %zu)", i);
	return STATUS_OK;
}

/* On failure t->name may be set; it belongs to the list already. */
static enum status parse_tensor(const char *name, const json_t *info, struct section section, struct stored_tensor *t)
{
	const struct type *type = NULL;

	TRY(check_name(name));
	t->name = strdup(name);
	if (!t->name)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	if (!json_is_object(info))
		return status_fail(STATUS_CORRUPT, "tensor %s: its header entry must be an object", t->name);
	TRY(parse_type(info, t->name, &type));
	TRY(parse_shape(info, t));
	TRY(parse_extent(info, type, section, t));
	t->dtype = type->dtype;
	t->type = type->name;
	return STATUS_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Things that lie under such names by mistake, and whose first bytes make a nonsensical length. */
static enum status fail_length(const unsigned char *file, size_t size, uint64_t len)
{
	static const char lfs[] = "version https://git-lfs";

	if (size >= sizeof lfs - 1 && !memcmp(file, lfs, sizeof lfs - 1))
		return status_fail(
			STATUS_CORRUPT, "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`");
	if (file[0] == '<')
		return status_fail(STATUS_CORRUPT, "a web page, no safetensors file: download it again");
	if (len > HEADER_MAX && len <= size - 8)
		return status_fail(STATUS_CORRUPT, "a header length of %llu bytes; at most %d MiB are possible",
			(unsigned long long)len, HEADER_MAX >> 20);
	return status_fail(STATUS_CORRUPT,
		"a header length of %llu bytes in a file of %zu: truncated, or no safetensors file",
		(unsigned long long)len, size);
}

static enum status parse_header(const unsigned char *file, size_t size, json_t **out, struct section *section)
{
	uint64_t len = 0;
	enum status status;

	if (size < 8)
		return status_fail(STATUS_CORRUPT,
			"%zu bytes are too short for a safetensors header: the file is truncated", size);
	for (int i = 7; i >= 0; i--)
		len = len << 8 | file[i];
	if (len > size - 8 || len > HEADER_MAX)
		return fail_length(file, size, len);
	if (len == 0)
		return status_fail(STATUS_CORRUPT, "the header is empty");
	status = json_parse_object(file + 8, (size_t)len, out);
	if (status != STATUS_OK)
		return status_prefix(status, "the header is ");
	section->data = file + 8 + len;
	section->len = size - 8 - len;
	return STATUS_OK;
}

static int compare_data(const void *a, const void *b)
{
	const struct stored_tensor *x = a, *y = b;

	if (x->data != y->data)
		return x->data < y->data ? -1 : 1;
	return (x->len > y->len) - (x->len < y->len); /* empty ones first: they lie between two others */
}

/* Sorts the list by place. */
static enum status check_cover(struct section section, struct stored_tensor *list, int64_t count)
{
	const unsigned char *at = section.data;

	qsort(list, (size_t)count, sizeof *list, compare_data);
	for (int64_t i = 0; i < count; i++) {
		if (list[i].data < at)
			return status_fail(
				STATUS_CORRUPT, "tensor %s: its data overlaps another tensor's", list[i].name);
		if (list[i].data > at)
			return status_fail(STATUS_CORRUPT,
				"tensor %s: a gap of %td bytes before its data_offsets belongs to no tensor",
				list[i].name, list[i].data - at);
		at += list[i].len;
	}
	if (at != section.data + section.len)
		return status_fail(
			STATUS_CORRUPT, "%td trailing bytes belong to no tensor", section.data + section.len - at);
	return STATUS_OK;
}

static enum status parse_tensors(
	const json_t *header, struct section section, struct stored_tensor *list, int64_t *count)
{
	const char *name;
	const json_t *info;

	/* json_object_foreach wants a json_t that is not const, though it changes nothing */
	json_object_foreach ((json_t *)header, name, info) {
		if (strcmp(name, "__metadata__"))
			TRY(parse_tensor(name, info, section, &list[(*count)++]));
	}
	return check_cover(section, list, *count);
}

enum status safetensors_parse(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count)
{
	struct section section = { 0 };
	struct stored_tensor *list = NULL;
	json_t *header = NULL;
	int64_t n = 0;
	enum status status;

	TRY(parse_header(file, size, &header, &section));
	list = calloc(json_object_size(header) + 1, sizeof *list);
	if (list)
		status = parse_tensors(header, section, list, &n);
	else
		status = status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	json_decref(header);
	if (status != STATUS_OK) {
		stored_tensors_free(list, n);
		return status;
	}
	*out = list;
	*count = n;
	return STATUS_OK;
}

void stored_tensors_free(struct stored_tensor *list, int64_t count)
{
	for (int64_t i = 0; list && i < count; i++)
		free(list[i].name);
	free(list);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

enum status safetensors_describe(json_t *header, const char *name, const char *dtype, int rank, const int64_t *dim,
	uint64_t offset, uint64_t len)
{
	json_t *shape = json_array(), *info;

	for (int i = 0; i < rank; i++)
		json_array_append_new(shape, json_integer(dim[i]));
	info = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets", (json_int_t)offset,
		(json_int_t)(offset + len));
	if (json_object_set_new(header, name, info)) /* takes info, NULL and on failure too */
		return status_fail(STATUS_INTERNAL, "tensor %s: no valid name, or no memory", name);
	return STATUS_OK;
}

enum status safetensors_print(const json_t *header, struct bytes *out)
{
	char *text = json_dumps(header, JSON_COMPACT);
	uint64_t len = text ? (strlen(text) + 7) / 8 * 8 : 0;
	enum status status =
		text ? bytes_add(out, &len, sizeof len) : status_fail(STATUS_NO_MEMORY, "no memory for a header");

	if (status == STATUS_OK)
		status = bytes_print(out, "%-*s", (int)len, text);
	free(text);
	return status;
}

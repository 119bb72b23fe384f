/* json: reading configuration files of models with jansson, every value checked. */
#include "engine/json.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bytes.h"

/* A parsed value takes up to 130 bytes: the second limit keeps a file of empty lists from taking gigabytes.  Qwen3's
 * tokenizer has 0.6 million by the same count. */
enum { FILE_MAX_MIB = 64, VALUES_MAX = 4 << 20 };

/* ---- files ------------------------------------------------------------------------------------------------------- */

enum status json_read_object(const char *path, json_t **out)
{
	struct bytes text = { 0 };
	enum status status = bytes_read_file(&text, path, FILE_MAX_MIB);

	if (status == STATUS_OK) {
		status = json_parse_object(text.data, text.len, out);
		if (status != STATUS_OK)
			status_prefix(status, "%s: ", path);
	}
	bytes_free(&text);
	return status;
}

enum status json_read_with(
	const char *path, enum status (*read)(const json_t *object, const char *path, void *out), void *out)
{
	json_t *object;
	enum status status;

	TRY(json_read_object(path, &object));
	status = read(object, path, out);
	json_decref(object);
	return status;
}

static enum status fail_parse(json_error_t *error)
{
	bool too_large = json_error_code(error) == json_error_numeric_overflow;

	return status_fail(STATUS_CORRUPT, "not valid JSON: %s%.120s (line %d)",
		too_large ? "a number is out of range: " : "", error->text, error->line);
}

/* An upper bound: what separates values may also stand in strings. */
static size_t count_values(const char *text, size_t len)
{
	size_t count = 1;

	for (size_t i = 0; i < len; i++)
		count += text[i] == ',' || text[i] == '[' || text[i] == '{';
	return count;
}

/* Python writes numbers that JSON does not have ("lambda_min_clipped": -Infinity in a scheduler's configuration): they
 * become null, as if they had not been given. */
static void replace_infinities(char *text, size_t len)
{
	static const char *const words[] = { "-Infinity", "Infinity" };
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		if (in_string && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			in_string = !in_string;
		for (size_t w = 0; !in_string && w < sizeof words / sizeof words[0]; w++) {
			size_t n = strlen(words[w]);

			if (i < len && n <= len - i && memcmp(text + i, words[w], n) == 0) {
				memset(text + i, ' ', n);
				memcpy(text + i, "null", 4);
			}
		}
	}
}

static json_t *parse(const char *text, size_t len, json_error_t *error)
{
	json_t *root;
	char *copy;

	if (!memmem(text, len, "Infinity", 8))
		return json_loadb(text, len, JSON_REJECT_DUPLICATES, error);
	copy = malloc(len);
	if (!copy)
		return NULL;
	memcpy(copy, text, len);
	replace_infinities(copy, len);
	root = json_loadb(copy, len, JSON_REJECT_DUPLICATES, error);
	free(copy);
	return root;
}

enum status json_parse_object(const void *text, size_t len, json_t **out)
{
	json_error_t error = { .text = "no memory" };
	json_t *root;

	if (count_values(text, len) > VALUES_MAX)
		return status_fail(STATUS_CORRUPT, "JSON of more than %d values", VALUES_MAX);
	root = parse(text ? text : "", len, &error);
	if (!root)
		return fail_parse(&error);
	if (!json_is_object(root)) {
		json_decref(root);
		return status_fail(STATUS_CORRUPT, "not a JSON object: the JSON is a list");
	}
	*out = root;
	return STATUS_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* "WHERE: KEY must be WANTED, not VALUE" */
static enum status fail_value(const char *where, const char *key, const json_t *value, const char *wanted)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

	status_fail(STATUS_CORRUPT, "%s: %s must be %s, not %.60s", where, key, wanted, text ? text : "that");
	free(text);
	return STATUS_CORRUPT;
}

/* NULL for a missing and for a null value. */
static const json_t *get_value(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_null(value) ? NULL : value;
}

static bool int_within(const json_t *value, int64_t low, int64_t high)
{
	return json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high;
}

enum status json_get_int(
	const json_t *object, const char *where, const char *key, int64_t low, int64_t high, int64_t *out)
{
	const json_t *value = get_value(object, key);
	char wanted[80];

	if (!value)
		return STATUS_OK;
	if (!int_within(value, low, high)) {
		snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)low, (long long)high);
		return fail_value(where, key, value, wanted);
	}
	*out = json_integer_value(value);
	return STATUS_OK;
}

enum status json_need_int(
	const json_t *object, const char *where, const char *key, int64_t low, int64_t high, int64_t *out)
{
	if (!get_value(object, key))
		return status_fail(STATUS_CORRUPT, "%s: %s is missing", where, key);
	return json_get_int(object, where, key, low, high, out);
}

enum status json_get_number(
	const json_t *object, const char *where, const char *key, double low, double high, double *out)
{
	const json_t *value = get_value(object, key);
	double number = json_number_value(value);
	char wanted[80];

	if (!value)
		return STATUS_OK;
	if (json_is_number(value) && number >= low && number <= high) {
		*out = number;
		return STATUS_OK;
	}
	if (low > 0 && low <= DBL_MIN && high >= DBL_MAX)
		snprintf(wanted, sizeof wanted, "a number above 0");
	else if (high >= DBL_MAX)
		snprintf(wanted, sizeof wanted, "a number of at least %g", low);
	else
		snprintf(wanted, sizeof wanted, "a number from %g to %g", low, high);
	return fail_value(where, key, value, wanted);
}

enum status json_get_bool(const json_t *object, const char *where, const char *key, bool *out)
{
	const json_t *value = get_value(object, key);

	if (!value)
		return STATUS_OK;
	if (!json_is_boolean(value))
		return fail_value(where, key, value, "true or false");
	*out = json_is_true(value);
	return STATUS_OK;
}

enum status json_get_string(const json_t *object, const char *where, const char *key, const char **out)
{
	const json_t *value = get_value(object, key);

	if (!value)
		return STATUS_OK;
	if (!json_is_string(value))
		return fail_value(where, key, value, "a string");
	*out = json_string_value(value);
	return STATUS_OK;
}

enum status json_need_ints(const json_t *object, const char *where, const char *key, int64_t low, int64_t high, int max,
	int64_t *out, int *count)
{
	const json_t *list = get_value(object, key);
	char wanted[120];

	if (!list)
		return status_fail(STATUS_CORRUPT, "%s: %s is missing", where, key);
	snprintf(wanted, sizeof wanted, "a list of 1 to %d integers from %lld to %lld", max, (long long)low,
		(long long)high);
	if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > (size_t)max)
		return fail_value(where, key, list, wanted);
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!int_within(json_array_get(list, i), low, high))
			return fail_value(where, key, list, wanted);
	for (size_t i = 0; i < json_array_size(list); i++)
		out[i] = json_integer_value(json_array_get(list, i));
	*count = (int)json_array_size(list);
	return STATUS_OK;
}

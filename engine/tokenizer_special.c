/* tokenizer_special: reading tokenizer_config.json and special_tokens_map.json. */
#include "engine/tokenizer_special.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"

enum { DECODER_MAX = 100000 };

static enum status no_memory(const char *where)
{
	return status_fail(STATUS_NO_MEMORY, "%s: no memory for special tokens", where);
}

/* ---- one token --------------------------------------------------------------------------------------------------- */

/* "text" or { "content": "text", flags }: the object, new. */
static enum status token_object(const char *where, const char *key, const json_t *value, json_t **out)
{
	const char *content = json_string_value(json_object_get(value, "content"));

	if (json_is_string(value))
		*out = json_pack("{s:O}", "content", value);
	else if (content)
		*out = json_copy((json_t *)value);
	else
		return status_fail(STATUS_CORRUPT, "%s: %.40s must be a string or an object with content", where, key);
	return *out ? STATUS_OK : no_memory(where);
}

static bool has_content(const json_t *list, const char *content)
{
	const json_t *entry;
	size_t i;

	json_array_foreach (list, i, entry)
		if (!strcmp(json_string_value(json_object_get(entry, "content")), content))
			return true;
	return false;
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

/* "added_tokens_decoder": { "49406": { "content": ... } } */
static enum status read_decoder(const char *where, const json_t *file, json_t *special)
{
	json_t *list = json_object_get(special, "added_tokens"),
	       *decoder = json_object_get(file, "added_tokens_decoder");
	const char *key;
	json_t *value;

	if (json_object_size(decoder) > DECODER_MAX)
		return status_fail(
			STATUS_CORRUPT, "%s: added_tokens_decoder has more than %d tokens", where, DECODER_MAX);
	json_object_foreach (decoder, key, value) {
		json_t *token = NULL;
		char *end;
		long long id = strtoll(key, &end, 10);

		if (!json_is_object(value) || end == key || *end)
			return status_fail(
				STATUS_CORRUPT, "%s: added_tokens_decoder must map numbers to objects", where);
		TRY(token_object(where, key, value, &token));
		if (json_object_set_new(token, "id", json_integer(id)) || json_array_append_new(list, token))
			return no_memory(where);
	}
	return STATUS_OK;
}

static enum status read_named(const char *where, const char *key, const json_t *value, json_t *special)
{
	json_t *list = json_object_get(special, "added_tokens"), *token = NULL, *content;
	enum status status = STATUS_OK;

	if (!value || json_is_null(value) || json_object_get(special, key))
		return STATUS_OK;
	TRY(token_object(where, key, value, &token));
	content = json_object_get(token, "content");
	if (json_object_set(special, key, content))
		status = no_memory(where);
	else if (!has_content(list, json_string_value(content)) && json_array_append(list, token))
		status = no_memory(where);
	json_decref(token);
	return status;
}

static enum status read_one(const char *dir, const char *name, json_t *special)
{
	static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token" };
	char where[PATH_MAX];
	json_t *file = NULL;
	enum status status;

	if (snprintf(where, sizeof where, "%s/%s", dir, name) >= (int)sizeof where)
		return status_fail(STATUS_INVALID, "%.100s...: the path is too long", dir);
	status = json_read_object(where, &file);
	if (status != STATUS_OK)
		return status == STATUS_NO_MODEL ? STATUS_OK : status;
	status = read_decoder(where, file, special);
	for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == STATUS_OK; i++)
		status = read_named(where, keys[i], json_object_get(file, keys[i]), special);
	json_decref(file);
	return status;
}

enum status tokenizer_read_special(const char *dir, json_t **out)
{
	json_t *special = json_pack("{s:[]}", "added_tokens");
	enum status status;

	if (!special)
		return no_memory(dir);
	status = read_one(dir, "tokenizer_config.json", special);
	if (status == STATUS_OK)
		status = read_one(dir, "special_tokens_map.json", special);
	if (status != STATUS_OK) {
		json_decref(special);
		return status;
	}
	*out = special;
	return STATUS_OK;
}

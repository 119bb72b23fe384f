/* Three texts, with 0xff between them: a prompt, the .defaults beside it and those above.  A verdict; what can be
 * resolved is a recipe that goes through JSON, as to a worker, unchanged. */
#include <stdlib.h>
#include <string.h>

#include "fs/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct model model = {
	.name = "m", .defaults = { 512, 512, 8, 0 }, .size_multiple = 16, .size_max = 16384
};

static void check_json(const struct recipe *r)
{
	struct bytes one = { 0 }, two = { 0 };
	struct recipe back = { 0 };
	json_t *json = NULL;

	if (recipe_to_json(r, &json) || recipe_from_json(json, &back) ||
		recipe_canonical(r, "0", "f32", RECIPE_BY_HASH, &one) ||
		recipe_canonical(&back, "0", "f32", RECIPE_BY_HASH, &two) || one.len != two.len ||
		memcmp(one.data, two.data, one.len) != 0)
		abort();
	json_decref(json);
	recipe_free(&back);
	bytes_free(&one);
	bytes_free(&two);
}

/* The next text; takes it and the mark off the rest. */
static const char *take(const uint8_t **data, size_t *size, size_t *len)
{
	const uint8_t *text = *data, *mark = *size ? memchr(text, 0xff, *size) : NULL;

	*len = mark ? (size_t)(mark - text) : *size;
	*data += *len + (mark != NULL);
	*size -= *len + (mark != NULL);
	return (const char *)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct recipe_fields fields = { 0 };
	struct recipe r = { 0 };
	size_t len;
	const char *text = take(&data, &size, &len);
	enum status s = prompt_parse(text, len, &fields);

	for (int i = 0; i < 2 && s == STATUS_OK; i++) {
		struct recipe_fields outer = { 0 };

		text = take(&data, &size, &len);
		s = prompt_parse_defaults(text, len, &outer);
		if (s == STATUS_OK)
			s = recipe_fields_inherit(&fields, &outer);
		recipe_fields_free(&outer);
	}
	fields.has_seed |= fields.has_random_seed;
	if (s == STATUS_OK && recipe_resolve(&fields, &model, &r) == STATUS_OK)
		check_json(&r);
	recipe_free(&r);
	recipe_fields_free(&fields);
	return 0;
}

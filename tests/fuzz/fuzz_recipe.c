/* Any bytes as the JSON of a recipe: refused, or a recipe that goes to JSON and back unchanged. */
#include <stdlib.h>
#include <string.h>

#include "engine/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct recipe *a, const struct recipe *b)
{
	struct bytes one = { 0 }, two = { 0 };

	if (recipe_canonical(a, "0", "f32", RECIPE_BY_HASH, &one) ||
		recipe_canonical(b, "0", "f32", RECIPE_BY_HASH, &two) || one.len != two.len ||
		memcmp(one.data, two.data, one.len) != 0)
		abort();
	bytes_free(&one);
	bytes_free(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, JSON_ALLOW_NUL, NULL), *again = NULL;
	struct recipe r = { 0 }, back = { 0 };

	if (json && recipe_from_json(json, &r) == STATUS_OK) {
		if (recipe_to_json(&r, &again) || recipe_from_json(again, &back))
			abort();
		check_same(&r, &back);
	}
	recipe_free(&r);
	recipe_free(&back);
	json_decref(again);
	json_decref(json);
	return 0;
}

/* Any bytes as a prompt file and as .defaults: a verdict; and what can be resolved is written as parameters that read
 * back as the same recipe. */
#include <stdlib.h>
#include <string.h>

#include "fs/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct model model = {
	.name = "m", .defaults = { 512, 512, 8, 0 }, .size_multiple = 1, .size_max = 16384
};

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

static void check_round_trip(const struct recipe *r)
{
	struct recipe_fields fields = { 0 };
	struct recipe back = { 0 };
	struct bytes text = { 0 };

	if (recipe_parameters(r, "m", &text))
		abort();
	if (text.len <= RECIPE_PROMPT_MAX) { /* a longer one is no prompt file */
		if (prompt_parse((char *)text.data, text.len, &fields) || recipe_resolve(&fields, &model, &back))
			abort();
		check_same(r, &back);
	}
	recipe_free(&back);
	recipe_fields_free(&fields);
	bytes_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct recipe_fields fields = { 0 }, defaults = { 0 };
	struct recipe r = { 0 };

	if (prompt_parse((const char *)data, size, &fields) == STATUS_OK) {
		fields.has_seed |= fields.has_random_seed;
		if (recipe_resolve(&fields, &model, &r) == STATUS_OK)
			check_round_trip(&r);
	}
	prompt_parse_defaults((const char *)data, size, &defaults);
	recipe_free(&r);
	recipe_fields_free(&fields);
	recipe_fields_free(&defaults);
	return 0;
}

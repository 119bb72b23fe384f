/* Any bytes as a line of parameters and, cut at the first line end, as key and value of an option: taken, or refused
 * with a reason. */
#include <stdlib.h>
#include <string.h>

#include "fs/prompt_items.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_one(const char *key, const char *value)
{
	struct recipe_fields fields = { 0 };

	status_fail(STATUS_OK, "%s", "");
	if (prompt_item_set(key, value, &fields) != STATUS_OK && !*status_text())
		abort();
	recipe_fields_free(&fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prompt_exact exact = { 0 };
	struct recipe_fields fields = { 0 };
	char *text = strndup((const char *)data, size), *end;

	if (!text)
		abort();
	status_fail(STATUS_OK, "%s", "");
	if (prompt_items_are(text, strlen(text)) &&
		prompt_items_read(text, strlen(text), &exact, &fields) != STATUS_OK && !*status_text())
		abort();
	end = strchr(text, '\n');
	if (end) {
		*end = '\0';
		set_one(text, end + 1);
	}
	free(exact.prompt);
	free(exact.negative);
	recipe_fields_free(&fields);
	free(text);
	return 0;
}

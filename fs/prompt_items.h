/* prompt_items: one line `Key: value, Key: value`, as A1111 and its relatives write it below a prompt.
 *
 * A value is a JSON string, a JSON list or object, or plain text up to the next comma.  Threads: no shared state.
 */
#ifndef PROMPTFS_FS_PROMPT_ITEMS_H
#define PROMPTFS_FS_PROMPT_ITEMS_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/recipe.h"

/* The items `Prompt: "..."` and `Negative prompt: "..."`: texts that could not stand above the line as they are (see
 * recipe_parameters).  malloc'ed; NULL where absent. */
struct prompt_exact {
	char *prompt, *negative;
};

/* Whether every item has the form `Key: value` and the first key is a known one. */
bool prompt_items_are(const char *line, size_t len);

/* Reads a line of which prompt_items_are is true.  STATUS_INVALID with the reason for the first item that is wrong; the
 * others are read all the same. */
enum status prompt_items_read(const char *line, size_t len, struct prompt_exact *exact, struct recipe_fields *out);

/* One value by its key, as if it stood in such a line ("Steps", "8"): options of commands.  Unknown keys fail. */
enum status prompt_item_set(const char *key, const char *value, struct recipe_fields *out);

#endif

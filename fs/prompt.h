/* prompt: the text of a prompt file (and of .defaults) to recipe fields, by the A1111 convention.
 *
 *     a red panda reads a newspaper <lora:ink:0.8>
 *     Negative prompt: blurry
 *     Steps: 8, Seed: 42, Size: 768x512
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_PROMPT_H
#define PROMPTFS_FS_PROMPT_H

#include <stddef.h>

#include "engine/recipe.h"

/* STATUS_INVALID with the line and the reason: NUL bytes, invalid UTF-8, a bad value, an unknown key after a known one.
 * *out is to be zero-initialised and is the caller's also after a failure: what could be read (the size, say) is in it.
 */
enum status prompt_parse(const char *text, size_t len, struct recipe_fields *out);

/* The same for a .defaults file: a parameter line, and optionally a negative prompt before it. */
enum status prompt_parse_defaults(const char *text, size_t len, struct recipe_fields *out);

#endif

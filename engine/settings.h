/* settings: the arguments of a family's diffusers pipeline that `Set: NAME=VALUE` gives, checked against a table.
 *
 *     static const struct setting settings[] = {
 *             { "max_sequence_length", SETTING_INT, 1, 512 },
 *             { "prompt_2", SETTING_TEXT, 0, 0 },
 *     };
 *     TRY(settings_check(settings, 2, recipe, "FLUX"));
 *
 * What the engine itself answers for every family is known without a row: num_images_per_prompt and image_index.
 * Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_SETTINGS_H
#define PROMPTFS_ENGINE_SETTINGS_H

#include "engine/recipe.h"

enum setting_kind {
	SETTING_INT,    /* from low to high */
	SETTING_NUMBER, /* from low to high; true and false count as 1 and 0 */
	SETTING_TEXT,
	SETTING_PAIR, /* "64x96": height first, each from low to high */
	SETTING_FILE, /* a path */
};

struct setting {
	const char *name;
	enum setting_kind kind;
	double low, high;
};

/* Every set of the recipe is in the table and its value is right, else STATUS_INVALID.  pipeline: "Z-Image". */
enum status settings_check(const struct setting *table, int n, const struct recipe *r, const char *pipeline);

/* Values of a checked recipe; the fallback where it has none. */
double setting_number(const struct recipe *r, const char *name, double fallback);
const char *setting_text(const struct recipe *r, const char *name, const char *fallback); /* borrowed */
bool setting_pair(const struct recipe *r, const char *name, int64_t out[2]);              /* false: not there */

#endif

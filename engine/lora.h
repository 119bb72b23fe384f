/* lora: small changes of a model's weights (LoRA, LoCon, LoHa, LoKr, DoRA), added while the weights are loaded.
 *
 *     TRY(lora_open(recipe, &set));
 *     TRY(lora_match(set, parts, n));         // every key finds its weight, or an error lists those that do not
 *     weights_add_lora(w, set, "unet");       // from now on weights_find gives W + scale * alpha / rank * B A
 *
 * Names understood: diffusers and PEFT, kohya (diffusers' or the original names, dots as underscores), diffusion_model.
 *
 * Threads: after matching, reading is safe from any thread.
 */
#ifndef PROMPTFS_ENGINE_LORA_H
#define PROMPTFS_ENGINE_LORA_H

#include "engine/recipe.h"
#include "engine/weights.h"

struct lora_set;

struct lora_part {
	const char *name; /* "text_encoder" */
	const struct weights *weights;
};

/* The files of the recipe's LoRAs; a set without any is NULL. */
enum status lora_open(const struct recipe *r, struct lora_set **out);
void lora_close(struct lora_set *s); /* NULL is allowed */
enum status lora_match(struct lora_set *s, const struct lora_part *parts, int n);

/* Whether it is what lora_open would give; NULL: none. */
bool lora_is(const struct lora_set *s, const struct recipe *r);
/* How many modules of the i-th file change the model, of how many; false past the last. */
bool lora_count(const struct lora_set *s, int i, int *applied, int *of);
bool lora_touches_part(const struct lora_set *s, const char *part);
bool lora_touches(const struct lora_set *s, const char *part, const char *tensor);
/* Adds to the tensor's values: rows x columns, F32. */
enum status lora_add(
	const struct lora_set *s, const char *part, const char *tensor, int64_t rows, int64_t columns, float *values);

#endif

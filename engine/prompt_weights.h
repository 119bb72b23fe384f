/* prompt_weights: A1111's way to stress words: `(word)` counts 1.1, `(word:1.3)` 1.3, `[word]` 1/1.1, `\(` is a
 * bracket.
 *
 *     float *weights = NULL;
 *     TRY(prompt_weights_encode(recipe, tokenizer, text, 77, &ids, &weights)); // NULL unless the recipe asks
 *     ... encode ids ...
 *     if (weights)
 *             TRY(prompt_weights_apply(kernels, hidden, weights)); // rows times weights, the mean kept
 *     free(weights);
 *
 * Off unless a prompt file asks (`Set: prompt_weights=a1111`): diffusers has no such thing, and brackets are text
 * there.
 *
 * Reference: stable-diffusion-webui, modules/prompt_parser.py (parse_prompt_attention) and modules/sd_emphasis.py
 * ("Original"); for T5, stable-diffusion-webui-forge, backend/text_processing/t5_engine.py, which does the same to the
 * rows of T5, padding included, and nothing to pooled rows.  Spans are tokenized one by one, so that a word cut by a
 * bracket has other tokens than a whole one. What is read there and not here: BREAK, [from:to:when] and [a|b], which
 * change the prompt during sampling.
 */
#ifndef PROMPTFS_ENGINE_PROMPT_WEIGHTS_H
#define PROMPTFS_ENGINE_PROMPT_WEIGHTS_H

#include <stdbool.h>

#include "engine/bytes.h"
#include "engine/recipe.h"
#include "engine/tokenizer.h"
#include "kernels/kernels.h"

struct prompt_span {
	size_t start, len; /* in text */
	double weight;
};

struct prompt_weights {
	struct bytes text; /* without the brackets, escapes undone */
	struct prompt_span *span;
	size_t n, room;
};

#define PROMPT_WEIGHTS_SETTING "prompt_weights"

/* Another value than "a1111" and "none" is STATUS_INVALID. */
enum status prompt_weights_check(const struct recipe *r);

/* Into an empty *out, which prompt_weights_free frees in any case.  Neighbours of equal weight are one span; there is
 * one span at least. */
enum status prompt_weights_parse(const char *text, size_t len, struct prompt_weights *out);
void prompt_weights_free(struct prompt_weights *p);

/* Appends `length` ids as tokenizer_encode_padded does, and their weights: 1 for what is no text. */
enum status prompt_weights_tokenize(const struct tokenizer *t, const struct prompt_weights *p, int64_t length,
	struct token_ids *ids, float *weights);

/* All of this if the recipe asks for it, else tokenizer_encode_padded.  *weights: of `length` tokens, the caller's to
 * free; NULL when it was not asked for, or on failure. */
enum status prompt_weights_encode(const struct recipe *r, const struct tokenizer *t, const char *text, int64_t length,
	struct token_ids *ids, float **weights);

/* hidden [n, width] F32, in place: rows times weights [n] in host memory, then all times what restores the mean. */
enum status prompt_weights_apply(struct kernels *k, struct tensor hidden, const float *weights);

#endif

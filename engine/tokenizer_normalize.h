/* tokenizer_normalize: what is done to a text before it is split.  Used by the tokenizers alone. */
#ifndef PROMPTFS_ENGINE_TOKENIZER_NORMALIZE_H
#define PROMPTFS_ENGINE_TOKENIZER_NORMALIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/bytes.h"

/* Done in this order. */
enum { NORMALIZE_NFC = 1, NORMALIZE_SPACES = 2 /* runs of them become one U+0020 */, NORMALIZE_LOWER = 4 };

/* Appends text, which is valid UTF-8, to out. */
enum status normalize_text(unsigned what, const char *text, size_t len, struct bytes *out);

/* Unicode's White_Space. */
bool character_is_space(int32_t c);

#endif

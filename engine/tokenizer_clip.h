/* tokenizer_clip: CLIP's tokenizer from vocab.json and merges.txt.  Used by tokenizer alone. */
#ifndef PROMPTFS_ENGINE_TOKENIZER_CLIP_H
#define PROMPTFS_ENGINE_TOKENIZER_CLIP_H

#include <jansson.h>

#include "kernels/status.h"

/* The tokenizer.json that such a folder stands for, without added tokens; the caller's (json_decref).  special: what
 * tokenizer_read_special said. */
enum status tokenizer_clip_json(const char *dir, const json_t *special, json_t **out);

#endif

/* tokenizer_special: the special tokens that tokenizer_config.json and special_tokens_map.json name.
 *
 * They matter twice: for padding, and because a token named there is matched in raw text even where tokenizer.json or
 * vocab.json know it as an ordinary one (the "!" that CLIP bigG pads with).  Used by tokenizer alone.
 */
#ifndef PROMPTFS_ENGINE_TOKENIZER_SPECIAL_H
#define PROMPTFS_ENGINE_TOKENIZER_SPECIAL_H

#include <jansson.h>

#include "kernels/status.h"

/* An object: "added_tokens" as in a tokenizer.json, but an entry may lack its id; "bos_token", "eos_token", "unk_token"
 * and "pad_token" as strings, each only if a file has it.  The caller's (json_decref).  Missing files are no error. */
enum status tokenizer_read_special(const char *dir, json_t **out);

#endif

/* key: see key.h. */
#include "fs/key.h"

#include <string.h>

#include "fs/contents.h"

enum status key_make(const struct recipe *r, const char *model_hash, enum dtype dtype, struct bytes *canonical,
	char key[RECIPE_KEY_LEN + 1])
{
	size_t start = canonical->len;

	if (strlen(model_hash) != MODEL_HASH_LEN || !contents_are_hashed(r))
		return status_fail(
			STATUS_INTERNAL, "a key was asked for before all that decides the picture was hashed");
	TRY(recipe_canonical(r, model_hash, dtype_name(dtype), RECIPE_BY_HASH, canonical));
	recipe_key(canonical->data + start, canonical->len - start, key);
	return STATUS_OK;
}

/* key: see key.h. */
#include "fs/key.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

static bool names_file(const char *set)
{
	static const char ending[] = "_file";
	size_t len = strlen(set);

	return strcmp(set, "prior_model") == 0 ||
	       (len >= sizeof ending && strcmp(set + len - (sizeof ending - 1), ending) == 0);
}

/* Of the files that sets name, so that one that is replaced under its name has another key: place, size and time.  What
 * is not there the engine tells of. */
static enum status add_files(const struct recipe *r, struct bytes *canonical)
{
	for (int i = 0; i < r->n_sets; i++) {
		struct stat st;

		if (!names_file(r->sets[i].name) || stat(r->sets[i].value, &st) != 0)
			continue;
		TRY(bytes_print(canonical, "file %s: %ju %ju %jd %jd.%09ld\n", r->sets[i].name, (uintmax_t)st.st_dev,
			(uintmax_t)st.st_ino, (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec));
	}
	return STATUS_OK;
}

enum status key_make(const struct recipe *r, const char *model_hash, enum dtype dtype, struct bytes *canonical,
	char key[RECIPE_KEY_LEN + 1])
{
	size_t start = canonical->len;

	if (strlen(model_hash) != MODEL_HASH_LEN)
		return status_fail(STATUS_INTERNAL, "a key was asked for before the model's content was hashed");
	TRY(recipe_canonical(r, model_hash, dtype_name(dtype), canonical));
	TRY(add_files(r, canonical));
	recipe_key(canonical->data + start, canonical->len - start, key);
	return STATUS_OK;
}

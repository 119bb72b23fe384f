/* dress: the texts of a picture. */
#include "fs/dress.h"

#include <stdlib.h>

#include "engine/png.h"

enum { N_TEXTS = 3 };

struct texts {
	struct bytes parameters;
	char *json;
	struct png_text list[N_TEXTS];
};

static enum status make_json(const struct recipe *r, const struct model *model, char **out)
{
	static const char unknown[] = "00000000000000000000000000000000";
	json_t *recipe, *object, *lora;
	size_t i;

	TRY(recipe_to_json(r, &recipe));
	recipe_json_hide(recipe);
	json_array_foreach (json_object_get(recipe, "loras"), i, lora)
		if (!json_object_get(lora, "hash")) /* the size is promised before files were read */
			json_object_set_new(lora, "hash", json_string(unknown));
	object = json_pack("{s:s, s:s, s:s, s:o}", "version", PROMPTFS_VERSION, "model", model->name, "model_hash",
		*model->hash ? model->hash : unknown, "recipe", recipe);
	*out = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	return *out ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "the recipe cannot be written as JSON");
}

static enum status texts_init(const struct recipe *r, const struct model *model, struct texts *t)
{
	*t = (struct texts){ 0 };
	TRY(recipe_parameters(r, model->name, &t->parameters));
	TRY(make_json(r, model, &t->json));
	t->list[0] = (struct png_text){ "parameters", (char *)t->parameters.data };
	t->list[1] = (struct png_text){ "promptfs", t->json };
	t->list[2] = (struct png_text){ "Software", "promptfs " PROMPTFS_VERSION };
	return STATUS_OK;
}

static void texts_fini(struct texts *t)
{
	bytes_free(&t->parameters);
	free(t->json);
}

enum status dress_size(const struct recipe *r, const struct model *model, uint64_t *size)
{
	struct texts t;
	enum status s = texts_init(r, model, &t);

	if (s == STATUS_OK)
		*size = png_size(r->width, r->height, N_TEXTS, t.list);
	texts_fini(&t);
	return s;
}

enum status dress_png(
	const struct recipe *r, const struct model *model, const void *bare, size_t len, struct bytes *out)
{
	struct texts t;
	enum status s = texts_init(r, model, &t);

	if (s == STATUS_OK)
		s = png_dress(bare, len, N_TEXTS, t.list, out);
	texts_fini(&t);
	return s;
}

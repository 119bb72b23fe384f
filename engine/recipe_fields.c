/* recipe_fields: what a user gave, before it is resolved. */
#include "engine/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text.h"

/* One more element at the end of an array that never shrinks. */
static enum status grow(void **array, int count, size_t size)
{
	void *more = realloc(*array, ((size_t)count + 1) * size);

	if (!more)
		return status_fail(STATUS_NO_MEMORY, "no memory for %d entries", count + 1);
	memset((char *)more + (size_t)count * size, 0, size);
	*array = more;
	return STATUS_OK;
}

static struct recipe_set *find_set(const struct recipe_fields *f, const char *name)
{
	for (int i = 0; i < f->n_sets; i++)
		if (strcmp(f->sets[i].name, name) == 0)
			return &f->sets[i];
	return NULL;
}

enum status recipe_fields_set(struct recipe_fields *f, const char *name, const char *value)
{
	struct recipe_set *set = find_set(f, name), new = { 0 };

	if (set)
		return text_copy(value, strlen(value), &set->value);
	TRY(grow((void **)&f->sets, f->n_sets, sizeof *f->sets));
	TRY(text_copy(name, strlen(name), &new.name));
	if (text_copy(value, strlen(value), &new.value) != STATUS_OK) {
		free(new.name);
		return STATUS_NO_MEMORY;
	}
	f->sets[f->n_sets++] = new;
	return STATUS_OK;
}

enum status recipe_fields_lora(struct recipe_fields *f, const char *name, double scale)
{
	char *copy = NULL;

	TRY(grow((void **)&f->loras, f->n_loras, sizeof *f->loras));
	TRY(text_copy(name, strlen(name), &copy));
	f->loras[f->n_loras++] = (struct recipe_lora){ .name = copy, .scale = scale };
	return STATUS_OK;
}

static enum status inherit_text(char **own, const char *outer)
{
	return *own || !outer ? STATUS_OK : text_copy(outer, strlen(outer), own);
}

static enum status inherit_lists(struct recipe_fields *f, const struct recipe_fields *outer)
{
	bool own_loras = f->n_loras > 0;

	for (int i = 0; i < outer->n_sets; i++) {
		const struct recipe_set *set = &outer->sets[i];
		bool own = find_set(f, set->name) || (f->has_clip_skip && strcmp(set->name, "clip_skip") == 0);

		if (!own)
			TRY(recipe_fields_set(f, set->name, set->value));
	}
	for (int i = 0; i < outer->n_loras && !own_loras; i++)
		TRY(recipe_fields_lora(f, outer->loras[i].name, outer->loras[i].scale));
	return STATUS_OK;
}

static void inherit_guidance(struct recipe_fields *f, const struct recipe_fields *outer)
{
	if (f->has_guidance || f->has_cfg || f->has_distilled_cfg)
		return;
	f->has_guidance = outer->has_guidance;
	f->guidance = outer->guidance;
	f->has_cfg = outer->has_cfg;
	f->cfg = outer->cfg;
	f->has_distilled_cfg = outer->has_distilled_cfg;
	f->distilled_cfg = outer->distilled_cfg;
}

static void inherit_numbers(struct recipe_fields *f, const struct recipe_fields *outer)
{
	if (!f->has_steps && outer->has_steps) {
		f->has_steps = true;
		f->steps = outer->steps;
	}
	if (!f->has_seed && !f->has_random_seed) {
		f->has_seed = outer->has_seed;
		f->has_random_seed = outer->has_random_seed;
		f->seed = outer->seed;
	}
	if (!f->has_size && outer->has_size) {
		f->has_size = true;
		f->width = outer->width;
		f->height = outer->height;
	}
	if (!f->has_rng && outer->has_rng) {
		f->has_rng = true;
		f->rng = outer->rng;
	}
	if (!f->has_clip_skip && outer->has_clip_skip && !find_set(f, "clip_skip")) {
		f->has_clip_skip = true;
		f->clip_skip = outer->clip_skip;
	}
}

enum status recipe_fields_inherit(struct recipe_fields *f, const struct recipe_fields *outer)
{
	TRY(inherit_text(&f->sampler, outer->sampler));
	TRY(inherit_text(&f->scheduler, outer->scheduler));
	TRY(inherit_text(&f->prompt, outer->prompt));
	TRY(inherit_text(&f->negative, outer->negative));
	TRY(inherit_text(&f->model, outer->model));
	inherit_guidance(f, outer);
	inherit_numbers(f, outer);
	return inherit_lists(f, outer);
}

enum status recipe_fields_copy(const struct recipe_fields *f, struct recipe_fields *out)
{
	struct recipe_fields copy = { 0 };
	enum status s = recipe_fields_inherit(&copy, f);

	/* what inheriting drops as a contradiction is kept in a copy */
	if (s == STATUS_OK)
		for (int i = 0; i < f->n_sets && s == STATUS_OK; i++)
			s = recipe_fields_set(&copy, f->sets[i].name, f->sets[i].value);
	if (s == STATUS_OK)
		*out = copy;
	else
		recipe_fields_free(&copy);
	return s;
}

void recipe_fields_free(struct recipe_fields *f)
{
	char *texts[] = { f->prompt, f->negative, f->model, f->sampler, f->scheduler };

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		free(texts[i]);
	for (int i = 0; i < f->n_sets; i++) {
		free(f->sets[i].name);
		free(f->sets[i].value);
	}
	for (int i = 0; i < f->n_loras; i++) {
		free(f->loras[i].name);
		free(f->loras[i].path);
	}
	free(f->sets);
	free(f->loras);
	*f = (struct recipe_fields){ 0 };
}

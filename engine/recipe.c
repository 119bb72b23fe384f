/* recipe: resolving fields against a model, and small questions to a recipe.  Its texts are in recipe_text.c. */
#include "engine/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <xxhash.h>

#include "engine/family.h"
#include "engine/sampler_name.h"
#include "engine/text.h"

static enum status check_text(const char *what, const char *text)
{
	size_t len = strlen(text), bad;

	if (len > RECIPE_PROMPT_MAX)
		return status_fail(STATUS_INVALID, "%s is longer than 1 MiB", what);
	if (!text_is_utf8(text, len, &bad))
		return status_fail(STATUS_INVALID, "%s is not UTF-8 at byte %zu", what, bad + 1);
	return STATUS_OK;
}

static enum status resolve_texts(const struct recipe_fields *f, struct recipe *r)
{
	const char *prompt = f->prompt ? f->prompt : "";

	TRY(check_text("the prompt", prompt));
	TRY(text_copy(prompt, strlen(prompt), &r->prompt));
	if (!f->negative)
		return STATUS_OK;
	TRY(check_text("the negative prompt", f->negative));
	return text_copy(f->negative, strlen(f->negative), &r->negative);
}

static enum status resolve_size(const struct recipe_fields *f, const struct model *m, struct recipe *r)
{
	int64_t width = f->has_size ? f->width : m->defaults.width;
	int64_t height = f->has_size ? f->height : m->defaults.height;

	/* 0: that side was not given (generate --width alone) */
	width = width ? width : m->defaults.width;
	height = height ? height : m->defaults.height;
	if (width < 1 || height < 1 || width > m->size_max || height > m->size_max)
		return status_fail(STATUS_INVALID, "Size: %lldx%lld; model %s allows 1 to %d for each side",
			(long long)width, (long long)height, m->name, m->size_max);
	r->width = (int)width;
	r->height = (int)height;
	if (m->family && m->family->round_size)
		m->family->round_size(m, &r->width, &r->height);
	return STATUS_OK;
}

static enum status resolve_numbers(const struct recipe_fields *f, const struct model *m, struct recipe *r)
{
	int64_t steps = f->has_steps ? f->steps : m->defaults.steps;

	if (steps < 1 || steps > RECIPE_STEPS_MAX)
		return status_fail(
			STATUS_INVALID, "Steps: %lld is not from 1 to %d", (long long)steps, RECIPE_STEPS_MAX);
	if (f->has_random_seed && !f->has_seed)
		return status_fail(STATUS_INTERNAL, "Seed: -1 was not replaced by a random seed");
	r->steps = (int)steps;
	r->seed = f->has_seed ? f->seed : 0;
	r->rng = f->has_rng ? f->rng : RNG_TORCH_CPU;
	return STATUS_OK;
}

static enum status resolve_guidance(const struct recipe_fields *f, const struct model *m, struct recipe *r)
{
	const struct family *family = m->family;
	bool distilled = family && family->apply_distilled_cfg;

	if (f->has_distilled_cfg && !distilled)
		return status_fail(
			STATUS_INVALID, "Distilled CFG Scale: model %s has none; use Guidance or CFG scale", m->name);
	if (f->has_guidance && f->has_distilled_cfg)
		return status_fail(
			STATUS_INVALID, "Guidance and Distilled CFG Scale say the same thing; give one of them");
	if (f->has_guidance && f->has_cfg && !distilled)
		return status_fail(STATUS_INVALID, "Guidance and CFG scale say the same thing; give one of them");
	r->guidance = f->has_guidance ? f->guidance : m->defaults.guidance;
	if (f->has_cfg && family && family->apply_cfg)
		TRY(family->apply_cfg(m, r, f->cfg));
	else if (f->has_cfg)
		r->guidance = f->cfg;
	if (f->has_distilled_cfg)
		TRY(family->apply_distilled_cfg(m, r, f->distilled_cfg));
	r->guidance = r->guidance == 0 ? 0 : r->guidance; /* never -0 */
	return STATUS_OK;
}

static enum status resolve_sampler(const struct recipe_fields *f, struct recipe *r)
{
	if (f->sampler)
		return sampler_name_find(f->sampler, f->scheduler, r->sampler);
	if (f->scheduler && strcasecmp(f->scheduler, "automatic") != 0)
		return status_fail(STATUS_INVALID, "Scheduler: '%.60s' needs a Sampler", f->scheduler);
	return STATUS_OK; /* the family's own */
}

static int compare_sets(const void *a, const void *b)
{
	return strcmp(((const struct recipe_set *)a)->name, ((const struct recipe_set *)b)->name);
}

/* A1111 counts the layers used from the end (1: all), diffusers the layers skipped. */
static enum status resolve_clip_skip(const struct recipe_fields *f, struct recipe_fields *sets)
{
	char value[24];

	if (!f->has_clip_skip)
		return STATUS_OK;
	for (int i = 0; i < f->n_sets; i++)
		if (strcmp(f->sets[i].name, "clip_skip") == 0)
			return status_fail(
				STATUS_INVALID, "Clip skip and Set: clip_skip= say the same thing; give one of them");
	if (f->clip_skip == 1)
		return STATUS_OK;
	snprintf(value, sizeof value, "%lld", (long long)f->clip_skip - 1);
	return recipe_fields_set(sets, "clip_skip", value);
}

static enum status check_set_name(const char *name)
{
	size_t len = strlen(name);

	if (len < 1 || len > 60 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != len)
		return status_fail(
			STATUS_INVALID, "Set: '%.60s' is no name of an argument (small letters, digits, _)", name);
	return STATUS_OK;
}

/* Lists are built as fields, which know how to grow, and moved into the recipe. */
static enum status resolve_lists(const struct recipe_fields *f, struct recipe *r)
{
	struct recipe_fields lists = { 0 };
	enum status s = resolve_clip_skip(f, &lists);

	for (int i = 0; i < f->n_sets && s == STATUS_OK; i++) {
		s = check_set_name(f->sets[i].name);
		if (s == STATUS_OK)
			s = check_text(f->sets[i].name, f->sets[i].value);
		if (s == STATUS_OK)
			s = recipe_fields_set(&lists, f->sets[i].name, f->sets[i].value);
	}
	for (int i = 0; i < f->n_loras && s == STATUS_OK; i++) {
		s = check_text("the name of a LoRA", f->loras[i].name);
		if (s == STATUS_OK)
			s = recipe_fields_lora(&lists, f->loras[i].name, f->loras[i].scale);
	}
	if (s != STATUS_OK) {
		recipe_fields_free(&lists);
		return s;
	}
	if (lists.n_sets)
		qsort(lists.sets, (size_t)lists.n_sets, sizeof *lists.sets, compare_sets);
	r->n_sets = lists.n_sets;
	r->sets = lists.sets;
	r->n_loras = lists.n_loras;
	r->loras = lists.loras;
	return STATUS_OK;
}

enum status recipe_add_file(struct recipe *r, const char *name, const char *path)
{
	struct recipe_file *grown = realloc(r->files, (size_t)(r->n_files + 1) * sizeof *grown);
	struct recipe_file *f;

	if (!grown)
		return status_fail(STATUS_NO_MEMORY, "no memory for a recipe");
	r->files = grown;
	f = &r->files[r->n_files++];
	*f = (struct recipe_file){ .set = strdup(name), .path = strdup(path) };
	return f->set && f->path ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a recipe");
}

static enum status resolve_files(struct recipe *r)
{
	static const char ending[] = "_file";

	for (int i = 0; i < r->n_sets; i++) {
		size_t len = strlen(r->sets[i].name);

		if (len >= sizeof ending && strcmp(r->sets[i].name + len - (sizeof ending - 1), ending) == 0)
			TRY(recipe_add_file(r, r->sets[i].name, r->sets[i].value));
	}
	return STATUS_OK;
}

static enum status resolve_all(const struct recipe_fields *f, const struct model *m, struct recipe *r)
{
	TRY(resolve_texts(f, r));
	TRY(resolve_size(f, m, r));
	TRY(resolve_numbers(f, m, r));
	TRY(resolve_sampler(f, r));
	TRY(resolve_lists(f, r));
	TRY(resolve_guidance(f, m, r)); /* may add a set */
	if (m->family)
		TRY(m->family->resolve(m, r));
	return resolve_files(r);
}

enum status recipe_resolve(const struct recipe_fields *f, const struct model *model, struct recipe *out)
{
	struct recipe r = { 0 };
	enum status s = resolve_all(f, model, &r);

	if (s == STATUS_OK)
		*out = r;
	else
		recipe_free(&r);
	return s;
}

void recipe_free(struct recipe *r)
{
	struct recipe_fields lists = { .n_sets = r->n_sets, .n_loras = r->n_loras, .sets = r->sets, .loras = r->loras };

	free(r->prompt);
	free(r->negative);
	recipe_fields_free(&lists);
	for (int i = 0; i < r->n_files; i++) {
		free(r->files[i].set);
		free(r->files[i].path);
	}
	free(r->files);
	*r = (struct recipe){ 0 };
}

void recipe_size(const struct recipe_fields *f, const struct model *model, int *width, int *height)
{
	struct recipe r = { 0 };
	bool right = resolve_size(f, model, &r) == STATUS_OK;

	if (right && model->size_multiple > 0)
		right = r.width % model->size_multiple == 0 && r.height % model->size_multiple == 0;
	*width = right ? r.width : model->defaults.width;
	*height = right ? r.height : model->defaults.height;
}

enum status recipe_add_set(struct recipe *r, const char *name, const char *value)
{
	struct recipe_fields lists = { .n_sets = r->n_sets, .sets = r->sets };
	enum status status;

	for (int i = 0; i < r->n_sets; i++)
		if (strcmp(r->sets[i].name, name) == 0)
			return status_fail(STATUS_INVALID, "Set: %s= is given twice, once under another name", name);
	status = recipe_fields_set(&lists, name, value);
	r->n_sets = lists.n_sets;
	r->sets = lists.sets;
	if (status == STATUS_OK)
		qsort(r->sets, (size_t)r->n_sets, sizeof *r->sets, compare_sets);
	return status;
}

int64_t recipe_set_int(const struct recipe *r, const char *name, int64_t fallback)
{
	int64_t value = fallback;

	for (int i = 0; i < r->n_sets; i++)
		if (strcmp(r->sets[i].name, name) == 0)
			text_read_int(r->sets[i].value, INT64_MIN, INT64_MAX, &value);
	return value;
}

void recipe_key(const void *text, size_t len, char key[RECIPE_KEY_LEN + 1])
{
	XXH128_hash_t hash = XXH3_128bits(text, len);

	snprintf(key, RECIPE_KEY_LEN + 1, "%016llx%016llx", (unsigned long long)hash.high64,
		(unsigned long long)hash.low64);
}

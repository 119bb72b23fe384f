/* recipe_text: a recipe as canonical text (for keys), as A1111 parameters (for people) and as JSON (for programs).
 *
 * All three are driven by one table with a row for every value that reaches the engine: a new member of struct recipe
 * is one new row.  Lists (sets, LoRAs) come after it, in the same three forms.
 */
#include "engine/recipe.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/sampler_name.h"
#include "engine/text.h"

enum kind { KIND_TEXT, KIND_INT, KIND_DOUBLE, KIND_NAME, KIND_SEED, KIND_RNG };

/* lead: what stands before the value in the parameter line; texts have lines of their own. */
static const struct field {
	const char *name, *lead;
	enum kind kind;
	size_t offset;
} fields[] = {
	{ "prompt", NULL, KIND_TEXT, offsetof(struct recipe, prompt) },
	{ "negative", NULL, KIND_TEXT, offsetof(struct recipe, negative) },
	{ "steps", "Steps: ", KIND_INT, offsetof(struct recipe, steps) },
	{ "sampler", ", Sampler: ", KIND_NAME, offsetof(struct recipe, sampler) },
	{ "guidance", ", Guidance: ", KIND_DOUBLE, offsetof(struct recipe, guidance) },
	{ "seed", ", Seed: ", KIND_SEED, offsetof(struct recipe, seed) },
	{ "width", ", Size: ", KIND_INT, offsetof(struct recipe, width) },
	{ "height", "x", KIND_INT, offsetof(struct recipe, height) },
	{ "rng", ", RNG: ", KIND_RNG, offsetof(struct recipe, rng) },
};

enum { N_FIELDS = sizeof fields / sizeof *fields };

static const void *member(const struct recipe *r, const struct field *f)
{
	return (const char *)r + f->offset;
}

/* A value without its name; texts are not for here. */
static void print_value(const struct recipe *r, const struct field *f, char out[SAMPLER_NAME_LEN])
{
	const void *at = member(r, f);

	switch (f->kind) {
	case KIND_INT:
		snprintf(out, SAMPLER_NAME_LEN, "%d", *(const int *)at);
		break;
	case KIND_DOUBLE:
		text_print_double(*(const double *)at, out);
		break;
	case KIND_NAME:
		snprintf(out, SAMPLER_NAME_LEN, "%s", (const char *)at);
		break;
	case KIND_SEED:
		snprintf(out, SAMPLER_NAME_LEN, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case KIND_RNG:
		snprintf(out, SAMPLER_NAME_LEN, "%s", rng_name(*(const enum rng_kind *)at));
		break;
	case KIND_TEXT:
		*out = 0;
		break;
	}
}

/* ---- canonical ----------------------------------------------------------------------------------------------- */

/* With its length, so that no text can pass for the lines that follow it. */
static enum status canonical_text(const char *name, const char *text, struct bytes *out)
{
	if (!text)
		return bytes_print(out, "%s: none\n", name);
	TRY(bytes_print(out, "%s: %zu:", name, strlen(text)));
	TRY(bytes_add(out, text, strlen(text)));
	return bytes_add(out, "\n", 1);
}

static const struct recipe_file *find_file(const struct recipe *r, const char *set)
{
	for (int i = 0; i < r->n_files; i++)
		if (strcmp(r->files[i].set, set) == 0)
			return &r->files[i];
	return NULL;
}

static const char *stand_in(enum recipe_by by, const char *hash, const char *identity, const char *name)
{
	const char *known = by == RECIPE_BY_HASH ? hash : identity;

	return *known ? known : name;
}

enum status recipe_canonical(
	const struct recipe *r, const char *model_id, const char *dtype, enum recipe_by by, struct bytes *out)
{
	char value[SAMPLER_NAME_LEN];

	TRY(bytes_print(
		out, "promptfs recipe 1\nnumerics: %d\nmodel: %s\ndtype: %s\n", RECIPE_NUMERICS, model_id, dtype));
	for (int i = 0; i < N_FIELDS; i++) {
		if (fields[i].kind == KIND_TEXT) {
			TRY(canonical_text(fields[i].name, *(char *const *)member(r, &fields[i]), out));
		} else {
			print_value(r, &fields[i], value);
			TRY(bytes_print(out, "%s: %s\n", fields[i].name, value));
		}
	}
	for (int i = 0; i < r->n_sets; i++) {
		const struct recipe_file *f = find_file(r, r->sets[i].name);

		TRY(bytes_print(out, "set %s", r->sets[i].name));
		TRY(canonical_text("", f ? stand_in(by, f->hash, f->identity, f->path) : r->sets[i].value, out));
	}
	for (int i = 0; i < r->n_loras; i++) {
		const struct recipe_lora *l = &r->loras[i];

		text_print_double(l->scale, value);
		TRY(bytes_print(out, "lora %s", value));
		TRY(canonical_text("", stand_in(by, l->hash, l->identity, l->name), out));
	}
	return STATUS_OK;
}

/* ---- A1111 parameters ---------------------------------------------------------------------------------------- */

static bool has_negative_line(const char *text)
{
	static const char lead[] = "Negative prompt:";

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncasecmp(line, lead, sizeof lead - 1) == 0)
			return true;
	}
	return false;
}

static bool ends_in_space(const char *text)
{
	return *text && text_is_space(text[strlen(text) - 1]);
}

static const char byte_order_mark[] = "\xef\xbb\xbf";

/* Whether a reader would find nothing above the parameter line, or a negative prompt that is none. */
static bool is_misleading(const char *text)
{
	if (strncmp(text, byte_order_mark, 3) == 0)
		text += 3; /* a reader drops it */
	return text[strspn(text, " \t\n\v\f\r")] == 0 || has_negative_line(text);
}

/* Whether a prompt above the parameter line would read back as another one.  Such a prompt is also written as an item
 * `Prompt: "..."` of that line, which wins over what stands above. */
static bool is_awkward_prompt(const char *text)
{
	return is_misleading(text) || ends_in_space(text) || strchr(text, '\r') || strstr(text, "<lora:") ||
	       strncmp(text, byte_order_mark, 3) == 0;
}

static bool is_awkward_negative(const char *text)
{
	return text_is_space(*text) || ends_in_space(text) || strchr(text, '\r');
}

/* Plain where a reader of `Key: value, Key: value` gets it back, else a JSON string. */
static enum status print_item(const char *lead, const char *value, struct bytes *out)
{
	TRY(bytes_print(out, "%s", lead));
	if (!*value || strpbrk(value, ",\"\n\r[{") || text_is_space(*value) || ends_in_space(value))
		return text_quote(value, out);
	return bytes_add(out, value, strlen(value));
}

static enum status print_texts(const struct recipe *r, struct bytes *out)
{
	if (is_misleading(r->prompt))
		TRY(text_quote(r->prompt, out));
	else
		TRY(bytes_add(out, r->prompt, strlen(r->prompt)));
	if (r->negative) {
		TRY(bytes_print(out, "\nNegative prompt: "));
		TRY(bytes_add(out, r->negative, strlen(r->negative)));
	}
	return bytes_add(out, "\n", 1);
}

static enum status print_lists(const struct recipe *r, struct bytes *out)
{
	char scale[TEXT_DOUBLE_LEN];
	struct bytes item = { 0 };
	enum status s = STATUS_OK;

	for (int i = 0; i < r->n_sets && s == STATUS_OK; i++) {
		item.len = 0;
		s = bytes_print(&item, "%s=%s", r->sets[i].name, r->sets[i].value);
		if (s == STATUS_OK)
			s = print_item(", Set: ", (char *)item.data, out);
	}
	for (int i = 0; i < r->n_loras && s == STATUS_OK; i++) {
		item.len = 0;
		text_print_double(r->loras[i].scale, scale);
		s = bytes_print(&item, "%s:%s", r->loras[i].name, scale);
		if (s == STATUS_OK)
			s = print_item(", LoRA: ", (char *)item.data, out);
	}
	bytes_free(&item);
	return s;
}

enum status recipe_parameters(const struct recipe *r, const char *model_name, struct bytes *out)
{
	char value[SAMPLER_NAME_LEN];

	TRY(print_texts(r, out));
	for (int i = 0; i < N_FIELDS; i++) {
		print_value(r, &fields[i], value);
		if (*value)
			TRY(bytes_print(out, "%s%s", fields[i].lead, value));
	}
	if (model_name && *model_name)
		TRY(print_item(", Model: ", model_name, out));
	TRY(print_lists(r, out));
	if (is_awkward_prompt(r->prompt)) {
		TRY(bytes_print(out, ", Prompt: "));
		TRY(text_quote(r->prompt, out));
	}
	if (r->negative && is_awkward_negative(r->negative)) {
		TRY(bytes_print(out, ", Negative prompt: "));
		TRY(text_quote(r->negative, out));
	}
	return STATUS_OK;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

static json_t *value_to_json(const struct recipe *r, const struct field *f)
{
	const void *at = member(r, f);
	const char *text = f->kind == KIND_TEXT ? *(char *const *)at : at;
	char printed[SAMPLER_NAME_LEN];

	switch (f->kind) {
	case KIND_TEXT:
		return text ? json_string(text) : json_null();
	case KIND_INT:
		return json_integer(*(const int *)at);
	case KIND_DOUBLE:
		return json_real(*(const double *)at);
	case KIND_SEED:
		if (*(const uint64_t *)at <= INT64_MAX)
			return json_integer((json_int_t)(*(const uint64_t *)at));
		break; /* beyond JSON's integers as jansson has them: as a string */
	case KIND_NAME:
	case KIND_RNG:
		break;
	}
	print_value(r, f, printed);
	return json_string(printed);
}

static int lists_to_json(const struct recipe *r, json_t *object)
{
	json_t *sets = json_object(), *loras = json_array(), *files = json_array();
	int bad = !sets || !loras || !files;

	for (int i = 0; i < r->n_sets && !bad; i++)
		bad |= json_object_set_new(sets, r->sets[i].name, json_string(r->sets[i].value));
	for (int i = 0; i < r->n_loras && !bad; i++)
		bad |= json_array_append_new(
			loras, json_pack("{s:s, s:f, s:s*, s:s*}", "name", r->loras[i].name, "scale", r->loras[i].scale,
				       "path", r->loras[i].path, "hash", *r->loras[i].hash ? r->loras[i].hash : NULL));
	bad |= json_object_set(object, "sets", sets);
	for (int i = 0; i < r->n_files && !bad; i++)
		bad |= json_array_append_new(
			files, json_pack("{s:s, s:s, s:s*}", "set", r->files[i].set, "path", r->files[i].path, "hash",
				       *r->files[i].hash ? r->files[i].hash : NULL));
	bad |= json_object_set(object, "loras", loras);
	if (r->n_files)
		bad |= json_object_set(object, "files", files);
	json_decref(sets);
	json_decref(loras);
	json_decref(files);
	return bad;
}

void recipe_json_hide(json_t *json)
{
	json_t *lora;
	size_t i;

	json_array_foreach (json_object_get(json, "loras"), i, lora)
		json_object_del(lora, "path");
	json_object_del(json, "files");
}

enum status recipe_to_json(const struct recipe *r, json_t **out)
{
	json_t *object = json_object();
	int bad = !object;

	for (int i = 0; i < N_FIELDS && !bad; i++)
		bad |= json_object_set_new(object, fields[i].name, value_to_json(r, &fields[i]));
	bad = bad || lists_to_json(r, object);
	if (bad) {
		json_decref(object);
		return status_fail(STATUS_NO_MEMORY, "no memory for a recipe as JSON");
	}
	*out = object;
	return STATUS_OK;
}

static bool seed_from_json(const json_t *value, uint64_t *seed)
{
	if (json_is_string(value))
		return text_read_seed(json_string_value(value), seed);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*seed = (uint64_t)json_integer_value(value);
	return true;
}

static bool text_from_json(const json_t *value, bool optional, char **text)
{
	if (json_is_null(value))
		return optional;
	return json_is_string(value) &&
	       text_copy(json_string_value(value), json_string_length(value), text) == STATUS_OK;
}

static bool value_from_json(const json_t *value, const struct field *f, struct recipe *r)
{
	void *at = (char *)r + f->offset;
	json_int_t number = json_integer_value(value);

	switch (f->kind) {
	case KIND_TEXT:
		return text_from_json(value, f->offset == offsetof(struct recipe, negative), at);
	case KIND_INT:
		if (!json_is_integer(value) || number < 1 || number > INT32_MAX)
			return false;
		*(int *)at = (int)number;
		return true;
	case KIND_DOUBLE:
		*(double *)at = json_number_value(value);
		return json_is_number(value);
	case KIND_NAME:
		return json_is_string(value) &&
		       snprintf(at, SAMPLER_NAME_LEN, "%s", json_string_value(value)) < SAMPLER_NAME_LEN;
	case KIND_SEED:
		return seed_from_json(value, at);
	case KIND_RNG:
		return json_is_string(value) && rng_find(json_string_value(value), at);
	}
	return false;
}

static enum status lora_file_from_json(const json_t *value, struct recipe_lora *out)
{
	const char *path = json_string_value(json_object_get(value, "path"));
	const char *hash = json_string_value(json_object_get(value, "hash"));

	snprintf(out->hash, sizeof out->hash, "%s", hash ? hash : "");
	return path ? text_copy(path, strlen(path), &out->path) : STATUS_OK;
}

static enum status file_from_json(const json_t *value, struct recipe *r)
{
	const char *set = json_string_value(json_object_get(value, "set"));
	const char *path = json_string_value(json_object_get(value, "path"));
	const char *hash = json_string_value(json_object_get(value, "hash"));

	if (!set || !path)
		return status_fail(STATUS_INVALID, "recipe: a file must have a set and a path");
	TRY(recipe_add_file(r, set, path));
	snprintf(r->files[r->n_files - 1].hash, sizeof r->files[0].hash, "%s", hash ? hash : "");
	return STATUS_OK;
}

static enum status files_from_json(const json_t *list, struct recipe *r)
{
	const json_t *value;
	size_t i;

	json_array_foreach (list, i, value)
		TRY(file_from_json(value, r));
	return STATUS_OK;
}

static enum status lists_from_json(const json_t *json, struct recipe_fields *lists)
{
	json_t *sets = json_object_get(json, "sets"), *loras = json_object_get(json, "loras"), *value;
	const char *name;
	size_t i;

	if (!json_is_object(sets) || !json_is_array(loras))
		return status_fail(STATUS_INVALID, "recipe: sets must be an object and loras a list");
	json_object_foreach (sets, name, value) {
		if (!json_is_string(value))
			return status_fail(STATUS_INVALID, "recipe: set %s must be a string", name);
		TRY(recipe_fields_set(lists, name, json_string_value(value)));
	}
	json_array_foreach (loras, i, value) {
		json_t *file = json_object_get(value, "name"), *scale = json_object_get(value, "scale");

		if (!json_is_string(file) || !json_is_number(scale))
			return status_fail(STATUS_INVALID, "recipe: a LoRA must have a name and a scale");
		TRY(recipe_fields_lora(lists, json_string_value(file), json_number_value(scale)));
		TRY(lora_file_from_json(value, &lists->loras[lists->n_loras - 1]));
	}
	return STATUS_OK;
}

enum status recipe_from_json(const json_t *json, struct recipe *out)
{
	struct recipe r = { 0 };
	struct recipe_fields lists = { 0 };
	enum status s = STATUS_OK;

	for (int i = 0; i < N_FIELDS && s == STATUS_OK; i++)
		if (!value_from_json(json_object_get(json, fields[i].name), &fields[i], &r))
			s = status_fail(STATUS_INVALID, "recipe: %s is missing or wrong", fields[i].name);
	if (s == STATUS_OK)
		s = lists_from_json(json, &lists);
	if (s == STATUS_OK)
		s = files_from_json(json_object_get(json, "files"), &r);
	r.n_sets = lists.n_sets;
	r.sets = lists.sets;
	r.n_loras = lists.n_loras;
	r.loras = lists.loras;
	if (s == STATUS_OK)
		*out = r;
	else
		recipe_free(&r);
	return s;
}

/* prompt_items: the parameter line of a prompt file. */
#include "fs/prompt_items.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "engine/png.h"
#include "engine/text.h"

enum { KEY_LEN = 64 };

/* One item; value is its text without quotes. */
struct item {
	char key[KEY_LEN];
	char *value;
	bool quoted;
};

/* Reading one value into the fields.  What it says on failure follows the key: "Steps: 'x' is ...". */
typedef enum status reader(const char *value, struct recipe_fields *out);

/* ---- values -------------------------------------------------------------------------------------------------- */

static enum status wrong(const char *value, const char *wanted)
{
	return status_fail(STATUS_INVALID, "'%.60s' is %s", value, wanted);
}

static enum status read_count(const char *value, int64_t high, bool *has, int64_t *out)
{
	if (!text_read_int(value, 1, high, out))
		return status_fail(STATUS_INVALID, "'%.60s' is no whole number from 1 to %lld", value, (long long)high);
	*has = true;
	return STATUS_OK;
}

static enum status read_number(const char *value, bool *has, double *out)
{
	if (!text_read_double(value, out))
		return wrong(value, "no number");
	*has = true;
	return STATUS_OK;
}

static enum status read_word(const char *value, char **out)
{
	if (!*value)
		return status_fail(STATUS_INVALID, "the value is missing");
	return text_copy(value, strlen(value), out);
}

static enum status read_steps(const char *value, struct recipe_fields *out)
{
	return read_count(value, RECIPE_STEPS_MAX, &out->has_steps, &out->steps);
}

static enum status read_clip_skip(const char *value, struct recipe_fields *out)
{
	return read_count(value, 48, &out->has_clip_skip, &out->clip_skip);
}

static enum status read_guidance(const char *value, struct recipe_fields *out)
{
	return read_number(value, &out->has_guidance, &out->guidance);
}

static enum status read_cfg(const char *value, struct recipe_fields *out)
{
	return read_number(value, &out->has_cfg, &out->cfg);
}

static enum status read_distilled_cfg(const char *value, struct recipe_fields *out)
{
	return read_number(value, &out->has_distilled_cfg, &out->distilled_cfg);
}

static enum status read_seed(const char *value, struct recipe_fields *out)
{
	if (strcmp(value, "-1") == 0) {
		out->has_random_seed = true;
		return STATUS_OK;
	}
	if (!text_read_seed(value, &out->seed))
		return wrong(value, "no whole number from 0 to 18446744073709551615 (or -1: a random one)");
	out->has_seed = true;
	return STATUS_OK;
}

static enum status read_size(const char *value, struct recipe_fields *out)
{
	if (!text_read_size(value, PNG_SIDE_MAX, &out->width, &out->height))
		return status_fail(STATUS_INVALID, "'%.60s' is no size as 768x512 (width first, each 1 to %d)", value,
			PNG_SIDE_MAX);
	out->has_size = true;
	return STATUS_OK;
}

static enum status read_rng(const char *value, struct recipe_fields *out)
{
	/* A1111: NV and GPU both give the numbers of a CUDA generator */
	if (strcasecmp(value, "cpu") == 0)
		value = rng_name(RNG_TORCH_CPU);
	else if (strcasecmp(value, "nv") == 0 || strcasecmp(value, "gpu") == 0)
		value = rng_name(RNG_PHILOX);
	if (!rng_find(value, &out->rng))
		return wrong(value, "not one of torch-cpu, philox");
	out->has_rng = true;
	return STATUS_OK;
}

static enum status read_sampler(const char *value, struct recipe_fields *out)
{
	return read_word(value, &out->sampler);
}

static enum status read_scheduler(const char *value, struct recipe_fields *out)
{
	return read_word(value, &out->scheduler);
}

static enum status read_model(const char *value, struct recipe_fields *out)
{
	return read_word(value, &out->model);
}

static enum status read_set(const char *value, struct recipe_fields *out)
{
	const char *equals = strchr(value, '='), *text;
	char name[KEY_LEN];
	size_t len;

	if (!equals || equals == value || (size_t)(equals - value) >= sizeof name)
		return wrong(value, "no NAME=VALUE");
	memcpy(name, value, (size_t)(equals - value));
	name[equals - value] = 0;
	for (int i = 0; i < out->n_sets; i++)
		if (strcmp(out->sets[i].name, name) == 0)
			return status_fail(STATUS_INVALID, "%s is given twice", name);
	text = equals + 1;
	len = strlen(text);
	return len ? recipe_fields_set(out, name, text) : status_fail(STATUS_INVALID, "%s has no value", name);
}

/* The scale follows the last colon; without one it is 1. */
static enum status read_lora(const char *value, struct recipe_fields *out)
{
	const char *colon = strrchr(value, ':');
	char *name = NULL;
	double scale = 1;
	enum status s;

	if (colon && !text_read_double(colon + 1, &scale))
		return wrong(value, "no NAME:SCALE");
	if (colon == value || !*value)
		return status_fail(STATUS_INVALID, "the name is missing");
	TRY(text_copy(value, colon ? (size_t)(colon - value) : strlen(value), &name));
	s = recipe_fields_lora(out, name, scale);
	free(name);
	return s;
}

/* ---- keys ---------------------------------------------------------------------------------------------------- */

static const struct key {
	const char *name;
	reader *read;
	bool repeats;
} keys[] = {
	{ "Steps", read_steps, false },
	{ "Sampler", read_sampler, false },
	{ "Scheduler", read_scheduler, false },
	{ "Schedule type", read_scheduler, false }, /* A1111 since 1.9 */
	{ "Guidance", read_guidance, false },
	{ "CFG scale", read_cfg, false },
	{ "Distilled CFG Scale", read_distilled_cfg, false },
	{ "Seed", read_seed, false },
	{ "Size", read_size, false },
	{ "Model", read_model, false },
	{ "RNG", read_rng, false },
	{ "Clip skip", read_clip_skip, false },
	{ "LoRA", read_lora, true },
	{ "Set", read_set, true },
};

enum { N_KEYS = sizeof keys / sizeof *keys };

/* What other programs write and what changes no picture. */
static const char *const foreign[] = { "Model hash", "Version", "Lora hashes", "Hashes", "VAE", "VAE hash", "TI hashes",
	"Denoising strength", "Module 1", "Module 2", "Module 3", "Diffusion in Low Bits", "Batch size", "Batch pos",
	"User", "Template", "Negative Template", "Created Date", "Civitai resources", "Civitai metadata",
	"Source Identifier", "Time taken" };

static const struct key *find_key(const char *name)
{
	for (int i = 0; i < N_KEYS; i++)
		if (strcasecmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static bool is_foreign(const char *name)
{
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
		if (strcasecmp(foreign[i], name) == 0)
			return true;
	return false;
}

/* ---- items --------------------------------------------------------------------------------------------------- */

/* The value from `at`: a JSON text or everything up to a comma; *after is where it ends.  False: malformed. */
static bool read_value(const char *at, const char *end, struct item *item, const char **after)
{
	const char *comma = memchr(at, ',', (size_t)(end - at));
	size_t len = (size_t)((comma ? comma : end) - at);

	item->quoted = false;
	if (at < end && strchr("\"[{", *at)) {
		json_error_t error;
		json_t *json = json_loadb(at, (size_t)(end - at), JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &error);
		bool is_text = json_is_string(json);
		bool copied = is_text &&
			      text_copy(json_string_value(json), json_string_length(json), &item->value) == STATUS_OK;

		if (!json && *at == '"')
			return false;
		json_decref(json);
		if (json) {
			item->quoted = true;
			*after = at + error.position;
			return copied || (!is_text && text_copy("", 0, &item->value) == STATUS_OK);
		}
	}
	*after = at + len;
	text_trim(&at, &len);
	return text_copy(at, len, &item->value) == STATUS_OK;
}

static bool is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr(" _-/+.()", c));
}

/* Reads `Key: value` and the comma after it; moves *at.  False when there is no such item. */
static bool read_item(const char **at, const char *end, struct item *item)
{
	const char *key = *at, *colon;
	size_t len;

	while (key < end && text_is_space(*key))
		key++;
	for (colon = key; colon < end && is_key_char(*colon);)
		colon++;
	len = (size_t)(colon - key);
	if (colon == end || *colon != ':')
		return false;
	text_trim(&key, &len);
	if (len == 0 || len >= KEY_LEN)
		return false;
	memcpy(item->key, key, len);
	item->key[len] = 0;
	for (colon++; colon < end && text_is_space(*colon);)
		colon++;
	if (!read_value(colon, end, item, at))
		return false;
	while (*at < end && text_is_space(**at))
		++*at;
	if (*at < end && *(*at)++ != ',')
		return false;
	return true;
}

bool prompt_items_are(const char *line, size_t len)
{
	const char *at = line, *end = line + len;
	struct item item = { 0 };
	bool first = true, good = len > 0;

	while (good && at < end) {
		good = read_item(&at, end, &item) && (!first || find_key(item.key));
		first = false;
		while (at < end && text_is_space(*at))
			at++; /* a comma at the very end is nothing */
	}
	free(item.value);
	return good;
}

/* False for other items. */
static bool take_exact(struct item *item, struct prompt_exact *exact)
{
	char **to = strcasecmp(item->key, "Prompt") == 0            ? &exact->prompt
		    : strcasecmp(item->key, "Negative prompt") == 0 ? &exact->negative
								    : NULL;

	if (!to || !item->quoted)
		return false;
	free(*to);
	*to = item->value;
	item->value = NULL;
	return true;
}

static enum status read_known(const struct key *key, const char *value, struct recipe_fields *out)
{
	enum status s = key->read(value, out);

	return s == STATUS_OK ? s : status_prefix(s, "%s: ", key->name);
}

static enum status take_item(const struct item *item, unsigned *seen, struct recipe_fields *out)
{
	const struct key *key = find_key(item->key);
	unsigned bit;

	if (!key)
		return is_foreign(item->key) ? STATUS_OK
					     : status_fail(STATUS_INVALID,
						       "unknown key '%s' (see `promptfs help prompt`)", item->key);
	bit = 1u << (key - keys);
	if (*seen & bit && !key->repeats)
		return status_fail(STATUS_INVALID, "%s is given twice", key->name);
	*seen |= bit;
	return read_known(key, item->value, out);
}

enum status prompt_items_read(const char *line, size_t len, struct prompt_exact *exact, struct recipe_fields *out)
{
	const char *at = line, *end = line + len;
	struct item item = { 0 };
	enum status first = STATUS_OK;
	unsigned seen = 0;
	char why[512] = "";

	while (at < end && read_item(&at, end, &item)) {
		enum status s = take_exact(&item, exact) ? STATUS_OK : take_item(&item, &seen, out);

		if (s != STATUS_OK && first == STATUS_OK) {
			first = s;
			snprintf(why, sizeof why, "%s", status_text());
		}
	}
	free(item.value);
	return first == STATUS_OK ? STATUS_OK : status_fail(first, "%s", why);
}

enum status prompt_item_set(const char *key, const char *value, struct recipe_fields *out)
{
	const struct key *known = find_key(key);

	if (!known)
		return status_fail(STATUS_INVALID, "unknown key '%.60s'", key);
	return read_known(known, value, out);
}

/* lora: see lora.h.
 *
 * References: LoRA (arXiv 2106.09685); LyCORIS (arXiv 2309.14859) for LoHa and LoKr; diffusers 0.42.1,
 * loaders/lora_conversion_utils.py, for names.  Traps: PEFT keeps alpha in the header; kohya has one alpha a module; a
 * fused qkv of the original code is three weights here, each with rows of the same product.
 */
#include "engine/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/lora_private.h"

static const struct suffix {
	const char *text;
	enum factor factor;
} suffixes[] = {
	{ ".lora_A.weight", DOWN },
	{ ".lora_B.weight", UP },
	{ ".lora_A.default.weight", DOWN },
	{ ".lora_B.default.weight", UP },
	{ ".lora_down.weight", DOWN },
	{ ".lora_up.weight", UP },
	{ ".lora_mid.weight", MID },
	{ ".lora.down.weight", DOWN },
	{ ".lora.up.weight", UP },
	{ ".lora_linear_layer.down.weight", DOWN },
	{ ".lora_linear_layer.up.weight", UP },
	{ "_lora.down.weight", DOWN },
	{ "_lora.up.weight", UP },
	{ ".alpha", ALPHA },
	{ ".hada_w1_a", HADA_1A },
	{ ".hada_w1_b", HADA_1B },
	{ ".hada_t1", HADA_1MID },
	{ ".hada_w2_a", HADA_2A },
	{ ".hada_w2_b", HADA_2B },
	{ ".hada_t2", HADA_2MID },
	{ ".lokr_w1", KRON_1 },
	{ ".lokr_w1_a", KRON_1A },
	{ ".lokr_w1_b", KRON_1B },
	{ ".lokr_w2", KRON_2 },
	{ ".lokr_w2_a", KRON_2A },
	{ ".lokr_w2_b", KRON_2B },
	{ ".lokr_t2", KRON_2MID },
	{ ".lora_magnitude_vector", MAGNITUDE },
	{ ".lora_magnitude_vector.weight", MAGNITUDE },
	{ ".lora_magnitude_vector.default.weight", MAGNITUDE },
	{ ".dora_scale", DORA_SCALE },
};

/* A list of keys for a message: all of them would fill pages. */
enum { KEYS_LISTED = 20 };

void lora_complain(struct lora_complaint *c, const char *key, const char *why)
{
	if (c->n++ < KEYS_LISTED && bytes_print(&c->text, "%s%s (%s)", c->n > 1 ? ", " : "", key, why) != STATUS_OK)
		c->n = KEYS_LISTED;
}

void lora_complain_all(struct lora_complaint *c, const struct module *m, const char *why)
{
	for (int i = 0; i < FACTORS; i++)
		if (m->key[i])
			lora_complain(c, m->key[i], why);
}

enum status lora_settle(struct lora_complaint *c, const struct lora *l)
{
	enum status status = STATUS_OK;

	if (c->n > 0)
		status = status_fail(STATUS_INVALID, "LoRA %s: %d keys do not fit the model: %s%s", l->path, c->n,
			c->text.data ? (char *)c->text.data : "", c->n > KEYS_LISTED ? ", ..." : "");
	bytes_free(&c->text);
	return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const struct suffix *find_suffix(const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
		size_t n = strlen(suffixes[i].text);

		if (len > n && strcmp(key + len - n, suffixes[i].text) == 0)
			return &suffixes[i];
	}
	return NULL;
}

static struct module *module_of(struct lora *l, const char *name, size_t len)
{
	for (int i = 0; i < l->n_modules; i++)
		if (strncmp(l->module[i].name, name, len) == 0 && !l->module[i].name[len])
			return &l->module[i];
	l->module[l->n_modules].alpha = NAN;
	snprintf(l->module[l->n_modules].name, NAMES_LEN, "%.*s", (int)len, name);
	return &l->module[l->n_modules++];
}

enum status lora_read(const struct lora *l, const char *key, float **out, int *rank, int64_t dim[TENSOR_RANK_MAX])
{
	struct tensor t;
	float *values;

	TRY(weights_shape(l->weights, key, rank, dim));
	TRY(weights_find(l->weights, key, 0, NULL, &t));
	values = malloc((size_t)tensor_count(&t) * sizeof *values + 1);
	if (!values)
		return status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory", l->path);
	weights_floats(l->weights, key, values);
	*out = values;
	return STATUS_OK;
}

static enum status read_alpha(const struct lora *l, struct module *m)
{
	float *value;
	int64_t dim[TENSOR_RANK_MAX];
	int rank;

	if (!m->key[ALPHA])
		return STATUS_OK;
	TRY(lora_read(l, m->key[ALPHA], &value, &rank, dim));
	m->alpha = rank == 0 || (rank == 1 && dim[0] == 1) ? (double)value[0] : NAN;
	free(value);
	return isfinite(m->alpha) ? STATUS_OK
				  : status_fail(STATUS_CORRUPT, "LoRA %s: %s is no number", l->path, m->key[ALPHA]);
}

static bool has_any(const struct module *m, enum factor first, enum factor last)
{
	for (int i = (int)first; i <= (int)last; i++)
		if (m->key[i])
			return true;
	return false;
}

/* Why the factors of a module make no change; NULL: they do. */
static const char *find_fault(const struct module *m)
{
	int kinds = has_any(m, DOWN, MID) + has_any(m, HADA_1A, HADA_2MID) + has_any(m, KRON_1, KRON_2MID);
	bool first = m->key[KRON_1] || lora_has(m, KRON_1A, KRON_1B);
	bool second = m->key[KRON_2] || lora_has(m, KRON_2A, KRON_2B);
	bool hadamard = lora_has(m, HADA_1A, HADA_1B) && lora_has(m, HADA_2A, HADA_2B);

	if (kinds > 1 || lora_has(m, MAGNITUDE, DORA_SCALE))
		return "more than one kind of change";
	if (!m->key[HADA_1MID] != !m->key[HADA_2MID])
		return "its other half is missing";
	return lora_has(m, DOWN, UP) || hadamard || (first && second) ? NULL : "its other half is missing";
}

static enum status read_modules(struct lora *l)
{
	int64_t n = weights_count(l->weights);
	struct lora_complaint c = { .n = 0 };

	l->module = calloc((size_t)n, sizeof *l->module);
	if (!l->module)
		return status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory", l->path);
	for (int64_t i = 0; i < n; i++) {
		const char *key = weights_name(l->weights, i);
		const struct suffix *suffix = find_suffix(key);
		struct module *m;

		if (!suffix || strlen(key) >= NAMES_LEN || !weights_has_floats(l->weights, key)) {
			lora_complain(&c, key, "unknown kind");
			continue;
		}
		m = module_of(l, key, strlen(key) - strlen(suffix->text));
		if (m->key[suffix->factor])
			lora_complain(&c, key, "the same as another key");
		m->key[suffix->factor] = key;
	}
	for (int i = 0; i < l->n_modules; i++) {
		const char *fault = find_fault(&l->module[i]);

		if (fault)
			lora_complain_all(&c, &l->module[i], fault);
	}
	TRY(lora_settle(&c, l));
	for (int i = 0; i < l->n_modules; i++)
		TRY(read_alpha(l, &l->module[i]));
	return STATUS_OK;
}

/* ---- PEFT's header ----------------------------------------------------------------------------------------------- */

/* The object in `lora_adapter_metadata`, or NULL. */
static json_t *read_metadata(const char *path)
{
	FILE *f = fopen(path, "re");
	unsigned char head[8];
	uint64_t len = 0;
	json_t *header = NULL, *found = NULL;
	const char *text;
	char *data = NULL;

	if (f && fread(head, 1, 8, f) == 8)
		for (int i = 0; i < 8; i++)
			len |= (uint64_t)head[i] << (8 * i);
	if (len > 0 && len < (64U << 20) && (data = malloc(len)) && fread(data, 1, len, f) == len)
		header = json_loadb(data, len, 0, NULL);
	text = json_string_value(json_object_get(json_object_get(header, "__metadata__"), "lora_adapter_metadata"));
	if (text)
		found = json_loads(text, 0, NULL);
	json_decref(header);
	free(data);
	if (f)
		fclose(f);
	return found;
}

static const json_t *setting(const json_t *data, const char *part, size_t len, const char *name)
{
	char key[128];

	snprintf(key, sizeof key, "%.*s%s", (int)len, part, name);
	return json_object_get(data, key);
}

static void apply_metadata(struct lora *l)
{
	json_t *data = read_metadata(l->path);

	for (int i = 0; i < l->n_modules && data; i++) {
		struct module *m = &l->module[i];
		const char *dot = strchr(m->name, '.'), *pattern;
		size_t len = dot ? (size_t)(dot - m->name) + 1 : 0;
		const json_t *alpha = setting(data, m->name, len, "lora_alpha"), *value;

		json_object_foreach ((json_t *)setting(data, m->name, len, "alpha_pattern"), pattern, value) {
			size_t n = strlen(pattern), all = strlen(m->name);

			if (all > n && strcmp(m->name + all - n, pattern) == 0 && m->name[all - n - 1] == '.')
				alpha = value;
		}
		if (json_is_number(alpha) && isnan(m->alpha))
			m->alpha = json_number_value(alpha);
		m->root = json_is_true(setting(data, m->name, len, "use_rslora"));
	}
	json_decref(data);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum status open_one(const struct recipe_lora *from, struct lora *l)
{
	const char *path = from->path ? from->path : from->name;

	l->scale = from->scale;
	snprintf(l->hash, sizeof l->hash, "%s", from->hash);
	l->path = strdup(path);
	if (!l->path)
		return status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory", path);
	TRY(weights_open_file(path, &l->weights));
	TRY(read_modules(l));
	apply_metadata(l);
	return STATUS_OK;
}

enum status lora_open(const struct recipe *r, struct lora_set **out)
{
	struct lora_set *s;
	enum status status = STATUS_OK;

	*out = NULL;
	if (r->n_loras == 0)
		return STATUS_OK;
	s = calloc(1, sizeof *s);
	if (!s || !(s->lora = calloc((size_t)r->n_loras, sizeof *s->lora))) {
		free(s);
		return status_fail(STATUS_NO_MEMORY, "no memory for %d LoRAs", r->n_loras);
	}
	while (s->n < r->n_loras && status == STATUS_OK) {
		status = open_one(&r->loras[s->n], &s->lora[s->n]);
		s->n++;
	}
	if (status == STATUS_OK)
		*out = s;
	else
		lora_close(s);
	return status;
}

void lora_close(struct lora_set *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->n; i++) {
		weights_close(s->lora[i].weights);
		free(s->lora[i].module);
		free(s->lora[i].target);
		free(s->lora[i].path);
	}
	free(s->lora);
	free(s);
}

bool lora_is(const struct lora_set *s, const struct recipe *r)
{
	if ((s ? s->n : 0) != r->n_loras)
		return false;
	for (int i = 0; i < r->n_loras; i++) {
		const struct recipe_lora *want = &r->loras[i];

		/* without a hash the file may be another one under the same name */
		if (!want->hash[0] || strcmp(s->lora[i].hash, want->hash) != 0 ||
			memcmp(&s->lora[i].scale, &want->scale, sizeof want->scale) != 0)
			return false;
	}
	return true;
}

bool lora_touches(const struct lora_set *s, const char *part, const char *tensor)
{
	for (int i = 0; s && i < s->n; i++)
		for (int j = 0; j < s->lora[i].n_targets; j++)
			if (lora_is_target(&s->lora[i].target[j], part, tensor))
				return true;
	return false;
}

bool lora_touches_part(const struct lora_set *s, const char *part)
{
	for (int i = 0; s && i < s->n; i++)
		for (int j = 0; j < s->lora[i].n_targets; j++)
			if (strcmp(s->lora[i].target[j].part, part) == 0)
				return true;
	return false;
}

bool lora_count(const struct lora_set *s, int i, int *applied, int *of)
{
	if (!s || i >= s->n)
		return false;
	*of = s->lora[i].n_modules;
	*applied = s->lora[i].n_matched;
	return true;
}

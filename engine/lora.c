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

#include "engine/bytes.h"
#include "engine/names.h"

enum factor {
	DOWN,
	UP,
	MID,
	ALPHA,
	HADA_1A,
	HADA_1B,
	HADA_2A,
	HADA_2B,
	KRON_1,
	KRON_1A,
	KRON_1B,
	KRON_2,
	KRON_2A,
	KRON_2B,
	FACTORS
};

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
	{ ".hada_w2_a", HADA_2A },
	{ ".hada_w2_b", HADA_2B },
	{ ".lokr_w1", KRON_1 },
	{ ".lokr_w1_a", KRON_1A },
	{ ".lokr_w1_b", KRON_1B },
	{ ".lokr_w2", KRON_2 },
	{ ".lokr_w2_a", KRON_2A },
	{ ".lokr_w2_b", KRON_2B },
};

/* How the names of a file begin, and the part that is meant; "" is the transformer or UNet. */
static const struct lead {
	const char *text, *part;
} leads[] = {
	{ "base_model.model.", "" },
	{ "model.diffusion_model.", "" },
	{ "diffusion_model.", "" },
	{ "transformer.", "" },
	{ "unet.", "" },
	{ "text_encoder.", "text_encoder" },
	{ "text_encoder_2.", "text_encoder_2" },
	{ "text_encoder_3.", "text_encoder_3" },
	{ "lora_unet_", "" },
	{ "lora_transformer_", "" },
	{ "lora_te_", "text_encoder" },
	{ "lora_te1_", "text_encoder" },
	{ "lora_te2_", "text_encoder_2" },
	{ "lora_te3_", "text_encoder_3" },
	{ "", "" },
};

struct module {
	char name[NAMES_LEN];         /* as in the file, without suffix */
	char key[FACTORS][NAMES_LEN]; /* "" where it has no such factor */
	double alpha;                 /* NAN: the rank */
	bool root;                    /* divides by the rank's root */
};

/* A weight that a module changes: rows from .. from + count of `of` equal shares (of 0: all) of its product. */
struct target {
	int module;
	char part[32], tensor[NAMES_LEN];
	int from, count, of;
	enum names_how how;
};

struct lora {
	char *path;
	char hash[RECIPE_KEY_LEN + 1];
	double scale;
	struct weights *weights;
	struct module *module;
	struct target *target;
	int n_modules, n_targets;
};

struct lora_set {
	int n;
	struct lora *lora;
};

/* A list of keys for a message: all of them would fill pages. */
enum { KEYS_LISTED = 20 };

struct complaint {
	struct bytes text;
	int n;
};

static void complain(struct complaint *c, const char *key, const char *why)
{
	if (c->n++ < KEYS_LISTED && bytes_print(&c->text, "%s%s (%s)", c->n > 1 ? ", " : "", key, why) != STATUS_OK)
		c->n = KEYS_LISTED;
}

static enum status settle(struct complaint *c, const struct lora *l)
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

static enum status read_floats(const struct lora *l, const char *key, float **out, int *rank, int64_t *dim)
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

	if (!m->key[ALPHA][0])
		return STATUS_OK;
	TRY(read_floats(l, m->key[ALPHA], &value, &rank, dim));
	m->alpha = rank == 0 || (rank == 1 && dim[0] == 1) ? (double)value[0] : NAN;
	free(value);
	return isfinite(m->alpha) ? STATUS_OK
				  : status_fail(STATUS_CORRUPT, "LoRA %s: %s is no number", l->path, m->key[ALPHA]);
}

static bool has(const struct module *m, enum factor a, enum factor b)
{
	return m->key[a][0] && m->key[b][0];
}

/* Whether the factors of a module make a product. */
static bool is_whole(const struct module *m)
{
	bool first = m->key[KRON_1][0] || has(m, KRON_1A, KRON_1B);
	bool second = m->key[KRON_2][0] || has(m, KRON_2A, KRON_2B);

	return has(m, DOWN, UP) || (has(m, HADA_1A, HADA_1B) && has(m, HADA_2A, HADA_2B)) || (first && second);
}

static void complain_all(struct complaint *c, const struct module *m, const char *why)
{
	for (int i = 0; i < FACTORS; i++)
		if (m->key[i][0])
			complain(c, m->key[i], why);
}

static enum status read_modules(struct lora *l)
{
	int64_t n = weights_count(l->weights);
	struct complaint c = { .n = 0 };

	l->module = calloc((size_t)n, sizeof *l->module);
	if (!l->module)
		return status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory", l->path);
	for (int64_t i = 0; i < n; i++) {
		const char *key = weights_name(l->weights, i);
		const struct suffix *suffix = find_suffix(key);
		struct module *m;

		if (!suffix || strlen(key) >= NAMES_LEN || !weights_has_floats(l->weights, key)) {
			complain(&c, key, "unknown kind");
			continue;
		}
		m = module_of(l, key, strlen(key) - strlen(suffix->text));
		snprintf(m->key[suffix->factor], NAMES_LEN, "%s", key);
	}
	for (int i = 0; i < l->n_modules; i++)
		if (!is_whole(&l->module[i]))
			complain_all(&c, &l->module[i], "its other half is missing");
	TRY(settle(&c, l));
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

/* ---- matching ---------------------------------------------------------------------------------------------------- */

static void flatten(const char *name, char *out)
{
	if (snprintf(out, NAMES_LEN, "%s", name) >= NAMES_LEN)
		*out = 0;
	for (; *out; out++)
		if (*out == '.')
			*out = '_';
}

/* Whether the first len characters of a name are this flat one. */
static bool is_flat(const char *name, size_t len, const char *flat)
{
	for (size_t i = 0; i < len; i++)
		if ((name[i] == '.' ? '_' : name[i]) != flat[i])
			return false;
	return !flat[len];
}

/* The tensor that is the weight of the module of this flat name; NULL: none. */
static const char *find_weight(const struct weights *w, const char *flat)
{
	static const char outer[] = "text_model_";
	/* text encoders come with and without text_model. */
	const char *inner = strncmp(flat, outer, sizeof outer - 1) == 0 ? flat + sizeof outer - 1 : flat;

	for (int64_t i = 0; i < weights_count(w); i++) {
		const char *name = weights_name(w, i);
		size_t len = strlen(name);

		if (len < 8 || len >= NAMES_LEN || strcmp(name + len - 7, ".weight") != 0)
			continue;
		if (is_flat(name, len - 7, flat) || is_flat(name, len - 7, inner))
			return name;
	}
	return NULL;
}

/* Takes what the old attention processors had in their names out of a name. */
static void modernise(char *name)
{
	char *at = strstr(name, ".processor.");
	size_t len;

	if (!at)
		return;
	memmove(at, at + 10, strlen(at + 10) + 1);
	len = strlen(name);
	if (len >= 7 && len + 2 < NAMES_LEN && strcmp(name + len - 7, ".to_out") == 0)
		snprintf(name + len, 3, ".0");
}

static bool add_targets(struct lora *l, int module, const struct lora_part *part, const struct mapped_name *to, int n)
{
	const char *tensor[NAMES_MAX];
	char flat[NAMES_LEN];

	for (int i = 0; i < n; i++) {
		flatten(to[i].name, flat);
		tensor[i] = find_weight(part->weights, flat);
		if (!tensor[i] || to[i].how == NAMES_TRANSPOSE)
			return false;
	}
	for (int i = 0; i < n; i++) {
		struct target *t = &l->target[l->n_targets++];

		*t = (struct target){
			.module = module, .from = to[i].from, .count = to[i].count, .of = to[i].of, .how = to[i].how
		};
		snprintf(t->part, sizeof t->part, "%s", part->name);
		snprintf(t->tensor, sizeof t->tensor, "%s", tensor[i]);
	}
	return true;
}

static bool match_name(struct lora *l, int module, const struct lora_part *part, const char *name)
{
	static const enum names_layout layouts[] = { NAMES_SAME, NAMES_UNET, NAMES_FLUX, NAMES_ZIMAGE, NAMES_SD3,
		NAMES_OPEN_CLIP };

	for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
		struct mapped_name to[NAMES_MAX];
		int n = names_map(layouts[i], &names_usual, name, to);

		if (n > 0 && add_targets(l, module, part, to, n))
			return true;
	}
	return false;
}

static bool is_part(const char *lead_part, const char *name)
{
	if (*lead_part)
		return strcmp(lead_part, name) == 0;
	return strcmp(name, "unet") == 0 || strcmp(name, "transformer") == 0;
}

static bool match_module(struct lora *l, int module, const struct lora_part *parts, int n)
{
	const char *name = l->module[module].name;

	for (size_t i = 0; i < sizeof leads / sizeof leads[0]; i++) {
		size_t len = strlen(leads[i].text);
		char rest[NAMES_LEN];

		if (strncmp(name, leads[i].text, len) != 0)
			continue;
		snprintf(rest, sizeof rest, "%s", name + len);
		modernise(rest);
		for (int j = 0; j < n; j++)
			if (is_part(leads[i].part, parts[j].name) && match_name(l, module, &parts[j], rest))
				return true;
	}
	return false;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* A factor as a matrix; a convolution's further dimensions are columns. */
struct matrix {
	float *at;
	int64_t rows, columns;
	int rank;
	int64_t dim[TENSOR_RANK_MAX];
};

static enum status read_matrix(const struct lora *l, const char *key, struct matrix *m)
{
	TRY(read_floats(l, key, &m->at, &m->rank, m->dim));
	m->rows = m->rank ? m->dim[0] : 1;
	m->columns = 1;
	for (int i = 1; i < m->rank; i++)
		m->columns *= m->dim[i];
	return STATUS_OK;
}

static void multiply(const struct matrix *a, const struct matrix *b, float *out)
{
	for (int64_t i = 0; i < a->rows; i++)
		for (int64_t r = 0; r < a->columns; r++)
			for (int64_t j = 0; j < b->columns; j++)
				out[i * b->columns + j] += a->at[i * a->columns + r] * b->at[r * b->columns + j];
}

static enum status fail_shape(const struct lora *l, const struct module *m)
{
	return status_fail(
		STATUS_INVALID, "LoRA %s: %s does not have the shape of the model's weight", l->path, m->name);
}

static enum status new_matrix(const struct lora *l, int64_t rows, int64_t columns, struct matrix *out)
{
	*out = (struct matrix){ .rows = rows, .columns = columns, .rank = 2, .dim = { rows, columns } };
	out->at = calloc((size_t)(rows * columns) + 1, sizeof *out->at);
	return out->at ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory for a product", l->path);
}

/* a b, or the factor itself; *rank is the product's rank, or 0. */
static enum status read_product(const struct lora *l, const struct module *m, enum factor whole, enum factor a,
	enum factor b, struct matrix *out, int64_t *rank)
{
	struct matrix left = { 0 }, right = { 0 };
	enum status status;

	*rank = 0;
	if (whole != FACTORS && m->key[whole][0])
		return read_matrix(l, m->key[whole], out);
	status = read_matrix(l, m->key[a], &left);
	if (status == STATUS_OK)
		status = read_matrix(l, m->key[b], &right);
	if (status == STATUS_OK && left.columns != right.rows)
		status = fail_shape(l, m);
	if (status == STATUS_OK)
		status = new_matrix(l, left.rows, right.columns, out);
	if (status == STATUS_OK) {
		multiply(&left, &right, out->at);
		*rank = right.rows;
		if (right.rank == 4) /* the kernel, for Kronecker's product */
			memcpy(out->dim, right.dim, sizeof right.dim), out->rank = 4, out->dim[0] = left.rows;
	}
	free(left.at);
	free(right.at);
	return status;
}

/* Tucker's form of a convolution: down to `rank` channels, a small kernel there, up again. */
static enum status fold_mid(const struct lora *l, const struct module *m, struct matrix *down)
{
	struct matrix mid = { 0 }, folded = { 0 };
	enum status status = read_matrix(l, m->key[MID], &mid);

	if (status == STATUS_OK && (mid.rank != 4 || mid.dim[1] != down->rows))
		status = fail_shape(l, m);
	if (status == STATUS_OK)
		status = new_matrix(l, mid.rows, down->columns * mid.dim[2] * mid.dim[3], &folded);
	if (status == STATUS_OK) {
		int64_t kernel = mid.dim[2] * mid.dim[3], inputs = down->columns;

		for (int64_t row = 0; row < mid.rows; row++)
			for (int64_t n = 0; n < down->rows; n++)
				for (int64_t i = 0; i < inputs; i++)
					for (int64_t k = 0; k < kernel; k++)
						folded.at[(row * inputs + i) * kernel + k] +=
							mid.at[(row * mid.dim[1] + n) * kernel + k] *
							down->at[n * inputs + i];
		free(down->at);
		*down = folded;
	}
	free(mid.at);
	return status;
}

static enum status make_lora(const struct lora *l, const struct module *m, struct matrix *out, int64_t *rank)
{
	struct matrix up = { 0 }, down = { 0 };
	enum status status = read_matrix(l, m->key[UP], &up);

	if (status == STATUS_OK)
		status = read_matrix(l, m->key[DOWN], &down);
	*rank = down.rows;
	if (status == STATUS_OK && m->key[MID][0])
		status = fold_mid(l, m, &down);
	if (status == STATUS_OK && up.columns != down.rows)
		status = fail_shape(l, m);
	if (status == STATUS_OK)
		status = new_matrix(l, up.rows, down.columns, out);
	if (status == STATUS_OK)
		multiply(&up, &down, out->at);
	free(up.at);
	free(down.at);
	return status;
}

static enum status make_hadamard(const struct lora *l, const struct module *m, struct matrix *out, int64_t *rank)
{
	struct matrix other = { 0 };
	int64_t second;
	enum status status = read_product(l, m, FACTORS, HADA_1A, HADA_1B, out, rank);

	if (status == STATUS_OK)
		status = read_product(l, m, FACTORS, HADA_2A, HADA_2B, &other, &second);
	if (status == STATUS_OK && (other.rows != out->rows || other.columns != out->columns))
		status = fail_shape(l, m);
	for (int64_t i = 0; status == STATUS_OK && i < out->rows * out->columns; i++)
		out->at[i] *= other.at[i];
	free(other.at);
	return status;
}

static enum status make_kronecker(const struct lora *l, const struct module *m, struct matrix *out, int64_t *rank)
{
	struct matrix a = { 0 }, b = { 0 };
	int64_t first = 0, second = 0;
	enum status status = read_product(l, m, KRON_1, KRON_1A, KRON_1B, &a, &first);

	if (status == STATUS_OK)
		status = read_product(l, m, KRON_2, KRON_2A, KRON_2B, &b, &second);
	if (status == STATUS_OK)
		status = new_matrix(l, a.rows * b.rows, a.columns * b.columns, out);
	for (int64_t i = 0; status == STATUS_OK && i < out->rows; i++)
		for (int64_t j = 0; j < out->columns; j++)
			out->at[i * out->columns + j] = a.at[i / b.rows * a.columns + j / b.columns] *
							b.at[i % b.rows * b.columns + j % b.columns];
	*rank = second ? second : first;
	free(a.at);
	free(b.at);
	return status;
}

/* What is added at scale 1, in rows and columns of the original weight. */
static enum status make_change(const struct lora *l, const struct module *m, struct matrix *out)
{
	int64_t rank = 0;
	double by = 1;

	*out = (struct matrix){ 0 };
	if (has(m, DOWN, UP))
		TRY(make_lora(l, m, out, &rank));
	else if (m->key[HADA_1A][0])
		TRY(make_hadamard(l, m, out, &rank));
	else
		TRY(make_kronecker(l, m, out, &rank));
	/* whole factors have no rank, and their alpha means nothing */
	if (rank > 0 && !isnan(m->alpha))
		by = m->alpha / (m->root ? sqrt((double)rank) : (double)rank);
	for (int64_t i = 0; i < out->rows * out->columns; i++)
		out->at[i] = (float)(by * (double)out->at[i]);
	return STATUS_OK;
}

static bool fits(const struct target *t, const struct matrix *change, int64_t rows, int64_t columns)
{
	if (change->columns != columns)
		return false;
	return t->of ? change->rows % t->of == 0 && change->rows / t->of * t->count == rows : change->rows == rows;
}

static void add_rows(const struct target *t, const struct matrix *change, double scale, int64_t rows, float *values)
{
	int64_t first = t->of ? change->rows / t->of * t->from : 0, columns = change->columns;

	for (int64_t i = 0; i < rows; i++) {
		int64_t row = first + (t->how == NAMES_SWAP ? (i + rows / 2) % rows : i);

		for (int64_t j = 0; j < columns; j++)
			values[i * columns + j] += (float)(scale * (double)change->at[row * columns + j]);
	}
}

static bool is_target(const struct target *t, const char *part, const char *tensor)
{
	return strcmp(t->part, part) == 0 && strcmp(t->tensor, tensor) == 0;
}

static enum status add_one(const struct lora *l, const struct target *t, int64_t rows, int64_t columns, float *values)
{
	const struct module *m = &l->module[t->module];
	struct matrix change;
	enum status status = make_change(l, m, &change);

	if (status == STATUS_OK && !fits(t, &change, rows, columns))
		status = fail_shape(l, m);
	if (status == STATUS_OK)
		add_rows(t, &change, l->scale, rows, values);
	free(change.at);
	return status;
}

enum status lora_add(
	const struct lora_set *s, const char *part, const char *tensor, int64_t rows, int64_t columns, float *values)
{
	for (int i = 0; s && i < s->n; i++)
		for (int j = 0; j < s->lora[i].n_targets; j++)
			if (is_target(&s->lora[i].target[j], part, tensor))
				TRY(add_one(&s->lora[i], &s->lora[i].target[j], rows, columns, values));
	return STATUS_OK;
}

bool lora_touches(const struct lora_set *s, const char *part, const char *tensor)
{
	for (int i = 0; s && i < s->n; i++)
		for (int j = 0; j < s->lora[i].n_targets; j++)
			if (is_target(&s->lora[i].target[j], part, tensor))
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

enum status lora_match(struct lora_set *s, const struct lora_part *parts, int n)
{
	for (int i = 0; i < s->n; i++) {
		struct lora *l = &s->lora[i];
		struct complaint c = { .n = 0 };

		l->target = calloc((size_t)l->n_modules * NAMES_MAX + 1, sizeof *l->target);
		if (!l->target)
			return status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory", l->path);
		for (int j = 0; j < l->n_modules; j++)
			if (!match_module(l, j, parts, n))
				complain_all(&c, &l->module[j], "nothing of that name");
		TRY(settle(&c, l));
	}
	return STATUS_OK;
}

/* recipes: resolving, the canonical text behind the key, JSON, and the names of samplers. */
#include "engine/recipe.h"

#include <stdint.h>
#include <string.h>

#include "engine/sampler_name.h"
#include "engine/text.h"
#include "tests/unit/check.h"

static const struct model model = {
	.name = "m", .defaults = { 512, 256, 8, 1.5 }, .size_multiple = 16, .size_max = 2048
};

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static enum status resolve(const struct recipe_fields *f, struct recipe *r)
{
	*r = (struct recipe){ 0 };
	return recipe_resolve(f, &model, r);
}

static void key_of(const struct recipe *r, char key[RECIPE_KEY_LEN + 1])
{
	struct bytes text = { 0 };

	recipe_canonical(r, "id", "f32", RECIPE_BY_HASH, &text);
	recipe_key(text.data, text.len, key);
	bytes_free(&text);
}

static void check_resolve(void)
{
	struct recipe_fields f = { 0 };
	struct recipe r;

	CHECK("nothing given: the model's defaults", resolve(&f, &r) == STATUS_OK && r.width == 512 &&
							     r.height == 256 && r.steps == 8 && r.guidance == 1.5 &&
							     r.seed == 0 && r.rng == RNG_TORCH_CPU &&
							     same(r.prompt, "") && !r.negative);
	recipe_free(&r);

	recipe_fields_set(&f, "zeta", "1");
	recipe_fields_set(&f, "eta", "0.5");
	recipe_fields_set(&f, "zeta", "2");
	f.has_clip_skip = true;
	f.clip_skip = 2;
	CHECK("sets are sorted, the last value counts", resolve(&f, &r) == STATUS_OK && r.n_sets == 3 &&
								same(r.sets[1].name, "eta") &&
								same(r.sets[2].value, "2"));
	CHECK("clip skip as diffusers counts",
		recipe_set_int(&r, "clip_skip", 0) == 1 && recipe_set_int(&r, "none", 7) == 7);
	recipe_free(&r);
	f.clip_skip = 1;
	CHECK("clip skip 1 is nothing", resolve(&f, &r) == STATUS_OK && r.n_sets == 2);
	recipe_free(&r);
	recipe_fields_free(&f);

	f = (struct recipe_fields){ .sampler = (char *)"Euler A" };
	CHECK("sampler", resolve(&f, &r) == STATUS_OK && same(r.sampler, "euler_a"));
	recipe_free(&r);
}

static const struct {
	const char *name, *says;
	struct recipe_fields f;
} wrong[] = {
	{ "steps 0", "Steps", { .has_steps = true } },
	{ "too many steps", "Steps", { .has_steps = true, .steps = 1001 } },
	{ "too wide", "Size", { .has_size = true, .width = 2049, .height = 16 } },
	{ "negative height", "Size", { .has_size = true, .width = 16, .height = -16 } },
	{ "two guidances", "give one", { .has_guidance = true, .has_cfg = true } },
	{ "distilled guidance", "Distilled", { .has_distilled_cfg = true } },
	{ "unknown sampler", "Sampler", { .sampler = (char *)"magic" } },
	{ "unknown scheduler", "Scheduler", { .sampler = (char *)"euler", .scheduler = (char *)"magic" } },
	{ "scheduler alone", "Scheduler", { .scheduler = (char *)"karras" } },
	{ "prompt not UTF-8", "UTF-8", { .prompt = (char *)"a\xff" } },
	{ "negative prompt not UTF-8", "UTF-8", { .negative = (char *)"\xc0\x80" } },
	{ "a name of a set", "Set", { .n_sets = 1, .sets = &(struct recipe_set){ (char *)"a b", (char *)"1" } } },
};

static void check_wrong(void)
{
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct recipe r;
		enum status s = resolve(&wrong[i].f, &r);

		check_case(s == STATUS_INVALID && strstr(status_text(), wrong[i].says), s ? status_text() : "accepted",
			"refused: %s", wrong[i].name);
		recipe_free(&r);
	}
}

static void check_sizes(void)
{
	int width, height;

	recipe_size(&(struct recipe_fields){ .has_size = true, .width = 64, .height = 96 }, &model, &width, &height);
	CHECK("size: as given", width == 64 && height == 96);
	recipe_size(&(struct recipe_fields){ .has_size = true, .width = 64, .height = 97 }, &model, &width, &height);
	CHECK("size: wrong ones give the default", width == 512 && height == 256);
}

/* Every value that can differ must give another key. */
static void check_keys(void)
{
	struct recipe base = { .prompt = (char *)"a",
		.width = 64,
		.height = 32,
		.steps = 4,
		.guidance = 1,
		.sampler = "euler",
		.seed = 1 };
	struct recipe_set set = { (char *)"eta", (char *)"1" }, split = { (char *)"eta", (char *)"1\nset b: 1:2" };
	struct recipe_lora lora = { .name = (char *)"ink", .scale = 1 };
	struct recipe changed[14];
	char keys[15][RECIPE_KEY_LEN + 1], again[RECIPE_KEY_LEN + 1];
	bool differ = true;
	int n = 0;

	for (int i = 0; i < 14; i++)
		changed[i] = base;
	changed[n++].prompt = (char *)"b";
	changed[n++].prompt = (char *)"a\nnegative: 1:b";
	changed[n++].negative = (char *)"";
	changed[n++].negative = (char *)"b";
	changed[n++].width = 32;
	changed[n++].height = 64;
	changed[n++].steps = 5;
	changed[n++].guidance = 1 + 2.3e-16;
	strcpy(changed[n++].sampler, "ddim");
	changed[n++].seed = UINT64_MAX;
	changed[n++].rng = RNG_PHILOX;
	changed[n].n_sets = 1;
	changed[n++].sets = &set;
	changed[n].n_sets = 1;
	changed[n++].sets = &split;
	changed[n].n_loras = 1;
	changed[n++].loras = &lora;
	key_of(&base, keys[n]);
	for (int i = 0; i < n; i++) {
		key_of(&changed[i], keys[i]);
		for (int j = 0; j < i; j++)
			differ &= strcmp(keys[i], keys[j]) != 0;
		differ &= strcmp(keys[i], keys[n]) != 0;
	}
	key_of(&base, again);
	CHECK("keys: every value counts", n == 14 && differ);
	CHECK("keys: the same recipe, the same key", strcmp(again, keys[n]) == 0 && strlen(again) == RECIPE_KEY_LEN);
}

static void check_canonical(void)
{
	struct recipe r = { .prompt = (char *)"a\nb",
		.width = 64,
		.height = 32,
		.steps = 4,
		.guidance = 0.1,
		.sampler = "euler",
		.seed = 7 };
	struct bytes text = { 0 };

	CHECK("canonical text",
		recipe_canonical(&r, "id", "bf16", RECIPE_BY_HASH, &text) == STATUS_OK &&
			same((char *)text.data,
				"promptfs recipe 1\nnumerics: 1\nmodel: id\ndtype: bf16\nprompt: 3:a\nb\nnegative: "
				"none\nsteps: 4\n"
				"sampler: euler\nguidance: 0.1\nseed: 7\nwidth: 64\nheight: 32\nrng: torch-cpu\n"));
	text.len = 0;
	r.prompt = (char *)"a cat";
	r.negative = (char *)"dogs";
	CHECK("parameters",
		recipe_parameters(&r, "zit", &text) == STATUS_OK &&
			same((char *)text.data,
				"a cat\nNegative prompt: dogs\nSteps: 4, Sampler: euler, Guidance: 0.1, Seed: 7, "
				"Size: 64x32, RNG: torch-cpu, Model: zit"));
	bytes_free(&text);
}

static void check_json(void)
{
	struct recipe_set sets[] = { { (char *)"a", (char *)"x, \"y\"" }, { (char *)"b", (char *)"2" } };
	struct recipe_lora loras[] = { { .name = (char *)"ink", .scale = 0.1 },
		{ .name = (char *)"ink", .scale = -2 } };
	struct recipe r = { .prompt = (char *)"a\n\xe7\x86\x8a",
		.negative = (char *)"",
		.width = 64,
		.height = 32,
		.steps = 4,
		.guidance = 1.0 / 3,
		.sampler = "euler",
		.seed = UINT64_MAX,
		.rng = RNG_PHILOX,
		.n_sets = 2,
		.sets = sets,
		.n_loras = 2,
		.loras = loras };
	struct recipe back = { 0 };
	json_t *json = NULL, *parsed = NULL;
	char *text = NULL, one[RECIPE_KEY_LEN + 1], two[RECIPE_KEY_LEN + 1];

	CHECK("JSON: written", recipe_to_json(&r, &json) == STATUS_OK && (text = json_dumps(json, 0)));
	parsed = json_loads(text, 0, NULL);
	CHECK("JSON: read", parsed && recipe_from_json(parsed, &back) == STATUS_OK);
	key_of(&r, one);
	key_of(&back, two);
	CHECK("JSON: the same recipe comes back", strcmp(one, two) == 0 && back.negative && !*back.negative);
	recipe_free(&back);
	json_object_set_new(parsed, "steps", json_string("4"));
	CHECK("JSON: a wrong type is refused",
		recipe_from_json(parsed, &back) == STATUS_INVALID && strstr(status_text(), "steps"));
	json_object_del(parsed, "steps");
	CHECK("JSON: a missing value is refused", recipe_from_json(parsed, &back) == STATUS_INVALID);
	json_decref(json);
	json_decref(parsed);
	free(text);
}

static void check_samplers(void)
{
	static const struct {
		const char *name, *scheduler, *found; /* NULL: refused */
	} cases[] = {
		{ "euler", NULL, "euler" },
		{ "Euler a", NULL, "euler_a" },
		{ "euler_ancestral", NULL, "euler_a" },
		{ "DPM++ 2M Karras", NULL, "dpm++_2m_karras" },
		{ "DPM++ 2M", "Karras", "dpm++_2m_karras" },
		{ "dpmpp_2m", "karras", "dpm++_2m_karras" },
		{ "DPM++ 2M Karras", "Karras", "dpm++_2m_karras" },
		{ "DPM++ 2M", "Automatic", "dpm++_2m" },
		{ "dpm_2_ancestral", "karras", "dpm2_a_karras" },
		{ "DPM2 a Karras", NULL, "dpm2_a_karras" },
		{ "uni_pc", NULL, "unipc" },
		{ "PLMS", NULL, "pndm" },
		{ "Flow-Euler", "beta", "flow_euler_beta" },
		{ "EDM DPM++ 2M", NULL, "edm_dpm++_2m" },
		{ "DPM++ 2M SDE Karras", NULL, "dpm++_2m_sde_karras" },
		{ "DPM++ 2M SDE", "karras", "dpm++_2m_sde_karras" },
		{ "dpmpp_2m_sde", NULL, "dpm++_2m_sde" },
		{ "LMS Karras", NULL, "lms_karras" },
		{ "DPM2 Karras", NULL, "dpm2_karras" },
		{ "dpm_2", NULL, "dpm2" },
		{ "DPM2 a", "Karras", "dpm2_a_karras" },
		{ "DPM++ 2M", "Exponential", "dpm++_2m_exponential" },
		{ "Euler", "Karras", "euler_karras" },
		{ "Heun", NULL, "heun" },
		{ "DDIM", NULL, "ddim" },
		{ "UniPC", NULL, "unipc" },
		{ "LCM", NULL, "lcm" },
		{ "DPM++ 2S a", NULL, NULL },
		{ "DPM++ SDE", NULL, NULL },
		{ "DPM++ 3M SDE", NULL, NULL },
		{ "DPM adaptive", NULL, NULL },
		{ "Restart", NULL, NULL },
		{ "", NULL, NULL },
		{ "dpm++", NULL, NULL },
		{ "euler", "exponential", NULL },
		{ "heun", "simple", NULL },
		{ "a name that is much too long for any sampler", NULL, NULL },
		{ "euler", "a name that is much too long for any", NULL },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char found[SAMPLER_NAME_LEN] = "";
		enum status s = sampler_name_find(cases[i].name, cases[i].scheduler, found);

		check_case(cases[i].found ? s == STATUS_OK && same(found, cases[i].found) : s == STATUS_INVALID, found,
			"sampler '%s' + '%s'", cases[i].name, cases[i].scheduler ? cases[i].scheduler : "");
	}
}

static void check_numbers(void)
{
	static const double values[] = { 0, 1, 0.1, 1.0 / 3, 1e300, 5e-324, 123456789.123456789, -7.5, 2.5e-8 };
	bool good = true;
	int64_t n = 5;
	double x = 5;
	uint64_t seed = 5;

	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		char text[TEXT_DOUBLE_LEN];

		text_print_double(values[i], text);
		good &= text_read_double(text, &x) && x == values[i];
	}
	CHECK("numbers: doubles come back", good);
	x = 5;
	good = text_read_double(" 1", &x) || text_read_double("1 ", &x) || text_read_double("", &x) ||
	       text_read_double("nan", &x) || text_read_double("1e999", &x) || text_read_double("e5", &x) ||
	       text_read_double("1.2.3", &x) || text_read_double("-", &x);
	CHECK("numbers: what is no double", !good && x == 5);
	good = text_read_int("+1", 0, 9, &n) || text_read_int("10", 0, 9, &n) || text_read_int("-1", 0, 9, &n) ||
	       text_read_int("1x", 0, 9, &n) || text_read_int("", 0, 9, &n) ||
	       text_read_int("99999999999999999999", 0, INT64_MAX, &n) || text_read_int("--1", -9, 9, &n);
	CHECK("numbers: what is no integer", !good && n == 5);
	CHECK("numbers: seeds", text_read_seed("18446744073709551615", &seed) && seed == UINT64_MAX &&
					!text_read_seed("18446744073709551616", &seed) && !text_read_seed("-1", &seed));
}

int main(void)
{
	check_resolve();
	check_wrong();
	check_sizes();
	check_keys();
	check_canonical();
	check_json();
	check_samplers();
	check_numbers();
	return check_result();
}

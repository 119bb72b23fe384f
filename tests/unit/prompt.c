/* prompt files: every rule of the convention, and that what recipe_parameters writes reads back as the same recipe. */
#include "fs/prompt.h"

#include <string.h>

#include "tests/unit/check.h"

static enum status parse(const char *text, struct recipe_fields *f)
{
	*f = (struct recipe_fields){ 0 };
	return prompt_parse(text, strlen(text), f);
}

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* ---- texts --------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *file, *prompt, *negative;
} texts[] = {
	{ "plain text is the prompt", "a red panda", "a red panda", NULL },
	{ "white space at the end is no part of it", "a red panda \t\r\n\n", "a red panda", NULL },
	{ "white space at the start stays", "  a", "  a", NULL },
	{ "an empty file", "", "", NULL },
	{ "white space only is empty", " \n\t\r\n", "", NULL },
	{ "several lines", "a\n\nb", "a\n\nb", NULL },
	{ "CRLF", "a\r\nb\r\nSteps: 4\r\n", "a\nb", NULL },
	{ "a byte order mark is dropped",
		"\xef\xbb\xbf"
		"a",
		"a", NULL },
	{ "negative prompt", "a\nNegative prompt: b\nSteps: 4", "a", "b" },
	{ "negative prompt without parameters", "a\nNegative prompt: b", "a", "b" },
	{ "negative prompt of several lines", "a\nnegative PROMPT: b\nc\nSteps: 4", "a", "b\nc" },
	{ "empty negative prompt", "a\nNegative prompt:\nSteps: 4", "a", "" },
	{ "negative prompt alone", "Negative prompt: b", "", "b" },
	{ "only the first negative line counts", "a\nNegative prompt: b\nNegative prompt: c", "a",
		"b\nNegative prompt: c" },
	{ "inside a line it is text", "a Negative prompt: b", "a Negative prompt: b", NULL },
	{ "blank lines before the parameters", "a\n\n \nSteps: 4", "a", NULL },
	{ "parameters alone are a prompt", "Steps: 4", "Steps: 4", NULL },
	{ "white space above is no text", "\n \nSteps: 4", "\n \nSteps: 4", NULL },
	{ "parameters must be the last line", "a\nSteps: 4\nb", "a\nSteps: 4\nb", NULL },
	{ "a first key that is unknown", "a\nStyle: x, Steps: 4", "a\nStyle: x, Steps: 4", NULL },
	{ "an item that is none", "a\nSteps: up the tower, a monk", "a\nSteps: up the tower, a monk", NULL },
	{ "a known word without colon", "a\nSteps 4", "a\nSteps 4", NULL },
	{ "Prompt cannot come first", "a\nPrompt: \"b\"", "a\nPrompt: \"b\"", NULL },
	{ "an exact prompt wins", "x\nSteps: 4, Prompt: \"a \\n\"", "a \n", NULL },
	{ "an exact negative prompt wins", "a\nNegative prompt: x\nSteps: 4, Negative prompt: \" \"", "a", " " },
	{ "LoRA tags are taken out", "a <lora:ink:0.8>b<lora:x>", "a b", NULL },
	{ "other tags stay", "a <lora:> <lora:x:y> <lora <lora:a\nb> <b>", "a <lora:> <lora:x:y> <lora <lora:a\nb> <b>",
		NULL },
	{ "not ASCII", "ein B\xc3\xa4r, \xe7\x86\x8a \xf0\x9f\x90\xbc", "ein B\xc3\xa4r, \xe7\x86\x8a \xf0\x9f\x90\xbc",
		NULL },
};

static void check_texts(void)
{
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct recipe_fields f;
		enum status s = parse(texts[i].file, &f);

		check_case(s == STATUS_OK && same(f.prompt, texts[i].prompt) && same(f.negative, texts[i].negative),
			s == STATUS_OK ? f.prompt : status_text(), "prompt: %s", texts[i].name);
		recipe_fields_free(&f);
	}
}

/* ---- values -------------------------------------------------------------------------------------------------- */

static void check_values(void)
{
	struct recipe_fields f;
	enum status s = parse(
		"a\nsteps: 8, SAMPLER: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 18446744073709551615, "
		"Size: 768x512, Model: z-image, RNG: CPU, Clip skip: 2, LoRA: ink:-0.5, LoRA: \"a,b:c:1\", "
		"Set: eta=0.5, Set: \"prompt_2=x, y\"",
		&f);

	CHECK("values: accepted", s == STATUS_OK);
	CHECK("values: steps", f.has_steps && f.steps == 8);
	CHECK("values: sampler and scheduler", same(f.sampler, "DPM++ 2M") && same(f.scheduler, "Karras"));
	CHECK("values: CFG scale", f.has_cfg && f.cfg == 7.5 && !f.has_guidance);
	CHECK("values: the largest seed", f.has_seed && f.seed == UINT64_MAX && !f.has_random_seed);
	CHECK("values: width comes first", f.has_size && f.width == 768 && f.height == 512);
	CHECK("values: model", same(f.model, "z-image"));
	CHECK("values: A1111's CPU", f.has_rng && f.rng == RNG_TORCH_CPU);
	CHECK("values: clip skip", f.has_clip_skip && f.clip_skip == 2);
	CHECK("values: LoRAs", f.n_loras == 2 && same(f.loras[0].name, "ink") && f.loras[0].scale == -0.5 &&
				       same(f.loras[1].name, "a,b:c") && f.loras[1].scale == 1);
	CHECK("values: sets", f.n_sets == 2 && same(f.sets[0].value, "0.5") && same(f.sets[1].value, "x, y"));
	recipe_fields_free(&f);

	parse("a <lora:ink:0.8> <lora:b>\nSeed: -1", &f);
	CHECK("values: a random seed", f.has_random_seed && !f.has_seed);
	CHECK("values: LoRA tags",
		f.n_loras == 2 && same(f.loras[0].name, "ink") && f.loras[0].scale == 0.8 && f.loras[1].scale == 1);
	recipe_fields_free(&f);
}

static const char *const foreign[] = {
	"a\nSteps: 20, Model hash: 6ce0161689, Model: x, Version: v1.10.1, Lora hashes: \"ink: 1a, b: 2\"",
	"a\nSteps: 20, Denoising strength: 0.7, VAE hash: 63aeecb90f, VAE: ae.safetensors, TI hashes: \"x: y\"",
	"a\nSteps: 20, Hashes: {\"vae\": \"63, 4\", \"model\": \"6c\"}, Version: f2.0",
	"a\nSteps: 20, Civitai resources: [{\"type\":\"checkpoint\",\"x\":[1,2]}], Civitai metadata: {}",
	"a\nSteps: 20,",
};

static const struct {
	const char *file, *says;
} wrong[] = {
	{ "a\nSteps: 4, Colour: red", "Colour" },
	{ "a\n\nSteps: x", "line 3: Steps: 'x'" },
	{ "a\nSteps: 0", "Steps" },
	{ "a\nSteps: 1001", "Steps" },
	{ "a\nSteps: 4.5", "Steps" },
	{ "a\nSteps:", "Steps" },
	{ "a\nSteps: 4, Steps: 5", "twice" },
	{ "a\nSize: 512", "Size" },
	{ "a\nSize: 0x512", "Size" },
	{ "a\nSize: 99999x512", "Size" },
	{ "a\nSize: 512x512x512", "Size" },
	{ "a\nSeed: -2", "Seed" },
	{ "a\nSeed: 18446744073709551616", "Seed" },
	{ "a\nSeed: 1e3", "Seed" },
	{ "a\nGuidance: inf", "Guidance" },
	{ "a\nGuidance: 0x10", "Guidance" },
	{ "a\nCFG scale: ", "CFG scale" },
	{ "a\nRNG: dice", "RNG" },
	{ "a\nModel:", "Model" },
	{ "a\nClip skip: 0", "Clip skip" },
	{ "a\nSet: x", "Set" },
	{ "a\nSet: =1", "Set" },
	{ "a\nSet: a=1, Set: a=2", "twice" },
	{ "a\nLoRA: :1", "LoRA" },
	{ "a\nLoRA: ink:much", "LoRA" },
	{ "a\nb\xff", "line 2" },
	{ "a\xc0\x80", "UTF-8" },
	{ "a\xed\xa0\x80", "UTF-8" },
	{ "a\xf4\x90\x80\x80", "UTF-8" },
	{ "a\xe7\x86", "UTF-8" },
};

static void check_verdicts(void)
{
	struct recipe_fields f = { 0 };

	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
		enum status s = parse(foreign[i], &f);

		check_case(
			s == STATUS_OK && f.steps == 20 && same(f.prompt, "a"), status_text(), "foreign keys %zu", i);
		recipe_fields_free(&f);
	}
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		enum status s = parse(wrong[i].file, &f);

		check_case(s == STATUS_INVALID && strstr(status_text(), wrong[i].says), s ? status_text() : "accepted",
			"wrong value %zu: %s", i, wrong[i].says);
		recipe_fields_free(&f);
	}
	CHECK("a NUL byte is refused", prompt_parse("a\0b", 3, &f) == STATUS_INVALID && strstr(status_text(), "NUL"));
	recipe_fields_free(&f);
	CHECK("a bad value leaves the size", parse("a\nSteps: x, Size: 64x96", &f) && f.has_size && f.width == 64 &&
						     f.height == 96 && same(f.prompt, "a"));
	recipe_fields_free(&f);
}

/* ---- .defaults ----------------------------------------------------------------------------------------------- */

static void check_defaults(void)
{
	struct recipe_fields f = { 0 }, own = { 0 };
	const char *text =
		"Negative prompt: blurry\nSteps: 4, Size: 64x64, LoRA: a:1, LoRA: b:1, Set: eta=1, CFG scale: 2\n";

	CHECK("defaults: a line and a negative prompt", prompt_parse_defaults(text, strlen(text), &f) == STATUS_OK &&
								f.steps == 4 && same(f.negative, "blurry") &&
								!f.prompt);
	parse("p <lora:c:1>\nGuidance: 3, Set: clip_skip=2", &own);
	CHECK("defaults: inherited", recipe_fields_inherit(&own, &f) == STATUS_OK && own.steps == 4 && own.width == 64);
	CHECK("defaults: the guidances are one key", own.has_guidance && !own.has_cfg);
	CHECK("defaults: a LoRA list is taken as a whole", own.n_loras == 1 && same(own.loras[0].name, "c"));
	CHECK("defaults: sets go by name", own.n_sets == 2);
	CHECK("defaults: the negative prompt", same(own.negative, "blurry") && same(own.prompt, "p"));
	recipe_fields_free(&own);
	recipe_fields_free(&f);
	CHECK("defaults: an empty file", prompt_parse_defaults("\n", 1, &f) == STATUS_OK);
	CHECK("defaults: a prompt is refused", prompt_parse_defaults("a\nSteps: 4", 10, &f) == STATUS_INVALID);
	recipe_fields_free(&f);
	CHECK("defaults: a bad number is refused", prompt_parse_defaults("Steps: x", 8, &f) == STATUS_INVALID);
	recipe_fields_free(&f);
	CHECK("defaults: text is refused", prompt_parse_defaults("hello", 5, &f) == STATUS_INVALID);
	recipe_fields_free(&f);
}

/* ---- round trip ---------------------------------------------------------------------------------------------- */

static unsigned long long state = 1;

static unsigned draw(unsigned n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(state >> 33) % n;
}

/* Whatever a reader could take for something else. */
static const char *const pieces[] = { "a", " ", "\n", "\r", "\r\n", "\t", "Steps: 4",
	"Negative prompt:", "negative prompt: b", "\nSteps: 8, Seed: 3", "<lora:ink:0.8>", "<lora:", ">", ",", ":",
	"\"", "\\", "{", "}", "[", "Prompt: \"x\"", "Size: 64x64", "\xef\xbb\xbf", "\xe7\x86\x8a", "=", "none", "\n\n",
	"\x01", "Seed", "'", "\xe2\x80\xa8", "\xc2\xa0", "Model: m, Prompt: \"\"" };

static void draw_text(char *out, size_t size)
{
	*out = 0;
	for (unsigned n = draw(7); n; n--)
		strncat(out, pieces[draw(sizeof pieces / sizeof *pieces)], size - strlen(out) - 1);
}

static const double doubles[] = { 0, 1, 0.1, 1.0 / 3, 7.5, -2.25, 1e-7, 123456789.123456789, 5e-324, 1e300 };

static void draw_fields(struct recipe_fields *f, char *prompt, char *negative, char *value)
{
	static char *const samplers[] = { (char *)"euler", (char *)"DPM++ 2M Karras", (char *)"dpm_2_ancestral" };

	draw_text(prompt, 400);
	draw_text(negative, 400);
	draw_text(value, 300);
	*f = (struct recipe_fields){
		.has_steps = true,
		.steps = 1 + draw(1000),
		.has_seed = true,
		.seed = (uint64_t)draw(1u << 31) << draw(34),
		.has_size = true,
		.width = 1 + draw(4096),
		.height = 1 + draw(4096),
		.has_guidance = true,
		.guidance = doubles[draw(10)],
		.has_rng = true,
		.rng = (enum rng_kind)draw(RNG_COUNT),
	};
	f->prompt = strdup(prompt);
	f->negative = draw(2) ? strdup(negative) : NULL;
	f->sampler = draw(2) ? strdup(samplers[draw(3)]) : NULL;
	for (unsigned n = draw(3); n; n--)
		recipe_fields_set(f, n == 1 ? "eta" : "prompt_2", *value ? value : "x");
	for (unsigned n = draw(3); n; n--)
		recipe_fields_lora(f, *value ? value : "ink", doubles[draw(10)]);
}

static bool returns(const struct recipe_fields *f, const struct model *m, bool crlf, char *why, size_t why_size)
{
	struct recipe_fields back = { 0 };
	struct recipe a = { 0 }, b = { 0 };
	struct bytes text = { 0 }, one = { 0 }, two = { 0 };
	bool good = recipe_resolve(f, m, &a) == STATUS_OK && recipe_parameters(&a, "m, \"1\"", &text) == STATUS_OK &&
		    bytes_print(&text, crlf ? "\r\n" : "\n") == STATUS_OK &&
		    prompt_parse((char *)text.data, text.len, &back) == STATUS_OK &&
		    recipe_resolve(&back, m, &b) == STATUS_OK &&
		    recipe_canonical(&a, "0", "f32", RECIPE_BY_HASH, &one) == STATUS_OK &&
		    recipe_canonical(&b, "0", "f32", RECIPE_BY_HASH, &two) == STATUS_OK && one.len == two.len &&
		    memcmp(one.data, two.data, one.len) == 0 && same(back.model, "m, \"1\"");

	if (!good)
		snprintf(why, why_size, "%s\n--- written:\n%s\n--- canonical:\n%s\n--- back:\n%s", status_text(),
			text.data ? (char *)text.data : "", one.data ? (char *)one.data : "",
			two.data ? (char *)two.data : "");
	recipe_free(&a);
	recipe_free(&b);
	recipe_fields_free(&back);
	bytes_free(&text);
	bytes_free(&one);
	bytes_free(&two);
	return good;
}

static void check_round_trip(void)
{
	static char prompt[400], negative[400], value[300], why[8000];
	struct model m = { .name = "m", .defaults = { 512, 512, 8, 0 }, .size_multiple = 1, .size_max = 4096 };
	bool good = true;

	for (int i = 0; i < 20000 && good; i++) {
		struct recipe_fields f;

		draw_fields(&f, prompt, negative, value);
		good = returns(&f, &m, i & 1, why, sizeof why);
		recipe_fields_free(&f);
	}
	check_case(good, why, "parameters read back as the same recipe (20000 awkward ones)");
}

/* Any bytes: no crash, and a verdict. */
static void check_noise(void)
{
	static char text[2000];
	bool good = true;

	for (int i = 0; i < 20000; i++) {
		struct recipe_fields f = { 0 };
		enum status s;

		draw_text(text, sizeof text);
		if (draw(2))
			text[draw((unsigned)strlen(text) + 1)] = (char)draw(256);
		s = prompt_parse(text, strlen(text), &f);
		good &= s == STATUS_OK || s == STATUS_INVALID;
		recipe_fields_free(&f);
	}
	CHECK("noise gets a verdict", good);
}

int main(void)
{
	check_texts();
	check_values();
	check_verdicts();
	check_defaults();
	check_round_trip();
	check_noise();
	return check_result();
}

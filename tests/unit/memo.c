/* memo: the same words with another seed neither encode again nor load a text encoder, and the picture is the same to
 * the last bit; other words, negative prompts and settings are told apart. */
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/family.h"
#include "tests/unit/check.h"
#include "tests/unit/shell.h"

static const char *const models[] = { "zimage-tiny", "zimage-base-tiny", "flux-dev-tiny", "sd3-tiny", "sd15-tiny",
	"sdxl-tiny", "kandinsky-2-2-tiny" };

/* One picture. */
struct shot {
	const char *words, *negative;
	uint64_t seed;
	const char *set, *value; /* or NULL */
};

static void on_progress(void *context, const struct engine_progress *p)
{
	*(struct engine_progress *)context = *p;
}

static enum status paint(struct engine *e, const struct model *m, const struct shot *shot, struct bytes *png,
	struct engine_progress *last)
{
	struct recipe_fields f = { .prompt = (char *)shot->words,
		.negative = (char *)shot->negative,
		.has_seed = true,
		.seed = shot->seed,
		.has_steps = true,
		.steps = 2,
		.has_guidance = true,
		.guidance = 3,
		.has_size = true,
		.width = 64,
		.height = 64 };
	struct recipe_set set = { (char *)shot->set, (char *)shot->value };
	struct engine_job job = { .model = m, .progress = on_progress, .context = last };
	struct recipe r = { 0 };
	enum status s;

	f.n_sets = shot->set ? 1 : 0;
	f.sets = &set;
	TRY(recipe_resolve(&f, m, &r));
	job.recipe = &r;
	png->len = 0;
	s = engine_generate(e, &job, png);
	recipe_free(&r);
	return s;
}

static struct engine *open_engine(uint64_t memory)
{
	struct engine_options o = { .device = "cpu", .dtype = DTYPE_F32, .threads = 1, .memory_limit = memory };
	struct engine *e = NULL;

	if (engine_open(&o, &e) != STATUS_OK)
		printf("# %s\n", status_text());
	return e;
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->len > 0 && a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* The picture of an engine that has seen nothing else. */
static void paint_fresh(const struct model *m, const struct shot *shot, struct bytes *png)
{
	struct engine *e = open_engine(0);
	struct engine_progress last = { 0 };

	if (e && paint(e, m, shot, png, &last) != STATUS_OK)
		printf("# %s\n", status_text());
	engine_close(e);
}

/* After some pictures, every one is what a fresh engine makes of it. */
static void check_pictures(const char *name, const struct model *m)
{
	static const struct shot shots[] = { { "a red fox", NULL, 1, NULL, NULL }, { "a red fox", NULL, 2, NULL, NULL },
		{ "a blue boat", NULL, 2, NULL, NULL }, { "a red fox", "a blue boat", 2, NULL, NULL },
		{ "a blue boat", "a red fox", 2, NULL, NULL }, { "a red fox", "", 2, NULL, NULL } };
	struct engine *e = open_engine(0);
	struct engine_progress first = { 0 }, last = { 0 };
	struct bytes png = { 0 }, fresh = { 0 };

	for (size_t i = 0; e && i < sizeof shots / sizeof shots[0]; i++) {
		bool made = paint(e, m, &shots[i], &png, i ? &last : &first) == STATUS_OK;

		paint_fresh(m, &shots[i], &fresh);
		check_case(made && same(&png, &fresh), status_text(), "%s: picture %zu is a fresh engine's", name, i);
		if (i == 1)
			check_case(last.flops[STAGE_TEXT] < first.flops[STAGE_TEXT], "the same work",
				"%s: the second seed's text costs less", name);
	}
	engine_close(e);
	bytes_free(&png);
	bytes_free(&fresh);
}

/* Settings that change what an encoder does. */
static void check_setting(const char *name, const struct model *m, const char *set, const char *value)
{
	const struct shot plain = { "a red fox", NULL, 1, NULL, NULL }, other = { "a red fox", NULL, 1, set, value };
	struct engine *e = open_engine(0);
	struct engine_progress last = { 0 };
	struct bytes png = { 0 }, fresh = { 0 };
	bool made = e && paint(e, m, &plain, &png, &last) == STATUS_OK && paint(e, m, &other, &png, &last) == STATUS_OK;

	paint_fresh(m, &other, &fresh);
	check_case(made && same(&png, &fresh), status_text(), "%s: %s=%s is encoded anew", name, set, value);
	engine_close(e);
	bytes_free(&png);
	bytes_free(&fresh);
}

/* A limit that makes the parts take turns: they stay together in four tenths of it.  The files hold 2 or 4 bytes a
 * weight, which takes 4. */
static uint64_t tight(const char *folder)
{
	uint64_t sum = 0;
	char pattern[700];
	struct stat st;
	glob_t found;

	snprintf(pattern, sizeof pattern, "%s/*/*.safetensors", folder);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 1;
	for (size_t i = 0; i < found.gl_pathc; i++)
		if (stat(found.gl_pathv[i], &st) == 0)
			sum += (uint64_t)st.st_size;
	globfree(&found);
	return sum * 11 / 5;
}

/* Without its text encoder's files a model goes on painting words that it has seen, and no others. */
static void check_not_loaded(const char *name, const char *source, const char *folder)
{
	const struct shot seen = { "a red fox", NULL, 1, NULL, NULL }, again = { "a red fox", NULL, 2, NULL, NULL },
			  unseen = { "a blue boat", NULL, 2, NULL, NULL };
	struct bytes png = { 0 }, fresh = { 0 };
	struct engine_progress last = { 0 };
	struct engine *e;
	struct model m;
	bool made;

	if (!shell("cp -rL '%s' '%s' && chmod -R u+w '%s'", source, folder, folder) ||
		model_open(folder, NULL, &m) != STATUS_OK) {
		check_case(false, status_text(), "%s: a copy", name);
		return;
	}
	paint_fresh(&m, &again, &fresh);
	e = open_engine(tight(folder));
	made = e && paint(e, &m, &seen, &png, &last) == STATUS_OK;
	shell("rm '%s'/text_encoder*/*.safetensors", folder);
	made = made && paint(e, &m, &again, &png, &last) == STATUS_OK;
	check_case(made && same(&png, &fresh), status_text(), "%s: known words need no text encoder", name);
	check_case(e && paint(e, &m, &unseen, &png, &last) != STATUS_OK, "painted", "%s: unknown words do", name);
	engine_close(e);
	bytes_free(&png);
	bytes_free(&fresh);
}

int main(void)
{
	char folder[] = "/tmp/promptfs-memo-XXXXXX", path[600], copy[600];

	if (!mkdtemp(folder))
		return 1;
	for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
		struct model m;

		snprintf(path, sizeof path, "%s/models/%s", check_golden(), models[i]);
		snprintf(copy, sizeof copy, "%s/%s", folder, models[i]);
		if (access(path, F_OK) != 0) {
			printf("skip - %s: not in the golden cases\n", models[i]);
			continue;
		}
		if (model_open(path, NULL, &m) != STATUS_OK) {
			check_case(false, status_text(), "%s opens", models[i]);
			continue;
		}
		check_pictures(models[i], &m);
		if (strstr(models[i], "sd15"))
			check_setting(models[i], &m, "clip_skip", "1");
		if (strstr(models[i], "flux"))
			check_setting(models[i], &m, "max_sequence_length", "256");
		if (!strstr(models[i], "kandinsky")) /* its prior, which holds the encoder, is opened anew */
			check_not_loaded(models[i], path, copy);
	}
	shell("rm -rf '%s'", folder);
	return check_result();
}

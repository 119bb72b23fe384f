/* published: the graph that a published model's configuration describes has exactly the tensors, with the shapes, that
 * the reference classes make of it (tests/reference/configs); and what a dry run says of lists that differ. */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "engine/family.h"
#include "engine/survey.h"
#include "tests/unit/check.h"
#include "tests/unit/shell.h"

static char work[] = "/tmp/promptfs-published-XXXXXX";

/* All parts of a model together. */
struct sum {
	int64_t count[SURVEY_STATES], parameters, parts;
	char first[300]; /* what is wrong first */
};

static bool is_wrong(enum survey_state state)
{
	return state != SURVEY_FITS && state != SURVEY_PASSED;
}

static enum status add(void *context, const struct part_kind *kind, const struct component *c)
{
	struct sum *sum = context;
	struct survey s = { 0 };
	enum status status = survey_part(kind, c, &s);

	for (int64_t i = 0; i < s.n; i++)
		if (is_wrong(s.tensor[i].state) && !sum->first[0])
			snprintf(sum->first, sizeof sum->first, "%s: %s/%s", survey_state_name(s.tensor[i].state),
				c->name, s.tensor[i].name);
	for (int i = 0; i < SURVEY_STATES; i++)
		sum->count[i] += s.count[i];
	sum->parameters += s.parameters;
	sum->parts++;
	survey_free(&s);
	return status;
}

static struct sum survey(const char *dir)
{
	struct sum sum = { .parts = 0 };
	struct model m;
	enum status status = model_open(dir, NULL, &m);

	if (status == STATUS_OK)
		status = m.family->each_part(&m, add, &sum);
	if (status != STATUS_OK)
		snprintf(sum.first, sizeof sum.first, "%.290s", status_text());
	return sum;
}

static void check_model(const char *name)
{
	char dir[500];
	struct sum sum;

	snprintf(dir, sizeof dir, "%s/%s", work, name);
	sum = survey(dir);
	check_case(!sum.first[0] && sum.count[SURVEY_FITS] > 0, sum.first,
		"%s: %lld parts, %lld tensors of %.3f billion parameters are read, %lld are not needed", name,
		(long long)sum.parts, (long long)sum.count[SURVEY_FITS], (double)sum.parameters / 1e9,
		(long long)sum.count[SURVEY_PASSED]);
}

static void check_all(void)
{
	struct dirent **entries;
	int n = scandir(work, &entries, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.')
			check_model(entries[i]->d_name);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

/* The published indices themselves, where the reference is at hand: names without shapes. */
static void check_indices(void)
{
	static const char *const models[] = { "FLUX.1-dev", "FLUX.1-schnell", "stable-diffusion-3-medium-diffusers" };

	for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
		char dir[500];
		struct sum sum;

		snprintf(dir, sizeof dir, "%s/../reference/configs/%s", check_golden(), models[i]);
		if (!shell("ls %s/*/*.index.json >/dev/null 2>&1", dir)) {
			printf("skip - %s: its published index is not at hand\n", models[i]);
			continue;
		}
		sum = survey(dir);
		check_case(sum.count[SURVEY_FITS] > 200 && !sum.count[SURVEY_MISSING] && !sum.count[SURVEY_UNUSED],
			sum.first, "%s: the %lld names of its published indices", models[i],
			(long long)sum.count[SURVEY_FITS]);
	}
}

/* Changes the list of a part's tensors, and expects one of this kind. */
static void check_change(
	const char *what, const char *from, const char *to, enum survey_state wanted, const char *first)
{
	char dir[500];
	struct sum sum;

	snprintf(dir, sizeof dir, "%s/changed.model", work);
	check_case(shell("rm -rf %s && cp -r %s/stable-diffusion-v1-5 %s && sed -i 's/%s/%s/' %s/unet/names.json", dir,
			   work, dir, from, to, dir),
		NULL, "%s: prepared", what);
	sum = survey(dir);
	check_case(sum.count[wanted] == 1 && !strcmp(sum.first, first), sum.first, "%s: %s", what, first);
}

static void check_changes(void)
{
	check_change(
		"a tensor is missing", "\"conv_in.bias\":\\[320\\],", "", SURVEY_MISSING, "missing: unet/conv_in.bias");
	check_change("one too many", "\"conv_in.bias\"", "\"conv_in.other\":[1],\"conv_in.bias\"", SURVEY_UNUSED,
		"unused: unet/conv_in.other");
	check_change("another shape", "\"conv_in.bias\":\\[320\\]", "\"conv_in.bias\":[321]", SURVEY_SHAPE,
		"other-shape: unet/conv_in.bias");
}

int main(void)
{
	if (!mkdtemp(work) || !shell("cp -r tests/reference/configs/*/ %s && gunzip -r %s", work, work)) {
		check_case(false, "no copy of tests/reference/configs", "published");
		return check_result();
	}
	check_all();
	check_indices();
	check_changes();
	shell("rm -rf %s", work);
	return check_result();
}

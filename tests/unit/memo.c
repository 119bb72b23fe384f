/* memo: the same words with another seed neither encode again nor load a text encoder, and the picture is the same to
 * the last bit; other words, negative prompts and settings are told apart. */
#include <glob.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/family.h"
#include "engine/memo_files.h"
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

/* Keeps embeddings beside packed weights in that folder; NULL: nowhere. */
static struct engine *open_engine_with(const char *packed, uint64_t memory)
{
	struct engine_options o = { .device = "cpu",
		.dtype = DTYPE_F32,
		.threads = 1,
		.memory_limit = memory,
		.packed = packed,
		.packed_limit = packed ? 1 << 30 : 0,
		.texts_min = 1 };
	struct engine *e = NULL;

	if (engine_open(&o, &e) != STATUS_OK)
		printf("# %s\n", status_text());
	return e;
}

static struct engine *open_engine(uint64_t memory)
{
	return open_engine_with(NULL, memory);
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

static const struct shot seen = { "a red fox", NULL, 1, NULL, NULL }, again = { "a red fox", NULL, 2, NULL, NULL },
			 unseen = { "a blue boat", NULL, 2, NULL, NULL };

/* Without its text encoder's files a model goes on painting words that it has seen, and no others. */
static void check_not_loaded(const char *name, const char *source, const char *folder)
{
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

/* ---- on disk ----------------------------------------------------------------------------------------------------- */

/* Whether a new engine paints it as `wanted`. */
static bool paints(const char *packed, const struct model *m, const struct shot *shot, const struct bytes *wanted)
{
	struct engine *e = open_engine_with(packed, 0);
	struct engine_progress last = { 0 };
	struct bytes png = { 0 };
	bool good = e && paint(e, m, shot, &png, &last) == STATUS_OK && same(&png, wanted);

	engine_close(e);
	bytes_free(&png);
	return good;
}

/* The values of every text encoder become NaN, which no loading lets through; the files stay what they are for a
 * struct model that is open. */
static bool spoil(const char *folder)
{
	return shell("for f in '%s'/text_encoder*/*.safetensors; do n=$(od -An -tu8 -N8 \"$f\") && s=$(stat -c %%s "
		     "\"$f\") && "
		     "head -c $((s - n - 8)) /dev/zero | tr '\\0' '\\377' | "
		     "dd of=\"$f\" bs=4096 seek=$((n + 8)) oflag=seek_bytes conv=notrunc 2>/dev/null || exit 1; done",
		folder);
}

/* Each way to damage a file: it is not believed, and written anew as it was. */
static void check_damage(const char *name, const char *packed, const struct model *m, const struct bytes *wanted)
{
	static const char *const damages[][2] = {
		{ "a changed value", "printf X | dd of=\"$f\" bs=1 seek=$(($(stat -c %s \"$f\") - 9)) conv=notrunc" },
		{ "a changed header", "printf X | dd of=\"$f\" bs=1 seek=60 conv=notrunc" },
		{ "a torn end", "truncate -s -1 \"$f\"" },
		{ "a torn header", "truncate -s 20 \"$f\"" },
		{ "nothing in it", "truncate -s 0 \"$f\"" },
		{ "more behind it", "printf X >>\"$f\"" },
	};

	shell("cp -r '%s/texts' '%s/good'", packed, packed);
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		bool damaged = shell(
			"for f in '%s'/texts/*; do %s 2>/dev/null; done; ! diff -rq '%s/texts' '%s/good' >/dev/null",
			packed, damages[i][1], packed, packed);

		check_case(damaged && paints(packed, m, &again, wanted), status_text(),
			"%s: a file with %s is not used", name, damages[i][0]);
		check_case(
			shell("diff -r '%s/texts' '%s/good'", packed, packed), NULL, "%s: and is written anew", name);
	}
}

/* A disk that takes no more than a few bytes. */
static void check_full(const char *name, const char *packed, const struct model *m, const struct bytes *wanted)
{
	struct rlimit old, tiny;
	bool good;

	getrlimit(RLIMIT_FSIZE, &old);
	tiny = old;
	tiny.rlim_cur = 300;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &tiny);
	good = paints(packed, m, &again, wanted);
	setrlimit(RLIMIT_FSIZE, &old);
	check_case(good, status_text(), "%s: a full disk costs nothing but the file", name);
	check_case(shell("test -d '%s/texts' && test -z \"$(ls -A '%s/texts')\"", packed, packed), NULL,
		"%s: and nothing of it is left", name);
}

/* After a restart known words need no text encoder; with any doubt they are encoded. */
static void check_kept(const char *name, const char *source, const char *folder)
{
	struct bytes wanted = { 0 }, other = { 0 };
	char packed[700], full[700];
	struct model m;
	bool made;

	snprintf(packed, sizeof packed, "%s.packed", folder);
	snprintf(full, sizeof full, "%s.full", folder);
	if (!shell("cp -rL '%s' '%s' && chmod -R u+w '%s' && mkdir '%s'", source, folder, folder, full) ||
		model_open(folder, NULL, &m) != STATUS_OK) {
		check_case(false, status_text(), "%s: a copy", name);
		return;
	}
	paint_fresh(&m, &seen, &other);
	paint_fresh(&m, &again, &wanted);
	check_full(name, full, &m, &wanted);
	check_case(paints(packed, &m, &seen, &other), status_text(), "%s: an engine that keeps embeddings", name);
	check_case(shell("ls '%s'/texts/* >/dev/null", packed), NULL, "%s: they are there", name);
	check_damage(name, packed, &m, &wanted);
	made = spoil(folder);
	check_case(made && paints(packed, &m, &again, &wanted), status_text(),
		"%s: after a restart known words need no text encoder, and the picture is the same", name);
	check_case(!paints(packed, &m, &unseen, &wanted), "painted", "%s: unknown words do", name);
	check_case(!paints(full, &m, &again, &wanted), "painted", "%s: so do known ones that were not kept", name);
	if (model_open(folder, NULL, &m) == STATUS_OK)
		check_case(
			!paints(packed, &m, &again, &wanted), "painted", "%s: other files are another encoder", name);
	shell("rm -rf '%s' '%s' '%s'", folder, packed, full);
	bytes_free(&wanted);
	bytes_free(&other);
}

/* ---- the files alone --------------------------------------------------------------------------------------------- */

static void check_limit(const char *folder)
{
	static const char keys[3][MEMO_KEY_LEN + 1] = { "00000000000000000000000000000000",
		"00000000000000000000000000000001", "00000000000000000000000000000002" };
	float values[100] = { 1, 2, 3 };
	const struct tensor t = tensor_view(values, DTYPE_F32, 2, (int64_t[]){ 4, 25 });
	struct tensor got = { 0 };
	struct memo_files *f;
	char dir[700];
	bool found[3];

	snprintf(dir, sizeof dir, "%s/limit", folder);
	f = memo_files_new(dir, 1500); /* two */
	for (int i = 0; f && i < 3; i++) {
		memo_files_write(f, keys[i], 1, &t);
		shell("touch -d @%d '%s/%s'", 1000 + i, dir, keys[i]);
	}
	for (int i = 0; i < 3; i++) {
		found[i] = f && memo_files_read(f, keys[i], 1, &got);
		if (found[i] && i == 1)
			CHECK("an entry comes back as it was", got.rank == 2 && got.dim[0] == 4 && got.dim[1] == 25 &&
								       memcmp(got.data, values, sizeof values) == 0);
		if (found[i])
			free(got.data);
	}
	CHECK("the one unused for longest goes where they are too many", !found[0] && found[1] && found[2]);
	CHECK("another number of tensors is another entry",
		!memo_files_read(f, keys[1], 2, (struct tensor[2]){ { 0 } }));
	shell("rm -rf '%s'", dir);
	memo_files_write(f, keys[1], 1, &t);
	found[1] = memo_files_read(f, keys[1], 1, &got);
	CHECK("a folder that has gone is made again", found[1]);
	if (found[1])
		free(got.data);
	memo_files_free(f);
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
		snprintf(copy, sizeof copy, "%s/kept-%s", folder, models[i]);
		if (!strstr(models[i], "kandinsky"))
			check_kept(models[i], path, copy);
	}
	check_limit(folder);
	shell("rm -rf '%s'", folder);
	return check_result();
}

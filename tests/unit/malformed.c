/* malformed: every malformed model of units/safetensors_bad, run by the real program.
 *
 * A case of the manifest is the model in base/ with a few files replaced.  The program must end in time, with the
 * wanted status and one line that names the file and the problem, without a picture and without gigabytes.  The
 * unchanged model must work.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/check.h"
#include "tests/unit/program.h"

enum { SECONDS_MAX = 20, MEMORY_MAX_KB = 2 << 20, SAID_MAX = 4096 };

static char top[] = "/tmp/promptfs-malformed-XXXXXX";
static char model[64], picture[64], home[PATH_MAX]; /* home: the folder of the manifest */

/* A path made of others; the test ends when it does not fit. */
static void join(char out[PATH_MAX], const char *folder, const char *name)
{
	if (snprintf(out, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) {
		printf("not ok - a path is too long: %s\n", name);
		exit(1);
	}
}

/* ---- the model folder ---- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* The folder `from` as `to`: folders again, of links to every file. */
static bool link_tree(const char *from, const char *to)
{
	char source[PATH_MAX], real[PATH_MAX], target[PATH_MAX];
	DIR *dir = opendir(from);
	struct dirent *entry;
	struct stat st;
	bool good = dir && mkdir(to, 0700) == 0;

	while (good && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		join(source, from, entry->d_name);
		join(target, to, entry->d_name);
		if (!realpath(source, real) || stat(real, &st) != 0)
			good = false;
		else if (S_ISDIR(st.st_mode))
			good = link_tree(real, target);
		else
			good = symlink(real, target) == 0;
	}
	if (dir)
		closedir(dir);
	return good;
}

/* size: the length to give the copy (sparse), -1: its own. */
static bool copy_file(const char *from, const char *to, json_int_t size)
{
	char buffer[1 << 16];
	FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
	bool good = in && out;
	size_t n;

	while (good && (n = fread(buffer, 1, sizeof buffer, in)) > 0)
		good = fwrite(buffer, 1, n, out) == n;
	if (in)
		fclose(in);
	if (out)
		good &= fclose(out) == 0;
	return good && (size < 0 || truncate(to, (off_t)size) == 0);
}

static void make_parents(char *path)
{
	for (char *slash = strchr(path + strlen(model) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
}

static bool replace(const char *name, const json_t *what)
{
	const json_t *file = json_object_get(what, "file"), *size = json_object_get(what, "size");
	const json_t *link = json_object_get(what, "link");
	char path[PATH_MAX], source[PATH_MAX];

	join(path, model, name);
	remove_tree(path);
	make_parents(path);
	if (file) {
		join(source, home, json_string_value(file));
		return copy_file(source, path, size ? json_integer_value(size) : -1);
	}
	if (link)
		return symlink(json_string_value(link), path) == 0;
	if (json_object_get(what, "fifo"))
		return mkfifo(path, 0600) == 0;
	if (json_object_get(what, "directory"))
		return mkdir(path, 0700) == 0;
	return json_object_get(what, "remove") != NULL;
}

static bool assemble(const char *base, json_t *replacements)
{
	char from[PATH_MAX];
	const char *name;
	json_t *what;

	join(from, home, base);
	if (!link_tree(from, model))
		return false;
	json_object_foreach (replacements, name, what)
		if (!replace(name, what))
			return false;
	return true;
}

/* ---- judging ---- */

/* Whether the text holds all (or any) of the words, whatever their case. */
static bool holds(const char *text, const json_t *words, bool all)
{
	size_t i, found = 0, n = json_array_size(words);
	const json_t *word;

	json_array_foreach (words, i, word)
		found += strcasestr(text, json_string_value(word)) != NULL;
	return all ? found == n : found > 0 || n == 0;
}

static bool is_line(const char *text)
{
	const char *end = strchr(text, '\n');

	return end && end > text && end[1] == '\0';
}

/* NULL when the program did as the answer says, else why not. */
static const char *judge(
	const json_t *answer, int state, const struct rusage *used, const char *said, const char *marker)
{
	int wanted = (int)json_integer_value(json_object_get(answer, "exit"));
	bool painted = access(picture, F_OK) == 0;
	static char why[SAID_MAX + 128];

	if (access(marker, F_OK) == 0)
		return "a file of the model was executed";
	if (WIFSIGNALED(state) && WTERMSIG(state) == SIGALRM)
		return "it did not end in time";
	if (!WIFEXITED(state) || WEXITSTATUS(state) != wanted)
		snprintf(why, sizeof why, "the program ended with %s %d, saying: %s",
			WIFEXITED(state) ? "status" : "signal", WIFEXITED(state) ? WEXITSTATUS(state) : WTERMSIG(state),
			said);
	else if (used->ru_maxrss > MEMORY_MAX_KB)
		snprintf(why, sizeof why, "it took %ld MiB", used->ru_maxrss >> 10);
	else if (painted != (wanted == 0))
		return painted ? "it wrote a picture" : "it wrote no picture";
	else if (wanted != 0 && !is_line(said))
		snprintf(why, sizeof why, "it said no line, or several: %s", said);
	else if (!holds(said, json_object_get(answer, "names"), true) ||
		 !holds(said, json_object_get(answer, "says"), false))
		snprintf(why, sizeof why, "it does not name the file or the problem: %s", said);
	else
		return NULL;
	return why;
}

static bool paint(int error_fd, int *state, struct rusage *used)
{
	const char *const argv[] = { "promptfs", "generate", "--model", model, "--width", "64", "--height", "64",
		"--steps", "1", "--seed", "1", "-o", picture, "a test", NULL };

	return program_run(argv, error_fd, SECONDS_MAX, state, used);
}

static void check_answer(const char *name, const json_t *answer, const char *marker)
{
	char said[SAID_MAX] = "", path[PATH_MAX];
	struct rusage used = { 0 };
	int fd, state = 0;
	const char *why = "the program did not run";

	join(path, top, "stderr");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0 && paint(fd, &state, &used) && pread(fd, said, sizeof said - 1, 0) >= 0)
		why = judge(answer, state, &used, said, marker);
	close(fd);
	check_case(!why, why, "%s", name);
}

static void check_model(const json_t *manifest, const char *name, json_t *replacements, const json_t *answer)
{
	const char *marker = json_string_value(json_object_get(manifest, "marker"));

	unlink(marker);
	unlink(picture);
	remove_tree(model);
	if (assemble(json_string_value(json_object_get(manifest, "base")), replacements))
		check_answer(name, answer, marker);
	else
		check_case(false, "its folder could not be put together", "%s", name);
}

int main(void)
{
	char path[PATH_MAX];
	json_t *manifest, *cases, *one, *good = json_pack("{s:i}", "exit", 0), *nothing = json_object();
	size_t i;

	join(home, check_golden(), "units/safetensors_bad");
	join(path, home, "manifest.json");
	manifest = json_load_file(path, 0, NULL);
	cases = json_object_get(manifest, "cases");
	CHECK("there are malformed models", json_array_size(cases) > 0);
	if (!manifest || !mkdtemp(top))
		return 1;
	snprintf(model, sizeof model, "%s/model", top);
	snprintf(picture, sizeof picture, "%s/picture.png", top);
	check_model(manifest, "the unchanged model works", nothing, good);
	json_array_foreach (cases, i, one)
		check_model(manifest, json_string_value(json_object_get(one, "name")), json_object_get(one, "replace"),
			json_object_get(one, "answer"));
	remove_tree(top);
	json_decref(manifest);
	json_decref(nothing);
	json_decref(good);
	return check_result();
}

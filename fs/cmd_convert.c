/* promptfs convert IN OUT --type TYPE: weights in another precision. */
#include "fs/commands.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "engine/convert.h"
#include "fs/progress.h"

static const char name[] = "convert";

enum { BAR_CELLS = 20 };

struct bar {
	struct progress progress;
	int shown; /* percent */
};

static void show(void *context, double done)
{
	struct bar *bar = context;
	int percent = (int)(100 * done);
	char text[PROGRESS_LEN] = "converting ";

	if (percent == bar->shown)
		return;
	bar->shown = percent;
	for (int i = 0; i < BAR_CELLS; i++)
		strcat(text, i < percent * BAR_CELLS / 100 ? "\xe2\x96\x93" : "\xe2\x96\x91");
	snprintf(text + strlen(text), sizeof text - strlen(text), " %d %%", percent);
	progress_say(&bar->progress, text);
}

static enum status open_source(const char *path, struct weights **out)
{
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return weights_open(path, out);
	return weights_open_file(path, out);
}

/* Writing the source's own file would destroy it. */
static bool same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int convert(const char *from, const char *to, enum convert_type type)
{
	struct bar bar = { progress_on(stderr), -1 };
	struct weights *w = NULL;
	enum status s;

	if (same_file(from, to))
		return command_fail(status_fail(STATUS_INVALID, "%s: the result cannot replace its source", to));
	s = open_source(from, &w);
	if (s == STATUS_OK)
		s = convert_write(w, type, to, show, &bar);
	weights_close(w);
	progress_clear(&bar.progress);
	return s == STATUS_OK ? 0 : command_fail(s);
}

static bool ends_with(const char *text, const char *ending)
{
	size_t len = strlen(text), ending_len = strlen(ending);

	return len >= ending_len && strcasecmp(text + len - ending_len, ending) == 0;
}

/* Programs tell the formats apart by the name. */
static int check_name(const char *to, enum convert_type type)
{
	const char *ending = convert_is_gguf(type) ? ".gguf" : ".safetensors";

	return ends_with(to, ending) ? 0 : command_usage(name, "the name of this type's file ends in %s", ending);
}

int cmd_convert(int argc, char **argv)
{
	static const struct option options[] = { { "type", required_argument, NULL, 't' }, { 0 } };
	enum convert_type type = CONVERT_BF16;
	struct config config;
	int code = command_config(&argc, argv, &config), option;

	if (code)
		return code;
	config_free(&config);
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) == 't') {
		type = convert_type_find(optarg);
		if (type == CONVERT_COUNT)
			return command_usage(name, "--type is f32, bf16, fp8, q8_0, q4_0 or q4_k, not '%.20s'", optarg);
	}
	if (option != -1)
		return command_bad_option(name, option, argv);
	if (argc - optind != 2)
		return command_usage(name, "say from what file or folder, and to what file");
	code = check_name(argv[optind + 1], type);
	return code ? code : convert(argv[optind], argv[optind + 1], type);
}

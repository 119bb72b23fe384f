/* promptfs bench: speed and memory of this machine with a model, stage by stage, alone or beside another program. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache.h"
#include "engine/family.h"
#include "engine/png.h"
#include "engine/text.h"
#include "fs/bench.h"
#include "fs/commands.h"
#include "fs/log.h"

static const char name[] = "bench";

/* 36 tokens in Qwen's vocabulary with the three digits of the run. */
static const char default_prompt[] =
	"a red panda sits at a small wooden table by the window and reads a newspaper, a cup of "
	"green tea beside it, watercolour, soft morning light number";

struct bench {
	struct config config;
	struct engine_options options;
	char packed[PATH_MAX + 8];
	struct model model;
	struct engine *engine;
	int n_sizes;
	int n_pictures; /* so far */
	int64_t width[BENCH_SIZES_MAX], height[BENCH_SIZES_MAX], steps, repeats;
	double limit; /* operations a second; below 0: to be measured */
	bool json;
	const char *peer, *prompt;
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

enum { OPTION_SIZE = 256, OPTION_STEPS, OPTION_REPEATS, OPTION_LIMIT, OPTION_JSON, OPTION_PEER };

static const struct option options[] = {
	{ "size", required_argument, NULL, OPTION_SIZE },
	{ "steps", required_argument, NULL, OPTION_STEPS },
	{ "repeats", required_argument, NULL, OPTION_REPEATS },
	{ "limit", required_argument, NULL, OPTION_LIMIT },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "peer", required_argument, NULL, OPTION_PEER },
	{ 0 },
};

static int read_size(struct bench *b)
{
	if (b->n_sizes == BENCH_SIZES_MAX)
		return command_usage(name, "--size: at most %d sizes", BENCH_SIZES_MAX);
	if (!text_read_size(optarg, PNG_SIDE_MAX, &b->width[b->n_sizes], &b->height[b->n_sizes]))
		return command_usage(name, "--size: '%.40s' is no size such as 512x512", optarg);
	b->n_sizes++;
	return 0;
}

static int read_count(const char *option, int64_t low, int64_t high, int64_t *out)
{
	if (text_read_int(optarg, low, high, out))
		return 0;
	return command_usage(name, "--%s: '%.40s' is no whole number from %lld to %lld", option, optarg, (long long)low,
		(long long)high);
}

static int read_limit(struct bench *b)
{
	double gflops;

	if (!text_read_double(optarg, &gflops) || gflops < 0)
		return command_usage(name, "--limit: '%.40s' is no number of GFLOP/s", optarg);
	b->limit = gflops * 1e9;
	return 0;
}

static int read_option(int option, struct bench *b)
{
	switch (option) {
	case OPTION_SIZE:
		return read_size(b);
	case OPTION_STEPS:
		return read_count("steps", 1, RECIPE_STEPS_MAX, &b->steps);
	case OPTION_REPEATS:
		return read_count("repeats", 0, BENCH_REPEATS_MAX, &b->repeats);
	case OPTION_LIMIT:
		return read_limit(b);
	case OPTION_JSON:
		b->json = true;
		return 0;
	default:
		b->peer = *optarg ? optarg : NULL;
		return 0;
	}
}

/* 0, or the exit status. */
static int read_words(int argc, char **argv, struct bench *b)
{
	int option, code;

	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		code = option == '?' || option == ':' ? command_bad_option(name, option, argv) : read_option(option, b);
		if (code)
			return code;
	}
	if (argc - optind > 1)
		return command_usage(name, "one prompt, please: quote it");
	if (argc > optind)
		b->prompt = argv[optind];
	if (b->peer && b->n_sizes > 1)
		return command_usage(name, "--peer: one size at a time");
	if (b->peer && b->repeats == 0)
		return command_usage(name, "--peer: --repeats is at least 1");
	return 0;
}

/* ---- our own runs ------------------------------------------------------------------------------------------------ */

/* The folder beside which packed weights are kept. */
static void make_cache(const struct config *c)
{
	struct cache *cache = NULL;

	if (cache_open(c->cache, c->cache_limit, &cache) != 0)
		log_warn("no cache: %s", cache_text());
	cache_close(cache);
}

static enum status open_model(struct bench *b)
{
	const struct config_model *m = config_find_model(&b->config, NULL);
	bool made_up = strncmp(m->name, CONFIG_RANDOM, strlen(CONFIG_RANDOM)) == 0;

	if (!made_up)
		make_cache(&b->config);
	config_packed(&b->config, b->packed);
	b->options = (struct engine_options){ .device = *m->device ? m->device : b->config.device,
		.threads = b->config.threads,
		.memory_limit = b->config.memory_limit,
		.packed = made_up ? NULL : b->packed,
		.packed_limit = b->config.packed_limit,
		.texts_min = UINT64_MAX }; /* what encoding takes is to be seen each time */
	TRY(config_dtype(*m->dtype ? m->dtype : b->config.dtype, &b->options.dtype));
	TRY(model_open(m->path, m->name, &b->model));
	b->model.random = made_up;
	return STATUS_OK;
}

/* The recipe of size i (or, without sizes, of the model's own). */
static enum status resolve(const struct bench *b, int i, struct recipe *out)
{
	struct recipe_fields fields = { .has_steps = b->steps > 0, .steps = b->steps, .has_size = b->n_sizes > 0 };
	struct bytes prompt = { 0 };
	enum status s = bytes_print(&prompt, "%s 000", b->prompt);

	if (b->n_sizes) {
		fields.width = b->width[i];
		fields.height = b->height[i];
	}
	fields.prompt = (char *)prompt.data;
	if (s == STATUS_OK)
		s = recipe_resolve(&fields, &b->model, out);
	bytes_free(&prompt);
	return s;
}

static enum status measure_size(struct bench *b, int i, json_t *runs)
{
	struct recipe recipe = { 0 };
	struct bench_job job = { .engine = b->engine,
		.model = &b->model,
		.recipe = &recipe,
		.first = b->n_pictures,
		.repeats = (int)b->repeats,
		.limit = b->limit };
	json_t *run = NULL;
	enum status s = resolve(b, i, &recipe);

	if (s == STATUS_OK)
		s = bench_run(&job, &run);
	b->n_pictures += job.repeats + 1;
	if (s == STATUS_OK)
		json_array_append_new(runs, run);
	recipe_free(&recipe);
	return s;
}

static void describe(const struct bench *b, json_t *result)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	json_object_set_new(result, "version", json_string(PROMPTFS_VERSION));
	json_object_set_new(result, "model", json_string(b->model.name));
	json_object_set_new(result, "family", json_string(b->model.family->name));
	json_object_set_new(result, "device", json_string(engine_device(b->engine)));
	json_object_set_new(result, "dtype", json_string(dtype_name(engine_dtype(b->engine))));
	json_object_set_new(result, "threads", json_integer(b->config.threads ? b->config.threads : processors));
	json_object_set_new(result, "limit_gflops", json_real(b->limit / 1e9));
}

static enum status measure(struct bench *b, json_t *result)
{
	json_t *runs = json_array();

	json_object_set_new(result, "runs", runs);
	TRY(open_model(b));
	if (b->limit < 0)
		TRY(bench_limit(&b->options, &b->limit));
	TRY(engine_open(&b->options, &b->engine));
	describe(b, result);
	for (int i = 0; i < (b->n_sizes ? b->n_sizes : 1); i++)
		TRY(measure_size(b, i, runs));
	return STATUS_OK;
}

/* ---- beside another program -------------------------------------------------------------------------------------- */

/* The words of our own runs: those given, with others that win over them. */
static enum status compare(struct bench *b, int argc, char **argv, json_t *result)
{
	static const char *const added[] = { "--json", "--repeats=0", "--limit=0", "--peer=" };
	enum { N_ADDED = sizeof added / sizeof *added };
	char **words = calloc((size_t)argc + N_ADDED + 2, sizeof *words);
	json_t *comparison = NULL;
	enum status s;
	int n = 0, i = 0;

	if (!words)
		return status_fail(STATUS_NO_MEMORY, "no memory for a comparison");
	words[n++] = (char *)"promptfs";
	for (; i < argc && strcmp(argv[i], "--") != 0; i++)
		words[n++] = argv[i];
	for (int j = 0; j < N_ADDED; j++)
		words[n++] = (char *)added[j];
	for (; i < argc; i++)
		words[n++] = argv[i];
	s = bench_compare(words, b->peer, (int)b->repeats, &comparison);
	if (s == STATUS_OK)
		json_object_set_new(result, "comparison", comparison);
	free(words);
	return s;
}

static char **copy_words(int argc, char **argv)
{
	char **out = calloc((size_t)argc + 1, sizeof *out);

	if (out)
		memcpy(out, argv, (size_t)argc * sizeof *out);
	return out;
}

static int report(const struct bench *b, const json_t *result)
{
	if (!b->json) {
		bench_print(result);
		return command_finish();
	}
	json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	return command_finish();
}

int cmd_bench(int argc, char **argv)
{
	struct bench b = { .repeats = 5, .limit = -1, .prompt = default_prompt };
	int n_words = argc, code;
	char **words = copy_words(argc, argv); /* the configuration takes its options out of argv */
	json_t *result = json_object();
	enum status s;

	code = words ? command_config(&argc, argv, &b.config)
		     : command_fail(status_fail(STATUS_NO_MEMORY, "no memory for the words"));
	if (code == 0) {
		code = read_words(argc, argv, &b);
		if (code == 0) {
			s = b.peer ? compare(&b, n_words, words, result) : measure(&b, result);
			code = s == STATUS_OK ? report(&b, result) : command_fail(s);
		}
		engine_close(b.engine);
		config_free(&b.config);
	}
	json_decref(result);
	free(words);
	return code;
}

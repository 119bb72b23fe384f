/* promptfs generate: one picture without a mount; the same resolver, cache and engine as the daemon's. */
#include "fs/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache.h"
#include "engine/engine.h"
#include "engine/png.h"
#include "engine/text.h"
#include "fs/contents.h"
#include "fs/dress.h"
#include "fs/hashes.h"
#include "fs/key.h"
#include "fs/log.h"
#include "fs/output.h"
#include "fs/progress.h"
#include "fs/prompt.h"
#include "fs/prompt_items.h"

static const char name[] = "generate";

/* One run of the command, in the order in which it comes about. */
struct generation {
	struct config config;
	struct recipe_fields fields;
	const char *output, *trace;
	bool verbose;
	const struct config_model *where;
	struct model model;
	struct recipe recipe;
	struct engine *engine;
	struct cache *cache; /* NULL: not usable */
	struct bytes canonical;
	char key[RECIPE_KEY_LEN + 1];
	struct progress bar;
	struct engine_progress last;
};

/* ---- options ------------------------------------------------------------------------------------------------- */

enum { OPTION_NEGATIVE = 256, OPTION_WIDTH, OPTION_HEIGHT, OPTION_TRACE, OPTION_ITEM };

static const struct option options[] = {
	{ "negative", required_argument, NULL, OPTION_NEGATIVE },
	{ "width", required_argument, NULL, OPTION_WIDTH },
	{ "height", required_argument, NULL, OPTION_HEIGHT },
	{ "trace", required_argument, NULL, OPTION_TRACE },
	{ "output", required_argument, NULL, 'o' },
	{ "verbose", no_argument, NULL, 'v' },
	/* the others are items of a parameter line */
	{ "steps", required_argument, NULL, OPTION_ITEM },
	{ "guidance", required_argument, NULL, OPTION_ITEM },
	{ "cfg", required_argument, NULL, OPTION_ITEM },
	{ "seed", required_argument, NULL, OPTION_ITEM },
	{ "sampler", required_argument, NULL, OPTION_ITEM },
	{ "scheduler", required_argument, NULL, OPTION_ITEM },
	{ "rng", required_argument, NULL, OPTION_ITEM },
	{ "lora", required_argument, NULL, OPTION_ITEM },
	{ "set", required_argument, NULL, OPTION_ITEM },
	{ 0 },
};

static enum status read_side(const char *side, int64_t *out, struct recipe_fields *fields)
{
	if (!text_read_int(optarg, 1, PNG_SIDE_MAX, out))
		return status_fail(
			STATUS_INVALID, "--%s: '%.40s' is no whole number from 1 to %d", side, optarg, PNG_SIDE_MAX);
	fields->has_size = true; /* a side that is not given stays 0: the model's own */
	return STATUS_OK;
}

static enum status read_item(const char *option, struct recipe_fields *fields)
{
	return prompt_item_set(strcmp(option, "cfg") == 0 ? "CFG scale" : option, optarg, fields);
}

static enum status read_option(int option, int index, struct generation *g)
{
	switch (option) {
	case 'o':
		g->output = optarg;
		return STATUS_OK;
	case 'v':
		g->verbose = true;
		return STATUS_OK;
	case OPTION_TRACE:
		g->trace = optarg;
		return STATUS_OK;
	case OPTION_NEGATIVE:
		return text_copy(optarg, strlen(optarg), &g->fields.negative);
	case OPTION_WIDTH:
		return read_side("width", &g->fields.width, &g->fields);
	case OPTION_HEIGHT:
		return read_side("height", &g->fields.height, &g->fields);
	default:
		return read_item(options[index].name, &g->fields);
	}
}

/* 0, or the exit status. */
static int read_words(int argc, char **argv, struct generation *g)
{
	int option, index = 0;

	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":o:v", options, &index)) != -1) {
		enum status s;

		if (option == '?' || option == ':')
			return command_bad_option(name, option, argv);
		s = read_option(option, index, g);
		if (s == STATUS_INVALID)
			return command_usage(name, "%s", status_text());
		if (s != STATUS_OK)
			return command_fail(s);
	}
	if (argc - optind != 1)
		return command_usage(name, argc == optind ? "the prompt is missing" : "one prompt, please: quote it");
	return 0;
}

/* ---- signals ------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

/* The first signal ends the job between two steps; whoever cannot wait sends another. */
static void on_signal(int number)
{
	if (interrupted)
		_exit(130);
	interrupted = 1;
}

static void watch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* ---- prompt -------------------------------------------------------------------------------------------------- */

static enum status read_input(struct bytes *out)
{
	char block[65536];
	ssize_t n;

	while ((n = read(STDIN_FILENO, block, sizeof block)) != 0) {
		if (n < 0 && errno == EINTR && interrupted)
			return status_fail(STATUS_CANCELLED, "interrupted");
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return status_fail(STATUS_IO, "standard input: %s", strerror(errno));
		TRY(bytes_add(out, block, (size_t)n));
		if (out->len > RECIPE_PROMPT_MAX)
			return status_fail(STATUS_INVALID, "standard input: longer than 1 MiB");
	}
	return STATUS_OK;
}

/* A prompt file on standard input; options win over it. */
static enum status read_prompt_file(struct recipe_fields *fields)
{
	struct recipe_fields file = { 0 };
	struct bytes text = { 0 };
	enum status s = read_input(&text);

	if (s == STATUS_OK)
		s = prompt_parse(text.data ? (char *)text.data : "", text.len, &file);
	if (s == STATUS_INVALID)
		status_prefix(s, "the prompt on standard input: ");
	if (s == STATUS_OK && fields->has_size && file.has_size) {
		fields->width = fields->width ? fields->width : file.width;
		fields->height = fields->height ? fields->height : file.height;
	}
	if (s == STATUS_OK)
		s = recipe_fields_inherit(fields, &file);
	recipe_fields_free(&file);
	bytes_free(&text);
	return s;
}

static enum status read_prompt(const char *word, struct recipe_fields *fields)
{
	if (strcmp(word, "-") == 0)
		return read_prompt_file(fields);
	return text_copy(word, strlen(word), &fields->prompt);
}

/* ---- recipe -------------------------------------------------------------------------------------------------- */

static enum status find_model(struct generation *g)
{
	const char *wanted = g->config.model_asked ? NULL : g->fields.model;

	g->where = config_find_model(&g->config, wanted);
	if (!g->where)
		return status_fail(STATUS_NO_MODEL, "no model '%.60s' is configured (see `promptfs models`)", wanted);
	return model_open(g->where->path, g->where->name, &g->model);
}

/* 32 bits, which is what both generators tell apart, and what one can read out aloud. */
static enum status draw_seed(struct recipe_fields *fields)
{
	uint32_t seed;

	if (!fields->has_random_seed || fields->has_seed)
		return STATUS_OK;
	if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		return status_fail(STATUS_IO, "no random seed: %s", strerror(errno));
	fields->has_seed = true;
	fields->seed = seed;
	return STATUS_OK;
}

static enum status resolve(struct generation *g)
{
	TRY(find_model(g));
	TRY(draw_seed(&g->fields));
	if (g->fields.has_size && g->where->defaults.has_size) {
		g->fields.width = g->fields.width ? g->fields.width : g->where->defaults.width;
		g->fields.height = g->fields.height ? g->fields.height : g->where->defaults.height;
	}
	TRY(recipe_fields_inherit(&g->fields, &g->where->defaults));
	TRY(recipe_resolve(&g->fields, &g->model, &g->recipe));
	TRY(contents_find(&g->config, true, &g->recipe));
	return config_check_size(&g->config, g->recipe.width, g->recipe.height);
}

/* ---- picture ------------------------------------------------------------------------------------------------- */

static bool is_cancelled(void *context)
{
	return interrupted;
}

static void on_progress(void *context, const struct engine_progress *p)
{
	struct generation *g = context;

	g->last = *p;
	progress_show(&g->bar, p);
}

static enum status open_engine(struct generation *g)
{
	char packed[PATH_MAX + 8];
	struct engine_options o = { .device = *g->where->device ? g->where->device : g->config.device,
		.threads = g->config.threads,
		.memory_limit = g->config.memory_limit,
		.packed = packed,
		.packed_limit = g->config.packed_limit };

	config_packed(&g->config, packed);
	if (setpriority(PRIO_PROCESS, 0, g->config.nice) != 0)
		log_warn("nice %d: %s", g->config.nice, strerror(errno));
	TRY(config_dtype(*g->where->dtype ? g->where->dtype : g->config.dtype, &o.dtype));
	TRY(engine_open(&o, &g->engine));
	if (*engine_about(g->engine))
		log_info("device %s: %s", engine_device(g->engine), engine_about(g->engine));
	return STATUS_OK;
}

/* Without a cache the picture is made all the same. */
static void open_cache(struct generation *g)
{
	if (cache_open(g->config.cache, g->config.cache_limit, &g->cache) != 0)
		log_warn("no cache: %s", cache_text());
}

static bool fetch(struct generation *g, struct bytes *bare)
{
	struct cache_object object;
	int width, height;
	bool good;

	if (!g->cache || g->trace || cache_get(g->cache, g->key, &object) != 0)
		return false;
	good = png_check(object.data, object.len, &width, &height) == STATUS_OK && width == g->recipe.width &&
	       height == g->recipe.height && bytes_add(bare, object.data, object.len) == STATUS_OK;
	cache_release(&object);
	return good;
}

static enum status make(struct generation *g, struct bytes *bare)
{
	struct engine_job job = { .model = &g->model,
		.recipe = &g->recipe,
		.trace = g->trace,
		.cancelled = is_cancelled,
		.progress = on_progress,
		.context = g };
	enum status s = engine_generate(g->engine, &job, bare);

	progress_clear(&g->bar);
	TRY(s);
	if (g->cache &&
		cache_put(g->cache, g->key, bare->data, bare->len, (char *)g->canonical.data, g->canonical.len) != 0)
		log_warn("the picture is not kept: %s", cache_text());
	return STATUS_OK;
}

static void report(const struct generation *g, bool cached)
{
	char memory[COMMAND_BYTES_LEN];

	if (!g->verbose && !isatty(STDERR_FILENO) && log_level() < LOG_LEVEL_INFO)
		return;
	if (g->fields.has_random_seed)
		fprintf(stderr, "seed %llu\n", (unsigned long long)g->recipe.seed);
	command_print_bytes(engine_peak_memory(), memory);
	fprintf(stderr, "peak memory %s", memory);
	for (int i = 0; i < STAGE_COUNT && !cached; i++)
		fprintf(stderr, ", %s %.2f s", stage_name((enum stage)i), g->last.seconds[i]);
	fprintf(stderr, cached ? ", from the cache\n" : " (%s, %s)\n", engine_device(g->engine),
		dtype_name(engine_dtype(g->engine)));
}

static enum status paint(struct generation *g)
{
	struct bytes bare = { 0 }, picture = { 0 };
	bool cached = false;
	enum status s;

	TRY(output_check(g->output));
	TRY(open_engine(g));
	open_cache(g);
	if (!hashes_recall(g->config.cache, g->model.identity, g->model.hash))
		progress_say(&g->bar, "reading the model's files (once), for the key of its pictures");
	TRY(hashes_settle(g->config.cache, &g->model));
	TRY(contents_hash(g->config.cache, &g->recipe));
	TRY(key_make(&g->recipe, g->model.hash, engine_dtype(g->engine), &g->canonical, g->key));
	s = interrupted ? status_fail(STATUS_CANCELLED, "interrupted") : STATUS_OK;
	if (s == STATUS_OK)
		cached = fetch(g, &bare);
	if (s == STATUS_OK && !cached) {
		bare.len = 0;
		s = make(g, &bare);
	}
	if (s == STATUS_OK)
		s = dress_png(&g->recipe, &g->model, bare.data, bare.len, &picture);
	if (s == STATUS_OK)
		s = output_write(g->output, picture.data, picture.len);
	if (s == STATUS_OK)
		report(g, cached);
	bytes_free(&bare);
	bytes_free(&picture);
	return s;
}

static void generation_fini(struct generation *g)
{
	engine_close(g->engine);
	cache_close(g->cache);
	bytes_free(&g->canonical);
	recipe_free(&g->recipe);
	recipe_fields_free(&g->fields);
	config_free(&g->config);
}

int cmd_generate(int argc, char **argv)
{
	struct generation g = { .output = "out.png", .bar = progress_on(stderr) };
	int code = command_config(&argc, argv, &g.config);
	enum status s;

	if (code)
		return code;
	code = read_words(argc, argv, &g);
	if (code == 0) {
		watch_signals();
		s = read_prompt(argv[optind], &g.fields);
		if (s == STATUS_OK)
			s = resolve(&g);
		if (s == STATUS_OK)
			s = paint(&g);
		code = s == STATUS_OK ? 0 : command_fail(s);
	}
	generation_fini(&g);
	return code;
}

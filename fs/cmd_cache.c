/* promptfs cache stat|ls|verify|gc|rm|pin|unpin: the results on disk.  Keys may be shortened as long as they are
 * unique. */
#include "fs/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache.h"

static const char name[] = "cache";

enum { PREFIX_MIN = 4, PROMPT_COLUMNS = 60 };

static int fail(void)
{
	return command_fail(status_fail(STATUS_IO, "%s", cache_text()));
}

static int do_stat(struct cache *c, const struct config *config, int argc, char **argv)
{
	struct cache_stat st;
	char bytes[COMMAND_BYTES_LEN], limit[COMMAND_BYTES_LEN];

	if (cache_stat(c, &st) != 0)
		return fail();
	command_print_bytes(st.bytes, bytes);
	command_print_bytes(config->cache_limit, limit);
	printf("folder   %s\nobjects  %" PRIu64 "\npinned   %" PRIu64 "\nsize     %s (%" PRIu64
	       " bytes)\nlimit    %s\n",
		config->cache, st.objects, st.pinned, bytes, st.bytes, config->cache_limit ? limit : "none");
	return 0;
}

/* The prompt in a canonical text: "prompt: LENGTH:TEXT". */
static const char *find_prompt(const char *text)
{
	const char *line = text ? strstr(text, "\nprompt: ") : NULL;
	const char *colon = line ? strchr(line + strlen("\nprompt: "), ':') : NULL;

	return colon ? colon + 1 : "";
}

static void print_entry(struct cache *c, const struct cache_entry *e)
{
	char bytes[COMMAND_BYTES_LEN], when[32], *text = NULL;
	time_t used = (time_t)(e->used_ns / 1000000000);
	struct tm local;

	if (cache_read_text(c, e->key, &text) != 0)
		text = NULL; /* the picture counts, not the note beside it */
	command_print_bytes(e->bytes, bytes);
	strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&used, &local));
	printf("%s %9s  %s  %s ", e->key, bytes, when, e->pinned ? "pinned" : "      ");
	command_print_line(find_prompt(text), PROMPT_COLUMNS, stdout);
	putchar('\n');
	free(text);
}

static int do_ls(struct cache *c, const struct config *config, int argc, char **argv)
{
	struct cache_entry *entries;
	size_t count;

	if (cache_list(c, &entries, &count) != 0)
		return fail();
	for (size_t i = 0; i < count; i++)
		print_entry(c, &entries[i]);
	free(entries);
	return 0;
}

static int do_verify(struct cache *c, const struct config *config, int argc, char **argv)
{
	uint64_t checked, damaged;

	if (cache_verify(c, &checked, &damaged) != 0)
		return fail();
	printf("%" PRIu64 " checked, %" PRIu64 " damaged\n", checked, damaged);
	if (!damaged)
		return 0;
	return command_fail(status_fail(STATUS_CORRUPT,
		"%s: %" PRIu64 " damaged results were removed; they will be made again", config->cache, damaged));
}

static int do_gc(struct cache *c, const struct config *config, int argc, char **argv)
{
	uint64_t bytes = config->cache_limit ? config->cache_limit : UINT64_MAX, removed;

	if (argc > 1)
		return command_usage(name, "gc takes one size");
	if (argc == 1 && !config_read_bytes(argv[0], &bytes))
		return command_usage(name, "'%.40s' is no size as 5GiB", argv[0]);
	if (cache_shrink(c, bytes, &removed) != 0)
		return fail();
	printf("%" PRIu64 " removed\n", removed);
	return 0;
}

/* The whole key of a prefix; STATUS_INVALID when it fits none or several. */
static enum status complete_key(struct cache *c, const char *prefix, char key[CACHE_KEY_LEN + 1])
{
	struct cache_entry *entries;
	size_t count, found = 0, len = strlen(prefix);

	if (len < PREFIX_MIN || len > CACHE_KEY_LEN)
		return status_fail(
			STATUS_INVALID, "'%.40s' is no key: at least %d hex digits, please", prefix, PREFIX_MIN);
	if (cache_list(c, &entries, &count) != 0)
		return status_fail(STATUS_IO, "%s", cache_text());
	for (size_t i = 0; i < count; i++)
		if (strncmp(entries[i].key, prefix, len) == 0 && found++ == 0)
			memcpy(key, entries[i].key, CACHE_KEY_LEN + 1);
	free(entries);
	if (found == 1)
		return STATUS_OK;
	return status_fail(STATUS_INVALID, found ? "%s: several results begin so" : "%s: no such result", prefix);
}

typedef int key_operation(struct cache *c, const char *key);

static int pin(struct cache *c, const char *key)
{
	return cache_pin(c, key, true);
}

static int unpin(struct cache *c, const char *key)
{
	return cache_pin(c, key, false);
}

static int for_keys(struct cache *c, const char *what, int argc, char **argv, key_operation *operation)
{
	char key[CACHE_KEY_LEN + 1];
	int code = 0;

	if (argc < 1)
		return command_usage(name, "%s needs a key (see `promptfs cache ls`)", what);
	for (int i = 0; i < argc; i++) {
		enum status s = complete_key(c, argv[i], key);

		if (s != STATUS_OK)
			code = command_fail(s);
		else if (operation(c, key) != 0)
			code = fail();
	}
	return code;
}

static int do_rm(struct cache *c, const struct config *config, int argc, char **argv)
{
	return for_keys(c, "rm", argc, argv, cache_remove);
}

static int do_pin(struct cache *c, const struct config *config, int argc, char **argv)
{
	return for_keys(c, "pin", argc, argv, pin);
}

static int do_unpin(struct cache *c, const struct config *config, int argc, char **argv)
{
	return for_keys(c, "unpin", argc, argv, unpin);
}

/* takes: how many words may follow; -1: any number. */
static const struct {
	const char *name;
	int (*run)(struct cache *c, const struct config *config, int argc, char **argv);
	int takes;
} verbs[] = {
	{ "stat", do_stat, 0 },
	{ "ls", do_ls, 0 },
	{ "verify", do_verify, 0 },
	{ "gc", do_gc, 1 },
	{ "rm", do_rm, -1 },
	{ "pin", do_pin, -1 },
	{ "unpin", do_unpin, -1 },
};

static int run_verb(const struct config *config, int argc, char **argv)
{
	struct cache *c;
	int code;

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		if (strcmp(verbs[i].name, argv[0]) != 0)
			continue;
		if (verbs[i].takes >= 0 && argc - 1 > verbs[i].takes)
			return command_usage(
				name, "%s: '%.40s' is one word too many", argv[0], argv[1 + verbs[i].takes]);
		/* without the limit: looking must not remove anything */
		if (cache_open(config->cache, 0, &c) != 0)
			return fail();
		code = verbs[i].run(c, config, argc - 1, argv + 1);
		cache_close(c);
		return command_finish() ? 1 : code;
	}
	return command_usage(name, "'%.40s' is none of stat, ls, verify, gc, rm, pin, unpin", argv[0]);
}

int cmd_cache(int argc, char **argv)
{
	static const struct option none[] = { { 0 } };
	struct config config;
	int code = command_config(&argc, argv, &config), option;

	if (code)
		return code;
	optind = 0;
	opterr = 0;
	option = getopt_long(argc, argv, ":", none, NULL);
	if (option != -1)
		code = command_bad_option(name, option, argv);
	else if (optind == argc)
		code = command_usage(name, "say what: stat, ls, verify, gc, rm, pin or unpin");
	else
		code = run_verb(&config, argc - optind, argv + optind);
	config_free(&config);
	return code;
}

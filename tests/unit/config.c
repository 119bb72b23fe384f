/* configuration: order of sources, every key, and errors that name file and line. */
#include "fs/config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/check.h"

static char folder[] = "/tmp/promptfs-config-XXXXXX";
static char file[64];

static void write_file(const char *text)
{
	FILE *f = fopen(file, "w");

	fputs(text, f);
	fclose(f);
}

/* Loads with --config FILE and up to three more words. */
static enum status load(const char *text, const char *a, const char *b, const char *d, struct config *out)
{
	const char *words[] = { "promptfs", "mount", "--config", file, a, b, d, NULL };
	char *argv[8];
	int argc = 0;

	write_file(text);
	for (; words[argc]; argc++)
		argv[argc] = (char *)words[argc];
	argv[argc] = NULL;
	return config_load(&argc, argv, out);
}

static void check_defaults(void)
{
	struct config c;
	char *argv[] = { (char *)"promptfs", (char *)"generate", (char *)"x", NULL }, path[128];
	int argc = 3;

	CHECK("built-in values", config_load(&argc, argv, &c) == STATUS_OK && argc == 3);
	snprintf(path, sizeof path, "%s/data/promptfs", folder);
	CHECK("store under XDG_DATA_HOME", strcmp(c.store, path) == 0);
	snprintf(path, sizeof path, "%s/.cache/promptfs", folder);
	CHECK("cache under HOME when XDG_CACHE_HOME is relative", strcmp(c.cache, path) == 0);
	CHECK("the model that ships",
		config_find_model(&c, NULL) && strcmp(config_find_model(&c, "")->name, "pocket") == 0);
	CHECK("no other model", !config_find_model(&c, "other"));
	CHECK("limits",
		c.queue_limit == 256 && c.width_limit == 4096 && c.cache_limit == 20ull << 30 && c.memory_limit == 0);
	config_free(&c);
}

static const char full[] = "default_model: zit\n"
			   "models:\n"
			   "  zit: { path: models/zit, device: cuda:1, dtype: bf16, preload: true, instances: 2,\n"
			   "         defaults: { size: 1024x512, steps: 9, cfg_scale: 2, negative: blurry } }\n"
			   "  other: { path: /models/other }\n"
			   "loras: ~/loras\n"
			   "limits: { queue: 3, memory: 14GiB, cache: 20GB, size: 2048x1024 }\n"
			   "threads: 2\nlog: debug\nlog_file: /tmp/log\n";

static void check_full(void)
{
	struct config c;
	char path[128];
	const struct config_model *m;

	CHECK("a full file", load(full, NULL, NULL, NULL, &c) == STATUS_OK);
	m = config_find_model(&c, "");
	CHECK("default model", m && strcmp(m->name, "zit") == 0 && c.n_models == 3);
	snprintf(path, sizeof path, "%s/models/zit", folder);
	CHECK("a path starts at the file's folder", m && strcmp(m->path, path) == 0);
	CHECK("model's own values", m && strcmp(m->device, "cuda:1") == 0 && strcmp(m->dtype, "bf16") == 0 &&
					    m->preload && m->instances == 2);
	CHECK("model's defaults", m && m->defaults.width == 1024 && m->defaults.height == 512 &&
					  m->defaults.steps == 9 && m->defaults.has_cfg &&
					  strcmp(m->defaults.negative, "blurry") == 0);
	CHECK("the model that ships comes last", strcmp(c.models[2].name, "pocket") == 0);
	CHECK("limits of the file", c.queue_limit == 3 && c.memory_limit == 14ull << 30 &&
					    c.cache_limit == 20000000000ull && c.width_limit == 2048 &&
					    c.height_limit == 1024);
	snprintf(path, sizeof path, "%s/loras", folder);
	CHECK("home directory", strcmp(c.loras, path) == 0);
	CHECK("threads and log",
		c.threads == 2 && strcmp(c.log_level, "debug") == 0 && strcmp(c.log_file, "/tmp/log") == 0);
	CHECK("size limit",
		config_check_size(&c, 2048, 1024) == STATUS_OK && config_check_size(&c, 1024, 1025) == STATUS_INVALID);
	config_free(&c);
}

static void check_order(void)
{
	struct config c;

	setenv("PROMPTFS_THREADS", "5", 1);
	CHECK("a variable wins over the file", load("threads: 2", NULL, NULL, NULL, &c) == STATUS_OK && c.threads == 5);
	config_free(&c);
	CHECK("an option wins over both",
		load("threads: 2", "--threads", "7", NULL, &c) == STATUS_OK && c.threads == 7);
	config_free(&c);
	CHECK("option with =",
		load("", "--device=ref", "--log=info", NULL, &c) == STATUS_OK && strcmp(c.device, "ref") == 0);
	config_free(&c);
	setenv("PROMPTFS_THREADS", "x", 1);
	CHECK("a wrong variable is named",
		load("", NULL, NULL, NULL, &c) == STATUS_INVALID && strstr(status_text(), "PROMPTFS_THREADS"));
	unsetenv("PROMPTFS_THREADS");
}

static void check_arguments(void)
{
	struct config c;
	char *argv[] = { (char *)"promptfs", (char *)"generate", (char *)"--steps", (char *)"4", (char *)"--threads",
		(char *)"1", (char *)"a", (char *)"--", (char *)"--device", NULL };
	int argc = 9;

	CHECK("other words stay in order", config_load(&argc, argv, &c) == STATUS_OK && argc == 7 &&
						   strcmp(argv[2], "--steps") == 0 && strcmp(argv[4], "a") == 0 &&
						   strcmp(argv[6], "--device") == 0 && !argv[7]);
	config_free(&c);
	CHECK("an option without value",
		load("", "--device", NULL, NULL, &c) == STATUS_INVALID && strstr(status_text(), "--device"));
	CHECK("a wrong option",
		load("", "--dtype", "f31", NULL, &c) == STATUS_INVALID && strstr(status_text(), "--dtype"));
	CHECK("a missing file", setenv("PROMPTFS_CONFIG", "/nonexistent.yaml", 1) == 0 &&
					config_load(&argc, argv, &c) == STATUS_IO &&
					strstr(status_text(), "/nonexistent.yaml"));
	unsetenv("PROMPTFS_CONFIG");
}

static void check_models(void)
{
	struct config c;
	char dir[96];

	snprintf(dir, sizeof dir, "%s/zit/", folder);
	mkdir(dir, 0755);
	CHECK("--model with a folder", load("", "--model", dir, NULL, &c) == STATUS_OK &&
					       strcmp(config_find_model(&c, "")->name, "zit") == 0 &&
					       strncmp(config_find_model(&c, "")->path, folder, strlen(folder)) == 0);
	config_free(&c);
	CHECK("--model with a folder whose name is taken",
		load(full, "--model", dir, NULL, &c) == STATUS_OK &&
			strcmp(config_find_model(&c, "")->name, "zit-2") == 0);
	config_free(&c);
	CHECK("--model with a name", load(full, "--model", "other", NULL, &c) == STATUS_OK &&
					     strcmp(config_find_model(&c, "")->path, "/models/other") == 0);
	config_free(&c);
	CHECK("--model with an unknown name",
		load(full, "--model", "nope", NULL, &c) == STATUS_NO_MODEL && strstr(status_text(), "nope"));
}

static const struct {
	const char *text, *says;
} wrong[] = {
	{ "colour: red", ":1: colour: unknown key" },
	{ "threads: 1\nlimits: { queue: 1, depth: 2 }", ":2: depth: unknown key" },
	{ "models:\n  a: { path: /x, speed: 1 }", ":2: speed: unknown key" },
	{ "models:\n  a:\n    path: /x\n    defaults: { colour: 1 }", ":4: defaults: unknown key" },
	{ "models:\n  a:\n    path: /x\n    defaults: { model: b }", ":4: model: unknown key" },
	{ "models:\n  a: { path: /x, defaults: { size: 5 } }", "size as 768x512" },
	{ "models:\n  a: { device: cpu }", ":2: a: the path is missing" },
	{ "models:\n  a: { path: /x, device: tpu }", "no device" },
	{ "models:\n  a: { path: /x, preload: maybe }", "neither true nor false" },
	{ "models:\n  a: { path: /x, instances: 0 }", "1 to 64" },
	{ "models: [a]", ":1: models: wants" },
	{ "models:\n  a/b: { path: /x }", "no '/'" },
	{ "threads: 1\nthreads: 2", ":2: threads: the key is there twice" },
	{ "threads: many", ":1: threads: 'many'" },
	{ "threads: -1", "threads" },
	{ "threads: [1]", "one value" },
	{ "limits: { memory: 14Gigs }", "no size as 14GiB" },
	{ "limits: { cache: 99999999999TiB }", "no size as 14GiB" },
	{ "limits: { size: 4096 }", "no size as 4096x4096" },
	{ "log: loud", "no level" },
	{ "limits.queue: 1", "unknown key" },
	{ "store: ''", "empty" },
	{ "a: [", "c.yaml:" },
	{ "- a", ":1: wants" },
	{ "threads: 1\n---\nthreads: 2", "second document" },
	{ "\x80", "c.yaml:" },
};

static void check_wrong(void)
{
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct config c;
		enum status s = load(wrong[i].text, NULL, NULL, NULL, &c);

		check_case(s == STATUS_CORRUPT && strstr(status_text(), wrong[i].says) && strstr(status_text(), file),
			s ? status_text() : "accepted", "wrong file %zu: %s", i, wrong[i].says);
		if (s == STATUS_OK)
			config_free(&c);
	}
}

static void check_bytes(void)
{
	static const struct {
		const char *text;
		int64_t bytes; /* -1: refused */
	} cases[] = {
		{ "0", 0 },
		{ "1048576", 1 << 20 },
		{ "5B", 5 },
		{ "2K", 2048 },
		{ "2kB", 2000 },
		{ "3 MiB", 3 << 20 },
		{ "1T", 1ll << 40 },
		{ "", -1 },
		{ "-1", -1 },
		{ "1.5G", -1 },
		{ "G", -1 },
		{ "1GiBs", -1 },
		{ "1X", -1 },
		{ "9999999999999999999", -1 },
		{ "9000PiB", -1 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint64_t bytes = 77;
		bool good = config_read_bytes(cases[i].text, &bytes);

		check_case(cases[i].bytes < 0 ? !good && bytes == 77 : good && bytes == (uint64_t)cases[i].bytes, NULL,
			"bytes: '%s'", cases[i].text);
	}
}

int main(void)
{
	if (!mkdtemp(folder))
		return 2;
	snprintf(file, sizeof file, "%s/c.yaml", folder);
	setenv("HOME", folder, 1);
	setenv("XDG_CACHE_HOME", "relative", 1);
	unsetenv("XDG_CONFIG_HOME");
	snprintf(file, sizeof file, "%s/data", folder);
	setenv("XDG_DATA_HOME", file, 1);
	snprintf(file, sizeof file, "%s/c.yaml", folder);
	check_defaults();
	check_full();
	check_order();
	check_arguments();
	check_models();
	check_wrong();
	check_bytes();
	unlink(file);
	snprintf(file, sizeof file, "%s/zit", folder);
	rmdir(file);
	rmdir(folder);
	return check_result();
}

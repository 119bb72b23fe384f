/* config: where each setting comes from, and the model that ships.  The file itself is read by config_yaml.c. */
#include "fs/config.h"

#include <ctype.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/png.h"
#include "engine/text.h"
#include "fs/config_yaml.h"

#ifndef PROMPTFS_DATADIR
#define PROMPTFS_DATADIR "/usr/local/share/promptfs"
#endif

static const char shipped_name[] = "pocket";

enum kind { KIND_PATH, KIND_MODEL, KIND_DEVICE, KIND_DTYPE, KIND_LEVEL, KIND_INT, KIND_BYTES, KIND_SIZE };

/* The variable of an option is PROMPTFS_ and its name in capitals. */
static const struct key {
	const char *name, *option;
	enum kind kind;
	size_t offset;
	int64_t high; /* of integers */
} keys[] = {
	{ "default_model", "model", KIND_MODEL, offsetof(struct config, default_model), 0 },
	{ "loras", "loras", KIND_PATH, offsetof(struct config, loras), 0 },
	{ "store", "store", KIND_PATH, offsetof(struct config, store), 0 },
	{ "cache", "cache", KIND_PATH, offsetof(struct config, cache), 0 },
	{ "device", "device", KIND_DEVICE, offsetof(struct config, device), 0 },
	{ "dtype", "dtype", KIND_DTYPE, offsetof(struct config, dtype), 0 },
	{ "threads", "threads", KIND_INT, offsetof(struct config, threads), 1024 },
	{ "nice", "nice", KIND_INT, offsetof(struct config, nice), 19 },
	{ "limits.queue", "queue-limit", KIND_INT, offsetof(struct config, queue_limit), 1000000 },
	{ "limits.queue_user", "queue-user-limit", KIND_INT, offsetof(struct config, queue_user_limit), 1000000 },
	{ "limits.memory", "memory-limit", KIND_BYTES, offsetof(struct config, memory_limit), 0 },
	{ "limits.cache", "cache-limit", KIND_BYTES, offsetof(struct config, cache_limit), 0 },
	{ "limits.packed", "packed-limit", KIND_BYTES, offsetof(struct config, packed_limit), 0 },
	{ "limits.size", "size-limit", KIND_SIZE, offsetof(struct config, width_limit), 0 },
	{ "log", "log", KIND_LEVEL, offsetof(struct config, log_level), 0 },
	{ "log_file", "log-file", KIND_PATH, offsetof(struct config, log_file), 0 },
};

enum { N_KEYS = sizeof keys / sizeof *keys };

/* ---- values -------------------------------------------------------------------------------------------------- */

bool config_read_bytes(const char *text, uint64_t *out)
{
	static const char letters[] = "kmgtp";
	char digits[24];
	size_t len = strspn(text, "0123456789");
	const char *unit = text + len, *letter;
	uint64_t factor = 1, value;

	if (len == 0 || len >= sizeof digits)
		return false;
	memcpy(digits, text, len);
	digits[len] = 0;
	if (!text_read_seed(digits, &value))
		return false;
	unit += *unit == ' ';
	letter = *unit ? strchr(letters, tolower((unsigned char)*unit)) : NULL;
	if (letter) {
		bool decimal = strcasecmp(unit + 1, "b") == 0; /* 14GB; 14G and 14GiB are binary */

		if (!decimal && unit[1] && strcasecmp(unit + 1, "ib") != 0)
			return false;
		for (const char *l = letters; l <= letter; l++)
			factor *= decimal ? 1000 : 1024;
	} else if (*unit && strcasecmp(unit, "b") != 0) {
		return false;
	}
	if (value > INT64_MAX / factor)
		return false;
	*out = value * factor;
	return true;
}

static const char *home(void)
{
	const char *dir = getenv("HOME");
	const struct passwd *user;

	if (dir && *dir == '/')
		return dir;
	user = getpwuid(getuid());
	return user && user->pw_dir && *user->pw_dir == '/' ? user->pw_dir : "/";
}

enum status config_path(const char *value, const char *base, char out[PATH_MAX])
{
	const char *rest = value;
	char dir[PATH_MAX] = "", path[PATH_MAX];

	if (!*value)
		return status_fail(STATUS_INVALID, "the path is empty");
	if (strncmp(value, "~/", 2) == 0) {
		snprintf(dir, sizeof dir, "%s", home());
		rest = value + 2;
	} else if (*value != '/' && base) {
		snprintf(dir, sizeof dir, "%s", base);
	} else if (*value != '/' && !getcwd(dir, sizeof dir)) {
		return status_fail(STATUS_IO, "the working directory is gone; '%s' needs one", value);
	}
	if (snprintf(path, sizeof path, "%s%s%s", dir, *dir ? "/" : "", rest) >= (int)sizeof path)
		return status_fail(STATUS_INVALID, "the path is too long");
	memcpy(out, path, PATH_MAX);
	return STATUS_OK;
}

void config_packed(const struct config *c, char out[PATH_MAX + 8])
{
	snprintf(out, PATH_MAX + 8, "%s/packed", c->cache);
}

enum status config_dtype(const char *name, enum dtype *out)
{
	if (!*name) {
		*out = DTYPE_OTHER;
		return STATUS_OK;
	}
	if (strcmp(name, "fp8") == 0)
		name = dtype_name(DTYPE_F8_E4M3);
	for (enum dtype d = DTYPE_F32; d < DTYPE_OTHER; d++)
		if (d != DTYPE_U8 && d != DTYPE_I64 && strcmp(dtype_name(d), name) == 0) {
			*out = d;
			return STATUS_OK;
		}
	return status_fail(STATUS_INVALID, "'%.20s' is no dtype (f32, bf16, int8, fp8)", name);
}

static bool is_device(const char *value)
{
	int64_t number;

	return strcmp(value, "auto") == 0 || strcmp(value, "cpu") == 0 || strcmp(value, "ref") == 0 ||
	       (strncmp(value, "cuda:", 5) == 0 && text_read_int(value + 5, 0, 1023, &number));
}

static bool is_level(const char *value)
{
	static const char *const levels[] = { "error", "warn", "info", "debug", "trace" };

	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
		if (strcmp(levels[i], value) == 0)
			return true;
	return false;
}

static enum status copy(const char *value, char *out, size_t size)
{
	if (!*value || (size_t)snprintf(NULL, 0, "%s", value) >= size)
		return status_fail(STATUS_INVALID, "'%.60s' is %s", value, *value ? "too long" : "empty");
	snprintf(out, size, "%s", value);
	return STATUS_OK;
}

static enum status set_size(struct config *c, const char *value)
{
	int64_t width, height;

	if (!text_read_size(value, PNG_SIDE_MAX, &width, &height))
		return status_fail(
			STATUS_INVALID, "'%.60s' is no size as 4096x4096 (each side 1 to %d)", value, PNG_SIDE_MAX);
	c->width_limit = (int)width;
	c->height_limit = (int)height;
	return STATUS_OK;
}

static enum status set_value(struct config *c, const struct key *key, const char *value, const char *base)
{
	void *at = (char *)c + key->offset;
	enum dtype dtype;
	int64_t number;

	switch (key->kind) {
	case KIND_PATH:
		return config_path(value, base, at);
	case KIND_MODEL:
		return copy(value, at, sizeof c->default_model);
	case KIND_DEVICE:
		return is_device(value)
			       ? copy(value, at, sizeof c->device)
			       : status_fail(STATUS_INVALID, "'%.60s' is no device (ref, cpu, cuda:N, auto)", value);
	case KIND_DTYPE:
		TRY(config_dtype(value, &dtype));
		return copy(value, at, sizeof c->dtype);
	case KIND_LEVEL:
		return is_level(value) ? copy(value, at, sizeof c->log_level)
				       : status_fail(STATUS_INVALID,
						 "'%.60s' is no level (error, warn, info, debug, trace)", value);
	case KIND_INT:
		if (!text_read_int(value, 0, key->high, &number))
			return status_fail(STATUS_INVALID, "'%.60s' is no whole number from 0 to %lld", value,
				(long long)key->high);
		*(int *)at = (int)number;
		return STATUS_OK;
	case KIND_BYTES:
		return config_read_bytes(value, at) ? STATUS_OK
						    : status_fail(STATUS_INVALID, "'%.60s' is no size as 14GiB", value);
	case KIND_SIZE:
		return set_size(c, value);
	}
	return STATUS_INTERNAL;
}

enum status config_set(struct config *c, const char *key, const char *value, const char *base, bool *known)
{
	for (int i = 0; i < N_KEYS; i++)
		if (strcmp(keys[i].name, key) == 0) {
			*known = true;
			return set_value(c, &keys[i], value, base);
		}
	*known = false;
	return status_fail(STATUS_INVALID, "no such key");
}

/* ---- sources ------------------------------------------------------------------------------------------------- */

/* The key of "--x" or "--x=V", N_KEYS for --config, -1 for what is no common option. */
static int find_option(const char *argument)
{
	size_t len;

	if (strncmp(argument, "--", 2) != 0)
		return -1;
	argument += 2;
	len = strcspn(argument, "=");
	for (int i = 0; i < N_KEYS; i++)
		if (strlen(keys[i].option) == len && strncmp(keys[i].option, argument, len) == 0)
			return i;
	return len == 6 && strncmp(argument, "config", 6) == 0 ? N_KEYS : -1;
}

int config_option_words(const char *argument)
{
	if (find_option(argument) < 0)
		return 0;
	return strchr(argument, '=') ? 1 : 2;
}

/* Takes the common options out of argv; values[N_KEYS] is that of --config. */
static enum status take_options(int *argc, char **argv, const char *values[N_KEYS + 1])
{
	int kept = 0, i = 0;

	for (; i < *argc && strcmp(argv[i], "--") != 0; i++) {
		int key = i > 0 ? find_option(argv[i]) : -1;
		const char *equals = strchr(argv[i], '=');

		if (key < 0) {
			argv[kept++] = argv[i];
			continue;
		}
		if (!equals && i + 1 >= *argc)
			return status_fail(STATUS_INVALID, "option %s needs a value", argv[i]);
		values[key] = equals ? equals + 1 : argv[++i];
	}
	for (; i < *argc; i++)
		argv[kept++] = argv[i];
	argv[kept] = NULL;
	*argc = kept;
	return STATUS_OK;
}

static const char *variable(const char *option, char name[40])
{
	const char *value;
	size_t len = (size_t)snprintf(name, 40, "PROMPTFS_%s", option);

	for (size_t i = 0; i < len; i++)
		name[i] = name[i] == '-' ? '_' : (char)toupper((unsigned char)name[i]);
	value = getenv(name);
	return value && *value ? value : NULL;
}

static enum status apply_variables(struct config *c)
{
	char name[40];

	for (int i = 1; i < N_KEYS; i++) { /* 0 is the model, which load() takes */
		const char *value = variable(keys[i].option, name);
		enum status s = value ? set_value(c, &keys[i], value, NULL) : STATUS_OK;

		if (s != STATUS_OK)
			return status_prefix(s, "%s: ", name);
	}
	return STATUS_OK;
}

static enum status apply_options(struct config *c, const char *const values[N_KEYS])
{
	for (int i = 0; i < N_KEYS; i++) {
		enum status s = values[i] ? set_value(c, &keys[i], values[i], NULL) : STATUS_OK;

		if (s != STATUS_OK)
			return status_prefix(s, "--%s: ", keys[i].option);
	}
	return STATUS_OK;
}

/* XDG: a relative path in the variable is to be ignored. */
static void xdg_path(const char *name, const char *fallback, const char *rest, char out[PATH_MAX])
{
	const char *dir = getenv(name);

	if (dir && *dir == '/')
		snprintf(out, PATH_MAX, "%s/promptfs%s", dir, rest);
	else
		snprintf(out, PATH_MAX, "%s/%s/promptfs%s", home(), fallback, rest);
}

static void set_built_in(struct config *c)
{
	snprintf(c->default_model, sizeof c->default_model, "%s", shipped_name);
	xdg_path("XDG_DATA_HOME", ".local/share", "", c->store);
	xdg_path("XDG_CACHE_HOME", ".cache", "", c->cache);
	xdg_path("XDG_DATA_HOME", ".local/share", "/loras", c->loras);
	snprintf(c->device, sizeof c->device, "auto");
	snprintf(c->log_level, sizeof c->log_level, "warn");
	c->cache_limit = 20ull << 30;
	c->packed_limit = 32ull << 30;
	c->queue_limit = 256;
	c->width_limit = c->height_limit = 4096;
}

static enum status read_file(const char *asked, struct config *c)
{
	char path[PATH_MAX], name[40];
	const char *file = asked ? asked : variable("config", name);

	if (file)
		TRY(config_path(file, NULL, path));
	else
		xdg_path("XDG_CONFIG_HOME", ".config", "/config.yaml", path);
	if (!file && access(path, F_OK) != 0)
		return STATUS_OK;
	TRY(config_yaml_read(path, c));
	snprintf(c->file, sizeof c->file, "%s", path);
	return STATUS_OK;
}

/* ---- models -------------------------------------------------------------------------------------------------- */

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static enum status add_model(struct config *c, const char *name, const char *path)
{
	struct config_model *more = realloc(c->models, (size_t)(c->n_models + 1) * sizeof *more);
	struct config_model *m;

	if (!more)
		return status_fail(STATUS_NO_MEMORY, "no memory for %d models", c->n_models + 1);
	c->models = more;
	m = &more[c->n_models++];
	*m = (struct config_model){ .instances = 1 };
	snprintf(m->name, sizeof m->name, "%s", name);
	snprintf(m->path, sizeof m->path, "%s", path);
	return STATUS_OK;
}

/* Beside the binary in a build tree (build/<variant>/promptfs), else where it was installed. */
static void find_shipped(char path[PATH_MAX])
{
	/* beside the program in the tree it was built in; beside the folder it was installed in */
	static const char *const places[] = { "../../models", "../share/promptfs/models" };
	const char *dir = getenv("PROMPTFS_MODELS");
	char exe[PATH_MAX - 64], beside[PATH_MAX], *slash;
	ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);

	if (dir && *dir) {
		snprintf(path, PATH_MAX, "%s/%s", dir, shipped_name);
		return;
	}
	exe[len > 0 ? len : 0] = 0;
	slash = strrchr(exe, '/');
	if (slash)
		*slash = 0;
	for (size_t i = 0; slash && i < sizeof places / sizeof places[0]; i++) {
		snprintf(beside, sizeof beside, "%s/%s/%s", exe, places[i], shipped_name);
		if (is_folder(beside) && realpath(beside, path))
			return;
	}
	snprintf(path, PATH_MAX, "%s/models/%s", PROMPTFS_DATADIR, shipped_name);
}

static const struct config_model *find_exact(const struct config *c, const char *name)
{
	for (int i = 0; i < c->n_models; i++)
		if (strcmp(c->models[i].name, name) == 0)
			return &c->models[i];
	return NULL;
}

/* "random:NAME": the configurations of models/random/NAME beside the model that ships; without weights. */
static enum status add_random(struct config *c, const char *asked, const char *shipped)
{
	const char *slash = strrchr(shipped, '/'), *given = asked + strlen(CONFIG_RANDOM);
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%.*s/random/%s", slash ? (int)(slash - shipped) : 0, shipped, given) >=
			(int)sizeof path ||
		!*given || strchr(given, '/') || !is_folder(path))
		return status_fail(STATUS_NO_MODEL, "no model '%.60s': there are no such configurations", asked);
	snprintf(c->default_model, sizeof c->default_model, "%.60s", asked);
	return add_model(c, c->default_model, path);
}

/* A model by its folder, under the folder's name, or NAME-2 where that is taken. */
static enum status add_by_path(struct config *c, const char *given)
{
	char path[PATH_MAX], name[64];
	const char *base;
	size_t len;

	TRY(config_path(given, NULL, path));
	for (len = strlen(path); len > 1 && path[len - 1] == '/';)
		path[--len] = 0;
	base = strrchr(path, '/') + 1;
	snprintf(name, sizeof name, "%.50s", *base ? base : "model");
	for (int n = 2; find_exact(c, name); n++)
		snprintf(name, sizeof name, "%.50s-%d", *base ? base : "model", n);
	snprintf(c->default_model, sizeof c->default_model, "%s", name);
	return add_model(c, name, path);
}

static enum status settle_models(struct config *c, const char *asked)
{
	const struct config_model *found;
	char path[PATH_MAX];

	find_shipped(path);
	if (!find_exact(c, shipped_name))
		TRY(add_model(c, shipped_name, path));
	found = find_exact(c, asked);
	if (found) {
		memmove(c->default_model, found->name, sizeof c->default_model);
		return STATUS_OK;
	}
	if (strncmp(asked, CONFIG_RANDOM, strlen(CONFIG_RANDOM)) == 0)
		return add_random(c, asked, path);
	if (strchr(asked, '/') || is_folder(asked))
		return add_by_path(c, asked);
	return status_fail(STATUS_NO_MODEL,
		"no model '%s': neither in the configuration nor a folder (see `promptfs models`)", asked);
}

const struct config_model *config_find_model(const struct config *c, const char *name)
{
	return find_exact(c, name && *name ? name : c->default_model);
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

static enum status load(int *argc, char **argv, struct config *c)
{
	const char *values[N_KEYS + 1] = { NULL };
	char path[PATH_MAX], name[40];
	const char *model;

	TRY(take_options(argc, argv, values));
	set_built_in(c);
	TRY(read_file(values[N_KEYS], c));
	/* a path to a model may be longer than a name: it is not stored in default_model */
	model = values[0] ? values[0] : variable("model", name);
	c->model_asked = values[0] != NULL;
	values[0] = NULL;
	if (model)
		snprintf(path, sizeof path, "%s", model);
	TRY(apply_variables(c));
	TRY(apply_options(c, values));
	return settle_models(c, model ? path : c->default_model);
}

enum status config_load(int *argc, char **argv, struct config *out)
{
	struct config *c = calloc(1, sizeof *c);
	enum status s;

	if (!c)
		return status_fail(STATUS_NO_MEMORY, "no memory for the configuration");
	s = load(argc, argv, c);
	if (s == STATUS_OK)
		*out = *c;
	else
		config_free(c);
	free(c);
	return s;
}

void config_free(struct config *c)
{
	for (int i = 0; i < c->n_models; i++)
		recipe_fields_free(&c->models[i].defaults);
	free(c->models);
	c->models = NULL;
	c->n_models = 0;
}

enum status config_check_size(const struct config *c, int width, int height)
{
	if (width <= c->width_limit && height <= c->height_limit)
		return STATUS_OK;
	return status_fail(STATUS_INVALID,
		"Size: %dx%d is beyond the limit of %dx%d (limits: size in the configuration)", width, height,
		c->width_limit, c->height_limit);
}

/* config_yaml: walks the YAML document of a configuration file; every key is either known or an error with its line. */
#include "fs/config_yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <yaml.h>

#include "engine/text.h"
#include "fs/prompt_items.h"

enum { FILE_MAX = 1 << 20 };

/* What is being read: the document, the file's name and the folder that relative paths start from. */
struct reading {
	yaml_document_t document;
	const char *file;
	char base[PATH_MAX];
	struct config *config;
};

static enum status fail_at(const struct reading *r, const yaml_node_t *node, const char *key)
{
	/* the reason is the text of the failure under way */
	return status_prefix(STATUS_CORRUPT, "%s:%zu: %s%s", r->file, node->start_mark.line + 1, key, *key ? ": " : "");
}

static yaml_node_t *node_of(struct reading *r, yaml_node_item_t index)
{
	return yaml_document_get_node(&r->document, index);
}

/* The text of a scalar, or NULL after a failure. */
static const char *scalar(const struct reading *r, const yaml_node_t *node, const char *key)
{
	const char *text = node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;

	if (text && strlen(text) == node->data.scalar.length)
		return text;
	status_fail(STATUS_CORRUPT, "wants one value");
	fail_at(r, node, key);
	return NULL;
}

typedef enum status entry_reader(struct reading *r, const char *key, yaml_node_t *value, void *context);

static bool is_repeated(struct reading *r, const yaml_node_t *map, const yaml_node_pair_t *pair, const char *key)
{
	for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < pair; p++) {
		const yaml_node_t *other = node_of(r, p->key);

		if (other->type == YAML_SCALAR_NODE && strcmp((const char *)other->data.scalar.value, key) == 0)
			return true;
	}
	return false;
}

static enum status read_map(struct reading *r, yaml_node_t *map, const char *name, entry_reader *read, void *context)
{
	if (map->type != YAML_MAPPING_NODE) {
		status_fail(STATUS_CORRUPT, "wants `key: value` entries");
		return fail_at(r, map, name);
	}
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		yaml_node_t *key_node = node_of(r, p->key);
		const char *key = scalar(r, key_node, name);

		if (!key)
			return STATUS_CORRUPT;
		if (is_repeated(r, map, p, key)) {
			status_fail(STATUS_CORRUPT, "the key is there twice");
			return fail_at(r, key_node, key);
		}
		TRY(read(r, key, node_of(r, p->value), context));
	}
	return STATUS_OK;
}

static enum status unknown_key(struct reading *r, const yaml_node_t *node, const char *key)
{
	status_fail(STATUS_CORRUPT, "unknown key (see `promptfs help config`)");
	return fail_at(r, node, key);
}

/* ---- models -------------------------------------------------------------------------------------------------- */

static enum status read_default(struct reading *r, const char *key, yaml_node_t *value, void *context)
{
	struct recipe_fields *defaults = context;
	const char *text = scalar(r, value, key);
	char name[32];
	size_t len = strlen(key);

	if (!text)
		return STATUS_CORRUPT;
	if (strcmp(key, "negative") == 0)
		return text_copy(text, strlen(text), &defaults->negative);
	if (len >= sizeof name || strcmp(key, "model") == 0)
		return unknown_key(r, value, key);
	for (size_t i = 0; i <= len; i++)
		name[i] = key[i] == '_' ? ' ' : key[i];
	return prompt_item_set(name, text, defaults) == STATUS_OK ? STATUS_OK : fail_at(r, value, "defaults");
}

static enum status read_flag(const char *text, bool *out)
{
	bool yes = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "on") == 0;
	bool no = strcmp(text, "false") == 0 || strcmp(text, "no") == 0 || strcmp(text, "off") == 0;

	if (!yes && !no)
		return status_fail(STATUS_CORRUPT, "'%.20s' is neither true nor false", text);
	*out = yes;
	return STATUS_OK;
}

/* A device or dtype is checked as the common one is. */
static enum status read_checked(struct reading *r, const char *key, const char *text, char *out, size_t size)
{
	struct config *probe = calloc(1, sizeof *probe);
	bool known;
	enum status s = probe ? config_set(probe, key, text, r->base, &known)
			      : status_fail(STATUS_NO_MEMORY, "no memory for the configuration");

	if (s == STATUS_OK)
		snprintf(out, size, "%s", text);
	free(probe);
	return s;
}

static enum status read_model_value(
	struct reading *r, const char *key, const char *text, struct config_model *m, bool *known)
{
	int64_t number;

	*known = true;
	if (strcmp(key, "path") == 0)
		return config_path(text, r->base, m->path);
	if (strcmp(key, "device") == 0)
		return read_checked(r, key, text, m->device, sizeof m->device);
	if (strcmp(key, "dtype") == 0)
		return read_checked(r, key, text, m->dtype, sizeof m->dtype);
	if (strcmp(key, "preload") == 0)
		return read_flag(text, &m->preload);
	if (strcmp(key, "instances") == 0) {
		if (!text_read_int(text, 1, 64, &number))
			return status_fail(STATUS_CORRUPT, "'%.20s' is no whole number from 1 to 64", text);
		m->instances = (int)number;
		return STATUS_OK;
	}
	*known = false;
	return STATUS_OK;
}

static enum status read_model_entry(struct reading *r, const char *key, yaml_node_t *value, void *context)
{
	struct config_model *m = context;
	const char *text;
	bool known;

	if (strcmp(key, "defaults") == 0)
		return read_map(r, value, key, read_default, &m->defaults);
	text = scalar(r, value, key);
	if (!text)
		return STATUS_CORRUPT;
	if (read_model_value(r, key, text, m, &known) != STATUS_OK)
		return fail_at(r, value, key);
	return known ? STATUS_OK : unknown_key(r, value, key);
}

static enum status read_model(struct reading *r, const char *key, yaml_node_t *value, void *context)
{
	struct config *c = context;
	struct config_model *more = realloc(c->models, (size_t)(c->n_models + 1) * sizeof *more), *m;

	if (!more)
		return status_fail(STATUS_NO_MEMORY, "no memory for %d models", c->n_models + 1);
	c->models = more;
	m = &more[c->n_models++];
	*m = (struct config_model){ .instances = 1 };
	if (!*key || strlen(key) >= sizeof m->name || strchr(key, '/')) {
		status_fail(STATUS_CORRUPT, "a model's name has 1 to %zu characters and no '/'", sizeof m->name - 1);
		return fail_at(r, value, key);
	}
	snprintf(m->name, sizeof m->name, "%s", key);
	TRY(read_map(r, value, key, read_model_entry, m));
	if (*m->path)
		return STATUS_OK;
	status_fail(STATUS_CORRUPT, "the path is missing");
	return fail_at(r, value, key);
}

/* ---- the top ------------------------------------------------------------------------------------------------- */

static enum status read_value(struct reading *r, const char *path, const char *key, yaml_node_t *value)
{
	const char *text = scalar(r, value, key);
	bool known = false;
	enum status s = text ? config_set(r->config, path, text, r->base, &known) : STATUS_CORRUPT;

	if (!text)
		return STATUS_CORRUPT;
	if (!known)
		return unknown_key(r, value, key);
	return s == STATUS_OK ? STATUS_OK : fail_at(r, value, key);
}

static enum status read_limit(struct reading *r, const char *key, yaml_node_t *value, void *context)
{
	char path[64];

	snprintf(path, sizeof path, "limits.%.50s", key);
	return read_value(r, path, key, value);
}

static enum status read_top(struct reading *r, const char *key, yaml_node_t *value, void *context)
{
	if (strcmp(key, "models") == 0)
		return read_map(r, value, key, read_model, r->config);
	if (strcmp(key, "limits") == 0)
		return read_map(r, value, key, read_limit, NULL);
	if (strchr(key, '.'))
		return unknown_key(r, value, key);
	return read_value(r, key, key, value);
}

static enum status fail_yaml(const char *file, const yaml_parser_t *parser)
{
	return status_fail(STATUS_CORRUPT, "%s:%zu: %s", file, parser->problem_mark.line + 1,
		parser->problem ? parser->problem : "no YAML");
}

static enum status read_document(struct reading *r, yaml_parser_t *parser)
{
	yaml_node_t *root;
	yaml_document_t next;
	enum status s = STATUS_OK;

	if (!yaml_parser_load(parser, &r->document))
		return fail_yaml(r->file, parser);
	root = yaml_document_get_root_node(&r->document);
	if (root && !(root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0))
		s = read_map(r, root, "", read_top, NULL);
	yaml_document_delete(&r->document);
	if (s != STATUS_OK || !root)
		return s;
	if (!yaml_parser_load(parser, &next))
		return fail_yaml(r->file, parser);
	root = yaml_document_get_root_node(&next);
	if (root)
		s = status_fail(STATUS_CORRUPT, "%s:%zu: a second document", r->file, root->start_mark.line + 1);
	yaml_document_delete(&next);
	return s;
}

static enum status open_file(const char *path, FILE **out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
	struct stat st;

	if (fd < 0)
		return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX && (*out = fdopen(fd, "rb")))
		return STATUS_OK;
	close(fd);
	return status_fail(STATUS_CORRUPT, "%s: no configuration file (a plain file of at most 1 MiB)", path);
}

enum status config_yaml_read(const char *path, struct config *out)
{
	struct reading r = { .file = path, .config = out };
	yaml_parser_t parser;
	FILE *file = NULL;
	enum status s;

	/* the path is absolute; at least its first character stays */
	snprintf(
		r.base, sizeof r.base, "%.*s", path == strrchr(path, '/') ? 1 : (int)(strrchr(path, '/') - path), path);
	TRY(open_file(path, &file));
	if (!yaml_parser_initialize(&parser)) {
		fclose(file);
		return status_fail(STATUS_NO_MEMORY, "%s: no memory", path);
	}
	yaml_parser_set_input_file(&parser, file);
	s = read_document(&r, &parser);
	yaml_parser_delete(&parser);
	fclose(file);
	return s;
}

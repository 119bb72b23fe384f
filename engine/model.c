/* model: describing a model folder, and telling its content apart. */
#include "engine/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/component.h"
#include "engine/content.h"
#include "engine/derive.h"
#include "engine/family.h"
#include "engine/json.h"

static enum status read_pipeline(const json_t *index, const char *path, void *out)
{
	const struct family **family = out;
	const char *pipeline = NULL;

	TRY(json_get_string(index, path, "_class_name", &pipeline));
	if (!pipeline)
		return status_fail(STATUS_CORRUPT, "%s: _class_name, the pipeline, is missing", path);
	*family = family_find(pipeline);
	return *family ? STATUS_OK
		       : status_fail(STATUS_UNSUPPORTED, "%s: pipeline %s is not supported by this version", path,
				 pipeline);
}

static enum status find_family(struct model *m)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof path, "%s/model_index.json", m->path);
	return derive_read_file(path, read_pipeline, &m->family);
}

bool model_is_derived(const struct model *m)
{
	size_t len = strlen(m->path);

	return len > 1 && m->path[len - 1] == '/';
}

/* ---- content ----------------------------------------------------------------------------------------------------- */

enum { PATHS_MAX = 12 };

/* The files and folders that decide the model's pictures. */
struct paths {
	int n;
	char text[PATHS_MAX][PATH_MAX];
	const char *list[PATHS_MAX];
};

static void add_path(struct paths *p, const char *path)
{
	if (p->n == PATHS_MAX || !*path)
		return;
	snprintf(p->text[p->n], PATH_MAX, "%s", path);
	p->list[p->n] = p->text[p->n];
	p->n++;
}

static enum status add_part(void *context, const struct part_kind *kind, const struct component *c)
{
	add_path(context, c->weights);
	return STATUS_OK;
}

/* The weights of a model without index, wherever they were found, and what else would lie in its folder. */
static enum status list_derived(const struct model *m, struct paths *out)
{
	static const char *const others[] = { "scheduler", "tokenizer", "tokenizer_2", "tokenizer_3" };
	char path[PATH_MAX + 32], found[PATH_MAX];

	TRY(m->family->each_part(m, add_part, out));
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", m->path, others[i]);
		if (derive_find_tokenizer(path, found) == STATUS_OK && access(found, F_OK) == 0)
			add_path(out, found);
	}
	return STATUS_OK;
}

static enum status list_paths(const struct model *m, struct paths **out)
{
	struct paths *paths = calloc(1, sizeof *paths);
	enum status status = STATUS_OK;

	if (!paths)
		return status_fail(STATUS_NO_MEMORY, "no memory for a list of files");
	if (model_is_derived(m))
		status = list_derived(m, paths);
	else
		add_path(paths, m->path);
	add_path(paths, m->beside);
	if (status == STATUS_OK)
		*out = paths;
	else
		free(paths);
	return status;
}

static enum status identify(struct model *m)
{
	struct paths *paths;
	enum status status;

	if (m->family->find_beside)
		m->family->find_beside(m, m->beside);
	TRY(list_paths(m, &paths));
	status = content_identify(paths->n, paths->list, m->identity, &m->file_bytes);
	free(paths);
	return status;
}

enum status model_hash_files(const struct model *m, char hash[MODEL_HASH_LEN + 1])
{
	struct paths *paths;
	enum status status;

	TRY(list_paths(m, &paths));
	status = content_hash(paths->n, paths->list, hash);
	free(paths);
	return status;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* A file keeps its name: what is beside a link to it belongs to it, what is beside its target need not. */
static bool resolve_path(const char *path, char out[PATH_MAX])
{
	char plain[PATH_MAX], folder[PATH_MAX], resolved[PATH_MAX];
	size_t len = strlen(path);
	const char *slash;
	struct stat st;

	while (len > 1 && path[len - 1] == '/')
		len--;
	if (snprintf(plain, sizeof plain, "%.*s", (int)len, path) >= (int)sizeof plain)
		return errno = ENAMETOOLONG, false;
	if (stat(plain, &st) != 0 || S_ISDIR(st.st_mode))
		return realpath(plain, out) != NULL;
	slash = strrchr(plain, '/');
	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - plain) + 1 : 1, slash ? plain : ".");
	if (!realpath(folder, resolved))
		return false;
	if (snprintf(out, PATH_MAX, "%s/%s", strcmp(resolved, "/") ? resolved : "", slash ? slash + 1 : plain) <
		PATH_MAX)
		return true;
	return errno = ENAMETOOLONG, false;
}

static enum status set_path(const char *path, struct model *m)
{
	char index[PATH_MAX + 32];

	if (!resolve_path(path, m->path))
		return status_fail(STATUS_NO_MODEL, "%s: no such model: %s", path, strerror(errno));
	snprintf(m->name, sizeof m->name, "%s", strrchr(m->path, '/') + 1);
	snprintf(index, sizeof index, "%s/model_index.json", m->path);
	if (access(index, F_OK) != 0 && strlen(m->path) + 1 < sizeof m->path)
		strcat(m->path, "/");
	return STATUS_OK;
}

enum status model_open(const char *path, const char *name, struct model *out)
{
	struct model m = { 0 };

	TRY(set_path(path, &m));
	if (name && *name)
		snprintf(m.name, sizeof m.name, "%s", name);
	TRY(find_family(&m));
	TRY(m.family->describe(&m));
	TRY(identify(&m));
	*out = m;
	return STATUS_OK;
}

/* ---- components -------------------------------------------------------------------------------------------------- */

enum status model_set_override(struct model *m, const char *component, const char *path)
{
	for (int i = 0; i < MODEL_OVERRIDES_MAX; i++) {
		struct model_override *o = &m->override[i];

		if (o->path[0] && strcmp(o->component, component) != 0)
			continue;
		if (!realpath(path, o->path)) {
			o->path[0] = 0;
			return status_fail(STATUS_NO_MODEL, "%s: %s", path, strerror(errno));
		}
		snprintf(o->component, sizeof o->component, "%s", component);
		return content_identify(1, (const char *[]){ o->path }, o->identity, NULL);
	}
	return status_fail(STATUS_INVALID, "%s: at most %d parts of a model may come from files of their own", path,
		MODEL_OVERRIDES_MAX);
}

bool model_overrides(const struct model *m, const char *component)
{
	for (int i = 0; i < MODEL_OVERRIDES_MAX; i++)
		if (m->override[i].path[0] && strcmp(m->override[i].component, component) == 0)
			return true;
	return false;
}

enum status model_component(const struct model *m, const char *name, struct component *out)
{
	const char *from = NULL;
	char found[PATH_MAX];
	int config, weights;

	for (int i = 0; i < MODEL_OVERRIDES_MAX; i++)
		if (m->override[i].path[0] && strcmp(m->override[i].component, name) == 0)
			from = m->override[i].path;
	out->loras = NULL;
	out->random = m->random;
	out->survey = NULL;
	snprintf(out->name, sizeof out->name, "%s", name);
	config = snprintf(out->config, sizeof out->config, "%s/%s/config.json", m->path, name);
	/* what is missing may be given by the prompt: only who opens it fails */
	if (!from && model_is_derived(m))
		from = derive_find_part(m->path, name, found) == STATUS_OK ? found : "";
	if (from)
		weights = snprintf(out->weights, sizeof out->weights, "%s", from);
	else
		weights = snprintf(out->weights, sizeof out->weights, "%s/%s", m->path, name);
	if (config >= (int)sizeof out->config || weights >= (int)sizeof out->weights)
		return status_fail(STATUS_INVALID, "%s: the path is too long", m->path);
	return STATUS_OK;
}

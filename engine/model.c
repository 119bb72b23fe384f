/* model: describing a model folder, and telling its content apart. */
#include "engine/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/component.h"
#include "engine/content.h"
#include "engine/family.h"
#include "engine/json.h"

static enum status find_family(const char *root, const struct family **out)
{
	char path[PATH_MAX + 32];
	const char *pipeline = NULL;
	json_t *index;
	enum status status;

	snprintf(path, sizeof path, "%s/model_index.json", root);
	TRY(json_read_object(path, &index));
	status = json_get_string(index, path, "_class_name", &pipeline);
	if (status == STATUS_OK && !pipeline)
		status = status_fail(STATUS_CORRUPT, "%s: _class_name, the pipeline, is missing", path);
	else if (status == STATUS_OK && !(*out = family_find(pipeline)))
		status = status_fail(
			STATUS_UNSUPPORTED, "%s: pipeline %s is not supported by this version", path, pipeline);
	json_decref(index);
	return status;
}

/* The folders that decide the model's pictures; both must outlive the list. */
static int list_paths(const struct model *m, const char *paths[2])
{
	paths[0] = m->path;
	paths[1] = m->beside;
	return *m->beside ? 2 : 1;
}

static enum status identify(struct model *m)
{
	const char *paths[2];
	int n;

	if (m->family->find_beside)
		m->family->find_beside(m, m->beside);
	n = list_paths(m, paths);
	return content_identify(n, paths, m->identity, &m->file_bytes);
}

enum status model_hash_files(const struct model *m, char hash[MODEL_HASH_LEN + 1])
{
	const char *paths[2];
	int n = list_paths(m, paths);

	return content_hash(n, paths, hash);
}

enum status model_open(const char *path, const char *name, struct model *out)
{
	struct model m = { 0 };
	struct stat st;

	if (!realpath(path, m.path))
		return status_fail(STATUS_NO_MODEL, "%s: no such model: %s", path, strerror(errno));
	if (stat(m.path, &st) == 0 && !S_ISDIR(st.st_mode))
		return status_fail(STATUS_UNSUPPORTED,
			"%s: single-file models are not read by this version; give the folder of a "
			"model in the diffusers layout",
			path);
	snprintf(m.name, sizeof m.name, "%s", name && *name ? name : strrchr(m.path, '/') + 1);
	TRY(find_family(m.path, &m.family));
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

enum status model_component(const struct model *m, const char *name, struct component *out)
{
	const char *from = NULL;
	int config, weights;

	for (int i = 0; i < MODEL_OVERRIDES_MAX; i++)
		if (m->override[i].path[0] && strcmp(m->override[i].component, name) == 0)
			from = m->override[i].path;
	out->loras = NULL;
	out->survey = NULL;
	snprintf(out->name, sizeof out->name, "%s", name);
	config = snprintf(out->config, sizeof out->config, "%s/%s/config.json", m->path, name);
	if (from)
		weights = snprintf(out->weights, sizeof out->weights, "%s", from);
	else
		weights = snprintf(out->weights, sizeof out->weights, "%s/%s", m->path, name);
	if (config >= (int)sizeof out->config || weights >= (int)sizeof out->weights)
		return status_fail(STATUS_INVALID, "%s: the path is too long", m->path);
	return STATUS_OK;
}

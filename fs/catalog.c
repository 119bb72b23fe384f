/* catalog: see catalog.h. */
#include "fs/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status open_model(const struct config_model *where, struct catalog_model *out)
{
	out->where = where;
	out->status = model_open(where->path, where->name, &out->model);
	if (out->status == STATUS_OK)
		return STATUS_OK;
	snprintf(out->model.name, sizeof(out->model.name), "%s", where->name);
	snprintf(out->model.path, sizeof(out->model.path), "%s", where->path);
	out->why = strdup(status_text());
	return out->why ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for the list of models");
}

enum status catalog_open(struct config *config, struct catalog **out)
{
	struct catalog *c = calloc(1, sizeof(*c));
	enum status opened = STATUS_OK;

	if (!c) {
		config_free(config);
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of models");
	}
	c->config = *config;
	c->models = calloc(c->config.n_models ? c->config.n_models : 1, sizeof(*c->models));
	if (!c->models)
		opened = status_fail(STATUS_NO_MEMORY, "no memory for the list of models");
	for (int i = 0; opened == STATUS_OK && i < c->config.n_models; i++) {
		opened = open_model(&c->config.models[i], &c->models[i]);
		c->n_models = i + 1;
	}
	if (opened != STATUS_OK) {
		catalog_close(c);
		return opened;
	}
	*out = c;
	return STATUS_OK;
}

void catalog_close(struct catalog *c)
{
	while (c) {
		struct catalog *older = c->older;

		for (int i = 0; i < c->n_models; i++)
			free(c->models[i].why);
		free(c->models);
		config_free(&c->config);
		free(c);
		c = older;
	}
}

const struct catalog_model *catalog_find(const struct catalog *c, const char *name)
{
	const struct config_model *where = config_find_model(&c->config, name);

	for (int i = 0; where && i < c->n_models; i++) {
		if (c->models[i].where == where)
			return &c->models[i];
	}
	return NULL;
}

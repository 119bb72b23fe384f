/* contents: see contents.h. */
#include "fs/contents.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/content.h"
#include "fs/hashes.h"
#include "fs/log.h"

/* ---- finding ---- */

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static enum status find(const struct config *config, bool here, const char *name, char path[PATH_MAX])
{
	if (here) {
		snprintf(path, PATH_MAX, "%s", name);
		if (is_file(path))
			return STATUS_OK;
	}
	if (name[0] == '/' || strstr(name, ".."))
		return status_fail(STATUS_INVALID, "LoRA %s: no such file", name);
	for (int i = 0; i < 2; i++) {
		int len = snprintf(path, PATH_MAX, "%s/%s%s", config->loras, name, i ? "" : ".safetensors");

		if (len < PATH_MAX && is_file(path))
			return STATUS_OK;
	}
	return status_fail(STATUS_INVALID, "LoRA %s: no such file in %s", name, config->loras);
}

static bool identify(const char *path, char identity[MODEL_HASH_LEN + 1])
{
	*identity = 0;
	return content_identify(1, &path, identity, NULL) == STATUS_OK;
}

static enum status find_lora(const struct config *config, bool here, struct recipe_lora *l)
{
	char path[PATH_MAX], *real;

	TRY(find(config, here, l->name, path));
	real = realpath(path, NULL);
	if (!real)
		return status_fail(STATUS_INVALID, "LoRA %s: %s", l->name, strerror(errno));
	free(l->path);
	l->path = real;
	return identify(real, l->identity) ? STATUS_OK : STATUS_INVALID;
}

enum status contents_find(const struct config *config, bool here, struct recipe *r)
{
	for (int i = 0; i < r->n_loras; i++)
		TRY(find_lora(config, here, &r->loras[i]));
	for (int i = 0; i < r->n_files; i++)
		identify(r->files[i].path, r->files[i].identity); /* what is not there the engine tells of */
	return STATUS_OK;
}

bool contents_at(const struct recipe *r, int i, struct content *out)
{
	if (i < r->n_loras)
		*out = (struct content){ r->loras[i].path, r->loras[i].identity, r->loras[i].hash };
	else if (i - r->n_loras < r->n_files)
		*out = (struct content){ r->files[i - r->n_loras].path, r->files[i - r->n_loras].identity,
			r->files[i - r->n_loras].hash };
	else
		return false;
	return true;
}

bool contents_changed(const struct recipe *r)
{
	struct content c;

	for (int i = 0; contents_at(r, i, &c); i++) {
		char identity[MODEL_HASH_LEN + 1];

		identify(c.path, identity);
		if (strcmp(identity, c.identity) != 0)
			return true;
	}
	return false;
}

/* ---- hashes ---- */

static enum status hash_one(const char *cache_dir, const struct content *c)
{
	char identity[MODEL_HASH_LEN + 1];

	if (*c->hash || !*c->identity || hashes_recall(cache_dir, c->identity, c->hash))
		return STATUS_OK;
	TRY(content_hash(1, &c->path, c->hash));
	identify(c->path, identity);
	if (strcmp(identity, c->identity) != 0)
		return status_fail(STATUS_INVALID, "%s has changed while it was read; try again", c->path);
	if (hashes_remember(cache_dir, c->identity, c->hash) != STATUS_OK)
		log_info("%s", status_text()); /* it will be computed again */
	return STATUS_OK;
}

enum status contents_hash(const char *cache_dir, struct recipe *r)
{
	struct content c;

	for (int i = 0; contents_at(r, i, &c); i++)
		TRY(hash_one(cache_dir, &c));
	return STATUS_OK;
}

bool contents_are_hashed(const struct recipe *r)
{
	struct content c;

	for (int i = 0; contents_at(r, i, &c); i++)
		if (*c.identity && !*c.hash)
			return false;
	return true;
}

bool contents_recall(void *cache_dir, const char *identity, char hash[MODEL_HASH_LEN + 1])
{
	return hashes_recall(cache_dir, identity, hash);
}

/* A copy of a list; NULL where it is empty or there is no memory. */
static void *copy_list(const void *list, int n, size_t size)
{
	void *copy = n ? malloc((size_t)n * size) : NULL;

	return copy ? memcpy(copy, list, (size_t)n * size) : NULL;
}

enum status contents_know(const struct recipe *r, contents_finder *find_hash, void *context, struct recipe *out)
{
	struct recipe known = *r;
	struct content c;

	known.loras = copy_list(r->loras, r->n_loras, sizeof *r->loras);
	known.files = copy_list(r->files, r->n_files, sizeof *r->files);
	if ((r->n_loras && !known.loras) || (r->n_files && !known.files)) {
		contents_put(&known);
		return status_fail(STATUS_NO_MEMORY, "no memory for a recipe");
	}
	for (int i = 0; contents_at(&known, i, &c); i++)
		if (!*c.hash && *c.identity)
			find_hash(context, c.identity, c.hash);
	*out = known;
	return STATUS_OK;
}

void contents_put(struct recipe *known)
{
	free(known->loras);
	free(known->files);
	*known = (struct recipe){ 0 };
}

void contents_copy(const struct recipe *from, struct recipe *to)
{
	for (int i = 0; i < from->n_loras && i < to->n_loras; i++) {
		memcpy(to->loras[i].identity, from->loras[i].identity, sizeof to->loras[i].identity);
		memcpy(to->loras[i].hash, from->loras[i].hash, sizeof to->loras[i].hash);
	}
	for (int i = 0; i < from->n_files && i < to->n_files; i++) {
		memcpy(to->files[i].identity, from->files[i].identity, sizeof to->files[i].identity);
		memcpy(to->files[i].hash, from->files[i].hash, sizeof to->files[i].hash);
	}
}

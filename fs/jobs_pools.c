/* The devices of the jobs, the models loaded there, and what is known of keys before a worker is asked. */
#include "fs/jobs_private.h"

#include <stdlib.h>
#include <string.h>

#include "fs/contents.h"
#include "fs/hashes.h"
#include "fs/key.h"

/* ---- pools */

static bool is_empty(const char *text)
{
	return !text || !*text;
}

static struct pool *find_pool(struct jobs *j, const char *device, const char *dtype)
{
	struct pool *p = j->pools;

	while (p && (strcmp(p->device, device) != 0 || strcmp(p->dtype, dtype) != 0))
		p = p->next;
	return p;
}

struct pool *pool_need(struct jobs *j, const struct config_model *where)
{
	const char *device = !is_empty(where->device) ? where->device : j->config->device;
	const char *dtype = !is_empty(where->dtype) ? where->dtype : j->config->dtype;
	struct pool *p;

	if (is_empty(device))
		device = "auto";
	p = find_pool(j, device, dtype);
	if (p)
		return p;
	p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->jobs = j;
	jobs_copy_text(p->device, sizeof p->device, device);
	jobs_copy_text(p->dtype, sizeof p->dtype, dtype);
	if (config_dtype(dtype, &p->dtype_found) != STATUS_OK)
		p->dtype_found = DTYPE_OTHER;
	p->next = j->pools;
	j->pools = p;
	return p;
}

enum status pool_need_instances(struct pool *p, const struct config_model *where)
{
	int wanted = where->instances > 1 ? where->instances : 1;

	while (p->n_instances < wanted) {
		struct instance *in;
		enum status status = instance_start(p, &in);

		if (status != STATUS_OK)
			return p->n_instances ? STATUS_OK : status;
		in->next = p->instances;
		p->instances = in;
		p->n_instances++;
	}
	return STATUS_OK;
}

void pool_wake_idle(struct pool *p)
{
	for (struct instance *in = p->instances; in; in = in->next)
		if (in->idle)
			instance_wake(in);
}

/* ---- keys and the cache */

static const char *find_memo(const struct jobs *j, const char *identity)
{
	for (const struct hash_memo *m = j->hashes; m; m = m->next)
		if (strcmp(m->identity, identity) == 0)
			return m->hash;
	return NULL;
}

static void add_memo(struct jobs *j, const char *identity, const char *hash)
{
	struct hash_memo *m;

	pthread_mutex_lock(&j->mu);
	m = find_memo(j, identity) ? NULL : calloc(1, sizeof *m);
	if (m) {
		jobs_copy_text(m->identity, sizeof m->identity, identity);
		jobs_copy_text(m->hash, sizeof m->hash, hash);
		m->next = j->hashes;
		j->hashes = m;
	}
	pthread_mutex_unlock(&j->mu);
}

bool jobs_find_hash(struct jobs *j, const char *identity, char hash[MODEL_HASH_LEN + 1])
{
	const char *known;

	pthread_mutex_lock(&j->mu);
	known = find_memo(j, identity);
	if (known)
		jobs_copy_text(hash, MODEL_HASH_LEN + 1, known);
	pthread_mutex_unlock(&j->mu);
	if (known)
		return true;
	if (!hashes_recall(j->config->cache, identity, hash))
		return false;
	add_memo(j, identity, hash);
	return true;
}

void jobs_remember_hash(struct jobs *j, const char *what, const char *identity, const char *hash)
{
	add_memo(j, identity, hash);
	if (hashes_remember(j->config->cache, identity, hash) != STATUS_OK)
		log_warn("%s: its hash is not remembered: %s", what, status_text());
}

bool jobs_find_cached(struct jobs *j, const char *key, struct answer *a)
{
	if (cache_get(j->cache, key, &a->object) != 0)
		return false;
	memcpy(a->result.key, key, sizeof a->result.key);
	a->result.status = STATUS_OK;
	a->result.error = 0;
	a->result.text = "";
	a->result.png = a->object.data;
	a->result.png_len = a->object.len;
	a->result.from_cache = true;
	return true;
}

static bool find_hash(void *context, const char *identity, char hash[MODEL_HASH_LEN + 1])
{
	return jobs_find_hash(context, identity, hash);
}

/* False while a hash is missing. */
static bool make_key(struct jobs *j, const struct recipe *recipe, const char *hash, enum dtype dtype, char *key)
{
	struct recipe known;
	struct bytes text = { 0 };
	bool made;

	if (contents_know(recipe, find_hash, j, &known) != STATUS_OK)
		return false;
	made = contents_are_hashed(&known) && key_make(&known, hash, dtype, &text, key) == STATUS_OK;
	contents_put(&known);
	bytes_free(&text);
	return made;
}

bool jobs_find_key(struct jobs *j, const struct model *model, const struct config_model *where,
	const struct recipe *recipe, char key[RECIPE_KEY_LEN + 1])
{
	char hash[MODEL_HASH_LEN + 1];
	enum dtype dtype = DTYPE_OTHER;
	struct pool *p;

	pthread_mutex_lock(&j->mu);
	p = pool_need(j, where);
	if (p)
		dtype = p->dtype_found;
	pthread_mutex_unlock(&j->mu);
	return dtype != DTYPE_OTHER && jobs_find_hash(j, model->identity, hash) &&
	       make_key(j, recipe, hash, dtype, key);
}

/* ---- loaded models */

static bool is_loaded(const struct instance *in, const struct model *model)
{
	for (int i = 0; i < in->n_loaded; i++)
		if (strcmp(in->loaded[i], model->identity) == 0)
			return true;
	return false;
}

enum status jobs_unload(struct jobs *j, const struct model *model)
{
	pthread_mutex_lock(&j->mu);
	for (struct pool *p = j->pools; p; p = p->next) {
		for (struct instance *in = p->instances; in; in = in->next) {
			if (!is_loaded(in, model))
				continue;
			memcpy(in->unload, model->identity, sizeof in->unload);
			instance_wake(in);
		}
	}
	pthread_mutex_unlock(&j->mu);
	return STATUS_OK;
}

static const struct instance *find_loaded(const struct jobs *j, const struct model *model)
{
	for (const struct pool *p = j->pools; p; p = p->next)
		for (const struct instance *in = p->instances; in; in = in->next)
			if (is_loaded(in, model))
				return in;
	return NULL;
}

static void describe(const struct pool *p, struct jobs_loaded *out)
{
	jobs_copy_text(out->device, sizeof out->device, p->device_found[0] ? p->device_found : p->device);
	jobs_copy_text(out->dtype, sizeof out->dtype, dtype_name(p->dtype_found));
}

bool jobs_pool_memory(struct jobs *j, int i, struct jobs_loaded *out)
{
	const struct pool *p;

	pthread_mutex_lock(&j->mu);
	p = j->pools;
	while (p && i-- > 0)
		p = p->next;
	if (p) {
		describe(p, out);
		out->memory = 0;
		for (const struct instance *in = p->instances; in; in = in->next)
			out->memory += in->memory;
	}
	pthread_mutex_unlock(&j->mu);
	return p != NULL;
}

bool jobs_find_loaded(struct jobs *j, const struct model *model, struct jobs_loaded *out)
{
	const struct instance *in;

	pthread_mutex_lock(&j->mu);
	in = find_loaded(j, model);
	if (in) {
		describe(in->pool, out);
		out->memory = in->memory;
	}
	pthread_mutex_unlock(&j->mu);
	return in != NULL;
}

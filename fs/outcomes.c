/* outcomes: see outcomes.h. */
#include "fs/outcomes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xxhash.h>

enum { BUCKETS = 1024, REMEMBERED_MAX = 8192 };

struct note {
	uint64_t name;
	struct resolve_revision revision;
	struct outcome outcome;
	struct note *next; /* in its bucket */
	struct note *older, *newer;
};

struct outcomes {
	pthread_mutex_t mu;
	struct note *buckets[BUCKETS], *oldest, *newest; /* guarded by mu */
	int count;
};

struct outcomes *outcomes_new(void)
{
	struct outcomes *o = calloc(1, sizeof(*o));

	if (o)
		pthread_mutex_init(&o->mu, NULL);
	return o;
}

void outcome_fini(struct outcome *o)
{
	free(o->text);
	o->text = NULL;
}

static void remove_locked(struct outcomes *o, struct note *n)
{
	struct note **link = &o->buckets[n->name % BUCKETS];

	while (*link != n)
		link = &(*link)->next;
	*link = n->next;
	*(n->older ? &n->older->newer : &o->oldest) = n->newer;
	*(n->newer ? &n->newer->older : &o->newest) = n->older;
	o->count--;
	outcome_fini(&n->outcome);
	free(n);
}

void outcomes_free(struct outcomes *o)
{
	if (!o)
		return;
	while (o->oldest)
		remove_locked(o, o->oldest);
	pthread_mutex_destroy(&o->mu);
	free(o);
}

static uint64_t hash_name(const char *name)
{
	return XXH3_64bits(name, strlen(name));
}

static struct note *find_locked(struct outcomes *o, uint64_t name, struct resolve_revision revision)
{
	struct note *n = o->buckets[name % BUCKETS];

	while (n && (n->name != name || n->revision.high != revision.high || n->revision.low != revision.low))
		n = n->next;
	return n;
}

static struct note *note_new(uint64_t name, struct resolve_revision revision, const struct job_result *result)
{
	struct note *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->name = name;
	n->revision = revision;
	n->outcome.error = result->error;
	if (result->error)
		n->outcome.text = strdup(result->text ? result->text : "");
	memcpy(n->outcome.key, result->key, sizeof(n->outcome.key));
	n->outcome.from_cache = result->from_cache;
	memcpy(n->outcome.seconds, result->seconds, sizeof(n->outcome.seconds));
	n->outcome.loras = result->loras;
	n->outcome.when = time(NULL);
	return n;
}

/* A later hit of the cache keeps what is known of the generation that made the picture. */
static void keep_making(struct note *fresh, const struct note *old)
{
	if (!fresh->outcome.from_cache || old->outcome.error)
		return;
	memcpy(fresh->outcome.seconds, old->outcome.seconds, sizeof(fresh->outcome.seconds));
	fresh->outcome.loras = old->outcome.loras;
}

void outcomes_note(
	struct outcomes *o, const char *name, struct resolve_revision revision, const struct job_result *result)
{
	struct note *fresh = note_new(hash_name(name), revision, result), *old;

	if (!fresh)
		return;
	pthread_mutex_lock(&o->mu);
	old = find_locked(o, fresh->name, revision);
	if (old) {
		keep_making(fresh, old);
		remove_locked(o, old);
	}
	if (o->count >= REMEMBERED_MAX)
		remove_locked(o, o->oldest);
	fresh->next = o->buckets[fresh->name % BUCKETS];
	o->buckets[fresh->name % BUCKETS] = fresh;
	fresh->older = o->newest;
	*(o->newest ? &o->newest->newer : &o->oldest) = fresh;
	o->newest = fresh;
	o->count++;
	pthread_mutex_unlock(&o->mu);
}

bool outcomes_find(struct outcomes *o, const char *name, struct resolve_revision revision, struct outcome *out)
{
	struct note *n;

	pthread_mutex_lock(&o->mu);
	n = find_locked(o, hash_name(name), revision);
	if (n) {
		*out = n->outcome;
		out->text = n->outcome.text ? strdup(n->outcome.text) : NULL;
	}
	pthread_mutex_unlock(&o->mu);
	return n != NULL;
}

void outcomes_forget(struct outcomes *o, const char *name)
{
	uint64_t hash = hash_name(name);

	pthread_mutex_lock(&o->mu);
	for (struct note *n = o->buckets[hash % BUCKETS], *next; n; n = next) {
		next = n->next;
		if (n->name == hash)
			remove_locked(o, n);
	}
	pthread_mutex_unlock(&o->mu);
}

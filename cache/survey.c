/* survey: what concerns all objects: counting, listing, making room, verifying. */
#include "cache/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A text without an object is what a killed writer left; a living one may be about to store the object. */
static const int64_t orphan_ns = 3600 * 1000000000ll;

/* Who is told of every object; an errno ends the walk. */
struct visitor {
	int (*take)(void *context, const struct cache_entry *entry);
	void *context;
};

struct listing {
	struct cache_entry *entries;
	size_t count, capacity;
};

static int64_t ns_of(const struct timespec *t)
{
	return t->tv_sec * 1000000000ll + t->tv_nsec;
}

static int add_entry(void *context, const struct cache_entry *entry)
{
	struct listing *l = context;
	size_t capacity = l->capacity ? 2 * l->capacity : 64;
	struct cache_entry *more;

	if (l->count == l->capacity) {
		more = realloc(l->entries, capacity * sizeof *more);
		if (!more)
			return ENOMEM;
		l->entries = more;
		l->capacity = capacity;
	}
	l->entries[l->count++] = *entry;
	return 0;
}

/* ---- walking ------------------------------------------------------------------------------------------------- */

static void sweep_orphan(int folder, const char *name, const char *key, int64_t now_ns)
{
	struct stat st;

	if (faccessat(folder, key, F_OK, 0) != 0 && fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		now_ns - ns_of(&st.st_mtim) > orphan_ns)
		unlinkat(folder, name, 0);
}

static int visit(struct cache *c, int folder, const char *name, int64_t now_ns, const struct visitor *v)
{
	struct cache_entry entry = { .pinned = false };
	char text[CACHE_KEY_LEN + 8];
	struct stat st;
	size_t len = strlen(name);

	if (len == CACHE_KEY_LEN + 4 && strcmp(name + CACHE_KEY_LEN, ".txt") == 0) {
		memcpy(entry.key, name, CACHE_KEY_LEN);
		entry.key[CACHE_KEY_LEN] = 0;
		sweep_orphan(folder, name, entry.key, now_ns);
		return 0;
	}
	if (!cache_is_key(name) || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
		return 0; /* not ours, or gone by now */
	memcpy(entry.key, name, CACHE_KEY_LEN + 1);
	entry.bytes = (uint64_t)st.st_size;
	entry.used_ns = ns_of(&st.st_atim);
	entry.pinned = cache_is_pinned(c, name);
	snprintf(text, sizeof text, "%s.txt", entry.key);
	if (fstatat(folder, text, &st, AT_SYMLINK_NOFOLLOW) == 0)
		entry.bytes += (uint64_t)st.st_size;
	return v->take(v->context, &entry);
}

static int walk_folder(struct cache *c, const char *path, const struct visitor *v)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	int64_t now_ns = cache_now_ns();
	int error = 0;

	if (!dir)
		return errno == ENOENT || errno == ENOTDIR ? 0 : errno;
	while (!error && (entry = readdir(dir)))
		error = visit(c, dirfd(dir), entry->d_name, now_ns, v);
	closedir(dir);
	return error;
}

static int by_use(const void *a, const void *b)
{
	const struct cache_entry *x = a, *y = b;

	if (x->used_ns != y->used_ns)
		return x->used_ns < y->used_ns ? 1 : -1;
	return strcmp(x->key, y->key);
}

static int walk(struct cache *c, const struct visitor *v)
{
	char path[PATH_MAX];
	int error = 0;

	for (int i = 0; i < 256 && !error; i++) {
		snprintf(path, sizeof path, "%s/objects/%02x", c->dir, i);
		error = walk_folder(c, path, v);
	}
	return error ? cache_fail(error, path, "cannot be read") : 0;
}

/* Every object, most recently used first. */
static int list(struct cache *c, struct listing *l)
{
	int error;

	*l = (struct listing){ 0 };
	error = walk(c, &(struct visitor){ add_entry, l });
	if (error) {
		free(l->entries);
		return error;
	}
	if (l->count)
		qsort(l->entries, l->count, sizeof *l->entries, by_use);
	return 0;
}

static uint64_t total(const struct listing *l)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < l->count; i++)
		bytes += l->entries[i].bytes;
	return bytes;
}

static void note_total(struct cache *c, uint64_t bytes)
{
	pthread_mutex_lock(&c->mu);
	c->bytes = bytes;
	c->scanned_ns = cache_now_ns();
	pthread_mutex_unlock(&c->mu);
}

/* ---- public -------------------------------------------------------------------------------------------------- */

int cache_list(struct cache *c, struct cache_entry **out, size_t *count)
{
	struct listing l;
	int error = list(c, &l);

	if (error)
		return error;
	note_total(c, total(&l));
	*out = l.entries;
	*count = l.count;
	return 0;
}

static int count_entry(void *context, const struct cache_entry *entry)
{
	struct cache_stat *all = context;

	all->objects++;
	all->bytes += entry->bytes;
	all->pinned += entry->pinned;
	return 0;
}

/* Without a list, which would take memory for every object whenever the metrics are read. */
int cache_stat(struct cache *c, struct cache_stat *out)
{
	struct cache_stat all = { .limit = c->limit };
	int error = walk(c, &(struct visitor){ count_entry, &all });

	if (error)
		return error;
	note_total(c, all.bytes);
	*out = all;
	return 0;
}

int cache_shrink(struct cache *c, uint64_t bytes, uint64_t *removed)
{
	struct listing l;
	uint64_t left;
	int error = list(c, &l);

	if (error)
		return error;
	*removed = 0;
	left = total(&l);
	for (size_t i = l.count; i-- > 0 && left > bytes;) {
		if (l.entries[i].pinned || cache_remove(c, l.entries[i].key) != 0)
			continue; /* pinned, open, or gone already */
		left -= l.entries[i].bytes;
		++*removed;
	}
	note_total(c, left);
	free(l.entries);
	return 0;
}

int cache_verify(struct cache *c, uint64_t *checked, uint64_t *damaged)
{
	struct listing l;
	int error = list(c, &l);

	if (error)
		return error;
	*checked = *damaged = 0;
	for (size_t i = 0; i < l.count; i++) {
		struct cache_object object;

		if (cache_open_object(c, l.entries[i].key, &object) != 0)
			continue;
		++*checked;
		if (!cache_is_whole(c, &object, true)) {
			++*damaged;
			cache_unlink(c, l.entries[i].key, object.fd);
		}
		cache_release(&object);
	}
	free(l.entries);
	return 0;
}

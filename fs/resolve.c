/* resolve: see resolve.h. */
#include "fs/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "engine/png.h"
#include "engine/text.h"
#include "fs/beneath.h"
#include "fs/contents.h"
#include "fs/dress.h"
#include "fs/prompt.h"

enum { BUCKETS = 4096, REMEMBERED_MAX = 16384, DEPTH_MAX = 64 };

/* What tells a version of a file from the next one. */
struct version {
	dev_t dev;
	ino_t ino;
	off_t size;
	int64_t mtime_ns, ctime_ns;
};

/* The .defaults files in effect, nearest first. */
struct chain {
	int n;
	struct chain_file {
		char path[PATH_MAX]; /* from the root of prompts/ */
		struct version version;
	} * files;
	uint64_t hash; /* of the versions */
	int64_t newest_ns;
};

struct entry {
	struct version version;
	uint64_t chain;
	uint64_t generation;
	struct resolved *found;
	struct entry *next;          /* in its bucket */
	struct entry *older, *newer; /* in the order of arrival */
};

struct resolver {
	int root_fd;
	struct records *records;
	pthread_mutex_t mu;
	struct catalog *catalog; /* guarded by mu, as the rest */
	uint64_t generation;     /* of everything that all results depend on: the catalog, the content of .defaults */
	uint64_t changes;        /* of the content of files */
	struct entry *buckets[BUCKETS], *oldest, *newest;
	int count;
};

static int64_t nanoseconds(struct timespec t)
{
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct version version_of(const struct stat *st)
{
	struct version v;

	memset(&v, 0, sizeof(v)); /* its bytes are hashed, the gaps too */
	v.dev = st->st_dev;
	v.ino = st->st_ino;
	v.size = st->st_size;
	v.mtime_ns = nanoseconds(st->st_mtim);
	v.ctime_ns = nanoseconds(st->st_ctim);
	return v;
}

static bool same_version(const struct version *a, const struct version *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns &&
	       a->ctime_ns == b->ctime_ns;
}

/* ---- the .defaults in effect ---- */

static void chain_free(struct chain *c)
{
	free(c->files);
}

static int count_folders(const char *dir)
{
	int n = 1;

	if (!*dir)
		return n;
	for (n++; (dir = strchr(dir, '/')); dir++)
		n++;
	return n;
}

/* One look per folder from `dir` up to the root. */
static int chain_find(const struct resolver *r, const char *dir, struct chain *out)
{
	struct chain c = { 0 };
	char path[PATH_MAX];
	int depth = count_folders(dir);
	XXH3_state_t *state;

	if (depth > DEPTH_MAX || strlen(dir) + sizeof("/.defaults") > sizeof(path))
		return ENAMETOOLONG;
	snprintf(path, sizeof(path), "%s", dir);
	state = XXH3_createState();
	if (!state)
		return ENOMEM;
	XXH3_64bits_reset(state);
	for (;;) {
		size_t len = strlen(path);
		struct stat st;

		memcpy(path + len, "/.defaults", sizeof("/.defaults"));
		if (fstatat(r->root_fd, len ? path : ".defaults", &st, AT_SYMLINK_NOFOLLOW) == 0) {
			struct chain_file *files = realloc(c.files, (c.n + 1) * sizeof(*files));

			if (!files) {
				chain_free(&c);
				XXH3_freeState(state);
				return ENOMEM;
			}
			c.files = files;
			snprintf(files[c.n].path, sizeof(files[c.n].path), "%s", len ? path : ".defaults");
			files[c.n].version = version_of(&st);
			XXH3_64bits_update(state, &files[c.n].version, sizeof(files[c.n].version));
			if (files[c.n].version.mtime_ns > c.newest_ns)
				c.newest_ns = files[c.n].version.mtime_ns;
			c.n++;
		}
		if (len == 0)
			break;
		path[len] = '\0';
		char *slash = strrchr(path, '/');
		*(slash ? slash : path) = '\0';
	}
	c.hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	*out = c;
	return 0;
}

/* ---- files ---- */

/* The whole of a regular file of at most 1 MiB, with a NUL behind it. */
static enum status read_fd(int fd, struct bytes *out)
{
	struct stat st;
	ssize_t got;

	if (fstat(fd, &st) < 0)
		return status_fail(STATUS_IO, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return status_fail(STATUS_INVALID, "is no regular file");
	if (st.st_size > RECIPE_PROMPT_MAX)
		return status_fail(STATUS_INVALID, "is longer than 1 MiB");
	TRY(bytes_reserve(out, (size_t)st.st_size + 1));
	/* up to the size seen: what is appended meanwhile belongs to the next version */
	while (out->len < (size_t)st.st_size) {
		got = pread(fd, out->data + out->len, (size_t)st.st_size - out->len, (off_t)out->len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return status_fail(STATUS_IO, "%s", strerror(errno));
		if (got == 0)
			break;
		out->len += (size_t)got;
	}
	out->data[out->len] = '\0';
	return STATUS_OK;
}

static enum status read_file(int dir_fd, const char *path, struct bytes *out)
{
	int fd = beneath_open(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	enum status read_it;

	if (fd < 0)
		return status_fail(errno == ENOENT ? STATUS_IO : STATUS_INVALID, "cannot be read: %s",
			errno == ELOOP ? "a symbolic link" : strerror(errno));
	read_it = read_fd(fd, out);
	close(fd);
	return read_it;
}

static bool is_blank(const struct bytes *text)
{
	size_t i = text->len >= 3 && memcmp(text->data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

	while (i < text->len && text_is_space((char)text->data[i]))
		i++;
	return i == text->len;
}

/* ---- resolving ---- */

static enum status inherit_defaults(const struct resolver *r, const struct chain *chain, struct recipe_fields *fields)
{
	for (int i = 0; i < chain->n; i++) {
		struct recipe_fields outer = { 0 };
		struct bytes text = { 0 };
		enum status s = read_file(r->root_fd, chain->files[i].path, &text);

		if (s == STATUS_OK)
			s = prompt_parse_defaults((const char *)text.data, text.len, &outer);
		if (s == STATUS_OK)
			s = recipe_fields_inherit(fields, &outer);
		else
			s = status_prefix(
				s == STATUS_NO_MEMORY ? s : STATUS_INVALID, "prompts/%s: ", chain->files[i].path);
		recipe_fields_free(&outer);
		bytes_free(&text);
		TRY(s);
	}
	return STATUS_OK;
}

static enum status find_model(const struct catalog *catalog, const char *name, const struct catalog_model **out)
{
	const struct catalog_model *m = catalog_find(catalog, name);

	if (!m && name && *name)
		return status_fail(
			STATUS_NO_MODEL, "Model: no model '%.60s' is configured; `promptfs models` lists them", name);
	if (!m)
		return status_fail(STATUS_NO_MODEL, "no model is configured; `promptfs models` says more");
	*out = m;
	if (m->status != STATUS_OK)
		return status_fail(STATUS_NO_MODEL, "model %s: %s", m->where->name, m->why);
	return STATUS_OK;
}

/* The file's identity in the records: what fstat says does not have its time of birth. */
static struct record_id identify(int fd)
{
	struct record_id id = { 0 };
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &sx) < 0)
		return id;
	id.ino = sx.stx_ino;
	if (sx.stx_mask & STATX_BTIME)
		id.born_ns = sx.stx_btime.tv_sec * INT64_C(1000000000) + sx.stx_btime.tv_nsec;
	return id;
}

static enum status give_seed(struct resolver *r, struct record_id id, uint64_t content, struct recipe_fields *fields)
{
	if (!fields->has_random_seed || fields->has_seed)
		return STATUS_OK;
	TRY(records_seed(r->records, id, content, &fields->seed));
	fields->has_seed = true;
	return STATUS_OK;
}

static enum status check_limits(const struct config *config, const struct recipe *recipe)
{
	if ((config->width_limit && recipe->width > config->width_limit) ||
		(config->height_limit && recipe->height > config->height_limit))
		return status_fail(STATUS_INVALID, "Size: %dx%d is more than the configured limit of %dx%d",
			recipe->width, recipe->height, config->width_limit, config->height_limit);
	return STATUS_OK;
}

static enum status revise(struct resolved *f)
{
	const char *dtype = *f->model->where->dtype ? f->model->where->dtype : f->config->dtype;
	struct bytes text = { 0 };
	enum status s = recipe_canonical(&f->recipe, f->model->model.identity, dtype, RECIPE_BY_IDENTITY, &text);

	if (s == STATUS_OK) {
		XXH128_hash_t hash = XXH3_128bits(text.data, text.len);

		f->revision = (struct resolve_revision){ hash.high64, hash.low64 };
	}
	bytes_free(&text);
	return s;
}

static enum status complete(struct resolver *r, const struct catalog *catalog, const struct chain *chain,
	struct record_id id, uint64_t content, struct recipe_fields *fields, struct resolved *out)
{
	TRY(inherit_defaults(r, chain, fields));
	TRY(find_model(catalog, fields->model, &out->model));
	TRY(recipe_fields_inherit(fields, &out->model->where->defaults));
	TRY(give_seed(r, id, content, fields));
	TRY(recipe_resolve(fields, &out->model->model, &out->recipe));
	out->passing = contents_find(&catalog->config, false, &out->recipe) != STATUS_OK;
	if (out->passing)
		return STATUS_INVALID; /* a file may appear without anything in prompts/ changing */
	TRY(check_limits(&catalog->config, &out->recipe));
	TRY(revise(out));
	return dress_size(&out->recipe, &out->model->model, &out->size);
}

/* The size and revision of a picture that cannot be: one of the default size, told apart by text and reason. */
static void settle_bad(
	struct resolved *out, const struct catalog *catalog, const struct recipe_fields *fields, uint64_t content)
{
	const struct catalog_model *m = out->model ? out->model : catalog_find(catalog, NULL);
	struct bytes told = { 0 };

	out->width = out->height = 1024;
	if (m && m->status == STATUS_OK)
		recipe_size(fields, &m->model, &out->width, &out->height);
	if (out->width > PNG_SIDE_MAX || out->height > PNG_SIDE_MAX)
		out->width = out->height = 1024;
	out->size = png_size(out->width, out->height, 0, NULL);
	bytes_print(&told, "%016llx %dx%d %s", (unsigned long long)content, out->width, out->height,
		out->text ? out->text : "");
	out->revision = (struct resolve_revision){ 0, XXH3_64bits(told.data, told.len) };
	bytes_free(&told);
}

/* Everything that follows from the text.  ENOMEM alone is a failure; what is wrong with the text is part of the result.
 */
static int resolve_text(struct resolver *r, const struct catalog *catalog, const struct chain *chain,
	struct record_id id, const struct bytes *text, enum status readable, struct resolved *out)
{
	struct recipe_fields fields = { 0 };
	uint64_t content = XXH3_64bits(text->data, text->len);

	out->status = readable;
	if (readable == STATUS_OK)
		out->status = prompt_parse((const char *)text->data, text->len, &fields);
	if (out->status == STATUS_OK)
		out->status = complete(r, catalog, chain, id, content, &fields, out);
	if (out->status == STATUS_OK) {
		out->width = out->recipe.width;
		out->height = out->recipe.height;
	} else {
		out->text = strdup(status_text());
		recipe_free(&out->recipe);
		settle_bad(out, catalog, &fields, content);
	}
	recipe_fields_free(&fields);
	return out->status != STATUS_OK && !out->text ? ENOMEM : 0;
}

static int64_t newest(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int resolve_file(struct resolver *r, const struct catalog *catalog, const struct chain *chain, int fd,
	const struct stat *st, struct resolved *out)
{
	struct record_id id = identify(fd);
	struct bytes text = { 0 };
	enum status readable = read_fd(fd, &text);
	int error = 0;

	if (readable == STATUS_OK && is_blank(&text))
		out->empty = true;
	else
		error = resolve_text(r, catalog, chain, id, &text, readable, out);
	bytes_free(&text);
	if (error || out->empty)
		return error;
	out->mtime_ns = newest(nanoseconds(st->st_mtim), chain->newest_ns);
	/* links of one file in several folders have recipes of their own, but one record: none is kept for them */
	if (st->st_nlink == 1)
		out->mtime_ns =
			newest(out->mtime_ns, records_changed(r->records, id, out->revision.low, out->mtime_ns));
	return 0;
}

/* A prompt that we may not read has a picture all the same: the caller may not read that either. */
static int resolve_unreadable(struct resolver *r, const struct catalog *catalog, const struct chain *chain,
	const struct stat *st, struct resolved *out)
{
	struct bytes nothing = { 0 };
	int error;

	status_fail(STATUS_INVALID, "the prompt cannot be read: %s", strerror(EACCES));
	error = resolve_text(r, catalog, chain, (struct record_id){ 0 }, &nothing, STATUS_INVALID, out);
	out->mtime_ns = newest(nanoseconds(st->st_mtim), chain->newest_ns);
	return error;
}

static int resolve_new(struct resolver *r, const struct catalog *catalog, const struct chain *chain,
	const struct resolve_place *place, struct version *version, struct resolved **out)
{
	int fd = openat(place->dir_fd, place->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct resolved *fresh = calloc(1, sizeof(*fresh));
	struct stat st;
	int error = 0;

	if (!fresh) {
		error = ENOMEM;
	} else if (fd >= 0 ? fstat(fd, &st) < 0
			   : errno == EACCES && fstatat(place->dir_fd, place->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		error = errno;
	} else if (fd < 0 && errno != EACCES) {
		error = errno == ELOOP ? ENOENT : errno;
	} else if (!S_ISREG(st.st_mode)) {
		error = ENOENT;
	}
	if (!error) {
		*version = version_of(&st);
		atomic_init(&fresh->refs, 1);
		fresh->config = &catalog->config;
		error = fd >= 0 ? resolve_file(r, catalog, chain, fd, &st, fresh)
				: resolve_unreadable(r, catalog, chain, &st, fresh);
	}
	if (fd >= 0)
		close(fd);
	if (error && fresh) {
		atomic_init(&fresh->refs, 1);
		resolved_put(fresh);
		return error;
	}
	*out = fresh;
	return error;
}

void resolved_hold(struct resolved *found)
{
	atomic_fetch_add(&found->refs, 1);
}

void resolved_put(struct resolved *found)
{
	if (!found || atomic_fetch_sub(&found->refs, 1) != 1)
		return;
	recipe_free(&found->recipe);
	free(found->text);
	free(found);
}

/* ---- what is remembered ---- */

static struct entry **bucket(struct resolver *r, ino_t ino)
{
	return &r->buckets[(size_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 40) % BUCKETS];
}

static void remove_locked(struct resolver *r, struct entry *e)
{
	struct entry **link = bucket(r, e->version.ino);

	while (*link != e)
		link = &(*link)->next;
	*link = e->next;
	*(e->older ? &e->older->newer : &r->oldest) = e->newer;
	*(e->newer ? &e->newer->older : &r->newest) = e->older;
	r->count--;
	resolved_put(e->found);
	free(e);
}

static struct resolved *recall(struct resolver *r, const struct version *version, uint64_t chain,
	const struct catalog **catalog, uint64_t *generation, uint64_t *changes)
{
	struct resolved *found = NULL;

	pthread_mutex_lock(&r->mu);
	for (struct entry *e = *bucket(r, version->ino); e && !found; e = e->next) {
		if (e->generation == r->generation && e->chain == chain && same_version(&e->version, version)) {
			found = e->found;
			resolved_hold(found);
		}
	}
	*catalog = r->catalog;
	*generation = r->generation;
	*changes = r->changes;
	pthread_mutex_unlock(&r->mu);
	return found;
}

/* Unless something was written meanwhile: then it is not known of which version the result is. */
static void remember(struct resolver *r, const struct version *version, uint64_t chain, uint64_t generation,
	uint64_t changes, struct resolved *found)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return;
	pthread_mutex_lock(&r->mu);
	if (generation != r->generation || changes != r->changes) {
		pthread_mutex_unlock(&r->mu);
		free(e);
		return;
	}
	for (struct entry *old = *bucket(r, version->ino), *next; old; old = next) {
		next = old->next;
		if (old->version.ino == version->ino && old->version.dev == version->dev && old->chain == chain)
			remove_locked(r, old);
	}
	if (r->count >= REMEMBERED_MAX)
		remove_locked(r, r->oldest);
	*e = (struct entry){ .version = *version, .chain = chain, .generation = generation, .found = found };
	resolved_hold(found);
	e->next = *bucket(r, version->ino);
	*bucket(r, version->ino) = e;
	e->older = r->newest;
	*(r->newest ? &r->newest->newer : &r->oldest) = e;
	r->newest = e;
	r->count++;
	pthread_mutex_unlock(&r->mu);
}

int resolver_find(struct resolver *r, const struct resolve_place *place, const struct stat *st, struct resolved **out)
{
	const struct catalog *catalog;
	struct version version = version_of(st);
	uint64_t generation, changes;
	struct resolved *found;
	struct chain chain;
	int error = chain_find(r, place->dir, &chain);

	if (error)
		return error;
	found = recall(r, &version, chain.hash, &catalog, &generation, &changes);
	if (found && contents_changed(&found->recipe)) {
		resolved_put(found);
		found = NULL;
	}
	if (!found) {
		error = resolve_new(r, catalog, &chain, place, &version, &found);
		if (!error && !found->passing)
			remember(r, &version, chain.hash, generation, changes, found);
	}
	chain_free(&chain);
	if (error)
		return error;
	if (found->empty) {
		resolved_put(found);
		return ENOENT;
	}
	*out = found;
	return 0;
}

static void remove_file_locked(struct resolver *r, const struct stat *st)
{
	for (struct entry *e = *bucket(r, st->st_ino), *next; e; e = next) {
		next = e->next;
		if (e->version.ino == st->st_ino && e->version.dev == st->st_dev)
			remove_locked(r, e);
	}
}

void resolver_touch(struct resolver *r, const struct stat *st, bool is_defaults)
{
	pthread_mutex_lock(&r->mu);
	r->changes++;
	if (is_defaults)
		r->generation++;
	remove_file_locked(r, st);
	pthread_mutex_unlock(&r->mu);
}

void resolver_forget(struct resolver *r, int fd, const struct stat *st)
{
	pthread_mutex_lock(&r->mu);
	remove_file_locked(r, st);
	pthread_mutex_unlock(&r->mu);
	records_remove(r->records, identify(fd));
}

/* ---- open, reload, close ---- */

enum status resolver_open(struct catalog *catalog, int root_fd, struct records *records, struct resolver **out)
{
	struct resolver *r = calloc(1, sizeof(*r));

	if (!r) {
		catalog_close(catalog);
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	}
	r->root_fd = root_fd;
	r->records = records;
	r->catalog = catalog;
	pthread_mutex_init(&r->mu, NULL);
	*out = r;
	return STATUS_OK;
}

void resolver_close(struct resolver *r)
{
	if (!r)
		return;
	while (r->oldest)
		remove_locked(r, r->oldest);
	catalog_close(r->catalog);
	pthread_mutex_destroy(&r->mu);
	free(r);
}

void resolver_reload(struct resolver *r, struct catalog *catalog)
{
	pthread_mutex_lock(&r->mu);
	catalog->older = r->catalog;
	r->catalog = catalog;
	r->generation++;
	pthread_mutex_unlock(&r->mu);
}

const struct catalog *resolver_catalog(struct resolver *r)
{
	const struct catalog *catalog;

	pthread_mutex_lock(&r->mu);
	catalog = r->catalog;
	pthread_mutex_unlock(&r->mu);
	return catalog;
}

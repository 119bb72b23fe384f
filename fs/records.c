/* records: see records.h. */
#include "fs/records.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_LEN = 192, BUCKETS_FIRST = 256, LINES_SLACK = 1000 };

struct record {
	struct record_id id;
	bool has_seed, has_recipe, removed;
	uint64_t content, seed; /* has_seed: the seed drawn for this content */
	uint64_t recipe;        /* has_recipe: the recipe last seen, the newest time of its files then, and */
	int64_t newest_ns;      /* the time of its change if that did not tell (else 0) */
	int64_t changed_ns;
	struct record *next;
};

struct records {
	pthread_mutex_t mu;
	int dir_fd, fd;
	size_t n_buckets, count, lines; /* guarded by mu, as the rest */
	struct record **buckets;
};

static size_t slot(const struct records *r, struct record_id id)
{
	uint64_t mixed = (id.ino ^ (uint64_t)id.born_ns) * UINT64_C(0x9e3779b97f4a7c15);

	return (size_t)(mixed >> 20) & (r->n_buckets - 1);
}

static struct record *find(const struct records *r, struct record_id id)
{
	struct record *e = r->buckets[slot(r, id)];

	while (e && (e->id.ino != id.ino || e->id.born_ns != id.born_ns))
		e = e->next;
	return e;
}

static void grow(struct records *r)
{
	size_t n_old = r->n_buckets;
	struct record **old = r->buckets, **fresh = calloc(n_old * 2, sizeof(*fresh));

	if (!fresh)
		return;
	r->buckets = fresh;
	r->n_buckets = n_old * 2;
	for (size_t b = 0; b < n_old; b++) {
		for (struct record *e = old[b], *next; e; e = next) {
			next = e->next;
			e->next = fresh[slot(r, e->id)];
			fresh[slot(r, e->id)] = e;
		}
	}
	free(old);
}

/* The record of this file, made when missing; NULL without memory. */
static struct record *need(struct records *r, struct record_id id)
{
	struct record *e = find(r, id);

	if (e)
		return e;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->id = id;
	e->next = r->buckets[slot(r, id)];
	r->buckets[slot(r, id)] = e;
	if (++r->count > r->n_buckets)
		grow(r);
	return e;
}

static void forget(struct records *r, struct record_id id)
{
	struct record **link = &r->buckets[slot(r, id)], *e;

	while ((e = *link) && (e->id.ino != id.ino || e->id.born_ns != id.born_ns))
		link = &e->next;
	if (!e)
		return;
	*link = e->next;
	free(e);
	r->count--;
}

/* A line: inode, birth, then "seed CONTENT SEED" and "recipe RECIPE NEWEST CHANGED", or "gone". */
static int print(const struct record *e, char line[LINE_MAX_LEN])
{
	int len = snprintf(line, LINE_MAX_LEN, "%" PRIu64 " %" PRId64, e->id.ino, e->id.born_ns);

	if (e->removed)
		len += snprintf(line + len, LINE_MAX_LEN - len, " gone");
	if (e->has_seed)
		len += snprintf(line + len, LINE_MAX_LEN - len, " seed %016" PRIx64 " %" PRIu64, e->content, e->seed);
	if (e->has_recipe)
		len += snprintf(line + len, LINE_MAX_LEN - len, " recipe %016" PRIx64 " %" PRId64 " %" PRId64,
			e->recipe, e->newest_ns, e->changed_ns);
	len += snprintf(line + len, LINE_MAX_LEN - len, "\n");
	return len;
}

static bool parse(const char *line, struct record *e)
{
	int used = 0;

	memset(e, 0, sizeof(*e));
	if (sscanf(line, "%" SCNu64 " %" SCNd64 "%n", &e->id.ino, &e->id.born_ns, &used) != 2)
		return false;
	line += used;
	if (strcmp(line, " gone\n") == 0) {
		e->removed = true;
		return true;
	}
	used = 0;
	if (sscanf(line, " seed %" SCNx64 " %" SCNu64 "%n", &e->content, &e->seed, &used) == 2) {
		e->has_seed = true;
		line += used;
	}
	used = 0;
	if (sscanf(line, " recipe %" SCNx64 " %" SCNd64 " %" SCNd64 "%n", &e->recipe, &e->newest_ns, &e->changed_ns,
		    &used) == 3) {
		e->has_recipe = true;
		line += used;
	}
	return strcmp(line, "\n") == 0;
}

static enum status fail_file(const char *what)
{
	return status_fail(STATUS_IO, "%s records in the store: %s", what, strerror(errno));
}

/* Only the last line may be cut short (by a crash or a full disk); it is left out. */
static enum status load(struct records *r, FILE *file)
{
	char line[LINE_MAX_LEN];
	size_t number = 0;

	while (fgets(line, sizeof(line), file)) {
		struct record parsed, *e;

		number++;
		if (!parse(line, &parsed)) {
			if (!strchr(line, '\n') && fgetc(file) == EOF)
				return STATUS_OK;
			return status_fail(STATUS_CORRUPT,
				"line %zu of records in the store is damaged: remove that line, the seeds of the "
				"others stay",
				number);
		}
		r->lines++;
		if (parsed.removed) {
			forget(r, parsed.id);
			continue;
		}
		e = need(r, parsed.id);
		if (!e)
			return status_fail(STATUS_NO_MEMORY, "no memory for the records of the store");
		parsed.next = e->next;
		*e = parsed;
	}
	return ferror(file) ? fail_file("cannot read") : STATUS_OK;
}

static enum status load_file(struct records *r)
{
	int fd = openat(r->dir_fd, "records", O_RDONLY | O_CLOEXEC);
	enum status loaded;
	FILE *file;

	if (fd < 0)
		return errno == ENOENT ? STATUS_OK : fail_file("cannot read");
	file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return status_fail(STATUS_NO_MEMORY, "no memory for the records of the store");
	}
	loaded = load(r, file);
	fclose(file);
	return loaded;
}

/* All records to a new file, which takes the old one's place; on failure the old one stays. */
static enum status rewrite(struct records *r)
{
	int fd = openat(r->dir_fd, "records.new", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
	char line[LINE_MAX_LEN];
	bool good;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return fail_file("cannot write");
	}
	for (size_t b = 0; b < r->n_buckets; b++) {
		for (const struct record *e = r->buckets[b]; e; e = e->next)
			fwrite(line, 1, print(e, line), file);
	}
	good = fflush(file) == 0 && !ferror(file) && fsync(fd) == 0;
	good = fclose(file) == 0 && good && renameat(r->dir_fd, "records.new", r->dir_fd, "records") == 0;
	if (!good) {
		enum status failed = fail_file("cannot write");

		unlinkat(r->dir_fd, "records.new", 0);
		return failed;
	}
	r->lines = r->count;
	return STATUS_OK;
}

static enum status open_all(struct records *r, int store_fd)
{
	r->dir_fd = store_fd;
	TRY(load_file(r));
	/* always: this also drops a line that was cut short, to which the next one would be joined */
	TRY(rewrite(r));
	r->fd = openat(store_fd, "records", O_WRONLY | O_APPEND | O_CLOEXEC);
	return r->fd < 0 ? fail_file("cannot write") : STATUS_OK;
}

enum status records_open(int store_fd, struct records **out)
{
	struct records *r = calloc(1, sizeof(*r));
	enum status opened;

	if (!r)
		return status_fail(STATUS_NO_MEMORY, "no memory for the records of the store");
	r->fd = -1;
	r->n_buckets = BUCKETS_FIRST;
	r->buckets = calloc(r->n_buckets, sizeof(*r->buckets));
	pthread_mutex_init(&r->mu, NULL);
	opened = r->buckets ? open_all(r, store_fd)
			    : status_fail(STATUS_NO_MEMORY, "no memory for the records of the store");
	if (opened != STATUS_OK) {
		records_close(r);
		return opened;
	}
	*out = r;
	return STATUS_OK;
}

void records_close(struct records *r)
{
	if (!r)
		return;
	for (size_t b = 0; r->buckets && b < r->n_buckets; b++) {
		for (struct record *e = r->buckets[b], *next; e; e = next) {
			next = e->next;
			free(e);
		}
	}
	free(r->buckets);
	if (r->fd >= 0)
		close(r->fd);
	pthread_mutex_destroy(&r->mu);
	free(r);
}

/* Appends the record's line, all of it or nothing. */
static enum status append(struct records *r, const struct record *e)
{
	char line[LINE_MAX_LEN];
	int len = print(e, line);
	off_t end = lseek(r->fd, 0, SEEK_END);
	ssize_t written = write(r->fd, line, len);

	if (written != len) {
		enum status failed = written < 0 ? fail_file("cannot write")
						 : status_fail(STATUS_IO, "the disk of the store is full");

		if (written > 0 && ftruncate(r->fd, end) < 0)
			return fail_file("cannot write");
		return failed;
	}
	r->lines++;
	return STATUS_OK;
}

/* When most lines are outdated.  The new file needs a descriptor of its own. */
static void compact(struct records *r)
{
	int fd;

	if (r->lines < 4 * r->count + LINES_SLACK || rewrite(r) != STATUS_OK)
		return;
	fd = openat(r->dir_fd, "records", O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return;
	dup3(fd, r->fd, O_CLOEXEC);
	close(fd);
}

static enum status draw(struct records *r, struct record_id id, uint64_t content, uint64_t *seed)
{
	struct record *e = need(r, id);
	uint64_t drawn;

	if (!e)
		return status_fail(STATUS_NO_MEMORY, "no memory for the records of the store");
	if (e->has_seed && e->content == content) {
		*seed = e->seed;
		return STATUS_OK;
	}
	if (getrandom(&drawn, sizeof(drawn), 0) != sizeof(drawn))
		return status_fail(STATUS_IO, "cannot draw a random seed: %s", strerror(errno));
	struct record fresh = *e;
	fresh.has_seed = true;
	fresh.content = content;
	fresh.seed = drawn >> 32; /* 32 bits: what other programs of this kind accept when it is pasted there */
	TRY(append(r, &fresh));
	*e = fresh;
	*seed = e->seed;
	return STATUS_OK;
}

enum status records_seed(struct records *r, struct record_id id, uint64_t content, uint64_t *seed)
{
	enum status drawn;
	size_t before, after;

	pthread_mutex_lock(&r->mu);
	before = r->lines;
	drawn = draw(r, id, content, seed);
	after = r->lines;
	compact(r);
	pthread_mutex_unlock(&r->mu);
	if (drawn == STATUS_OK && after != before && fdatasync(r->fd) < 0)
		return fail_file("cannot write");
	return drawn;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* A line that cannot be written (a full disk) is no reason to fail: the change is noted for as long as we run. */
static int64_t change(struct records *r, struct record_id id, uint64_t recipe, int64_t newest_ns)
{
	struct record *e = need(r, id);

	if (!e)
		return 0;
	if (e->has_recipe && e->recipe == recipe && e->newest_ns == newest_ns)
		return e->changed_ns;
	if (e->has_recipe && e->recipe != recipe)
		e->changed_ns = newest_ns > e->newest_ns && newest_ns > e->changed_ns ? 0 : now_ns();
	e->has_recipe = true;
	e->recipe = recipe;
	e->newest_ns = newest_ns;
	append(r, e);
	return e->changed_ns;
}

int64_t records_changed(struct records *r, struct record_id id, uint64_t recipe, int64_t newest_ns)
{
	int64_t changed;

	pthread_mutex_lock(&r->mu);
	changed = change(r, id, recipe, newest_ns);
	compact(r);
	pthread_mutex_unlock(&r->mu);
	return changed;
}

void records_remove(struct records *r, struct record_id id)
{
	struct record *e;

	pthread_mutex_lock(&r->mu);
	e = find(r, id);
	if (e) {
		struct record gone = { .id = id, .removed = true };

		append(r, &gone);
		forget(r, id);
	}
	pthread_mutex_unlock(&r->mu);
}

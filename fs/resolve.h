/* resolve: from a prompt file in the store to everything that decides its picture: recipe, model, exact size, time.
 *
 *     struct resolve_place place = { .dir_fd = fd, .dir = "a", .name = "b.txt" };
 *     int error = resolver_find(r, &place, &st, &found);    // ENOENT: the prompt is empty, there is no picture
 *     ... found->status says whether the parameters are right ...
 *     resolved_put(found);
 *
 * Nothing here generates or waits.  Results are remembered by the prompt's and its .defaults' (inode, size, times), and
 * resolver_touch drops what a write through the mount made old even if the clock did not tick between.
 *
 * Threads: any.  Lock order: resolver.mu is a leaf (not held across file operations).
 */
#ifndef PROMPTFS_FS_RESOLVE_H
#define PROMPTFS_FS_RESOLVE_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "engine/recipe.h"
#include "fs/catalog.h"
#include "fs/records.h"

struct resolve_revision {
	uint64_t high, low; /* XXH3-128 of the canonical recipe and the model's identity */
};

/* Read-only once found. */
struct resolved {
	atomic_int refs;
	bool empty;                        /* white space only: there is no picture */
	enum status status;                /* why there is no recipe */
	char *text;                        /* the same in words; NULL when all is well */
	struct recipe recipe;              /* STATUS_OK only */
	const struct catalog_model *model; /* NULL when none of that name is configured */
	const struct config *config;
	uint64_t size; /* of the finished picture; of one of the default size when status is bad */
	int width, height;
	struct resolve_revision revision;
	bool passing; /* wrong for want of a LoRA file: asked again each time */
	int64_t mtime_ns;
};

struct resolve_place {
	int dir_fd;
	const char *dir;  /* of dir_fd, from the root of prompts/: "", "a", "a/b" */
	const char *name; /* a regular file in it */
};

struct resolver;

/* Takes the catalog, also on failure.  root_fd (prompts/ of the store) and records stay the caller's. */
enum status resolver_open(struct catalog *catalog, int root_fd, struct records *records, struct resolver **out);
void resolver_close(struct resolver *r); /* NULL is allowed */

/* From now on this catalog counts; taken. */
void resolver_reload(struct resolver *r, struct catalog *catalog);
const struct catalog *resolver_catalog(struct resolver *r); /* borrowed until resolver_close */

/* 0, ENOENT (white space only, or gone), ENOMEM.  st: of the prompt file, filled by the caller. */
int resolver_find(struct resolver *r, const struct resolve_place *place, const struct stat *st, struct resolved **out);
void resolved_hold(struct resolved *found);
void resolved_put(struct resolved *found); /* NULL is allowed */

/* The content of a file of prompts/ was changed; before the change is answered. */
void resolver_touch(struct resolver *r, const struct stat *st, bool is_defaults);

/* A file of prompts/, open as fd, lost its last name. */
void resolver_forget(struct resolver *r, int fd, const struct stat *st);

#endif

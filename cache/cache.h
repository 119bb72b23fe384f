/* cache: bytes under a key, on disk, shared by any number of processes.
 *
 * An object is two files: its bytes with a checksum, and a text that says what it is (for people).  Objects appear
 * whole (temporary file, fsync, rename, fsync of the folder) and are verified when opened; a damaged one is removed and
 * counts as absent.  A size limit removes the least recently used ones, never one that is pinned or open (in any
 * process). No images, no FUSE here: keys are 32 lower-case hex digits, errors are errno values (0 is success).
 *
 *     struct cache *c;
 *     int error = cache_open("/home/u/.cache/promptfs", 20ull << 30, &c);
 *     struct cache_object o;
 *     if (cache_get(c, key, &o) == ENOENT)
 *             error = cache_put(c, key, png, png_len, text, text_len);
 *
 * Layout: DIR/format (a version: newer ones are refused with EPROTONOSUPPORT), DIR/objects/ab/<key>,
 * DIR/objects/ab/<key>.txt, DIR/tmp/, DIR/pins/<key>.
 *
 * Threads: every function may be called from any thread.
 */
#ifndef PROMPTFS_CACHE_H
#define PROMPTFS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CACHE_KEY_LEN = 32 };

struct cache;

/* An open object: its bytes are mapped and stay valid, and the object stays in the cache, until cache_release. */
struct cache_object {
	const void *data; /* borrowed from the mapping */
	size_t len;
	int fd; /* holds the shared lock that keeps others from removing it */
	void *map;
	size_t map_len;
};

struct cache_stat {
	uint64_t objects, bytes, limit, pinned;
};

/* One object in a listing. */
struct cache_entry {
	char key[CACHE_KEY_LEN + 1];
	uint64_t bytes;
	int64_t used_ns; /* last use, since the epoch */
	bool pinned;
};

/* limit 0: none.  Creates the folder.  The text of the last failure: cache_text. */
int cache_open(const char *dir, uint64_t limit, struct cache **out);
void cache_close(struct cache *c); /* NULL is allowed */
const char *cache_text(void);      /* of the calling thread: what failed and on which file */

int cache_get(struct cache *c, const char *key, struct cache_object *out); /* ENOENT; marks it used */
bool cache_has(struct cache *c, const char *key);                          /* without verifying */
void cache_release(struct cache_object *o);
/* Stores; an object already there is kept.  Makes room under the limit afterwards. ENOSPC, EDQUOT, ... leave nothing
 * behind. */
int cache_put(struct cache *c, const char *key, const void *data, size_t len, const char *text, size_t text_len);
int cache_read_text(struct cache *c, const char *key, char **out); /* malloc'ed */

int cache_remove(struct cache *c, const char *key); /* EBUSY when open, EPERM when pinned */
int cache_pin(struct cache *c, const char *key, bool pinned);
int cache_stat(struct cache *c, struct cache_stat *out);
int cache_list(struct cache *c, struct cache_entry **out, size_t *count); /* most recently used first; free() it */
/* Removes least recently used objects until at most `bytes` remain; *removed counts them. */
int cache_shrink(struct cache *c, uint64_t bytes, uint64_t *removed);
/* Verifies every object; damaged ones are removed and counted. */
int cache_verify(struct cache *c, uint64_t *checked, uint64_t *damaged);

#endif

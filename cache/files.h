/* files: what the parts of the cache share: the handle, paths, locks and the failure text.  Nobody else includes this.
 *
 * Locks between processes are flock()s, which the kernel drops when their owner dies:
 *     an object's file, shared: it is open (cache_object); exclusive, tried: it may be removed
 *     a file in tmp/, exclusive: it is being written
 *     DIR/lock, exclusive: names change (a file in tmp/ is born or swept, an object's name goes away); held over no
 * data
 */
#ifndef PROMPTFS_CACHE_FILES_H
#define PROMPTFS_CACHE_FILES_H

#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>

#include "cache/cache.h"

enum { VERIFIED_MAX = 1024 };

/* An object's file as it was when it was verified. */
struct verified {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec changed;
};

struct cache {
	char dir[PATH_MAX - 128]; /* room for the names below it */
	uint64_t limit;
	pthread_mutex_t mu; /* guards what follows; a leaf, never held over I/O */
	uint64_t bytes;     /* after the last scan, and what this process added since */
	int64_t scanned_ns;
	struct verified verified[VERIFIED_MAX]; /* a ring */
	unsigned n_verified;
};

/* What stands at the end of an object's file. */
enum { TRAILER_LEN = 32 };

/* ---- failure ------------------------------------------------------------------------------------------------- */

int cache_fail(int error, const char *path, const char *what); /* keeps "path: what (reason)"; returns error */

/* ---- names --------------------------------------------------------------------------------------------------- */

bool cache_is_key(const char *key);
/* objects/ab/KEY and a suffix */
void cache_path(const struct cache *c, const char *key, const char *suffix, char out[PATH_MAX]);
void cache_pin_path(const struct cache *c, const char *key, char out[PATH_MAX]);
bool cache_is_pinned(const struct cache *c, const char *key);

/* ---- files --------------------------------------------------------------------------------------------------- */

int64_t cache_now_ns(void);
/* Takes DIR/lock for the calling thread: a descriptor for cache_unlock, or -1. */
int cache_lock(const struct cache *c);
void cache_unlock(int lock);

/* Writes `parts` of bytes to a new file in tmp/ and names it `path`, durably; EEXIST when the name is taken. */
struct cache_part {
	const void *data;
	size_t len;
};
int cache_write(struct cache *c, const char *path, int n_parts, const struct cache_part *parts);
/* Removes what dead writers left in tmp/. */
void cache_sweep(struct cache *c);

/* ---- objects ------------------------------------------------------------------------------------------------- */

void cache_seal(const void *data, size_t len, unsigned char trailer[TRAILER_LEN]);
/* Opens and locks; ENOENT.  Not verified, not marked used. */
int cache_open_object(struct cache *c, const char *key, struct cache_object *out);
/* Whether the bytes are those that were stored; remembers files that are. */
bool cache_is_whole(struct cache *c, const struct cache_object *o, bool again);
/* Removes the names of an object that is open here; a name that another file has taken by now stays. */
int cache_unlink(struct cache *c, const char *key, int fd);

#endif

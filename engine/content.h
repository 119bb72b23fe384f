/* content: telling files apart, by what is in them (a hash) or by place, size and times (an identity, known at once).
 *
 * A path is a file, or a model's folder: its model_index.json and all that belongs to it (without one: what it and
 * its folders hold), wherever links lead.
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_CONTENT_H
#define PROMPTFS_ENGINE_CONTENT_H

#include <stdint.h>

#include "kernels/status.h"

enum { CONTENT_LEN = 32 }; /* lower-case hexadecimal digits */

/* n paths as one.  bytes (may be NULL): of all files together.  STATUS_IO where there is nothing. */
enum status content_identify(int n, const char *const *paths, char identity[CONTENT_LEN + 1], uint64_t *bytes);

/* XXH3-128.  Reads everything: seconds for a large model. */
enum status content_hash(int n, const char *const *paths, char hash[CONTENT_LEN + 1]);

#endif

/* store: the folder that holds what must not be lost: the prompts, and what was recorded about them.
 *
 * Layout: STORE/format (a version: a newer one is refused), STORE/lock (held, with the process id, by the one daemon
 * that serves it), STORE/prompts/ (the tree of the same name, file by file), STORE/records (records.h).
 */
#ifndef PROMPTFS_FS_STORE_H
#define PROMPTFS_FS_STORE_H

#include <limits.h>

#include "kernels/status.h"

enum { STORE_FORMAT = 1 };

struct store {
	char path[PATH_MAX]; /* absolute */
	int fd;              /* the folder */
	int lock_fd;
	int prompts_fd; /* O_PATH */
};

/* Creates what is missing and takes the lock, waiting a moment for a daemon that is just ending.  STATUS_IO with the
 * reason; store_close also after a failure of the caller's own, not after one of store_open. */
enum status store_open(const char *path, struct store *out);
void store_close(struct store *s);

#endif

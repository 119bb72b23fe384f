/* prompts: the tree that is the user's own, passed through to STORE/prompts operation by operation.
 *
 * Every inode is an O_PATH descriptor of the file below, so that renames need no bookkeeping and a removed file stays
 * usable while it is open; of very many files only some have one (reach.h).  Writes reach the file below before write()
 * returns (no write-back cache).  Files get the caller's user and group.  Files named *.txt and .defaults end at 1 MiB
 * (EFBIG).
 *
 * Threads: any; no locks of its own.
 */
#ifndef PROMPTFS_FS_PROMPTS_H
#define PROMPTFS_FS_PROMPTS_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "fs/daemon.h"
#include "fs/reach.h"

struct prompt {
	struct inode inode;
	struct inodes *inodes; /* the table it is in */
	struct places *places;
	struct prompt *folder; /* held; with name, how it is reached while fd is -1; guarded by places.mu */
	char *name;
	atomic_int fd; /* O_PATH; -1: none is kept.  Folders have one as long as they live */
	bool counted;  /* among the descriptors of files */
	dev_t dev;
	ino_t ino;
	atomic_bool limited;  /* was last seen under a name that ends at 1 MiB */
	atomic_bool defaults; /* was seen under the name .defaults */
};

extern const struct fuse_lowlevel_ops prompts_ops;

/* The root of the tree, with one reference; NULL: no memory. */
struct prompt *prompts_open_root(struct daemon *d);

/* The file `name` in the folder dir with one reference more, and what fstat says.  An errno. */
int prompts_find(struct daemon *d, struct prompt *dir, const char *name, struct prompt **out, struct stat *st);

/* The path of an O_PATH folder from the root of prompts/: "", "a", "a/b".  ENOENT: it is outside, or removed. */
int prompts_path(const struct daemon *d, int dir_fd, char path[PATH_MAX]);

#endif

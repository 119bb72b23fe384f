/* reach: how the file of a prompt's inode is reached: by a descriptor that stays open, or, when half of what the
 * process may open is taken by those, by its folder and its name.
 *
 *     error = reach_file(p, &fd);
 *     ... fstatat(fd, "", ...) ...
 *     reach_end(p, fd);
 *
 * Folders always keep their descriptor.  A file without one that is about to lose its name is given one first
 * (reach_keep): so it stays usable while it is open, and its inode number cannot come back as another file's.
 *
 * Threads: any.  places.mu is a leaf.
 */
#ifndef PROMPTFS_FS_REACH_H
#define PROMPTFS_FS_REACH_H

#include <pthread.h>
#include <stdatomic.h>

struct prompt;

struct places {
	pthread_mutex_t mu; /* guards folder and name of every prompt */
	atomic_long kept;   /* descriptors of files kept open */
	long max;           /* beyond it none is kept */
};

void places_init(struct places *places, long max);
void places_fini(struct places *places);

/* While the inode is made: takes fd, and keeps or closes it.  An errno (fd is closed then). */
int reach_init(
	struct prompt *fresh, struct places *places, struct prompt *folder, const char *name, int fd, int is_dir);
void reach_fini(struct prompt *p);

/* The name under which it was just seen. */
void reach_note(struct prompt *p, struct prompt *folder, const char *name);
/* Gives it the descriptor fd, which is taken, if it has none. */
void reach_keep(struct prompt *p, int fd);

/* An O_PATH descriptor until reach_end.  An errno; ESTALE: the file is gone without our doing. */
int reach_file(struct prompt *p, int *fd);
void reach_end(struct prompt *p, int fd);

#endif

/* reach: see reach.h. */
#include "fs/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/prompts.h"

/* A rename has moved the file and not yet told us: its new name is looked for again this often, a millisecond apart. */
enum { RENAME_TRIES = 200 };

void places_init(struct places *places, long max)
{
	pthread_mutex_init(&places->mu, NULL);
	places->max = max;
}

void places_fini(struct places *places)
{
	pthread_mutex_destroy(&places->mu);
}

int reach_init(struct prompt *fresh, struct places *places, struct prompt *folder, const char *name, int fd, int is_dir)
{
	fresh->places = places;
	atomic_init(&fresh->fd, fd);
	if (is_dir)
		return 0;
	if (atomic_fetch_add(&places->kept, 1) < places->max) {
		fresh->counted = true;
		return 0;
	}
	atomic_fetch_sub(&places->kept, 1);
	close(fd);
	atomic_store(&fresh->fd, -1);
	fresh->name = strdup(name);
	if (!fresh->name)
		return ENOMEM;
	inodes_hold(fresh->inodes, &folder->inode);
	fresh->folder = folder;
	return 0;
}

void reach_fini(struct prompt *p)
{
	int fd = atomic_load(&p->fd);

	if (fd >= 0)
		close(fd);
	if (p->counted)
		atomic_fetch_sub(&p->places->kept, 1);
	if (p->folder)
		inodes_drop(p->inodes, &p->folder->inode, 1);
	free(p->name);
}

void reach_note(struct prompt *p, struct prompt *folder, const char *name)
{
	struct prompt *before;
	char *copy, *old;

	if (atomic_load(&p->fd) >= 0)
		return;
	copy = strdup(name); /* without memory the old name stays: at worst ESTALE */
	if (!copy)
		return;
	inodes_hold(p->inodes, &folder->inode);
	pthread_mutex_lock(&p->places->mu);
	before = p->folder;
	old = p->name;
	p->folder = folder;
	p->name = copy;
	pthread_mutex_unlock(&p->places->mu);
	inodes_drop(p->inodes, &before->inode, 1);
	free(old);
}

void reach_keep(struct prompt *p, int fd)
{
	int none = -1;

	if (!atomic_compare_exchange_strong(&p->fd, &none, fd))
		close(fd);
}

/* By folder and name as they are known now. */
static int open_by_name(struct prompt *p)
{
	char name[NAME_MAX + 1];
	int folder, fd;

	pthread_mutex_lock(&p->places->mu);
	snprintf(name, sizeof(name), "%s", p->name);
	folder = atomic_load(&p->folder->fd); /* open as long as the folder is held, which may end with the lock */
	folder = folder < 0 ? -1 : fcntl(folder, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&p->places->mu);
	if (folder < 0)
		return -1;
	fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	close(folder);
	return fd;
}

int reach_file(struct prompt *p, int *fd)
{
	for (int i = 0; i < RENAME_TRIES; i++) {
		struct stat st;

		*fd = atomic_load(&p->fd);
		if (*fd >= 0)
			return 0;
		*fd = open_by_name(p);
		if (*fd < 0 && errno != ENOENT && errno != ENOTDIR)
			return errno;
		if (*fd >= 0 && fstat(*fd, &st) == 0 && st.st_dev == p->dev && st.st_ino == p->ino)
			return 0;
		if (*fd >= 0)
			close(*fd);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return ESTALE;
}

void reach_end(struct prompt *p, int fd)
{
	if (fd != atomic_load(&p->fd))
		close(fd);
}

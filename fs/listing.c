/* listing: see listing.h. */
#include "fs/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct listing {
	struct opened opened;
	struct listing_folder folder;
	int fd;
	pthread_mutex_t mu;
	bool filled; /* guarded by mu, as the rest */
	char **names;
	size_t n_names, room;
};

struct listing *listing_new(const struct listing_folder *folder, int fd)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	l->folder = *folder;
	l->fd = fd;
	pthread_mutex_init(&l->mu, NULL);
	return l;
}

static void drop_names(struct listing *l)
{
	for (size_t i = 0; i < l->n_names; i++)
		free(l->names[i]);
	l->n_names = 0;
}

void listing_free(struct listing *l)
{
	if (!l)
		return;
	opened_remove(&l->opened);
	drop_names(l);
	free(l->names);
	if (l->fd >= 0)
		close(l->fd);
	pthread_mutex_destroy(&l->mu);
	free(l);
}

static void free_opened(struct opened *o)
{
	listing_free((struct listing *)o);
}

void listing_reply_open(struct listing *l, struct opened_list *opened, fuse_req_t req, struct fuse_file_info *fi)
{
	opened_add(opened, &l->opened, free_opened);
	fi->fh = (uintptr_t)l;
	if (fuse_reply_open(req, fi) != 0)
		listing_free(l);
}

int listing_fd(const struct listing *l)
{
	return l->fd;
}

int listing_add(struct listing *l, const char *name)
{
	char *copy;

	if (l->n_names == l->room) {
		size_t room = l->room ? l->room * 2 : 32;
		char **names = realloc(l->names, room * sizeof(*names));

		if (!names)
			return ENOMEM;
		l->names = names;
		l->room = room;
	}
	copy = strdup(name);
	if (!copy)
		return ENOMEM;
	l->names[l->n_names++] = copy;
	return 0;
}

/* Some file systems leave the type out. */
static unsigned char type_of(int fd, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN || fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return entry->d_type;
	return IFTODT(st.st_mode);
}

static int add_entry(struct listing *l, const struct dirent *entry)
{
	char shown[NAME_MAX + 1];

	if (!l->folder.show)
		return listing_add(l, entry->d_name);
	if (!l->folder.show(l->folder.context, l->fd, entry->d_name, type_of(l->fd, entry), shown))
		return 0;
	return listing_add(l, shown);
}

static int read_names(struct listing *l, DIR *dir)
{
	struct dirent *entry;

	drop_names(l);
	rewinddir(dir);
	while (errno = 0, (entry = readdir(dir))) {
		int error;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		error = add_entry(l, entry);
		if (error)
			return error;
	}
	return errno;
}

/* At the first piece, and whenever the reader starts over. */
static int fill(struct listing *l, off_t offset)
{
	DIR *dir;
	int error, fd;

	if (l->fd < 0 || (l->filled && offset != 0))
		return 0;
	fd = dup(l->fd);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		error = errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	error = read_names(l, dir);
	closedir(dir);
	l->filled = !error;
	return error;
}

/* "." and "..": no look-up is counted for them. */
static int look_dots(const struct listing *l, off_t index, const char **name, struct fuse_entry_param *out)
{
	*name = index == 0 ? "." : "..";
	out->attr.st_ino = index == 0 ? l->folder.dir : l->folder.up;
	out->attr.st_mode = S_IFDIR;
	return 0;
}

static int look(const struct listing *l, fuse_req_t req, off_t index, bool plus, const char **name,
	struct fuse_entry_param *out)
{
	memset(out, 0, sizeof(*out));
	if (index < 2)
		return look_dots(l, index, name, out);
	*name = l->names[index - 2];
	return l->folder.look(req, l->folder.dir, *name, plus, out);
}

/* Fills the buffer; *used is its length.  An error counts only when nothing fitted before it. */
static int fill_reply(
	const struct listing *l, fuse_req_t req, char *buffer, size_t size, off_t offset, bool plus, size_t *used)
{
	for (off_t index = offset; index >= 0 && index < (off_t)l->n_names + 2; index++) {
		struct fuse_entry_param entry;
		const char *name;
		size_t len;
		int error = look(l, req, index, plus, &name, &entry);

		/* too many open files, say: name it all the same, whoever asks for more is told the reason */
		if (error && error != ENOENT && plus)
			error = look(l, req, index, false, &name, &entry);
		if (error == ENOENT || error == ENAMETOOLONG)
			continue;
		if (error)
			return *used ? 0 : error;
		len = plus ? fuse_add_direntry_plus(req, buffer + *used, size - *used, name, &entry, index + 1)
			   : fuse_add_direntry(req, buffer + *used, size - *used, name, &entry.attr, index + 1);
		if (len > size - *used) {
			if (entry.ino)
				l->folder.unlook(req, entry.ino);
			return 0;
		}
		*used += len;
	}
	return 0;
}

void listing_reply(struct listing *l, fuse_req_t req, size_t size, off_t offset, bool plus)
{
	char *buffer = malloc(size);
	size_t used = 0;
	int error;

	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&l->mu);
	error = fill(l, offset);
	if (!error)
		error = fill_reply(l, req, buffer, size, offset, plus, &used);
	pthread_mutex_unlock(&l->mu);
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_buf(req, buffer, used);
	free(buffer);
}

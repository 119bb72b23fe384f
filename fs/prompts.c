/* prompts: see prompts.h. */
#include "fs/prompts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <xxhash.h>

#include "fs/listing.h"
#include "fs/tree.h"

/* The kernel's own knowledge of this tree: every change goes through it, so this only bounds how long a change made
 * behind our back (in the store itself) stays unseen. */
static const double timeout_s = 1.0;

struct proc_path {
	char text[32];
};

/* A path that opens the very file of an O_PATH descriptor. */
static struct proc_path proc_path(int fd)
{
	struct proc_path path;

	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
	return path;
}

static struct prompt *prompt_of(struct daemon *d, fuse_ino_t ino)
{
	return (struct prompt *)inodes_find(d->inodes, ino);
}

/* ---- inodes ---- */

static void prompt_free(struct inode *i)
{
	struct prompt *p = (struct prompt *)i;

	reach_fini(p);
	free(p);
}

static bool prompt_same(const struct inode *known, const struct inode *fresh)
{
	const struct prompt *a = (const struct prompt *)known, *b = (const struct prompt *)fresh;

	return a->dev == b->dev && a->ino == b->ino;
}

/* The number below where it fits, so that it is the same after a new mount. */
static uint64_t number_of(const struct daemon *d, const struct stat *st)
{
	uint64_t mixed[2] = { st->st_dev, st->st_ino };

	if (d->prompts && st->st_dev == d->prompts->dev && st->st_ino >> INODE_TREE_SHIFT == 0)
		return inode_number(TREE_PROMPTS, st->st_ino);
	return inode_number(TREE_PROMPTS, XXH3_64bits(mixed, sizeof(mixed)));
}

static bool ends_with(const char *name, const char *end)
{
	size_t len = strlen(name), end_len = strlen(end);

	return len >= end_len && strcmp(name + len - end_len, end) == 0;
}

static void note_name(struct prompt *p, const char *name)
{
	bool defaults = strcmp(name, ".defaults") == 0;

	atomic_store(&p->limited, defaults || ends_with(name, ".txt"));
	if (defaults)
		atomic_store(&p->defaults, true);
}

/* Takes fd, an O_PATH descriptor of `name` in dir. */
static int enter(struct daemon *d, struct prompt *dir, int fd, const char *name, struct prompt **out, struct stat *st)
{
	struct prompt *fresh;
	int error;

	if (fstatat(fd, "", st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) {
		error = errno;
		close(fd);
		return error;
	}
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh) {
		close(fd);
		return ENOMEM;
	}
	fresh->inode = (struct inode){ .number = number_of(d, st), .free = prompt_free };
	fresh->inodes = d->inodes;
	fresh->dev = st->st_dev;
	fresh->ino = st->st_ino;
	error = reach_init(fresh, &d->places, dir, name, fd, S_ISDIR(st->st_mode));
	if (error) {
		prompt_free(&fresh->inode);
		return error;
	}
	*out = (struct prompt *)inodes_intern(d->inodes, &fresh->inode, prompt_same);
	note_name(*out, name);
	if (*out != fresh)
		reach_note(*out, dir, name);
	return 0;
}

int prompts_find(struct daemon *d, struct prompt *dir, const char *name, struct prompt **out, struct stat *st)
{
	int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? errno : enter(d, dir, fd, name, out, st);
}

struct prompt *prompts_open_root(struct daemon *d)
{
	struct prompt *root;
	struct stat st;
	int fd = dup(d->store.prompts_fd);

	if (fd < 0 || enter(d, NULL, fd, "", &root, &st) != 0)
		return NULL;
	return root;
}

int prompts_path(const struct daemon *d, int dir_fd, char path[PATH_MAX])
{
	size_t root_len = strlen(d->prompts_path);
	char full[PATH_MAX];
	ssize_t len;

	if (dir_fd == d->prompts->fd) { /* the one most often asked for */
		path[0] = '\0';
		return 0;
	}
	len = readlink(proc_path(dir_fd).text, full, sizeof(full) - 1);
	if (len < 0)
		return errno;
	full[len] = '\0';
	if (strncmp(full, d->prompts_path, root_len) != 0 || (full[root_len] && full[root_len] != '/'))
		return ENOENT;
	snprintf(path, PATH_MAX, "%s", full + root_len + (full[root_len] == '/'));
	return 0;
}

static void fill_entry(struct prompt *p, const struct stat *st, struct fuse_entry_param *out)
{
	out->ino = p->inode.number;
	out->attr = *st;
	out->attr.st_ino = p->inode.number;
	out->attr_timeout = timeout_s;
	out->entry_timeout = timeout_s;
}

static void reply_entry(fuse_req_t req, struct prompt *dir, const char *name)
{
	struct daemon *d = fuse_req_userdata(req);
	struct fuse_entry_param entry = { 0 };
	struct prompt *p;
	int error = prompts_find(d, dir, name, &p, &entry.attr);

	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	fill_entry(p, &entry.attr, &entry);
	if (fuse_reply_entry(req, &entry) != 0)
		inodes_drop(d->inodes, &p->inode, 1);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_entry(req, prompt_of(fuse_req_userdata(req), parent), name);
}

/* ---- attributes ---- */

static void reply_attr(fuse_req_t req, struct prompt *p)
{
	struct stat st;
	int fd, error = reach_file(p, &fd);

	if (!error) {
		error = fstatat(fd, "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
		reach_end(p, fd);
	}
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	st.st_ino = p->inode.number;
	fuse_reply_attr(req, &st, timeout_s);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	reply_attr(req, prompt_of(fuse_req_userdata(req), ino));
}

/* After the content changed, before that is answered. */
static void content_changed(struct daemon *d, const struct prompt *p)
{
	struct stat st = { .st_dev = p->dev, .st_ino = p->ino };

	resolver_touch(d->resolver, &st, atomic_load(&p->defaults));
}

static int set_size(struct daemon *d, struct prompt *p, int fd, off_t size, const struct fuse_file_info *fi)
{
	int done;

	if (atomic_load(&p->limited) && size > RECIPE_PROMPT_MAX)
		return EFBIG;
	done = fi ? ftruncate((int)fi->fh, size) : truncate(proc_path(fd).text, size);
	if (done < 0)
		return errno;
	content_changed(d, p);
	return 0;
}

static struct timespec time_to_set(int to_set, int given, int now, struct timespec time)
{
	if (to_set & now)
		time.tv_nsec = UTIME_NOW;
	else if (!(to_set & given))
		time.tv_nsec = UTIME_OMIT;
	return time;
}

static int set_times(int fd, const struct stat *attr, int to_set)
{
	struct timespec times[2] = {
		time_to_set(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim),
		time_to_set(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim),
	};

	if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT)
		return 0;
	return utimensat(fd, "", times, AT_EMPTY_PATH) < 0 ? errno : 0;
}

/* The owner first: chown clears the set-id bits, and chmod may be what sets them. */
static int set_attributes(struct daemon *d, struct prompt *p, int fd, const struct stat *attr, int to_set,
	const struct fuse_file_info *fi)
{
	int error = 0;

	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
		gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

		if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
			return errno;
	}
	if ((to_set & FUSE_SET_ATTR_MODE) && chmod(proc_path(fd).text, attr->st_mode & 07777) < 0)
		return errno;
	if (to_set & FUSE_SET_ATTR_SIZE)
		error = set_size(d, p, fd, attr->st_size, fi);
	return error ? error : set_times(fd, attr, to_set);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *p = prompt_of(d, ino);
	int fd, error = reach_file(p, &fd);

	if (!error) {
		error = set_attributes(d, p, fd, attr, to_set, fi);
		reach_end(p, fd);
	}
	if (error)
		fuse_reply_err(req, error);
	else
		reply_attr(req, p);
}

/* ---- making and removing names ---- */

/* A file made by us belongs to the caller; in a set-group-id folder its group is the folder's (as it already is). */
static int give_to_caller(fuse_req_t req, int dir_fd, int fd, mode_t mode)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	struct stat dir;
	gid_t gid = caller->gid;

	if (fstatat(dir_fd, "", &dir, AT_EMPTY_PATH) < 0)
		return errno;
	if (dir.st_mode & S_ISGID)
		gid = (gid_t)-1;
	if (fchownat(fd, "", caller->uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) {
		/* an ordinary user's daemon: its own files may keep its own group, other users' files it cannot make */
		if (errno != EPERM || caller->uid != geteuid())
			return errno;
	}
	if (!S_ISREG(mode) || !(mode & (S_ISUID | S_ISGID)))
		return 0;
	/* chown cleared these; a group that is not the caller's stays without its bit, as everywhere */
	if ((dir.st_mode & S_ISGID) && (mode & S_IXGRP) && caller->uid != 0 && dir.st_gid != caller->gid)
		mode &= ~(mode_t)S_ISGID;
	return chmod(proc_path(fd).text, mode & 07777) < 0 ? errno : 0;
}

/* Answers with the entry that was just made, after giving it to the caller; takes it away again when that fails. */
static void reply_made(fuse_req_t req, struct prompt *dir, const char *name, mode_t mode)
{
	int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int error = fd < 0 ? errno : give_to_caller(req, dir->fd, fd, mode);

	if (fd >= 0)
		close(fd);
	if (error) {
		unlinkat(dir->fd, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
		fuse_reply_err(req, error);
		return;
	}
	reply_entry(req, dir, name);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	struct prompt *dir = prompt_of(fuse_req_userdata(req), parent);

	if (mknodat(dir->fd, name, mode, device) < 0)
		fuse_reply_err(req, errno);
	else
		reply_made(req, dir, name, mode);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct prompt *dir = prompt_of(fuse_req_userdata(req), parent);

	if (mkdirat(dir->fd, name, mode) < 0)
		fuse_reply_err(req, errno);
	else
		reply_made(req, dir, name, S_IFDIR | mode);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct prompt *dir = prompt_of(fuse_req_userdata(req), parent);

	if (symlinkat(target, dir->fd, name) < 0)
		fuse_reply_err(req, errno);
	else
		reply_made(req, dir, name, S_IFLNK);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *dir = prompt_of(d, new_parent), *p;
	int fd, error;

	if (inode_tree(ino) != TREE_PROMPTS) {
		fuse_reply_err(req, EPERM);
		return;
	}
	p = prompt_of(d, ino);
	error = reach_file(p, &fd);
	if (!error) {
		if (linkat(AT_FDCWD, proc_path(fd).text, dir->fd, new_name, AT_SYMLINK_FOLLOW) < 0)
			error = errno;
		reach_end(p, fd);
	}
	if (error)
		fuse_reply_err(req, error);
	else
		reply_entry(req, dir, new_name);
}

/* The file that is about to lose a name, held, with a descriptor: the name may be all by which it is reached.  NULL:
 * none. */
static struct prompt *hold_victim(struct daemon *d, struct prompt *dir, const char *name)
{
	struct prompt *p;
	struct stat st;
	int fd;

	if (prompts_find(d, dir, name, &p, &st) != 0)
		return NULL;
	if (atomic_load(&p->fd) < 0 && (fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)) >= 0)
		reach_keep(p, fd);
	return p;
}

/* Its records go with its last name. */
static void drop_victim(struct daemon *d, struct prompt *p)
{
	struct stat st;

	if (!p)
		return;
	if (fstat(p->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0)
		resolver_forget(d->resolver, p->fd, &st);
	inodes_drop(d->inodes, &p->inode, 1);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *dir = prompt_of(d, parent);
	struct prompt *victim = hold_victim(d, dir, name);
	int error = unlinkat(dir->fd, name, 0) < 0 ? errno : 0;

	drop_victim(d, victim);
	fuse_reply_err(req, error);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct prompt *dir = prompt_of(fuse_req_userdata(req), parent);

	fuse_reply_err(req, unlinkat(dir->fd, name, AT_REMOVEDIR) < 0 ? errno : 0);
}

/* A name now means another file than before. */
static void note_place(struct daemon *d, struct prompt *dir, const char *name)
{
	struct prompt *p;
	struct stat st;

	if (prompts_find(d, dir, name, &p, &st) == 0)
		inodes_drop(d->inodes, &p->inode, 1);
}

/* The moved file's limit follows its new name at the next look-up; a file renamed to .defaults has another inode there
 * than before, which the resolver sees. */
static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned int flags)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *dir = prompt_of(d, parent);
	struct prompt *new_dir, *victim;
	int error;

	if (inode_tree(new_parent) != TREE_PROMPTS) {
		fuse_reply_err(req, EPERM);
		return;
	}
	new_dir = prompt_of(d, new_parent);
	victim = hold_victim(d, new_dir, new_name);
	error = renameat2(dir->fd, name, new_dir->fd, new_name, flags) < 0 ? errno : 0;
	drop_victim(d, victim);
	if (!error)
		note_place(d, new_dir, new_name);
	if (!error && (flags & RENAME_EXCHANGE))
		note_place(d, dir, name);
	fuse_reply_err(req, error);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX];
	struct prompt *p = prompt_of(fuse_req_userdata(req), ino);
	ssize_t len = -1;
	int fd, error = reach_file(p, &fd);

	if (!error) {
		len = readlinkat(fd, "", target, sizeof(target) - 1);
		error = len < 0 ? errno : 0;
		reach_end(p, fd);
	}
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	target[len] = '\0';
	fuse_reply_readlink(req, target);
}

/* ---- open files ---- */

/* O_APPEND stays with the kernel, which gives us offsets; a descriptor in that mode would ignore them. */
static int flags_below(int flags)
{
	return (flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *p = prompt_of(d, ino);
	int path_fd, fd = -1, error = reach_file(p, &path_fd);

	if (!error) {
		fd = open(proc_path(path_fd).text, flags_below(fi->flags));
		error = fd < 0 ? errno : 0;
		reach_end(p, path_fd);
	}
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	if (fi->flags & O_TRUNC)
		content_changed(d, p);
	fi->fh = (uint64_t)fd;
	if (fuse_reply_open(req, fi) != 0)
		close(fd);
}

static int create(fuse_req_t req, struct prompt *dir, const char *name, mode_t mode, int flags, int *out)
{
	int fd = openat(dir->fd, name, flags_below(flags) | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
	int error;

	if (fd >= 0) {
		error = give_to_caller(req, dir->fd, fd, S_IFREG | mode);
		if (error) {
			unlinkat(dir->fd, name, 0);
			close(fd);
			return error;
		}
	} else if (errno == EEXIST && !(flags & O_EXCL)) {
		/* another caller was faster: theirs is opened */
		fd = openat(dir->fd, name, flags_below(flags) | O_NOFOLLOW);
	}
	if (fd < 0)
		return errno;
	*out = fd;
	return 0;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *dir = prompt_of(d, parent), *p = NULL;
	struct fuse_entry_param entry = { 0 };
	int fd = -1, path_fd, error = create(req, dir, name, mode, fi->flags, &fd);

	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	/* the file that was opened, whatever its name means by now */
	path_fd = open(proc_path(fd).text, O_PATH | O_CLOEXEC);
	error = path_fd < 0 ? errno : enter(d, dir, path_fd, name, &p, &entry.attr);
	if (error) {
		close(fd);
		fuse_reply_err(req, error);
		return;
	}
	content_changed(d, p);
	fill_entry(p, &entry.attr, &entry);
	fi->fh = (uint64_t)fd;
	if (fuse_reply_create(req, &entry, fi) != 0) {
		inodes_drop(d->inodes, &p->inode, 1);
		close(fd);
	}
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(size);

	data.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	data.buf[0].fd = (int)fi->fh;
	data.buf[0].pos = offset;
	fuse_reply_data(req, &data, FUSE_BUF_NO_SPLICE);
}

static void op_write(
	fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *p = prompt_of(d, ino);
	ssize_t written;

	if (atomic_load(&p->limited)) {
		if (offset >= RECIPE_PROMPT_MAX && size > 0) {
			fuse_reply_err(req, EFBIG);
			return;
		}
		/* as far as it fits; the caller's next write is then told */
		if (size > (size_t)(RECIPE_PROMPT_MAX - offset))
			size = (size_t)(RECIPE_PROMPT_MAX - offset);
	}
	written = pwrite((int)fi->fh, data, size, offset);
	if (written < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	content_changed(d, p);
	fuse_reply_write(req, (size_t)written);
}

static void op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *p = prompt_of(d, ino);
	int error = 0;

	if (atomic_load(&p->limited) && (offset > RECIPE_PROMPT_MAX || length > RECIPE_PROMPT_MAX - offset))
		error = EFBIG;
	else if (fallocate((int)fi->fh, mode, offset, length) < 0)
		error = errno;
	else
		content_changed(d, p);
	fuse_reply_err(req, error);
}

/* At every close(): the file below is asked what it has to say (a quota, a network file system). */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int copy = dup((int)fi->fh);

	fuse_reply_err(req, copy < 0 || close(copy) < 0 ? errno : 0);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	int done = data_only ? fdatasync((int)fi->fh) : fsync((int)fi->fh);

	fuse_reply_err(req, done < 0 ? errno : 0);
}

/* ---- folders ---- */

static int look(fuse_req_t req, fuse_ino_t dir, const char *name, bool plus, struct fuse_entry_param *out)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *parent = prompt_of(d, dir), *p;
	int error;

	if (!plus) {
		if (fstatat(parent->fd, name, &out->attr, AT_SYMLINK_NOFOLLOW) < 0)
			return errno;
		out->attr.st_ino = number_of(d, &out->attr);
		return 0;
	}
	error = prompts_find(d, parent, name, &p, &out->attr);
	if (!error)
		fill_entry(p, &out->attr, out);
	return error;
}

static void unlook(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);

	inodes_drop(d->inodes, inodes_find(d->inodes, ino), 1);
}

static fuse_ino_t number_of_parent(struct daemon *d, const struct prompt *p)
{
	struct stat st;

	if (p == d->prompts || fstatat(p->fd, "..", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return FUSE_ROOT_ID;
	return number_of(d, &st);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct prompt *p = prompt_of(d, ino);
	struct listing_folder folder = { .dir = ino, .up = number_of_parent(d, p), .look = look, .unlook = unlook };
	int fd = openat(p->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct listing *l = fd < 0 ? NULL : listing_new(&folder, fd);

	if (!l) {
		fuse_reply_err(req, fd < 0 ? errno : ENOMEM);
		return;
	}
	listing_reply_open(l, &d->opened, req, fi);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	int fd = listing_fd(tree_listing(fi));
	int done = data_only ? fdatasync(fd) : fsync(fd);

	fuse_reply_err(req, done < 0 ? errno : 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);
	struct statvfs st;

	if (fstatvfs(d->store.prompts_fd, &st) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops prompts_ops = {
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.fallocate = op_fallocate,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
};

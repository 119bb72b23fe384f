/* tree: see tree.h; and the root, which holds the three trees and nothing else. */
#include "fs/tree.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/images.h"
#include "fs/prompts.h"
#include "fs/statusfs.h"

static const char *const tree_names[TREE_COUNT] = {
	[TREE_PROMPTS] = "prompts",
	[TREE_IMAGES] = "images",
	[TREE_STATUS] = "status",
};

/* ---- the root ---- */

static const struct fuse_lowlevel_ops root_ops, *const tables[TREE_COUNT] = {
	[TREE_ROOT] = &root_ops,
	[TREE_PROMPTS] = &prompts_ops,
	[TREE_IMAGES] = &images_ops,
	[TREE_STATUS] = &statusfs_ops,
};

static void root_attr(const struct daemon *d, struct stat *out)
{
	memset(out, 0, sizeof(*out));
	out->st_ino = FUSE_ROOT_ID;
	out->st_mode = S_IFDIR | 0555;
	out->st_nlink = 5;
	out->st_uid = d->owner;
	out->st_gid = d->group;
	out->st_mtim = out->st_ctim = out->st_atim = d->started;
}

static fuse_ino_t tree_root(const struct daemon *d, enum tree tree)
{
	if (tree == TREE_PROMPTS)
		return d->prompts->inode.number;
	return tree == TREE_IMAGES ? images_root(d->images) : statusfs_root(d);
}

/* The roots of the trees live as long as the mount; their attributes are asked for when needed. */
static int root_look(fuse_req_t req, fuse_ino_t dir, const char *name, bool plus, struct fuse_entry_param *out)
{
	struct daemon *d = fuse_req_userdata(req);

	for (int t = TREE_ROOT + 1; t < TREE_COUNT; t++) {
		if (strcmp(name, tree_names[t]) != 0)
			continue;
		out->attr.st_ino = tree_root(d, (enum tree)t);
		out->attr.st_mode = S_IFDIR | 0555;
		if (t == TREE_PROMPTS) {
			if (fstatat(d->prompts->fd, "", &out->attr, AT_EMPTY_PATH) < 0)
				return errno;
			out->attr.st_ino = d->prompts->inode.number;
		}
		if (plus) {
			out->ino = out->attr.st_ino;
			out->entry_timeout = 3600;
			inodes_hold(d->inodes, inodes_find(d->inodes, out->ino));
		}
		return 0;
	}
	return strlen(name) > NAME_MAX ? ENAMETOOLONG : ENOENT;
}

static void unlook(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);

	inodes_drop(d->inodes, inodes_find(d->inodes, ino), 1);
}

static void root_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { 0 };
	int error = root_look(req, parent, name, true, &entry);

	if (error)
		fuse_reply_err(req, error);
	else if (fuse_reply_entry(req, &entry) != 0)
		unlook(req, entry.ino);
}

static void root_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	root_attr(fuse_req_userdata(req), &st);
	fuse_reply_attr(req, &st, 3600);
}

static void root_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing_folder how = { .dir = ino, .up = ino, .look = root_look, .unlook = unlook };
	struct daemon *d = fuse_req_userdata(req);
	struct listing *l = listing_new(&how, -1);
	int error = l ? 0 : ENOMEM;

	for (int t = TREE_ROOT + 1; t < TREE_COUNT && !error; t++)
		error = listing_add(l, tree_names[t]);
	if (error) {
		listing_free(l);
		fuse_reply_err(req, error);
	} else {
		listing_reply_open(l, &d->opened, req, fi);
	}
}

static const struct fuse_lowlevel_ops root_ops = {
	.lookup = root_lookup,
	.getattr = root_getattr,
	.opendir = root_opendir,
};

/* ---- every operation, to its tree ---- */

/* NULL after answering ESTALE: an inode that was never given out, or forgotten. */
static const struct fuse_lowlevel_ops *table_of(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);
	enum tree tree = inode_tree(ino);

	if (ino == FUSE_ROOT_ID)
		return &root_ops;
	if (tree == TREE_COUNT || tree == TREE_ROOT || !inodes_find(d->inodes, ino)) {
		fuse_reply_err(req, ESTALE);
		return NULL;
	}
	return tables[tree];
}

/* ENOSYS is never among the answers: the kernel would stop asking the other trees too. */
#define HAND_ON(op, otherwise, ino, ...)                                                                               \
	do {                                                                                                           \
		const struct fuse_lowlevel_ops *table = table_of(req, ino);                                            \
		if (table && table->op)                                                                                \
			table->op(__VA_ARGS__);                                                                        \
		else if (table)                                                                                        \
			fuse_reply_err(req, otherwise);                                                                \
	} while (0)

static void tree_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	HAND_ON(lookup, ENOTDIR, parent, req, parent, name);
}

static void drop_lookups(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	struct daemon *d = fuse_req_userdata(req);
	struct inode *i = ino == FUSE_ROOT_ID ? NULL : inodes_find(d->inodes, ino);

	if (i)
		inodes_drop(d->inodes, i, n);
}

static void tree_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	drop_lookups(req, ino, n);
	fuse_reply_none(req);
}

static void tree_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		drop_lookups(req, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void tree_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	HAND_ON(getattr, EIO, ino, req, ino, fi);
}

static void tree_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	HAND_ON(setattr, EPERM, ino, req, ino, attr, to_set, fi);
}

static void tree_readlink(fuse_req_t req, fuse_ino_t ino)
{
	HAND_ON(readlink, EINVAL, ino, req, ino);
}

static void tree_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	HAND_ON(mknod, EPERM, parent, req, parent, name, mode, device);
}

static void tree_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	HAND_ON(mkdir, EPERM, parent, req, parent, name, mode);
}

static void tree_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	HAND_ON(unlink, EPERM, parent, req, parent, name);
}

static void tree_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	HAND_ON(rmdir, EPERM, parent, req, parent, name);
}

static void tree_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	HAND_ON(symlink, EPERM, parent, req, target, parent, name);
}

static void tree_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned int flags)
{
	HAND_ON(rename, EPERM, parent, req, parent, name, new_parent, new_name, flags);
}

static void tree_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	HAND_ON(link, EPERM, new_parent, req, ino, new_parent, new_name);
}

static void tree_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	HAND_ON(open, EACCES, ino, req, ino, fi);
}

static void tree_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	HAND_ON(create, EPERM, parent, req, parent, name, mode, fi);
}

static void tree_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	HAND_ON(read, EIO, ino, req, ino, size, offset, fi);
}

static void tree_write(
	fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	HAND_ON(write, EPERM, ino, req, ino, data, size, offset, fi);
}

static void tree_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	HAND_ON(fallocate, EPERM, ino, req, ino, mode, offset, length, fi);
}

static void tree_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	HAND_ON(flush, 0, ino, req, ino, fi);
}

static void tree_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	HAND_ON(release, 0, ino, req, ino, fi);
}

static void tree_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	HAND_ON(fsync, 0, ino, req, ino, data_only, fi);
}

static void tree_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	HAND_ON(opendir, ENOTDIR, ino, req, ino, fi);
}

static void tree_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	listing_reply(tree_listing(fi), req, size, offset, false);
}

static void tree_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	listing_reply(tree_listing(fi), req, size, offset, true);
}

static void tree_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	listing_free(tree_listing(fi));
	fuse_reply_err(req, 0);
}

static void tree_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	HAND_ON(fsyncdir, 0, ino, req, ino, data_only, fi);
}

/* The space is that of the store, in every tree. */
static void tree_statfs(fuse_req_t req, fuse_ino_t ino)
{
	prompts_ops.statfs(req, ino);
}

/* Extended attributes are left out: answered with ENOSYS, once, they cost `ls -l` nothing.  Locks are the kernel's. */
const struct fuse_lowlevel_ops tree_ops = {
	.lookup = tree_lookup,
	.forget = tree_forget,
	.forget_multi = tree_forget_multi,
	.getattr = tree_getattr,
	.setattr = tree_setattr,
	.readlink = tree_readlink,
	.mknod = tree_mknod,
	.mkdir = tree_mkdir,
	.unlink = tree_unlink,
	.rmdir = tree_rmdir,
	.symlink = tree_symlink,
	.rename = tree_rename,
	.link = tree_link,
	.open = tree_open,
	.create = tree_create,
	.read = tree_read,
	.write = tree_write,
	.fallocate = tree_fallocate,
	.flush = tree_flush,
	.release = tree_release,
	.fsync = tree_fsync,
	.opendir = tree_opendir,
	.readdir = tree_readdir,
	.readdirplus = tree_readdirplus,
	.releasedir = tree_releasedir,
	.fsyncdir = tree_fsyncdir,
	.statfs = tree_statfs,
};

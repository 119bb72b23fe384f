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
	struct listing *l = listing_new(&how, -1);
	int error = l ? 0 : ENOMEM;

	for (int t = TREE_ROOT + 1; t < TREE_COUNT && !error; t++)
		error = listing_add(l, tree_names[t]);
	fi->fh = (uintptr_t)l;
	if (error)
		fuse_reply_err(req, error);
	if (error || fuse_reply_open(req, fi) != 0)
		listing_free(l);
}

static const struct fuse_lowlevel_ops root_ops = {
	.lookup = root_lookup,
	.getattr = root_getattr,
	.opendir = root_opendir,
};

/* statusfs: see statusfs.h. */
#include "fs/statusfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "fs/control.h"
#include "fs/listing.h"
#include "fs/log.h"
#include "fs/statustext.h"
#include "fs/tree.h"
#include "fs/views.h"

enum kind {
	KIND_ROOT,
	KIND_QUEUE,
	KIND_METRICS,
	KIND_PID,
	KIND_LOG,
	KIND_CONTROL,
	KIND_MODELS,
	KIND_FIXED,
	KIND_MODEL,
	KIND_NOTE
};

/* An inode of this tree that is no mirrored folder or link. */
struct node {
	struct inode inode;
	enum kind kind;
	char *name;            /* KIND_MODEL: the model's; KIND_NOTE: the file's in its folder */
	struct folder *folder; /* KIND_NOTE; held */
	struct inodes *table;
};

static const struct {
	const char *name;
	mode_t mode;
} fixed[KIND_FIXED] = {
	[KIND_ROOT] = { "", S_IFDIR | 0555 },
	[KIND_QUEUE] = { "queue", S_IFREG | 0444 },
	[KIND_METRICS] = { "metrics", S_IFREG | 0444 },
	[KIND_PID] = { "pid", S_IFREG | 0444 },
	[KIND_LOG] = { "log", S_IFREG | 0400 }, /* names of everybody's prompts are in it */
	[KIND_CONTROL] = { "control", S_IFREG | 0200 },
	[KIND_MODELS] = { "models", S_IFDIR | 0555 },
};

static const char *const view_names[VIEW_COUNT] = { [VIEW_INFO] = "info", [VIEW_ERRORS] = "errors" };

/* ---- inodes ---- */

static void node_free(struct inode *i)
{
	struct node *n = (struct node *)i;

	if (n->folder)
		inodes_drop(n->table, &n->folder->inode, 1);
	free(n->name);
	free(n);
}

static bool node_same(const struct inode *known, const struct inode *fresh)
{
	const struct node *a = (const struct node *)known, *b = (const struct node *)fresh;

	return known->free == node_free && a->kind == b->kind && a->folder == b->folder &&
	       (a->name == b->name || (a->name && b->name && strcmp(a->name, b->name) == 0));
}

static fuse_ino_t fixed_number(enum kind kind)
{
	return inode_number(TREE_STATUS, (uint64_t)kind + 1);
}

/* Takes the reference on folder.  NULL: no memory. */
static struct node *node_intern(struct daemon *d, enum kind kind, uint64_t low, const char *name, struct folder *folder)
{
	struct node *n = calloc(1, sizeof(*n));

	if (n && name)
		n->name = strdup(name);
	if (!n || (name && !n->name)) {
		if (folder)
			inodes_drop(d->inodes, &folder->inode, 1);
		free(n);
		return NULL;
	}
	n->inode.number = inode_number(TREE_STATUS, low);
	n->inode.free = node_free;
	n->kind = kind;
	n->folder = folder;
	n->table = d->inodes;
	return (struct node *)inodes_intern(d->inodes, &n->inode, node_same);
}

enum status statusfs_open(struct daemon *d)
{
	for (int k = 0; k < KIND_FIXED; k++) {
		if (!node_intern(d, (enum kind)k, (uint64_t)k + 1, NULL, NULL))
			return status_fail(STATUS_NO_MEMORY, "no memory to start");
	}
	return STATUS_OK;
}

fuse_ino_t statusfs_root(const struct daemon *d)
{
	return fixed_number(KIND_ROOT);
}

static struct node *node_of(struct daemon *d, fuse_ino_t ino)
{
	struct inode *i = inodes_find(d->inodes, ino);

	return i->free == node_free ? (struct node *)i : NULL;
}

/* ---- text and attributes ---- */

static const struct catalog_model *model_of(struct daemon *d, const char *name)
{
	const struct catalog *catalog = resolver_catalog(d->resolver);

	for (int i = 0; i < catalog->n_models; i++) {
		if (strcmp(catalog->models[i].where->name, name) == 0)
			return &catalog->models[i];
	}
	return NULL;
}

static enum status write_child(struct daemon *d, enum view view, const struct child *c, struct bytes *out)
{
	return view == VIEW_INFO ? statustext_info(d, c, out) : statustext_error(d, c, out);
}

/* The text of a file about a picture, and the prompt's attributes.  ENOENT: there is nothing to say (any more). */
static int write_note(struct daemon *d, const struct folder *f, const char *name, struct bytes *out, struct stat *st)
{
	struct child c;
	enum status s;
	int error = view_find(d, f, name, &c);

	if (error)
		return error;
	if (c.kind != CHILD_FILE) {
		view_child_fini(&c);
		return ENOENT;
	}
	s = write_child(d, f->view, &c, out);
	if (st) {
		st->st_mode = S_IFREG | (c.st.st_mode & 0444);
		st->st_uid = c.st.st_uid;
		st->st_gid = c.st.st_gid;
	}
	view_child_fini(&c);
	if (s != STATUS_OK)
		return ENOMEM;
	return out->len ? 0 : ENOENT;
}

static int write_model(struct daemon *d, const char *name, struct bytes *out)
{
	const struct catalog_model *m = model_of(d, name);

	if (!m)
		return ENOENT;
	return statustext_model(d, m, out) == STATUS_OK ? 0 : ENOMEM;
}

/* st may be NULL. */
static int write_node(struct daemon *d, const struct node *n, uid_t reader, struct bytes *out, struct stat *st)
{
	enum status s = STATUS_OK;

	if (n->kind == KIND_NOTE)
		return write_note(d, n->folder, n->name, out, st);
	if (n->kind == KIND_MODEL)
		return write_model(d, n->name, out);
	if (n->kind == KIND_QUEUE)
		s = statustext_queue(d, reader, out);
	else if (n->kind == KIND_METRICS)
		s = statustext_metrics(d, out);
	else if (n->kind == KIND_PID)
		s = bytes_print(out, "%ld\n", (long)getpid());
	else if (n->kind == KIND_LOG)
		s = log_recent(out);
	return s == STATUS_OK ? 0 : ENOMEM;
}

static int node_attr(struct daemon *d, const struct node *n, uid_t reader, struct stat *out)
{
	struct bytes text = { 0 };
	int error;

	memset(out, 0, sizeof(*out));
	out->st_ino = n->inode.number;
	out->st_mode = n->kind < KIND_FIXED ? fixed[n->kind].mode : S_IFREG | 0444;
	out->st_nlink = 1;
	out->st_uid = d->owner;
	out->st_gid = d->group;
	out->st_blksize = 4096;
	error = write_node(d, n, reader, &text, out);
	out->st_size = (off_t)text.len;
	out->st_blocks = (blkcnt_t)((text.len + 511) / 512);
	bytes_free(&text);
	clock_gettime(CLOCK_REALTIME, &out->st_mtim);
	if (S_ISDIR(out->st_mode) || n->kind == KIND_PID || n->kind == KIND_CONTROL)
		out->st_mtim = d->started;
	out->st_ctim = out->st_atim = out->st_mtim;
	return error;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct inode *i = inodes_find(d->inodes, ino);
	struct node *n = node_of(d, ino);
	struct stat st;
	int error = 0;

	if (n)
		error = node_attr(d, n, fuse_req_ctx(req)->uid, &st);
	else if (view_is_link(i))
		st = ((struct link *)i)->st;
	else
		view_folder_attr((struct folder *)i, &st);
	if (error)
		fuse_reply_err(req, error == ENOENT ? ESTALE : error);
	else
		fuse_reply_attr(req, &st, 0);
}

/* `> status/control` truncates it first, and touch sets its time: neither changes anything. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct node *n = node_of(fuse_req_userdata(req), ino);

	if (n && n->kind == KIND_CONTROL && !(to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		op_getattr(req, ino, fi);
	else
		fuse_reply_err(req, EPERM);
}

/* ---- look-ups; each gives one reference to the kernel ---- */

static int finish_node(struct daemon *d, struct node *n, uid_t reader, struct fuse_entry_param *out)
{
	int error = n ? node_attr(d, n, reader, &out->attr) : ENOMEM;

	if (error && n)
		inodes_drop(d->inodes, &n->inode, 1);
	return error;
}

static int look_in_root(struct daemon *d, const char *name, uid_t reader, struct fuse_entry_param *out)
{
	for (int k = KIND_ROOT + 1; k < KIND_FIXED; k++) {
		if (strcmp(name, fixed[k].name) == 0)
			return finish_node(d, node_intern(d, (enum kind)k, (uint64_t)k + 1, NULL, NULL), reader, out);
	}
	for (int v = 0; v < VIEW_COUNT; v++) {
		struct folder *f;

		if (!view_names[v] || strcmp(name, view_names[v]) != 0)
			continue;
		f = view_open_root(d, (enum view)v);
		if (!f)
			return ENOMEM;
		view_folder_attr(f, &out->attr);
		return 0;
	}
	return ENOENT;
}

static int look_in_models(struct daemon *d, const char *name, uid_t reader, struct fuse_entry_param *out)
{
	size_t len = strlen(name);
	char model[NAME_MAX + 1];

	if (len <= 5 || len > NAME_MAX || strcmp(name + len - 5, ".json") != 0)
		return ENOENT;
	memcpy(model, name, len - 5);
	model[len - 5] = '\0';
	if (!model_of(d, model))
		return ENOENT;
	return finish_node(d, node_intern(d, KIND_MODEL, XXH3_64bits(model, len - 5), model, NULL), reader, out);
}

static int look_note(struct daemon *d, struct folder *f, const char *name, uid_t reader, struct fuse_entry_param *out)
{
	uint64_t low = XXH3_64bits_withSeed(name, strlen(name), f->inode.number);

	inodes_hold(d->inodes, &f->inode);
	return finish_node(d, node_intern(d, KIND_NOTE, low, name, f), reader, out);
}

static int look_in_view(
	struct daemon *d, struct folder *f, const char *name, uid_t reader, struct fuse_entry_param *out)
{
	struct folder *sub;
	struct link *l;
	struct child c;
	int error = view_find(d, f, name, &c);

	if (error)
		return error;
	if (c.kind == CHILD_FILE) {
		error = look_note(d, f, name, reader, out);
	} else if (c.kind == CHILD_FOLDER) {
		error = view_enter(d, f, &c, &sub);
		if (!error)
			view_folder_attr(sub, &out->attr);
	} else {
		error = view_enter_link(d, f, name, &c, &l);
		if (!error)
			out->attr = l->st;
	}
	view_child_fini(&c);
	return error;
}

static int look_up(struct daemon *d, fuse_ino_t dir, const char *name, uid_t reader, struct fuse_entry_param *out)
{
	struct node *n = node_of(d, dir);
	int error;

	if (strlen(name) > NAME_MAX)
		return ENAMETOOLONG;
	if (!n)
		error = look_in_view(d, (struct folder *)inodes_find(d->inodes, dir), name, reader, out);
	else if (n->kind == KIND_ROOT)
		error = look_in_root(d, name, reader, out);
	else
		error = look_in_models(d, name, reader, out);
	out->ino = error ? 0 : out->attr.st_ino;
	return error;
}

static void unlook(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);

	inodes_drop(d->inodes, inodes_find(d->inodes, ino), 1);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { 0 };
	int error = look_up(fuse_req_userdata(req), parent, name, fuse_req_ctx(req)->uid, &entry);

	if (error)
		fuse_reply_err(req, error);
	else if (fuse_reply_entry(req, &entry) != 0)
		unlook(req, entry.ino);
}

/* ---- open files ---- */

/* As it was when the file was opened. */
struct text {
	struct opened opened;
	struct bytes bytes;
};

static void text_free(struct opened *o)
{
	struct text *text = (struct text *)o;

	bytes_free(&text->bytes);
	free(text);
}

static void text_close(struct text *text)
{
	if (!text)
		return;
	opened_remove(&text->opened);
	text_free(&text->opened);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct node *n = node_of(d, ino);
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	struct text *text;
	int error = 0;

	/* root passes the modes */
	if (!n || writes != (n->kind == KIND_CONTROL) || (fi->flags & O_ACCMODE) == O_RDWR) {
		fuse_reply_err(req, EACCES);
		return;
	}
	text = calloc(1, sizeof(*text));
	if (text)
		opened_add(&d->opened, &text->opened, text_free);
	else
		error = ENOMEM;
	if (!error && !writes)
		error = write_node(d, n, fuse_req_ctx(req)->uid, &text->bytes, NULL);
	if (error) {
		text_close(text);
		fuse_reply_err(req, error);
		return;
	}
	fi->fh = (uintptr_t)text;
	fi->direct_io = 1;
	fi->noflush = 1;
	if (fuse_reply_open(req, fi) != 0)
		text_close(text);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const struct bytes *text = &((const struct text *)(uintptr_t)fi->fh)->bytes;
	size_t from = offset < 0 || (uint64_t)offset > text->len ? text->len : (size_t)offset;

	if (size > text->len - from)
		size = text->len - from;
	fuse_reply_buf(req, size ? (const char *)text->data + from : NULL, size);
}

static void op_write(
	fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	int error = control_run(fuse_req_userdata(req), data, size);

	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_write(req, size);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	text_close((struct text *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

/* ---- folders ---- */

static int look(fuse_req_t req, fuse_ino_t dir, const char *name, bool plus, struct fuse_entry_param *out)
{
	int error = look_up(fuse_req_userdata(req), dir, name, fuse_req_ctx(req)->uid, out);

	if (!error && !plus) {
		unlook(req, out->ino);
		out->ino = 0;
	}
	return error;
}

static int add_models(struct daemon *d, struct listing *l)
{
	const struct catalog *catalog = resolver_catalog(d->resolver);
	int error = 0;

	for (int i = 0; i < catalog->n_models && !error; i++) {
		char name[NAME_MAX + 1];

		snprintf(name, sizeof(name), "%s.json", catalog->models[i].where->name);
		error = listing_add(l, name);
	}
	return error;
}

static int add_root(struct listing *l)
{
	int error = 0;

	for (int k = KIND_ROOT + 1; k < KIND_FIXED && !error; k++)
		error = listing_add(l, fixed[k].name);
	for (int v = 0; v < VIEW_COUNT && !error; v++) {
		if (view_names[v])
			error = listing_add(l, view_names[v]);
	}
	return error;
}

/* The names of a folder of ours; of a mirrored one they are read when asked for. */
static int list(struct daemon *d, fuse_ino_t ino, struct listing **out)
{
	struct listing_folder how = { .dir = ino, .up = FUSE_ROOT_ID, .look = look, .unlook = unlook };
	struct node *n = node_of(d, ino);
	int fd = -1, error = 0;

	if (!n) {
		struct folder *f = (struct folder *)inodes_find(d->inodes, ino);

		how.show = view_show;
		how.context = f;
		fd = openat(f->prompts->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return errno;
	}
	*out = listing_new(&how, fd);
	if (!*out)
		return ENOMEM;
	if (n)
		error = n->kind == KIND_ROOT ? add_root(*out) : add_models(d, *out);
	if (error)
		listing_free(*out);
	return error;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct listing *l = NULL;
	int error = list(d, ino, &l);

	if (error)
		fuse_reply_err(req, error);
	else
		listing_reply_open(l, &d->opened, req, fi);
}

const struct fuse_lowlevel_ops statusfs_ops = {
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = view_readlink,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.release = op_release,
	.opendir = op_opendir,
};

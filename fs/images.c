/* images: see images.h. */
#include "fs/images.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "fs/contents.h"
#include "fs/dress.h"
#include "fs/errnos.h"
#include "fs/hashes.h"
#include "fs/listing.h"
#include "fs/log.h"
#include "fs/tree.h"
#include "fs/views.h"

/* What an inode shows never changes but for its owner, mode and time, and every look-up renews those; names are asked
 * for anew each time. */
static const double attr_timeout_s = 3600, entry_timeout_s = 0;

/* A folder's attributes follow those of the one in prompts/.  Its look-ups renew them too, so that only the root of the
 * tree, whose name is not looked up again, can lag behind. */
static const double folder_timeout_s = 1;

enum { SHELF_BYTES = 32 << 20 };

/* A finished picture, shared by the inode and its open files. */
struct finished {
	struct opened opened;
	atomic_int refs;
	struct bytes png;
};

struct image {
	struct inode inode;
	struct daemon *d;
	struct resolve_revision revision;
	char *name; /* "a/b.png" */
	struct resolved *resolved;
	atomic_bool retired; /* its bytes could not be made again: the name belongs to another inode now */
	/* guarded by images.mu */
	uid_t uid;
	gid_t gid;
	mode_t mode;
	int64_t mtime_ns;
	struct finished *finished; /* NULL: not in memory */
	bool digested;
	uint64_t digest; /* of the bare picture that was shown first */
	bool shelved;
	struct image *older, *newer; /* on the shelf */
};

struct images {
	struct folder *root; /* held */
	pthread_mutex_t mu;
	struct image *oldest, *newest; /* inodes with finished bytes; guarded by mu, as the rest */
	size_t shelf_bytes;
};

/* ---- the shelf: finished pictures in memory ---- */

static void finished_free(struct opened *o)
{
	struct finished *f = (struct finished *)o;

	bytes_free(&f->png);
	free(f);
}

static void finished_put(struct finished *f)
{
	if (!f || atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	opened_remove(&f->opened);
	finished_free(&f->opened);
}

/* Returns what the shelf let go of, to be put without the lock. */
static struct finished *unshelve_locked(struct images *all, struct image *i)
{
	struct finished *f = i->finished;

	if (!i->shelved)
		return NULL;
	*(i->older ? &i->older->newer : &all->oldest) = i->newer;
	*(i->newer ? &i->newer->older : &all->newest) = i->older;
	i->older = i->newer = NULL;
	i->shelved = false;
	i->finished = NULL;
	all->shelf_bytes -= f->png.len;
	return f;
}

static void shelve_locked(struct images *all, struct image *i, struct finished *f)
{
	i->finished = f;
	i->shelved = true;
	i->older = all->newest;
	i->newer = NULL;
	*(all->newest ? &all->newest->newer : &all->oldest) = i;
	all->newest = i;
	all->shelf_bytes += f->png.len;
}

/* Lets go of what is too much, used least lately first.  Open files keep their bytes by themselves. */
static void trim(struct images *all)
{
	for (;;) {
		struct finished *gone = NULL;

		pthread_mutex_lock(&all->mu);
		if (all->oldest && all->shelf_bytes > SHELF_BYTES)
			gone = unshelve_locked(all, all->oldest);
		pthread_mutex_unlock(&all->mu);
		if (!gone)
			return;
		finished_put(gone);
	}
}

/* The bytes of an inode, if they are in memory, with a reference. */
static struct finished *take_finished(struct images *all, struct image *i)
{
	struct finished *f;

	pthread_mutex_lock(&all->mu);
	f = i->finished;
	if (f) {
		atomic_fetch_add(&f->refs, 1);
		unshelve_locked(all, i);
		shelve_locked(all, i, f);
	}
	pthread_mutex_unlock(&all->mu);
	return f;
}

/* ---- inodes ---- */

static void image_free(struct inode *inode)
{
	struct image *i = (struct image *)inode;
	struct images *all = i->d->images;
	struct finished *f;

	pthread_mutex_lock(&all->mu);
	f = unshelve_locked(all, i);
	pthread_mutex_unlock(&all->mu);
	finished_put(f);
	resolved_put(i->resolved);
	free(i->name);
	free(i);
}

static bool image_same(const struct inode *known, const struct inode *fresh)
{
	const struct image *a = (const struct image *)known, *b = (const struct image *)fresh;

	return known->free == image_free && a->revision.high == b->revision.high &&
	       a->revision.low == b->revision.low && !atomic_load(&a->retired) && strcmp(a->name, b->name) == 0;
}

static struct image *image_new(struct daemon *d, const struct child *c)
{
	struct image *i = calloc(1, sizeof(*i));
	struct {
		struct resolve_revision revision;
		uint64_t name;
	} mixed;

	if (!i)
		return NULL;
	i->name = strdup(c->image);
	if (!i->name) {
		free(i);
		return NULL;
	}
	mixed.revision = c->resolved->revision;
	mixed.name = XXH3_64bits(c->image, strlen(c->image));
	i->inode.number = inode_number(TREE_IMAGES, XXH3_64bits(&mixed, sizeof(mixed)));
	i->inode.free = image_free;
	i->d = d;
	i->revision = c->resolved->revision;
	i->resolved = c->resolved;
	resolved_hold(i->resolved);
	return i;
}

static int image_intern(struct daemon *d, const struct child *c, struct image **out)
{
	struct image *i = image_new(d, c);

	if (!i)
		return ENOMEM;
	i = (struct image *)inodes_intern(d->inodes, &i->inode, image_same);
	pthread_mutex_lock(&d->images->mu);
	i->uid = c->st.st_uid;
	i->gid = c->st.st_gid;
	i->mode = c->st.st_mode & 0444;
	i->mtime_ns = c->resolved->mtime_ns;
	pthread_mutex_unlock(&d->images->mu);
	*out = i;
	return 0;
}

static void image_attr(struct image *i, struct stat *out)
{
	struct images *all = i->d->images;

	memset(out, 0, sizeof(*out));
	out->st_ino = i->inode.number;
	out->st_nlink = 1;
	out->st_size = (off_t)i->resolved->size;
	/* never 0: programs that archive sparse files would take the picture for a hole */
	out->st_blocks = (blkcnt_t)((i->resolved->size + 511) / 512);
	out->st_blksize = 4096;
	pthread_mutex_lock(&all->mu);
	out->st_mode = S_IFREG | i->mode;
	out->st_uid = i->uid;
	out->st_gid = i->gid;
	out->st_mtim.tv_sec = i->mtime_ns / 1000000000;
	out->st_mtim.tv_nsec = i->mtime_ns % 1000000000;
	pthread_mutex_unlock(&all->mu);
	if (out->st_mtim.tv_nsec < 0) {
		out->st_mtim.tv_nsec += 1000000000;
		out->st_mtim.tv_sec--;
	}
	out->st_ctim = out->st_atim = out->st_mtim;
}

/* ---- looking ---- */

static struct folder *folder_of(struct daemon *d, fuse_ino_t ino)
{
	return (struct folder *)inodes_find(d->inodes, ino);
}

static void set_entry(struct fuse_entry_param *out)
{
	out->ino = out->attr.st_ino;
	out->attr_timeout = attr_timeout_s;
	out->entry_timeout = entry_timeout_s;
}

static int enter_file(struct daemon *d, const struct child *c, struct fuse_entry_param *out)
{
	struct image *i;
	int error = image_intern(d, c, &i);

	if (!error)
		image_attr(i, &out->attr);
	return error;
}

static int enter_folder(struct daemon *d, const struct folder *f, const struct child *c, struct fuse_entry_param *out)
{
	struct folder *sub;
	int error = view_enter(d, f, c, &sub);

	if (!error)
		view_folder_attr(sub, &out->attr);
	return error;
}

static int enter_link(
	struct daemon *d, const struct folder *f, const char *name, const struct child *c, struct fuse_entry_param *out)
{
	struct link *l;
	int error = view_enter_link(d, f, name, c, &l);

	if (error)
		return error;
	out->attr = l->st;
	return 0;
}

/* One look-up that counts: the kernel will forget the inode some day. */
static int look_up(struct daemon *d, const struct folder *f, const char *name, struct fuse_entry_param *out)
{
	struct child c;
	int error = view_find(d, f, name, &c);

	if (error)
		return error;
	if (c.kind == CHILD_FILE)
		error = enter_file(d, &c, out);
	else if (c.kind == CHILD_FOLDER)
		error = enter_folder(d, f, &c, out);
	else
		error = enter_link(d, f, name, &c, out);
	view_child_fini(&c);
	if (error)
		return error;
	set_entry(out);
	if (S_ISDIR(out->attr.st_mode))
		out->attr_timeout = folder_timeout_s;
	return 0;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct daemon *d = fuse_req_userdata(req);
	struct fuse_entry_param entry = { 0 };
	int error = look_up(d, folder_of(d, parent), name, &entry);

	if (error)
		fuse_reply_err(req, error);
	else if (fuse_reply_entry(req, &entry) != 0)
		inodes_drop(d->inodes, inodes_find(d->inodes, entry.ino), 1);
}

static bool is_image(const struct inode *i)
{
	return i->free == image_free;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct inode *i = inodes_find(d->inodes, ino);
	struct stat st;

	if (is_image(i)) {
		image_attr((struct image *)i, &st);
		fuse_reply_attr(req, &st, attr_timeout_s);
	} else if (view_is_link(i)) {
		fuse_reply_attr(req, &((struct link *)i)->st, attr_timeout_s);
	} else {
		view_folder_attr((struct folder *)i, &st);
		fuse_reply_attr(req, &st, folder_timeout_s);
	}
}

/* ---- opening ---- */

struct opening {
	fuse_req_t req;
	struct fuse_file_info fi;
	struct image *image; /* held */
	struct parked_open *parked;
};

static void opening_free(struct opening *o)
{
	inodes_drop(o->image->d->inodes, &o->image->inode, 1);
	free(o);
}

/* Takes the reference on f. */
static void reply_finished(fuse_req_t req, struct fuse_file_info *fi, struct finished *f)
{
	fi->fh = (uintptr_t)f;
	fi->keep_cache = 1; /* the bytes of an inode never change */
	fi->direct_io = 0;
	fi->noflush = 1;
	if (fuse_reply_open(req, fi) != 0)
		finished_put(f);
}

static enum status dress(const struct image *i, const struct job_result *result, struct finished **out)
{
	struct model model = i->resolved->model->model;
	const char *cache = i->resolved->config->cache;
	struct finished *f = calloc(1, sizeof(*f));
	struct recipe known = { 0 };
	enum status s = f ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for the finished picture");

	/* the contents' hashes are in the picture's text; they are known at the latest when a picture was made */
	hashes_recall(cache, model.identity, model.hash);
	if (s == STATUS_OK)
		s = contents_know(&i->resolved->recipe, contents_recall, (void *)cache, &known);
	if (s == STATUS_OK)
		s = dress_png(&known, &model, result->png, result->png_len, &f->png);
	contents_put(&known);
	if (s == STATUS_OK && f->png.len != i->resolved->size)
		s = status_fail(STATUS_INTERNAL, "the picture came out with %zu bytes instead of the %llu promised",
			f->png.len, (unsigned long long)i->resolved->size);
	if (s != STATUS_OK) {
		if (f)
			finished_free(&f->opened);
		return s;
	}
	atomic_init(&f->refs, 1);
	opened_add(&i->d->opened, &f->opened, finished_free);
	*out = f;
	return STATUS_OK;
}

/* Makes f the inode's bytes, or takes those that another opener brought first.  ESTALE: these are not the bytes that
 * the inode once showed (made again, with another result); readers of the old ones keep them, the name gets a new
 * inode. */
static int adopt(struct images *all, struct image *i, uint64_t digest, struct finished *f, struct finished **out)
{
	struct finished *spare = NULL;
	int error = 0;

	pthread_mutex_lock(&all->mu);
	if (i->digested && i->digest != digest) {
		atomic_store(&i->retired, true);
		spare = f;
		error = ESTALE;
	} else {
		i->digested = true;
		i->digest = digest;
		if (i->finished) {
			spare = f;
			f = i->finished;
		} else {
			shelve_locked(all, i, f);
		}
		atomic_fetch_add(&f->refs, 1);
		*out = f;
	}
	pthread_mutex_unlock(&all->mu);
	finished_put(spare);
	return error;
}

static int take_result(struct image *i, const struct job_result *result, struct finished **out)
{
	struct images *all = i->d->images;
	struct finished *f = take_finished(all, i);
	int error;

	if (f) {
		*out = f;
		return 0;
	}
	if (dress(i, result, &f) != STATUS_OK) {
		log_error("images/%s: %s", i->name, status_text());
		return EIO;
	}
	error = adopt(all, i, XXH3_64bits(result->png, result->png_len), f, out);
	trim(all);
	return error;
}

/* A model of this very content is no longer what its name stands for: the name of the picture means another revision.
 */
static bool is_outdated(struct daemon *d, const struct catalog_model *model)
{
	const struct catalog_model *now = catalog_find(resolver_catalog(d->resolver), model->where->name);

	return !now || now->status != STATUS_OK || strcmp(now->model.identity, model->model.identity) != 0;
}

static bool has_changed(const struct model *known)
{
	struct model now;

	return model_open(known->path, known->name, &now) != STATUS_OK || strcmp(now.identity, known->identity) != 0;
}

/* A worker did not find the model that the recipe was resolved with.  True when a new look at the models, ours or that
 * of another opener, found something else under its name. */
static bool look_again(struct daemon *d, const struct catalog_model *model)
{
	if (is_outdated(d, model))
		return true;
	if (!has_changed(&model->model)) /* every look is remembered as long as the mount: none in vain */
		return false;
	log_info("model %s: its files have changed", model->where->name);
	if (daemon_reload(d) == STATUS_OK)
		return is_outdated(d, model);
	log_error("reload: %s", status_text());
	return false;
}

/* Called once, by a thread of jobs or from within jobs_submit. */
static void on_result(void *context, const struct job_result *result)
{
	struct opening *o = context;
	struct image *i = o->image;
	struct finished *f = NULL;
	int error = result->error;

	outcomes_note(i->d->outcomes, i->name, i->revision, result);
	if (!error)
		error = take_result(i, result, &f);
	else if (result->status == STATUS_NO_MODEL && look_again(i->d, i->resolved->model))
		error = ESTALE; /* the kernel looks the name up again and opens what it finds */
	parked_leave(i->d->parked, o->parked);
	if (error)
		fuse_reply_err(o->req, error);
	else
		reply_finished(o->req, &o->fi, f);
	opening_free(o);
}

void images_interrupted(void *context)
{
	struct opening *o = context;

	fuse_reply_err(o->req, EINTR);
	opening_free(o);
}

/* Programs that read every file they see, unasked: they would have everything generated. */
static bool is_denied(pid_t thread)
{
	static const char *const names[] = { "updatedb", "updatedb.mlocat", "updatedb.plocat", "tracker-extract",
		"tracker-miner-f", "localsearch-ext", "localsearch-3", "baloo_file_extr", "baloo_file", "tumblerd" };
	char path[64], name[32];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);
	if (fd >= 0)
		close(fd);
	if (len <= 0)
		return false;
	name[name[len - 1] == '\n' ? len - 1 : len] = '\0';
	for (size_t n = 0; n < sizeof(names) / sizeof(*names); n++) {
		if (strcmp(name, names[n]) == 0)
			return true;
	}
	return false;
}

/* Submits the job; the request is answered by on_result or images_interrupted. */
static void submit(struct opening *o)
{
	const struct resolved *resolved = o->image->resolved;
	struct daemon *d = o->image->d;
	const struct fuse_ctx *caller = fuse_req_ctx(o->req);
	struct job_request request = {
		.name = o->image->name,
		.model = &resolved->model->model,
		.where = resolved->model->where,
		.recipe = &resolved->recipe,
		.uid = caller->uid,
		.pid = caller->pid,
		.done = on_result,
		.context = o,
	};
	struct parked_open *parked = parked_enter(d->parked, o->req, o);

	if (!parked) {
		fuse_reply_err(o->req, ENOMEM);
		opening_free(o);
		return;
	}
	o->parked = parked;
	/* o may be gone when this returns */
	parked_submitted(d->parked, parked, jobs_submit(d->jobs, &request));
}

static void open_new(fuse_req_t req, struct image *i, const struct fuse_file_info *fi)
{
	struct opening *o;

	if (is_denied(fuse_req_ctx(req)->pid)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	o = calloc(1, sizeof(*o));
	if (!o) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	o->req = req;
	o->fi = *fi;
	o->image = i;
	inodes_hold(i->d->inodes, &i->inode);
	submit(o);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct image *i = (struct image *)inodes_find(d->inodes, ino);
	struct finished *f;

	if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)) {
		fuse_reply_err(req, EACCES); /* root passes the mode 0444 */
		return;
	}
	if (atomic_load(&i->retired)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (i->resolved->status != STATUS_OK) {
		fuse_reply_err(req, errno_of_status(i->resolved->status));
		return;
	}
	f = take_finished(d->images, i);
	if (f)
		reply_finished(req, fi, f);
	else
		open_new(req, i, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const struct finished *f = (const struct finished *)(uintptr_t)fi->fh;
	size_t from = offset < 0 || (uint64_t)offset > f->png.len ? f->png.len : (size_t)offset;

	if (size > f->png.len - from)
		size = f->png.len - from;
	fuse_reply_buf(req, (const char *)f->png.data + from, size);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);

	finished_put((struct finished *)(uintptr_t)fi->fh);
	trim(d->images);
	fuse_reply_err(req, 0);
}

/* ---- listing ---- */

/* Without `plus` no inode is entered, but the number must be the one that stat would show. */
static int look(fuse_req_t req, fuse_ino_t dir, const char *name, bool plus, struct fuse_entry_param *out)
{
	struct daemon *d = fuse_req_userdata(req);
	int error = look_up(d, folder_of(d, dir), name, out);

	if (!error && !plus) {
		inodes_drop(d->inodes, inodes_find(d->inodes, out->ino), 1);
		out->ino = 0;
	}
	return error;
}

static void unlook(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);

	inodes_drop(d->inodes, inodes_find(d->inodes, ino), 1);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	struct folder *f = folder_of(d, ino);
	struct listing_folder how = {
		.dir = ino, .up = FUSE_ROOT_ID, .show = view_show, .context = f, .look = look, .unlook = unlook
	};
	int fd = openat(f->prompts->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct listing *l = fd < 0 ? NULL : listing_new(&how, fd);

	if (!l) {
		fuse_reply_err(req, fd < 0 ? errno : ENOMEM);
		return;
	}
	listing_reply_open(l, &d->opened, req, fi);
}

/* ---- open and close ---- */

enum status images_open(struct daemon *d, struct images **out)
{
	struct images *all = calloc(1, sizeof(*all));

	if (!all)
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	all->root = view_open_root(d, VIEW_IMAGES);
	if (!all->root) {
		free(all);
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	}
	pthread_mutex_init(&all->mu, NULL);
	*out = all;
	return STATUS_OK;
}

void images_close(struct images *all)
{
	if (!all)
		return;
	pthread_mutex_destroy(&all->mu);
	free(all);
}

fuse_ino_t images_root(const struct images *all)
{
	return all->root->inode.number;
}

const struct fuse_lowlevel_ops images_ops = {
	.lookup = op_lookup,
	.getattr = op_getattr,
	.readlink = view_readlink,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.opendir = op_opendir,
};

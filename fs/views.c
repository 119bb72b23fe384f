/* views: see views.h. */
#include "fs/views.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "fs/beneath.h"

static const struct view_kind {
	enum tree tree;
	const char *end;  /* what stands for .txt */
	const char *root; /* from the mount point */
	bool links;
} kinds[VIEW_COUNT] = {
	[VIEW_IMAGES] = { TREE_IMAGES, ".png", "/images", true },
	[VIEW_INFO] = { TREE_STATUS, ".json", "/status/info", true },
	[VIEW_ERRORS] = { TREE_STATUS, ".txt", "/status/errors", false },
};

/* `name` with `to` in place of `from` at its end; false where it does not end so, is nothing else, or grows too long.
 */
static bool change_end(const char *name, const char *from, const char *to, size_t size, char *out)
{
	size_t len = strlen(name), from_len = strlen(from);

	if (len <= from_len || strcmp(name + len - from_len, from) != 0 || len - from_len + strlen(to) >= size)
		return false;
	memcpy(out, name, len - from_len);
	strcpy(out + len - from_len, to);
	return true;
}

/* ---- folders ---- */

static void folder_free(struct inode *i)
{
	struct folder *f = (struct folder *)i;

	inodes_drop(f->table, &f->prompts->inode, 1);
	free(f);
}

static bool folder_same(const struct inode *known, const struct inode *fresh)
{
	const struct folder *a = (const struct folder *)known, *b = (const struct folder *)fresh;

	return known->free == folder_free && a->view == b->view && a->prompts == b->prompts;
}

/* Takes the reference on `prompts`. */
static struct folder *folder_intern(struct daemon *d, enum view view, struct prompt *prompts)
{
	uint64_t mixed[2] = { prompts->inode.number, (uint64_t)view };
	struct folder *fresh = calloc(1, sizeof(*fresh));

	if (!fresh) {
		inodes_drop(d->inodes, &prompts->inode, 1);
		return NULL;
	}
	fresh->inode.number = inode_number(kinds[view].tree, XXH3_64bits(mixed, sizeof(mixed)));
	fresh->inode.free = folder_free;
	fresh->view = view;
	fresh->prompts = prompts;
	fresh->table = d->inodes;
	return (struct folder *)inodes_intern(d->inodes, &fresh->inode, folder_same);
}

struct folder *view_open_root(struct daemon *d, enum view view)
{
	inodes_hold(d->inodes, &d->prompts->inode);
	return folder_intern(d, view, d->prompts);
}

int view_enter(struct daemon *d, const struct folder *f, const struct child *c, struct folder **out)
{
	struct prompt *prompts;
	struct stat st;
	int error = prompts_find(d, f->prompts, c->prompt, &prompts, &st);

	if (error)
		return error;
	*out = folder_intern(d, f->view, prompts);
	return *out ? 0 : ENOMEM;
}

void view_folder_attr(const struct folder *f, struct stat *out)
{
	struct stat st;

	if (fstatat(f->prompts->fd, "", &st, AT_EMPTY_PATH) < 0)
		memset(&st, 0, sizeof(st));
	st.st_ino = f->inode.number;
	st.st_mode = S_IFDIR | (st.st_mode & 0555);
	st.st_nlink = 1; /* what is hidden must not be counted: 1 says that nothing can be told from it */
	st.st_size = 0;
	st.st_blocks = 0;
	*out = st;
}

/* ---- links ---- */

static void link_free(struct inode *i)
{
	struct link *l = (struct link *)i;

	free(l->target);
	free(l);
}

bool view_is_link(const struct inode *i)
{
	return i->free == link_free;
}

static bool link_same(const struct inode *known, const struct inode *fresh)
{
	const struct link *a = (const struct link *)known, *b = (const struct link *)fresh;

	return view_is_link(known) && a->where == b->where && strcmp(a->target, b->target) == 0;
}

int view_enter_link(
	struct daemon *d, const struct folder *f, const char *name, const struct child *c, struct link **out)
{
	struct link *fresh = calloc(1, sizeof(*fresh));
	size_t len = strlen(c->target);

	if (!fresh)
		return ENOMEM;
	fresh->target = strdup(c->target);
	if (!fresh->target) {
		free(fresh);
		return ENOMEM;
	}
	fresh->where = XXH3_64bits_withSeed(name, strlen(name), f->inode.number);
	fresh->inode.number = inode_number(kinds[f->view].tree, XXH3_64bits_withSeed(c->target, len, fresh->where));
	fresh->inode.free = link_free;
	fresh->st = c->st;
	fresh->st.st_mode = S_IFLNK | 0777;
	fresh->st.st_nlink = 1;
	fresh->st.st_size = (off_t)len;
	fresh->st.st_blocks = 0;
	fresh = (struct link *)inodes_intern(d->inodes, &fresh->inode, link_same);
	fresh->st.st_ino = fresh->inode.number;
	*out = fresh;
	return 0;
}

/* What the link `name` below says here: a relative one to a folder stays; one to a prompt leads to what stands for that
 * prompt.  An absolute one can only be meant for this mount. */
static bool find_target(
	const struct daemon *d, enum view view, int dir_fd, const char *name, char out[PATH_MAX], bool *to_folder)
{
	char target[PATH_MAX], inside[PATH_MAX];
	ssize_t len = readlinkat(dir_fd, name, target, sizeof(target) - 1);
	size_t n;

	if (len <= 0 || !kinds[view].links)
		return false;
	target[len] = '\0';
	*to_folder = target[0] != '/' && beneath_is_folder(dir_fd, target);
	if (*to_folder) {
		strcpy(out, target);
		return true;
	}
	if (target[0] != '/')
		return change_end(target, ".txt", kinds[view].end, PATH_MAX, out);
	n = (size_t)snprintf(inside, sizeof(inside), "%s/prompts/", d->options->mountpoint);
	if (n >= sizeof(inside) || strncmp(target, inside, n) != 0)
		return false;
	if (snprintf(inside, sizeof(inside), "%s%s/%s", d->options->mountpoint, kinds[view].root, target + n) >=
		(int)sizeof(inside))
		return false;
	return change_end(inside, ".txt", kinds[view].end, PATH_MAX, out);
}

/* ---- names ---- */

static bool is_text(const char *name)
{
	char ignored[NAME_MAX + 1];

	return change_end(name, ".txt", "", sizeof(ignored), ignored);
}

/* Where a folder and a picture want the same name, the picture has it. */
static bool is_taken(enum view view, int fd, const char *name)
{
	char prompt[NAME_MAX + 1];
	struct stat st;

	return change_end(name, kinds[view].end, ".txt", sizeof(prompt), prompt) && strcmp(prompt, name) != 0 &&
	       fstatat(fd, prompt, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

bool view_show(const void *folder, int fd, const char *name, unsigned char type, char out[NAME_MAX + 1])
{
	enum view view = ((const struct folder *)folder)->view;

	if (name[0] == '.')
		return false;
	if (type == DT_REG || (type == DT_LNK && is_text(name)))
		return change_end(name, ".txt", kinds[view].end, NAME_MAX + 1, out);
	if ((type != DT_DIR && type != DT_LNK) || is_taken(view, fd, name))
		return false;
	strcpy(out, name);
	return true;
}

static int find_text(struct daemon *d, const struct folder *f, const char *name, struct child *out)
{
	bool to_folder;

	if (!change_end(name, kinds[f->view].end, ".txt", sizeof(out->prompt), out->prompt))
		return ENOENT;
	if (fstatat(f->prompts->fd, out->prompt, &out->st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno;
	if (S_ISREG(out->st.st_mode)) {
		out->kind = CHILD_FILE;
		return 0;
	}
	if (!S_ISLNK(out->st.st_mode) ||
		!find_target(d, f->view, f->prompts->fd, out->prompt, out->target, &to_folder) || to_folder)
		return ENOENT;
	out->kind = CHILD_LINK;
	return 0;
}

static int find_other(struct daemon *d, const struct folder *f, const char *name, struct child *out)
{
	bool to_folder;

	if (fstatat(f->prompts->fd, name, &out->st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno;
	strcpy(out->prompt, name);
	if (S_ISDIR(out->st.st_mode)) {
		out->kind = CHILD_FOLDER;
		return 0;
	}
	if (!S_ISLNK(out->st.st_mode) || !find_target(d, f->view, f->prompts->fd, name, out->target, &to_folder) ||
		!to_folder)
		return ENOENT;
	out->kind = CHILD_LINK;
	return 0;
}

static int resolve_child(struct daemon *d, const struct folder *f, struct child *out)
{
	struct resolve_place place = { .dir_fd = f->prompts->fd, .name = out->prompt };
	char dir[PATH_MAX], image[NAME_MAX + 1];
	int error = prompts_path(d, f->prompts->fd, dir);

	if (error)
		return error;
	place.dir = dir;
	if (!change_end(out->prompt, ".txt", ".png", sizeof(image), image) ||
		snprintf(out->image, sizeof(out->image), "%s%s%s", dir, *dir ? "/" : "", image) >=
			(int)sizeof(out->image))
		return ENAMETOOLONG;
	return resolver_find(d->resolver, &place, &out->st, &out->resolved);
}

int view_find(struct daemon *d, const struct folder *f, const char *name, struct child *out)
{
	int error;

	if (strlen(name) > NAME_MAX)
		return ENAMETOOLONG;
	if (name[0] == '.')
		return ENOENT;
	out->resolved = NULL;
	error = find_text(d, f, name, out);
	if (!error && out->kind == CHILD_FILE)
		error = resolve_child(d, f, out);
	if (error == ENOENT || error == ENAMETOOLONG)
		error = find_other(d, f, name, out);
	return error;
}

void view_child_fini(struct child *c)
{
	resolved_put(c->resolved);
	c->resolved = NULL;
}

void view_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = fuse_req_userdata(req);
	struct inode *i = inodes_find(d->inodes, ino);

	if (view_is_link(i))
		fuse_reply_readlink(req, ((struct link *)i)->target);
	else
		fuse_reply_err(req, EINVAL);
}

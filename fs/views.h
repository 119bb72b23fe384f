/* views: the folders that mirror prompts/: images/, status/info/ and status/errors/.
 *
 *     prompts/            images/           status/info/
 *       a.txt               a.png             a.json       regular, not empty, not dot-leading
 *       d/                  d/                d/           folders, not dot-leading
 *       l.txt -> a.txt      l.png -> a.png    l.json -> a.json
 *       m -> d              m -> d            m -> d       relative links to folders
 *
 * Nothing else shows.  Where a folder and a picture want the same name (d.png/ and d.txt), the picture has it.
 *
 * Threads: any; no locks of its own.
 */
#ifndef PROMPTFS_FS_VIEWS_H
#define PROMPTFS_FS_VIEWS_H

#include <limits.h>

#include "fs/daemon.h"
#include "fs/prompts.h"

enum view { VIEW_IMAGES, VIEW_INFO, VIEW_ERRORS, VIEW_COUNT };

/* A mirrored folder. */
struct folder {
	struct inode inode;
	enum view view;
	struct prompt *prompts; /* what it mirrors; held */
	struct inodes *table;
};

enum child_kind { CHILD_FOLDER, CHILD_LINK, CHILD_FILE };

/* What a name in a folder stands for. */
struct child {
	enum child_kind kind;
	struct stat st;            /* of the folder, link or prompt in prompts/ */
	char prompt[NAME_MAX + 1]; /* its name there */
	char target[PATH_MAX];     /* CHILD_LINK: what the link says here */
	char image[PATH_MAX];      /* CHILD_FILE: "a/b.png", whatever the view */
	struct resolved *resolved; /* CHILD_FILE; put by view_child_fini */
};

/* The root of a view, with one reference. NULL: no memory. */
struct folder *view_open_root(struct daemon *d, enum view view);

/* ENOENT: no such name here. */
int view_find(struct daemon *d, const struct folder *f, const char *name, struct child *out);
void view_child_fini(struct child *c);

/* The folder that CHILD_FOLDER stands for, with one reference more. */
int view_enter(struct daemon *d, const struct folder *f, const struct child *c, struct folder **out);
void view_folder_attr(const struct folder *f, struct stat *out);

/* A mirrored link. */
struct link {
	struct inode inode;
	struct stat st; /* as shown */
	uint64_t where; /* of its folder's number and its name */
	char *target;
};

/* The link that CHILD_LINK stands for, with one reference more. */
int view_enter_link(
	struct daemon *d, const struct folder *f, const char *name, const struct child *c, struct link **out);

bool view_is_link(const struct inode *i);

/* The readlink operation of both views. */
void view_readlink(fuse_req_t req, fuse_ino_t ino);

/* For listing_folder.show, with the folder as context: the name here of the entry `name` of the folder below. */
bool view_show(const void *folder, int fd, const char *name, unsigned char type, char out[NAME_MAX + 1]);

#endif

/* listing: the names of a folder as they were at opendir (or rewinddir), handed out in pieces.
 *
 * A snapshot, so that removing files while reading leaves none out.  Offsets count entries; 0 and 1 are "." and "..".
 *
 * Threads: a listing belongs to one open directory; requests on it may come from several threads, under its own lock.
 */
#ifndef PROMPTFS_FS_LISTING_H
#define PROMPTFS_FS_LISTING_H

#include <fuse_lowlevel.h>
#include <limits.h>
#include <stdbool.h>

#include "fs/opened.h"

struct listing;

/* What an entry is now: fills attr.st_ino and the type bits of attr.st_mode; with `plus` all of it, as a look-up by the
 * kernel (counted) would.  ENOENT: the entry is passed over. */
typedef int listing_look(fuse_req_t req, fuse_ino_t dir, const char *name, bool plus, struct fuse_entry_param *out);

struct listing_folder {
	fuse_ino_t dir, up;
	/* The name to show for one that was read from the open folder fd (type: DT_...); false: none.  NULL: all as
	 * they are. */
	bool (*show)(const void *context, int fd, const char *name, unsigned char type, char out[NAME_MAX + 1]);
	const void *context;
	listing_look *look;
	void (*unlook)(fuse_req_t req, fuse_ino_t ino); /* takes back a look-up that found no room in the reply */
};

/* fd: an open folder whose names are listed, taken; -1: names are added by the caller. NULL: no memory. */
struct listing *listing_new(const struct listing_folder *folder, int fd);
void listing_free(struct listing *l); /* NULL is allowed */
int listing_add(struct listing *l, const char *name);
int listing_fd(const struct listing *l);

/* Answers OPENDIR: the open folder's handle is the listing, which is taken. */
void listing_reply_open(struct listing *l, struct opened_list *opened, fuse_req_t req, struct fuse_file_info *fi);

/* Answers READDIR and READDIRPLUS. */
void listing_reply(struct listing *l, fuse_req_t req, size_t size, off_t offset, bool plus);

#endif

/* images: the tree of pictures.  Looking never makes one; opening for reading does, and is answered when it is there.
 *
 * An inode stands for one revision of one name: it keeps the recipe, and while it is open, its finished bytes.  Those
 * of inodes no longer open stay for a while too, so that opening them again costs no look into the cache.
 *
 * Threads: any.  Lock order: images.mu is a leaf; replies, jobs and dressing happen without it.
 */
#ifndef PROMPTFS_FS_IMAGES_H
#define PROMPTFS_FS_IMAGES_H

#include "fs/daemon.h"

extern const struct fuse_lowlevel_ops images_ops;

enum status images_open(struct daemon *d, struct images **out);
void images_close(struct images *i); /* after the inodes are gone; NULL is allowed */

/* The inode of the tree's root. */
fuse_ino_t images_root(const struct images *i);

/* For parked_open_list. */
void images_interrupted(void *context);

#endif

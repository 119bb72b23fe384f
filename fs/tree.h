/* tree: the operations that the kernel sees, each handed to the tree (prompts, images, status) that its inode is in.
 *
 * A tree is a table of libfuse's own type; what it leaves out fails with EPERM where it would change something.
 */
#ifndef PROMPTFS_FS_TREE_H
#define PROMPTFS_FS_TREE_H

#include <fuse_lowlevel.h>

#include "fs/listing.h"

extern const struct fuse_lowlevel_ops tree_ops;

/* The listing of an open folder, in any tree. */
static inline struct listing *tree_listing(const struct fuse_file_info *fi)
{
	return (struct listing *)(uintptr_t)fi->fh;
}

#endif

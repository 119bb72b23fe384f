/* inodes: the inodes that the kernel knows, or that we hold ourselves, by number.
 *
 * Each tree embeds `struct inode` at the start of its own struct.  The number is what stat shows and what the kernel
 * calls the inode by; its upper bits name the tree, so that a request finds its tree without a look-up.
 *
 *     fresh->inode = (struct inode){ .number = inode_number(TREE_IMAGES, hash), .free = image_free };
 *     struct image *image = (struct image *)inodes_intern(table, &fresh->inode, image_same);
 *
 * Threads: any; free functions are called without the table's lock.
 */
#ifndef PROMPTFS_FS_INODES_H
#define PROMPTFS_FS_INODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tree { TREE_ROOT, TREE_PROMPTS, TREE_IMAGES, TREE_STATUS, TREE_COUNT };

enum { INODE_TREE_SHIFT = 60 }; /* bit 63 stays clear: some programs print inode numbers as signed */

struct inode {
	uint64_t number;
	uint64_t refs; /* the kernel's look-ups and our own holds; guarded by inodes.mu */
	void (*free)(struct inode *);
	struct inode *next; /* in its bucket; guarded by inodes.mu */
};

struct inodes;

struct inodes *inodes_new(void);    /* NULL: no memory */
void inodes_free(struct inodes *t); /* frees every inode left; NULL is allowed */
size_t inodes_count(struct inodes *t);

static inline uint64_t inode_number(enum tree tree, uint64_t low)
{
	return (uint64_t)tree << INODE_TREE_SHIFT | (low & ((UINT64_C(1) << INODE_TREE_SHIFT) - 1));
}

/* TREE_COUNT for a number that is no tree's. */
static inline enum tree inode_tree(uint64_t number)
{
	uint64_t tree = number >> INODE_TREE_SHIFT;

	return tree < TREE_COUNT ? (enum tree)tree : TREE_COUNT;
}

/* Borrowed: valid as long as the kernel or the caller holds it. NULL: unknown. */
struct inode *inodes_find(struct inodes *t, uint64_t number);

/* The inode that `same` says is this one, with one reference more (fresh is freed), else `fresh` itself with one
 * reference, under its number or the next free one. */
struct inode *inodes_intern(
	struct inodes *t, struct inode *fresh, bool (*same)(const struct inode *known, const struct inode *fresh));

void inodes_hold(struct inodes *t, struct inode *i);
void inodes_drop(struct inodes *t, struct inode *i, uint64_t n); /* frees it with its last reference */

#endif

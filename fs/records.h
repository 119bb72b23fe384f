/* records: what was decided once about a prompt file and must be the same ever after, in STORE/records.
 *
 *  - the seed drawn for "Seed: -1", until the content of the prompt changes;
 *  - when the recipe last changed although no file's time tells (another default model, a .defaults that went away), so
 *    that the picture's time moves and make notices.
 *
 * A record belongs to a file (its inode number and its time of birth), so it follows renames and hard links; a copy is
 * another file.  The file of records is lines of text, the last one about a prompt counts; it is written anew when
 * most lines are outdated.
 *
 * Threads: any.  Lock order: records.mu is a leaf; it is held while a line is written (not while it is synced).
 */
#ifndef PROMPTFS_FS_RECORDS_H
#define PROMPTFS_FS_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/status.h"

struct record_id {
	uint64_t ino;
	int64_t born_ns; /* 0 where the file system below does not know it */
};

struct records;

enum status records_open(int store_fd, struct records **out); /* STATUS_IO, STATUS_CORRUPT */
void records_close(struct records *r);                        /* NULL is allowed */

/* The seed of this file with this content; drawn and stored durably when there is none yet. */
enum status records_seed(struct records *r, struct record_id id, uint64_t content, uint64_t *seed);

/* Notes the recipe that the file has now; newest_ns: the newest of the times of the files that it comes from.  Returns
 * the time at which the recipe changed when those times do not tell, else 0. */
int64_t records_changed(struct records *r, struct record_id id, uint64_t recipe, int64_t newest_ns);

/* The file is gone. */
void records_remove(struct records *r, struct record_id id);

#endif

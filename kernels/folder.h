/* folder: files that may go at any time, within a limit: those unused for longest, as their times say, go first.
 *
 * NAME.tmp is being written; what an interrupted process left of one an hour ago or longer is removed.
 *
 * Threads: any; several processes may share a folder.
 */
#ifndef PROMPTFS_KERNELS_FOLDER_H
#define PROMPTFS_KERNELS_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

/* Removes files of `dir` until those left and `more` bytes are at most `limit`; *held: the bytes of those left.  False:
 * there is no room. */
bool folder_shrink(const char *dir, uint64_t limit, uint64_t more, uint64_t *held);

/* Whether a tenth of the disk stays free with `more` bytes. */
bool folder_has_disk(const char *dir, uint64_t more);

#endif

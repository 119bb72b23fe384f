/* memo_files: a memo's entries (memo.h) on disk, so that after a restart known words need no text encoder either.
 *
 *     DIR/<key>              a header, then the bytes of its tensors
 *     DIR/<key>.<pid>.tmp    being written
 *
 * A file is believed when its length, its form and its checksum are right; one that is not is removed, and written
 * anew when the words were encoded.  Nothing here is ever a failure: without a file words are encoded.  All files
 * together stay within a limit, those unused for longest go, and a tenth of the disk stays free; the folder may be
 * deleted at any time.
 *
 * Threads: one at a time; several processes may share a folder.
 */
#ifndef PROMPTFS_ENGINE_MEMO_FILES_H
#define PROMPTFS_ENGINE_MEMO_FILES_H

#include "kernels/kernels.h"

enum { MEMO_KEY_LEN = 32 }; /* lower-case hexadecimal digits */

struct memo_files;

/* The folder is made when there is something to write.  NULL without memory. */
struct memo_files *memo_files_new(const char *dir, uint64_t limit);
void memo_files_free(struct memo_files *f); /* NULL is allowed */

/* n tensors, malloc'ed on the host; false: none of that key, or no good ones. */
bool memo_files_read(const struct memo_files *f, const char *key, int n, struct tensor *out);
void memo_files_write(struct memo_files *f, const char *key, int n, const struct tensor *tensors); /* on the host */

#endif

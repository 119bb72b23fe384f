/* sandbox: a worker gives up, for good, what it does not need: to gain rights, to write, make, remove or run any file.
 *
 * It reads models wherever they lie, talks through its socket and writes pictures into sealed memory.  So a defect in
 * the reading of a model or of a prompt cannot touch the user's files.
 */
#ifndef PROMPTFS_FS_SANDBOX_H
#define PROMPTFS_FS_SANDBOX_H

/* Of the calling process, which has one thread yet.  What the kernel lacks (Landlock: Linux 5.13) is left out.  The
 * files that the pattern `devices` matches stay writable, files may be made and written below `folder`, and below
 * `packed` (made if need be) removed too: copies of packed weights, which are numbers, checked by length and sum. NULL:
 * none. */
void sandbox_enter(const char *devices, const char *folder, const char *packed);

#endif

/* sandbox: a process gives up, for good, what it does not need, so that a defect in the reading of a model or a prompt
 * cannot touch the user's other files.
 *
 * By no-new-privileges, Landlock (Linux 5.19 and later; what the kernel lacks is left out) and the bounding set of
 * capabilities.  Whatever it starts inherits that.
 *
 *     struct sandbox_path paths[] = { { "/", SANDBOX_READ, false } };      // reads whatever the user may
 *     sandbox_enter(paths, 1);
 */
#ifndef PROMPTFS_FS_SANDBOX_H
#define PROMPTFS_FS_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

enum sandbox_use {
	SANDBOX_READ,   /* files and folders */
	SANDBOX_RUN,    /* a program, too */
	SANDBOX_DEVICE, /* read and written, not made or removed */
	SANDBOX_ADD,    /* a folder in which files may be made and written */
	SANDBOX_KEEP,   /* and removed */
	SANDBOX_WRITE,  /* a folder in which everything may be done but running programs */
};

/* A file or a folder with all that is in it. */
struct sandbox_path {
	const char *path;
	enum sandbox_use use;
	bool pattern; /* path is one of glob(3) */
};

/* The calling thread, which is the only one yet, and its children: no other files than these (what is missing is passed
 * over), no TCP, no signals to processes outside.  False: the kernel has no Landlock, or refuses; new privileges are
 * out of reach all the same. */
bool sandbox_enter(const struct sandbox_path *paths, int n_paths);

/* Of root: keeps those capabilities alone (bits by number). */
void sandbox_keep_capabilities(uint64_t kept);

/* Devices that a worker writes to. */
#define SANDBOX_DEVICES                                                                                                \
	{ "/dev/null", SANDBOX_DEVICE, false },                                                                        \
	{                                                                                                              \
		"/dev/nvidia*", SANDBOX_DEVICE, true                                                                   \
	}

#endif

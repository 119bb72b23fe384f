/* daemon: one mount and everything that serves it, opened in order and closed in reverse.
 *
 *     trees (prompts, images, status)          what the kernel asks: tree.h, one table of operations each
 *     parked                                   opens that wait for a picture
 *     jobs -- cache                            pictures being made, pictures made
 *     resolver -- records -- store             what a prompt file means; the prompts themselves
 *     inodes                                   what the kernel knows
 *
 * Threads: the fields are set before the first request and stay until the last.
 */
#ifndef PROMPTFS_FS_DAEMON_H
#define PROMPTFS_FS_DAEMON_H

#include "fs/reach.h"
#include <fuse_lowlevel.h>
#include <limits.h>
#include <stdbool.h>

#include "cache/cache.h"
#include "fs/config.h"
#include "fs/inodes.h"
#include "fs/jobs.h"
#include "fs/opened.h"
#include "fs/outcomes.h"
#include "fs/parked.h"
#include "fs/records.h"
#include "fs/resolve.h"
#include "fs/store.h"
#include "fs/unmounter.h"

struct images;
struct prompt;

struct daemon_options {
	const char *mountpoint;   /* absolute, an empty folder */
	const char *fuse_options; /* as after -o, joined by commas; NULL: none */
	int argc;                 /* the command line, to read the configuration again */
	char **argv;
	const char *directory; /* where it was given */
	bool sandbox;          /* give up what the mount does not need */
	int ready_fd;          /* a byte is written to it when requests are answered; -1: nobody waits */
};

struct daemon {
	const struct daemon_options *options;
	struct fuse_session *session;
	struct unmounter unmounter; /* of a daemon in a sandbox */
	struct store store;
	char prompts_path[PATH_MAX]; /* of store.prompts_fd, as /proc/self/fd shows it */
	struct records *records;
	struct resolver *resolver;
	struct cache *cache;
	struct jobs *jobs;
	struct parked *parked;
	struct outcomes *outcomes;
	struct inodes *inodes;
	struct places places;
	struct opened_list opened;
	struct images *images;
	struct prompt *prompts; /* its root; held */
	uid_t owner;
	gid_t group;
	struct timespec started;
};

/* Serves until unmounted or told to end.  Takes the configuration. */
enum status daemon_run(const struct daemon_options *options, struct config *config);

/* Reads the configuration and looks at the models again, for status/control and when a worker found a model changed.
 * Any thread. */
enum status daemon_reload(struct daemon *d);

#endif

/* sandbox: see sandbox.h. */
#include "fs/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Later than the headers this is built with. */
enum {
	TRUNCATE = 1 << 14,     /* version 3 */
	IOCTL_DEVICE = 1 << 15, /* 5 */
	TCP = 3,                /* 4: to bind, to connect */
	SCOPES = 3,             /* 6: abstract sockets, signals */
	FIRST_VERSION = 2,      /* 1 cannot allow a rename from folder to folder */
	RIGHTS_OF_2 = (1 << 14) - 1,
	RIGHTS_OF_FILES = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |
			  TRUNCATE | IOCTL_DEVICE,
};

struct ruleset {
	uint64_t files, net, scopes;
};

/* What the kernel can refuse. */
static struct ruleset all_of(int version, size_t *size)
{
	struct ruleset all = { .files = RIGHTS_OF_2 };

	*size = sizeof(uint64_t);
	if (version >= 3)
		all.files |= TRUNCATE;
	if (version >= 5)
		all.files |= IOCTL_DEVICE;
	if (version >= 4) {
		all.net = TCP;
		*size += sizeof(uint64_t);
	}
	if (version >= 6) {
		all.scopes = SCOPES;
		*size += sizeof(uint64_t);
	}
	return all;
}

static uint64_t rights_of(enum sandbox_use use)
{
	enum {
		READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
		DEVICE = READ | LANDLOCK_ACCESS_FS_WRITE_FILE | IOCTL_DEVICE,
		ADD = READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | TRUNCATE,
	};
	static const uint64_t rights[] = {
		[SANDBOX_READ] = READ,
		[SANDBOX_RUN] = READ | LANDLOCK_ACCESS_FS_EXECUTE,
		[SANDBOX_DEVICE] = DEVICE,
		[SANDBOX_ADD] = ADD,
		[SANDBOX_KEEP] = ADD | LANDLOCK_ACCESS_FS_REMOVE_FILE,
		[SANDBOX_WRITE] = (RIGHTS_OF_2 | TRUNCATE) & ~LANDLOCK_ACCESS_FS_EXECUTE,
	};

	return rights[use];
}

static bool allow_one(int ruleset, uint64_t handled, const char *path, enum sandbox_use use)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = rights_of(use) & handled };
	struct stat st;
	bool good;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return errno == ENOENT || errno == EACCES || errno == ENOTDIR;
	if (fstat(rule.parent_fd, &st) == 0 && !S_ISDIR(st.st_mode))
		rule.allowed_access &= RIGHTS_OF_FILES;
	good = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
	close(rule.parent_fd);
	return good;
}

static bool allow(int ruleset, uint64_t handled, const struct sandbox_path *p)
{
	glob_t found;
	bool good = true;

	if (!p->pattern)
		return allow_one(ruleset, handled, p->path, p->use);
	if (glob(p->path, 0, NULL, &found) != 0)
		return true;
	for (size_t i = 0; i < found.gl_pathc && good; i++)
		good = allow_one(ruleset, handled, found.gl_pathv[i], p->use);
	globfree(&found);
	return good;
}

bool sandbox_enter(const struct sandbox_path *paths, int n_paths)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION), fd;
	struct ruleset all;
	bool good = true;
	size_t size;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (version < FIRST_VERSION)
		return false;
	all = all_of(version, &size);
	fd = (int)syscall(SYS_landlock_create_ruleset, &all, size, 0);
	if (fd < 0)
		return false;
	for (int i = 0; i < n_paths && good; i++)
		good = allow(fd, all.files, &paths[i]);
	good = good && syscall(SYS_landlock_restrict_self, fd, 0) == 0;
	close(fd);
	return good;
}

void sandbox_keep_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];

	/* the bounding set first: that needs a capability of its own */
	for (int c = 0; c < 64; c++)
		if (!(kept >> c & 1))
			prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
	if (syscall(SYS_capget, &head, sets) != 0)
		return;
	for (int half = 0; half < 2; half++) {
		sets[half].permitted &= (uint32_t)(kept >> 32 * half);
		sets[half].effective &= sets[half].permitted;
		sets[half].inheritable = 0;
	}
	syscall(SYS_capset, &head, sets);
}

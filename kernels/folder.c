/* folder: see folder.h. */
#include "kernels/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { STALE_S = 3600, NAME_LEN = 256 };

static bool is_temporary(const char *name)
{
	const size_t len = strlen(name);

	return len > 4 && strcmp(name + len - 4, ".tmp") == 0;
}

static bool is_older(struct timespec a, struct timespec b)
{
	return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

/* The bytes of all files, and the one unused for longest ("": none); stale ones are removed. */
static uint64_t survey(const char *path, char oldest[NAME_LEN])
{
	DIR *dir = opendir(path);
	struct timespec since = { 0 };
	uint64_t sum = 0;

	oldest[0] = 0;
	for (const struct dirent *e = NULL; dir && (e = readdir(dir));) {
		const bool temporary = is_temporary(e->d_name);
		struct stat st;

		if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
			continue;
		if (temporary && st.st_mtime < time(NULL) - STALE_S && unlinkat(dirfd(dir), e->d_name, 0) == 0)
			continue;
		sum += (uint64_t)st.st_size;
		if (!temporary && (!*oldest || is_older(st.st_mtim, since))) {
			snprintf(oldest, NAME_LEN, "%s", e->d_name);
			since = st.st_mtim;
		}
	}
	if (dir)
		closedir(dir);
	return sum;
}

bool folder_shrink(const char *dir, uint64_t limit, uint64_t more, uint64_t *held)
{
	char oldest[NAME_LEN], path[PATH_MAX + NAME_LEN];

	if (more > limit)
		return false;
	while ((*held = survey(dir, oldest)) + more > limit) {
		snprintf(path, sizeof path, "%s/%s", dir, oldest);
		if (!*oldest || unlink(path) != 0)
			return false;
	}
	return true;
}

bool folder_has_disk(const char *dir, uint64_t more)
{
	struct statvfs fs;

	return statvfs(dir, &fs) == 0 && more / fs.f_frsize + fs.f_blocks / 10 < fs.f_bavail;
}

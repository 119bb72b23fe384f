/* cache: objects come back whole or not at all, whatever processes, kills, full disks and damage do. */
#include "cache/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/check.h"

static char folder[64] = "/tmp/promptfs-cache-XXXXXX";

static void key_of(unsigned n, char key[CACHE_KEY_LEN + 1])
{
	snprintf(key, CACHE_KEY_LEN + 1, "%08x%024x", n * 2654435761u, n);
}

static const char *object_path(unsigned n, const char *suffix)
{
	static char path[200];
	char key[CACHE_KEY_LEN + 1];

	key_of(n, key);
	snprintf(path, sizeof path, "%s/objects/%.2s/%s%s", folder, key, key, suffix);
	return path;
}

/* Object n: n * 7 + 1000 bytes that depend on n. */
static size_t fill(unsigned n, unsigned char *data)
{
	size_t len = 1000 + n * 7;

	for (size_t i = 0; i < len; i++)
		data[i] = (unsigned char)(i * 31 + n * 17);
	return len;
}

static int put(struct cache *c, unsigned n)
{
	unsigned char data[20000];
	char key[CACHE_KEY_LEN + 1], text[32];

	key_of(n, key);
	snprintf(text, sizeof text, "object %u", n);
	return cache_put(c, key, data, fill(n, data), text, strlen(text));
}

/* 0 and right bytes, or the error. */
static int fetch(struct cache *c, unsigned n, struct cache_object *keep)
{
	unsigned char data[20000];
	char key[CACHE_KEY_LEN + 1];
	struct cache_object o;
	size_t len = fill(n, data);
	int error;

	key_of(n, key);
	error = cache_get(c, key, &o);
	if (error)
		return error;
	if (o.len != len || memcmp(o.data, data, len) != 0)
		error = EILSEQ;
	if (keep)
		*keep = o;
	else
		cache_release(&o);
	return error;
}

static int count_files(const char *name)
{
	char path[128];
	int count = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		count += *e->d_name != '.';
	if (dir)
		closedir(dir);
	return count;
}

static void clear(void)
{
	char command[128];

	snprintf(command, sizeof command, "rm -rf %s/*", folder);
	if (system(command) != 0)
		exit(2);
}

static struct cache *open_new(uint64_t limit)
{
	struct cache *c = NULL;

	clear();
	if (cache_open(folder, limit, &c) != 0) {
		printf("not ok - the cache opens: %s\n", cache_text());
		exit(1);
	}
	return c;
}

static void check_basics(void)
{
	struct cache *c = open_new(0);
	struct cache_object o, p;
	struct cache_stat st;
	char key[CACHE_KEY_LEN + 1], *text = NULL;

	key_of(1, key);
	CHECK("nothing there yet", fetch(c, 1, NULL) == ENOENT && !cache_has(c, key));
	CHECK("put and get", put(c, 1) == 0 && fetch(c, 1, &o) == 0 && cache_has(c, key));
	CHECK("the text beside it", cache_read_text(c, key, &text) == 0 && strcmp(text, "object 1") == 0);
	free(text);
	CHECK("an open object is not removed", cache_remove(c, key) == EBUSY && cache_has(c, key));
	cache_release(&o);
	cache_release(&o);
	CHECK("put again keeps it", put(c, 1) == 0 && fetch(c, 1, NULL) == 0);
	CHECK("pinned", cache_pin(c, key, true) == 0 && cache_remove(c, key) == EPERM);
	CHECK("figures", cache_stat(c, &st) == 0 && st.objects == 1 && st.pinned == 1 && st.bytes == 1007 + 32 + 8);
	CHECK("unpinned and removed", cache_pin(c, key, false) == 0 && cache_remove(c, key) == 0 && !cache_has(c, key));
	CHECK("its text went too", cache_read_text(c, key, &text) == ENOENT);
	CHECK("removed twice", cache_remove(c, key) == ENOENT);
	CHECK("pin of nothing", cache_pin(c, key, true) == ENOENT);
	CHECK("no key", cache_get(c, "../../etc/passwd", &o) == EINVAL && cache_put(c, "", "", 0, "", 0) == EINVAL &&
				cache_remove(c, "0123456789ABCDEF0123456789ABCDEF") == EINVAL);
	CHECK("an empty object", cache_put(c, key, "", 0, "", 0) == 0 && cache_get(c, key, &p) == 0 && p.len == 0);
	cache_release(&p);
	CHECK("nothing left in tmp", count_files("tmp") == 0);
	cache_close(c);
	cache_close(NULL);
}

/* Mapped bytes stay readable when the object goes. */
static void check_open_objects(void)
{
	struct cache *c = open_new(0), *other = NULL;
	struct cache_object o, second;
	uint64_t removed;
	char key[CACHE_KEY_LEN + 1];

	key_of(2, key);
	put(c, 2);
	fetch(c, 2, &o);
	cache_open(folder, 0, &other);
	CHECK("open elsewhere: not removed", cache_remove(other, key) == EBUSY);
	CHECK("open elsewhere: not shrunk away",
		cache_shrink(other, 0, &removed) == 0 && removed == 0 && cache_has(c, key));
	CHECK("two readers", fetch(other, 2, &second) == 0);
	cache_release(&o);
	CHECK("the last reader counts", cache_remove(c, key) == EBUSY);
	cache_release(&second);
	CHECK("then it goes", cache_remove(c, key) == 0);
	cache_close(other);
	cache_close(c);
}

static void damage(unsigned n, off_t at, off_t size)
{
	int fd = open(object_path(n, ""), O_RDWR);
	char byte = 0;

	if (size >= 0) {
		if (ftruncate(fd, size) != 0)
			exit(2);
	} else if (pread(fd, &byte, 1, at) == 1) {
		byte ^= 1;
		if (pwrite(fd, &byte, 1, at) != 1)
			exit(2);
	}
	close(fd);
}

static void check_damage(void)
{
	static const struct {
		const char *name;
		off_t at, size;
	} cases[] = {
		{ "first byte", 0, -1 },
		{ "last byte", 1006, -1 },
		{ "magic", 1007, -1 },
		{ "length", 1016, -1 },
		{ "checksum", 1038, -1 },
		{ "empty", 0, 0 },
		{ "cut", 0, 500 },
		{ "a byte short", 0, 1038 },
		{ "a byte long", 0, 1040 },
		{ "tiny", 0, 31 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cache *c = open_new(0);
		uint64_t checked = 0, damaged = 0;

		put(c, 1);
		put(c, 2);
		damage(1, cases[i].at, cases[i].size);
		check_case(fetch(c, 1, NULL) == ENOENT && access(object_path(1, ""), F_OK) != 0, NULL,
			"damage is found: %s", cases[i].name);
		check_case(put(c, 1) == 0 && fetch(c, 1, NULL) == 0, NULL, "and healed: %s", cases[i].name);
		damage(1, cases[i].at, cases[i].size);
		check_case(put(c, 1) == 0 && fetch(c, 1, NULL) == 0, NULL, "put replaces it: %s", cases[i].name);
		damage(1, cases[i].at, cases[i].size);
		check_case(cache_verify(c, &checked, &damaged) == 0 && checked == 2 && damaged == 1 &&
				   fetch(c, 1, NULL) == ENOENT && fetch(c, 2, NULL) == 0,
			NULL, "verify removes it: %s", cases[i].name);
		cache_close(c);
	}
}

static void set_used(unsigned n, time_t when)
{
	const struct timespec times[2] = { { .tv_sec = when }, { .tv_nsec = UTIME_OMIT } };

	utimensat(AT_FDCWD, object_path(n, ""), times, 0);
}

static void check_order(void)
{
	struct cache *c = open_new(0);
	struct cache_entry *list = NULL;
	uint64_t removed = 0, checked, damaged;
	size_t count = 0;
	char key[CACHE_KEY_LEN + 1];

	for (unsigned n = 0; n < 6; n++) {
		put(c, n);
		set_used(n, 1000 + n);
	}
	cache_verify(c, &checked, &damaged);
	key_of(5, key);
	CHECK("list: last used first, verifying is no use", cache_list(c, &list, &count) == 0 && count == 6 &&
								    strcmp(list[0].key, key) == 0 &&
								    list[0].used_ns == 1005000000000ll);
	free(list);
	fetch(c, 0, NULL);
	key_of(1, key);
	cache_pin(c, key, true);
	CHECK("shrink: the least recently used go", cache_shrink(c, 3500, &removed) == 0 && removed == 3 &&
							    fetch(c, 0, NULL) == 0 && fetch(c, 1, NULL) == 0 &&
							    fetch(c, 2, NULL) == ENOENT && fetch(c, 5, NULL) == 0);
	CHECK("shrink: pinned ones stay", cache_shrink(c, 0, &removed) == 0 && removed == 2 && fetch(c, 1, NULL) == 0);
	cache_close(c);
}

static void check_limit(void)
{
	struct cache *c = open_new(5000);
	struct cache_stat st;
	bool under = true;

	for (unsigned n = 0; n < 30; n++) {
		under &= put(c, n) == 0;
		set_used(n, 1000 + n);
		under &= cache_stat(c, &st) == 0 && st.bytes <= 5000;
	}
	CHECK("limit: kept all the time", under && st.objects >= 3);
	CHECK("limit: the newest are there",
		fetch(c, 29, NULL) == 0 && fetch(c, 28, NULL) == 0 && fetch(c, 0, NULL) == ENOENT);
	cache_close(c);
}

static void check_format(void)
{
	struct cache *c = open_new(0);
	char path[128];
	FILE *f;

	cache_close(c);
	snprintf(path, sizeof path, "%s/format", folder);
	f = fopen(path, "w");
	fputs("2\n", f);
	fclose(f);
	CHECK("a newer format is refused",
		cache_open(folder, 0, &c) == EPROTONOSUPPORT && strstr(cache_text(), "newer"));
	f = fopen(path, "w");
	fputs("what\n", f);
	fclose(f);
	CHECK("a format that is none is refused", cache_open(folder, 0, &c) == EPROTONOSUPPORT);
	clear();
	snprintf(path, sizeof path, "%s/a/b/c", folder);
	CHECK("folders are made", cache_open(path, 0, &c) == 0);
	cache_close(c);
	CHECK("a file is no folder", cache_open("/dev/null/x", 0, &c) == ENOTDIR);
}

/* Several processes put, get and remove the same few keys; no reader may ever see anything but whole objects. */
static int hammer(unsigned seed)
{
	struct cache *c;
	uint64_t removed;
	char key[CACHE_KEY_LEN + 1];

	if (cache_open(folder, 0, &c) != 0)
		return 1;
	for (int i = 0; i < 120; i++) {
		unsigned n;
		int error = 0;

		seed = seed * 1103515245u + 12345u;
		n = (seed >> 16) % 5;
		key_of(n, key);
		switch ((seed >> 8) % 4) {
		case 0:
			error = put(c, n);
			break;
		case 1:
			error = cache_remove(c, key);
			error = error == ENOENT || error == EBUSY ? 0 : error;
			break;
		case 2:
			error = cache_shrink(c, 3000, &removed);
			break;
		default:
			error = fetch(c, n, NULL);
			error = error == ENOENT ? 0 : error;
		}
		if (error) {
			fprintf(stderr, "%s\n", cache_text());
			return 1;
		}
	}
	cache_close(c);
	return 0;
}

static void check_processes(void)
{
	uint64_t checked, damaged = 1;
	struct cache *c = open_new(0);
	int status = 0, failed = 0;

	fflush(stdout);
	for (unsigned i = 0; i < 4; i++)
		if (fork() == 0)
			_exit(hammer(i + 1));
	while (wait(&status) > 0)
		failed += status != 0;
	CHECK("four processes: no error", failed == 0);
	CHECK("four processes: everything is whole", cache_verify(c, &checked, &damaged) == 0 && damaged == 0);
	CHECK("four processes: nothing left in tmp", count_files("tmp") == 0);
	cache_close(c);
}

static void *hammer_thread(void *seed)
{
	return hammer(*(unsigned *)seed) ? seed : NULL;
}

static void check_threads(void)
{
	struct cache *c = open_new(0);
	unsigned seeds[4] = { 5, 6, 7, 8 };
	pthread_t threads[4];
	int failed = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, hammer_thread, &seeds[i]);
	for (int i = 0; i < 4; i++) {
		void *result = NULL;

		pthread_join(threads[i], &result);
		failed += result != NULL;
	}
	CHECK("four threads: no error", failed == 0);
	cache_close(c);
}

static void check_kills(void)
{
	struct cache *c = open_new(0);
	uint64_t checked = 0, damaged = 1;
	pid_t child;
	int left = 0;

	put(c, 1); /* on a slow disk none of the others may get that far */
	fflush(stdout);
	for (unsigned round = 0; round < 20; round++) {
		child = fork();
		if (child == 0) {
			for (unsigned n = round * 1000;; n++)
				put(c, n % 2000);
		}
		usleep(2000 * (round + 1));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		left += count_files("tmp");
	}
	cache_close(c);
	CHECK("killed writers: the next open cleans up", cache_open(folder, 0, &c) == 0 && count_files("tmp") == 0);
	check_case(cache_verify(c, &checked, &damaged) == 0 && damaged == 0 && checked > 0, NULL,
		"killed writers: every object is whole");
	printf("# %llu objects, %d files in tmp/ before\n", (unsigned long long)checked, left);
	cache_close(c);
}

/* A writer that lives is left alone by another's open. */
static void check_living_writer(void)
{
	struct cache *c = open_new(0), *other = NULL;
	pid_t child;
	int status = 1;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		for (unsigned n = 0; n < 200; n++)
			if (put(c, n) != 0)
				_exit(1);
		_exit(0);
	}
	while (waitpid(child, &status, WNOHANG) == 0)
		if (cache_open(folder, 0, &other) == 0)
			cache_close(other);
	CHECK("opens leave a living writer alone", status == 0 && fetch(c, 199, NULL) == 0);
	cache_close(c);
}

static void check_full_disk(void)
{
	static unsigned char data[1 << 20];
	struct cache *c = NULL;
	char key[CACHE_KEY_LEN + 1];
	int error = 0;

	clear();
	if (mount("promptfs-test", folder, "tmpfs", 0, "size=3m") != 0) {
		printf("skip - a full disk: no tmpfs can be mounted (root only)\n");
		return;
	}
	if (cache_open(folder, 0, &c) == 0) {
		for (unsigned n = 0; n < 8 && !error; n++) {
			key_of(n, key);
			error = cache_put(c, key, data, sizeof data, "x", 1);
		}
		CHECK("a full disk: ENOSPC with the file's name", error == ENOSPC && strstr(cache_text(), key));
		CHECK("a full disk: nothing is left behind", count_files("tmp") == 0 && !cache_has(c, key));
		CHECK("a full disk: what was there is whole", cache_verify(c, &(uint64_t){ 0 }, &(uint64_t){ 0 }) == 0);
		key_of(0, key);
		CHECK("a full disk: room helps",
			cache_remove(c, key) == 0 && cache_put(c, key, data, 1000, "x", 1) == 0);
		cache_close(c);
	}
	umount(folder);
}

int main(void)
{
	if (!mkdtemp(folder))
		return 2;
	check_basics();
	check_open_objects();
	check_damage();
	check_order();
	check_limit();
	check_format();
	check_processes();
	check_threads();
	check_kills();
	check_living_writer();
	check_full_disk();
	clear();
	rmdir(folder);
	return check_result();
}

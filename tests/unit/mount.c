/* The parts of the mount that need no mount: interrupts, inodes, records, control's names, errnos. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/control_lines.h"
#include "fs/errnos.h"
#include "fs/escape.h"
#include "fs/inodes.h"
#include "fs/interrupts.h"
#include "fs/records.h"
#include "tests/unit/check.h"

/* ---- interrupts ---- */

static bool is_final(uint64_t thread, uint64_t process, uint64_t blocked)
{
	char text[256];

	snprintf(text, sizeof text,
		"Name:\tcat\nState:\tS\nSigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\nSigIgn:\t0\n",
		(unsigned long long)thread, (unsigned long long)process, (unsigned long long)blocked);
	return interrupt_status_final(text);
}

static uint64_t bit(int number)
{
	return UINT64_C(1) << (number - 1);
}

static void test_interrupts(void)
{
	static const int harmless[] = { SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGVTALRM,
		SIGPROF, SIGWINCH, SIGIO };
	uint64_t all = 0;

	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
		check_case(!is_final(bit(harmless[i]), 0, 0), "counts as final", "signal %d is harmless", harmless[i]);
		all |= bit(harmless[i]);
	}
	CHECK("nothing pending", !is_final(0, 0, 0));
	CHECK("SIGKILL to the thread", is_final(bit(SIGKILL), 0, 0));
	CHECK("SIGINT to the process", is_final(0, bit(SIGINT), 0));
	CHECK("SIGTERM among harmless ones", is_final(all, bit(SIGTERM), 0));
	CHECK("SIGALRM and real-time signals", is_final(bit(SIGALRM), 0, 0) && is_final(0, bit(64), 0));
	CHECK("a blocked one does not count", !is_final(0, bit(SIGINT), bit(SIGINT)));
	CHECK("another one does", is_final(0, bit(SIGINT), bit(SIGTERM)));
	CHECK("a text without masks", !interrupt_status_final("") && !interrupt_status_final("SigPnd:\tff"));
	CHECK("we are not dying", !interrupt_is_final(getpid()));
	CHECK("nobody is", interrupt_is_final(0) && interrupt_is_final(-1));
}

/* ---- inodes ---- */

struct thing {
	struct inode inode;
	int value;
};

static int n_freed;

static void thing_free(struct inode *i)
{
	n_freed++;
	free(i);
}

static bool thing_same(const struct inode *known, const struct inode *fresh)
{
	return ((const struct thing *)known)->value == ((const struct thing *)fresh)->value;
}

static struct thing *intern(struct inodes *t, uint64_t low, int value)
{
	struct thing *fresh = calloc(1, sizeof *fresh);

	fresh->inode.number = inode_number(TREE_IMAGES, low);
	fresh->inode.free = thing_free;
	fresh->value = value;
	return (struct thing *)inodes_intern(t, &fresh->inode, thing_same);
}

static void test_inodes(void)
{
	struct inodes *t = inodes_new();
	struct thing *a = intern(t, 7, 1), *b = intern(t, 7, 2);
	bool found = true;

	CHECK("a taken number gives the next", a != b && b->inode.number == a->inode.number + 1);
	CHECK("an equal one is the known one", intern(t, 7, 1) == a && intern(t, 7, 2) == b && n_freed == 2);
	inodes_drop(t, &a->inode, 1);
	CHECK("two references take two drops", inodes_find(t, a->inode.number) == &a->inode && n_freed == 2);
	inodes_drop(t, &a->inode, 1);
	CHECK("the last one frees", n_freed == 3 && inodes_count(t) == 1);
	CHECK("a freed one is not found", !inodes_find(t, inode_number(TREE_IMAGES, 7)));
	inodes_drop(t, &b->inode, 99);
	for (int i = 0; i < 5000; i++)
		intern(t, (uint64_t)i * 13, i);
	for (int i = 0; i < 5000; i++) {
		struct thing *each = (struct thing *)inodes_find(t, inode_number(TREE_IMAGES, (uint64_t)i * 13));

		found = found && each && each->value == i;
	}
	CHECK("5000 are found again", found && inodes_count(t) == 5000);
	inodes_free(t);
	CHECK("all are freed at the end", n_freed == 4 + 5000);
	CHECK("a number names its tree", inode_tree(inode_number(TREE_STATUS, UINT64_MAX)) == TREE_STATUS &&
						 inode_tree(UINT64_MAX) == TREE_COUNT &&
						 inode_number(TREE_STATUS, UINT64_MAX) >> 63 == 0);
}

/* ---- records ---- */

static struct records *reopen(struct records *r, int dir)
{
	records_close(r);
	r = NULL;
	return records_open(dir, &r) == STATUS_OK ? r : NULL;
}

static void append_text(int dir, const char *text)
{
	int fd = openat(dir, "records", O_WRONLY | O_APPEND | O_CREAT, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

static void test_seeds(int dir)
{
	struct record_id one = { 11, 5 }, reborn = { 11, 6 };
	struct records *r = reopen(NULL, dir);
	uint64_t a = 0, b = 0, c = 0, d = 0;

	CHECK("a seed is drawn", r && records_seed(r, one, 100, &a) == STATUS_OK);
	CHECK("and kept", records_seed(r, one, 100, &b) == STATUS_OK && a == b);
	append_text(dir, "11 5 seed 00000"); /* as a crash leaves it */
	r = reopen(r, dir);
	CHECK("also by a new process, after a line cut short",
		r && records_seed(r, one, 100, &b) == STATUS_OK && a == b);
	CHECK("another content draws anew", records_seed(r, one, 101, &c) == STATUS_OK && c != a);
	CHECK("another file of that number too", records_seed(r, reborn, 100, &d) == STATUS_OK && d != a);
	records_remove(r, one);
	r = reopen(r, dir);
	CHECK("what is gone is gone", r && records_seed(r, one, 101, &b) == STATUS_OK && b != c);
	for (int i = 0; i < 3000; i++)
		records_seed(r, one, (uint64_t)i, &c);
	r = reopen(r, dir);
	CHECK("many changes later", r && records_seed(r, one, 2999, &b) == STATUS_OK && b == c);
	CHECK("the other is untouched", records_seed(r, reborn, 100, &b) == STATUS_OK && b == d);
	records_close(r);
	append_text(dir, "nonsense\n11 5\n");
	CHECK("a damaged file is refused", records_open(dir, &r) == STATUS_CORRUPT && strstr(status_text(), "line"));
	unlinkat(dir, "records", 0);
}

static void test_changes(int dir)
{
	struct record_id id = { 12, 0 };
	struct records *r = reopen(NULL, dir);
	int64_t changed;

	CHECK("a first recipe is no change", r && records_changed(r, id, 1, 1000) == 0);
	CHECK("nor is a newer file with another", records_changed(r, id, 2, 2000) == 0);
	CHECK("nor touch", records_changed(r, id, 2, 3000) == 0);
	changed = records_changed(r, id, 3, 2500);
	CHECK("another recipe from older files is", changed > 3000);
	r = reopen(r, dir);
	CHECK("which is remembered", r && records_changed(r, id, 3, 2500) == changed);
	CHECK("until a file is newer than that", records_changed(r, id, 4, changed + 1) == 0);
	records_close(r);
	unlinkat(dir, "records", 0);
}

static void test_records(void)
{
	char path[] = "/tmp/promptfs-test.XXXXXX";
	int dir = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY) : -1;

	if (dir < 0) {
		check_case(false, "no temporary folder", "records");
		return;
	}
	test_seeds(dir);
	test_changes(dir);
	close(dir);
	rmdir(path);
}

/* ---- names in lines of text, control, errnos ---- */

static bool unescapes(const char *text, const char *wanted)
{
	char copy[64];

	snprintf(copy, sizeof copy, "%s", text);
	return escape_undo(copy) && strcmp(copy, wanted) == 0;
}

static bool escapes(const char *name, const char *wanted)
{
	struct bytes out = { 0 };
	bool good = escape_add(name, &out) == STATUS_OK && strcmp((char *)out.data, wanted) == 0;

	bytes_free(&out);
	return good;
}

static void test_escape(void)
{
	char bad[][8] = { "\\", "a\\q", "\\x1", "\\xg0", "\\x00" };

	CHECK("a plain name", unescapes("a/b c.png", "a/b c.png") && escapes("a/b c.png", "a/b c.png"));
	CHECK("escapes are undone", unescapes("a\\nb\\\\c\\x1b\\x7F", "a\nb\\c\x1b\x7f"));
	CHECK("control characters", escapes("a\nb\\c\x1b[31m\x7f", "a\\nb\\\\c\\x1b[31m\\x7f"));
	CHECK("those above ASCII", escapes("\xc2\x9b"
					   "31m\xc2\xa9",
					   "\\xc2\\x9b"
					   "31m\xc2\xa9"));
	CHECK("no UTF-8", escapes("caf\xe9\xc2", "caf\\xe9\\xc2"));
	CHECK("turned lines", escapes("a\xe2\x80\xaeg.png\xe2\x80\xa8", "a\\xe2\\x80\\xaeg.png\\xe2\\x80\\xa8"));
	CHECK("other scripts stay", escapes("\xe7\x8c\xab \xf0\x9f\xa6\x8a", "\xe7\x8c\xab \xf0\x9f\xa6\x8a"));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		check_case(!escape_undo(bad[i]), "accepted", "a malformed escape (%zu)", i);
}

static int note_command(void *context, enum control_verb verb, const char *argument)
{
	struct bytes *seen = context;

	bytes_print(seen, "%d(%s)", (int)verb, argument);
	return strcmp(argument, "busy.png") == 0 ? EBUSY : 0;
}

static bool runs(const char *text, size_t len, int wanted, size_t wanted_at, const char *wanted_seen)
{
	struct bytes seen = { 0 };
	size_t at = 0;
	int error = control_lines(text, len, note_command, &seen, &at);
	bool good = error == wanted && at == wanted_at && strcmp(seen.data ? (char *)seen.data : "", wanted_seen) == 0;

	bytes_free(&seen);
	return good;
}

static void test_control(void)
{
	CHECK("commands",
		runs("cancel a/b.txt\n\n retry\timages/c d .png\nreload", 45, 0, 45, "0(a/b.png)1(c d .png)4()"));
	CHECK("an unknown one ends it", runs("warm m\nnonsense\nreload\n", 23, EINVAL, 7, "2(m)"));
	CHECK("so does one that fails", runs("retry busy.txt\nreload\n", 22, EBUSY, 0, "1(busy.png)"));
	CHECK("arguments that are missing or too many",
		runs("cancel\n", 7, EINVAL, 0, "") && runs("unload \n", 8, EINVAL, 0, "") &&
			runs("reload now\n", 11, EINVAL, 0, "") && runs("cancel images/\n", 15, EINVAL, 0, ""));
	CHECK("a NUL", runs("reload\0", 7, EINVAL, 0, ""));
}

static void test_errnos(void)
{
	bool all = errno_of_status(STATUS_OK) == 0;

	for (int s = STATUS_OK + 1; s < STATUS_COUNT; s++)
		all = all && errno_of_status((enum status)s) > 0;
	CHECK("every status has its errno", all);
	CHECK("those that callers act on",
		errno_of_status(STATUS_INVALID) == EINVAL && errno_of_status(STATUS_NO_MODEL) == ENODEV &&
			errno_of_status(STATUS_NO_MEMORY) == ENOMEM && errno_of_status(STATUS_COUNT) == EIO);
}

int main(void)
{
	test_interrupts();
	test_inodes();
	test_records();
	test_escape();
	test_control();
	test_errnos();
	return check_result();
}

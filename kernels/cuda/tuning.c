/* tuning: which algorithm was fastest, so that the first picture after a start measures nothing.
 *
 * A file for each device and library version: lines of a key and a value in hexadecimal, appended whole, so that
 * several processes may write.  A line that is damaged or of another size is one that was never written; a value is
 * checked by whoever uses it.  Where the file cannot be written, everything works and is measured again.
 */
#include "kernels/cuda/cuda.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BYTES_MAX = 256, ENTRIES_MAX = 4096 };

struct entry {
	size_t key_size, value_size;
	unsigned char key[BYTES_MAX], value[BYTES_MAX];
};

struct tuning {
	int fd; /* -1: only this process's memory */
	int n;
	struct entry **entries;
};

static bool find_path(const char *device, size_t version, char out[PATH_MAX])
{
	char folder[PATH_MAX], name[64];

	snprintf(name, sizeof name, "%s", device);
	for (char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c))
			*c = '-';
	return kernels_tuning_folder(folder, sizeof folder) &&
	       snprintf(out, PATH_MAX, "%s/%s-%zu", folder, name, version) < PATH_MAX;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Hexadecimal up to `end`; the number of bytes, 0 for anything else. */
static size_t read_hex(const char **text, char end, unsigned char out[BYTES_MAX])
{
	const char *t = *text;
	size_t n = 0;

	for (; digit(t[0]) >= 0 && digit(t[1]) >= 0 && n < BYTES_MAX; t += 2)
		out[n++] = (unsigned char)(digit(t[0]) << 4 | digit(t[1]));
	if (*t != end)
		return 0;
	*text = t + 1;
	return n;
}

static void add(struct tuning *t, const struct entry *e)
{
	struct entry *copy, **grown;

	if (t->n == ENTRIES_MAX)
		return;
	grown = realloc(t->entries, (size_t)(t->n + 1) * sizeof *grown);
	if (!grown)
		return;
	t->entries = grown;
	copy = malloc(sizeof *copy);
	if (!copy)
		return;
	*copy = *e;
	t->entries[t->n++] = copy;
}

static void read_file(struct tuning *t, const char *path)
{
	char line[4 * BYTES_MAX + 8];
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof line, f)) {
		const char *at = line;
		struct entry e;

		e.key_size = read_hex(&at, ' ', e.key);
		e.value_size = e.key_size ? read_hex(&at, '\n', e.value) : 0;
		if (e.value_size)
			add(t, &e);
	}
	if (f)
		fclose(f);
}

struct tuning *tuning_open(const char *device, size_t version)
{
	struct tuning *t = calloc(1, sizeof *t);
	char path[PATH_MAX];

	if (!t)
		return NULL;
	t->fd = -1;
	if (find_path(device, version, path)) {
		read_file(t, path);
		t->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	}
	return t;
}

void tuning_close(struct tuning *t)
{
	if (!t)
		return;
	if (t->fd >= 0)
		close(t->fd);
	for (int i = 0; i < t->n; i++)
		free(t->entries[i]);
	free(t->entries);
	free(t);
}

/* The last one counts: it may have replaced one that its library refused. */
bool tuning_find(const struct tuning *t, const void *key, size_t key_size, void *value, size_t value_size)
{
	for (int i = t ? t->n - 1 : -1; i >= 0; i--) {
		const struct entry *e = t->entries[i];

		if (e->key_size == key_size && e->value_size == value_size && memcmp(e->key, key, key_size) == 0) {
			memcpy(value, e->value, value_size);
			return true;
		}
	}
	return false;
}

static size_t print_hex(char *out, const unsigned char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
	return 2 * n;
}

void tuning_keep(struct tuning *t, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct entry e = { .key_size = key_size, .value_size = value_size };
	char line[4 * BYTES_MAX + 8];
	size_t len;

	if (!t || key_size > BYTES_MAX || value_size > BYTES_MAX)
		return;
	memcpy(e.key, key, key_size);
	memcpy(e.value, value, value_size);
	add(t, &e);
	len = print_hex(line, e.key, key_size);
	line[len++] = ' ';
	len += print_hex(line + len, e.value, value_size);
	line[len++] = '\n';
	if (t->fd >= 0 && write(t->fd, line, len) < (ssize_t)len) {
		close(t->fd); /* a full disk: no more of it */
		t->fd = -1;
	}
}

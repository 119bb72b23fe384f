/* hashes: lines "IDENTITY HASH", newest first. */
#include "fs/hashes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "fs/log.h"

enum { LINE_LEN = 2 * MODEL_HASH_LEN + 2, LINES_MAX = 256 };

static bool is_hash(const char *text)
{
	return strspn(text, "0123456789abcdef") == MODEL_HASH_LEN;
}

/* The file's well-formed lines except that of `without`, whole; what is damaged is forgotten. */
static enum status read_lines(const char *path, const char *without, struct bytes *out)
{
	FILE *file = fopen(path, "re");
	char line[256];
	enum status s = STATUS_OK;

	for (int n = 0; file && s == STATUS_OK && n < LINES_MAX && fgets(line, sizeof line, file); n++) {
		bool good = strlen(line) == LINE_LEN && is_hash(line) && line[MODEL_HASH_LEN] == ' ' &&
			    is_hash(line + MODEL_HASH_LEN + 1);

		if (good && strncmp(line, without, MODEL_HASH_LEN) != 0)
			s = bytes_add(out, line, LINE_LEN);
	}
	if (file)
		fclose(file);
	return s;
}

static void path_of(const char *cache_dir, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/models", cache_dir);
}

bool hashes_recall(const char *cache_dir, const char *identity, char hash[MODEL_HASH_LEN + 1])
{
	struct bytes lines = { 0 };
	char path[PATH_MAX];
	bool found = false;

	path_of(cache_dir, path);
	if (!is_hash(identity) || read_lines(path, "", &lines) != STATUS_OK)
		return false;
	for (size_t at = 0; at < lines.len && !found; at += LINE_LEN) {
		const char *line = (char *)lines.data + at;

		found = strncmp(line, identity, MODEL_HASH_LEN) == 0;
		if (found)
			snprintf(hash, MODEL_HASH_LEN + 1, "%.*s", MODEL_HASH_LEN, line + MODEL_HASH_LEN + 1);
	}
	bytes_free(&lines);
	return found;
}

/* No fsync: a lost line costs reading the model again. */
static enum status replace(const char *path, const struct bytes *lines)
{
	char temporary[PATH_MAX];
	int fd, good;

	if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int)sizeof temporary)
		return status_fail(STATUS_IO, "%s: the path is too long", path);
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	good = write(fd, lines->data, lines->len) == (ssize_t)lines->len;
	close(fd);
	if (good && rename(temporary, path) == 0)
		return STATUS_OK;
	status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	unlink(temporary);
	return STATUS_IO;
}

enum status hashes_remember(const char *cache_dir, const char *identity, const char *hash)
{
	struct bytes lines = { 0 };
	char path[PATH_MAX];
	enum status s;

	if (!is_hash(identity) || !is_hash(hash))
		return status_fail(STATUS_INTERNAL, "no hash of a model: %.64s", hash);
	path_of(cache_dir, path);
	s = bytes_print(&lines, "%s %s\n", identity, hash);
	if (s == STATUS_OK)
		s = read_lines(path, identity, &lines);
	if (s == STATUS_OK)
		s = replace(path, &lines);
	bytes_free(&lines);
	return s;
}

enum status hashes_settle(const char *cache_dir, struct model *m)
{
	if (*m->hash || hashes_recall(cache_dir, m->identity, m->hash))
		return STATUS_OK;
	TRY(model_hash_files(m, m->hash));
	if (hashes_remember(cache_dir, m->identity, m->hash) != STATUS_OK)
		log_info("%s", status_text()); /* it will be computed again */
	return STATUS_OK;
}

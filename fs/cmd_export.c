/* promptfs export NAME ... | DIR -o DIR: copies of pictures without the padding that a mount needs, a third of the size
 * or less.  Reading them through a mount makes those that are not made yet. */
#include "fs/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "fs/output.h"

static const char name[] = "export";

enum { SIGNATURE_LEN = 8, CHUNK_EXTRA = 12 /* length, type, checksum */, READ_LEN = 1 << 20 };

static const unsigned char signature[SIGNATURE_LEN] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };

static enum status read_file(const char *path, struct bytes *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum status s = fd < 0 ? status_fail(STATUS_IO, "%s: %s", path, strerror(errno)) : STATUS_OK;
	ssize_t n = 1;

	while (s == STATUS_OK && n != 0) {
		s = bytes_reserve(out, READ_LEN);
		n = s == STATUS_OK ? read(fd, out->data + out->len, READ_LEN) : 0;
		if (n > 0)
			out->len += (size_t)n;
		else if (n < 0 && errno != EINTR)
			s = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
	}
	if (fd >= 0)
		close(fd);
	return s;
}

static size_t chunk_len(const unsigned char *chunk)
{
	return (size_t)chunk[0] << 24 | (size_t)chunk[1] << 16 | (size_t)chunk[2] << 8 | chunk[3];
}

/* Every chunk but the padding, as it is. */
static enum status strip_padding(const char *path, const struct bytes *png, struct bytes *out)
{
	size_t at = SIGNATURE_LEN;

	if (png->len < SIGNATURE_LEN || memcmp(png->data, signature, SIGNATURE_LEN) != 0)
		return status_fail(STATUS_CORRUPT, "%s: no PNG", path);
	TRY(bytes_add(out, signature, SIGNATURE_LEN));
	while (at < png->len) {
		const unsigned char *chunk = png->data + at;
		size_t left = png->len - at;

		if (left < CHUNK_EXTRA || chunk_len(chunk) > left - CHUNK_EXTRA)
			return status_fail(STATUS_CORRUPT, "%s: cut off at byte %zu", path, at);
		if (memcmp(chunk + 4, "paDd", 4) != 0)
			TRY(bytes_add(out, chunk, chunk_len(chunk) + CHUNK_EXTRA));
		at += chunk_len(chunk) + CHUNK_EXTRA;
	}
	return STATUS_OK;
}

static enum status export_file(const char *path, const char *to)
{
	struct bytes png = { 0 }, stripped = { 0 };
	enum status s = read_file(path, &png);

	if (s == STATUS_OK)
		s = strip_padding(path, &png, &stripped);
	if (s == STATUS_OK)
		s = output_write(to, stripped.data, stripped.len);
	bytes_free(&png);
	bytes_free(&stripped);
	return s;
}

/* nftw has no context: where this walk comes from and goes to, and how it fared. */
static struct {
	size_t from_len;
	const char *to;
	int code;
} walk;

static int is_picture(const char *path)
{
	size_t len = strlen(path);

	return len > 4 && strcmp(path + len - 4, ".png") == 0;
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *where)
{
	const char *inside = path + walk.from_len + (path[walk.from_len] == '/');
	char to[PATH_MAX];
	enum status s = STATUS_OK;

	if (snprintf(to, sizeof to, "%s/%s", walk.to, inside) >= (int)sizeof to)
		s = status_fail(STATUS_IO, "%s: the path is too long", path);
	else if (type == FTW_D && mkdir(to, 0777) != 0 && errno != EEXIST)
		s = status_fail(STATUS_IO, "%s: %s", to, strerror(errno));
	else if (type == FTW_DNR)
		s = status_fail(STATUS_IO, "%s: the folder cannot be read", path);
	else if ((type == FTW_F || type == FTW_SL) && is_picture(path))
		s = export_file(path, to);
	if (s != STATUS_OK)
		walk.code = command_fail(s); /* and on with the others */
	return 0;
}

static int export_folder(const char *path, const char *to)
{
	char from[PATH_MAX];
	size_t len = (size_t)snprintf(from, sizeof from, "%s", path);

	while (len > 1 && len < sizeof from && from[len - 1] == '/')
		from[--len] = 0;
	walk.from_len = len;
	walk.to = to;
	walk.code = 0;
	if (nftw(from, visit, 16, FTW_PHYS) != 0)
		return command_fail(status_fail(STATUS_IO, "%s: %s", path, strerror(errno)));
	return walk.code;
}

static int export_one(const char *path, const char *to)
{
	const char *slash = strrchr(path, '/');
	char file[PATH_MAX];
	struct stat st;
	enum status s;

	if (stat(path, &st) != 0)
		return command_fail(status_fail(STATUS_IO, "%s: %s", path, strerror(errno)));
	if (S_ISDIR(st.st_mode))
		return export_folder(path, to);
	if (snprintf(file, sizeof file, "%s/%s", to, slash ? slash + 1 : path) >= (int)sizeof file)
		return command_fail(status_fail(STATUS_IO, "%s: the path is too long", to));
	s = export_file(path, file);
	return s == STATUS_OK ? 0 : command_fail(s);
}

static int export_all(const char *to, int count, char **paths)
{
	int code = 0;

	if (mkdir(to, 0777) != 0 && errno != EEXIST)
		return command_fail(status_fail(STATUS_IO, "%s: %s", to, strerror(errno)));
	for (int i = 0; i < count; i++)
		if (export_one(paths[i], to) != 0)
			code = 1;
	return code;
}

int cmd_export(int argc, char **argv)
{
	static const struct option options[] = { { "output", required_argument, NULL, 'o' }, { 0 } };
	struct config config;
	const char *to = NULL;
	int code = command_config(&argc, argv, &config), option;

	if (code)
		return code;
	config_free(&config);
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":o:", options, NULL)) == 'o')
		to = optarg;
	if (option != -1)
		return command_bad_option(name, option, argv);
	if (!to)
		return command_usage(name, "say where to: -o DIR");
	if (optind == argc)
		return command_usage(name, "say which: pictures or a folder of them, as in `export images -o DIR`");
	return export_all(to, argc - optind, argv + optind);
}

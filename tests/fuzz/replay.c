/* replay: a fuzz target without a fuzzer.  Gives it every file of tests/fuzz/seeds/NAME and tests/fuzz/crashers/NAME,
 * so that what once crashed is tested wherever there is a compiler.
 *
 *     build/release/fuzz/NAME        from the folder of the project
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_MAX = 1 << 20, PATH_LEN = 1024 };

/* Gives the target a block of exactly the file's size, so that a sanitizer sees what is read beyond it. */
static void replay_file(const char *folder, const char *name)
{
	static uint8_t buffer[FILE_MAX];
	char path[PATH_LEN + 256];
	uint8_t *data;
	size_t len;
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "rb");
	if (!file) {
		printf("not ok - %s: cannot open\n", path);
		exit(1);
	}
	len = fread(buffer, 1, sizeof buffer, file);
	fclose(file);
	data = malloc(len + (len == 0));
	if (!data)
		exit(1);
	memcpy(data, buffer, len);
	printf("# %s\n", path);
	fflush(stdout); /* the last line of a crash names the file */
	LLVMFuzzerTestOneInput(data, len);
	printf("ok - %s\n", path);
	free(data);
}

static void replay_folder(const char *kind, const char *target)
{
	char folder[PATH_LEN];
	struct dirent *entry;
	DIR *dir;

	snprintf(folder, sizeof folder, "tests/fuzz/%s/%s", kind, target);
	dir = opendir(folder);
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			replay_file(folder, entry->d_name);
	if (dir)
		closedir(dir);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *target = slash ? slash + 1 : argv[0];

	replay_folder("seeds", target);
	replay_folder("crashers", target);
	return 0;
}

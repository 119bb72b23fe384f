/* lora: files that must be refused, each with the key that is wrong, by the real program (golden/units/lora). */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "tests/unit/program.h"

static bool exists(const char *path)
{
	return access(path, R_OK) == 0;
}

static void check_refusal(const char *name, const json_t *entry)
{
	char model[512], file[512], said[4096] = "";
	const char *key = json_string_value(json_object_get(entry, "key"));
	const char *const arguments[] = { "promptfs", "generate", "--device", "cpu", "--dtype", "f32", "--model", model,
		"--width", "64", "--height", "64", "--steps", "1", "--lora", file, "-o", "/dev/null", "a boat", NULL };
	struct rusage used;
	int state = 0;
	FILE *error;

	snprintf(model, sizeof model, "%s/models/%s", check_golden(),
		json_string_value(json_object_get(entry, "model")));
	snprintf(file, sizeof file, "%s/%s", check_golden(), json_string_value(json_object_get(entry, "file")));
	if (!exists(file) || !exists(model)) {
		printf("skip - %s: not in the golden cases\n", name);
		return;
	}
	error = tmpfile();
	if (!error || !program_run(arguments, fileno(error), 60, &state, &used))
		return;
	rewind(error);
	said[fread(said, 1, sizeof said - 1, error)] = 0;
	fclose(error);
	check_case(WIFEXITED(state) && WEXITSTATUS(state) == 1 && strstr(said, key), said, "%s is refused by its key",
		name);
}

int main(void)
{
	char path[512];
	json_t *list;
	const char *name;
	json_t *entry;

	snprintf(path, sizeof path, "%s/units/lora/refuse.json", check_golden());
	list = json_load_file(path, 0, NULL);
	if (!list) {
		printf("skip - lora: no golden cases\n");
		return 0;
	}
	json_object_foreach (list, name, entry)
		check_refusal(name, entry);
	json_decref(list);
	return check_result();
}

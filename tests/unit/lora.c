/* lora: files that must be refused, each with the key that is wrong, by the real program (golden/units/lora); what
 * every kind of change makes of a weight (golden/units/lora-changes, by PEFT and LyCORIS). */
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "engine/lora.h"
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

static void check_refusals(void)
{
	char path[512];
	const char *name;
	json_t *list, *entry;

	snprintf(path, sizeof path, "%s/units/lora/refuse.json", check_golden());
	list = json_load_file(path, 0, NULL);
	if (!list)
		printf("skip - lora: no golden cases\n");
	json_object_foreach (list, name, entry)
		check_refusal(name, entry);
	json_decref(list);
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

struct changes {
	char folder[400];
	struct weights *base, *expected;
};

static double distance(const struct tensor *got, const struct tensor *want)
{
	double difference = 0, size = 0;

	if (tensor_count(got) != tensor_count(want))
		return INFINITY;
	for (int64_t i = 0; i < tensor_count(want); i++) {
		double a = ((const float *)got->data)[i], b = ((const float *)want->data)[i];

		difference += (a - b) * (a - b);
		size += b * b;
	}
	return sqrt(difference / size);
}

static void check_tensor(const struct changes *c, const char *name, const char *tensor)
{
	struct tensor got, want, plain;
	char key[512];
	double moved;
	bool found;

	snprintf(key, sizeof key, "%s/%s", name, tensor);
	found = weights_find(c->expected, key, 0, NULL, &want) == STATUS_OK &&
		weights_view(c->base, tensor, &plain) == STATUS_OK &&
		weights_find(c->base, tensor, want.rank, want.dim, &got) == STATUS_OK;
	if (!found) {
		check_case(false, status_text(), "%s: %s", name, tensor);
		return;
	}
	moved = distance(&plain, &want);
	/* float32 sums of a few dozen products */
	check_case(distance(&got, &want) < 1e-6 && moved > 0.01, "not the reference's weight", "%s: %s (moves by %.2f)",
		name, tensor, moved);
	weights_release(c->base, &got);
}

static enum status read_loras(const struct changes *c, const json_t *list, struct recipe_fields *fields)
{
	const json_t *value;
	size_t i;

	json_array_foreach (list, i, value) {
		char path[512];

		snprintf(
			path, sizeof path, "%s/%s.safetensors", c->folder, json_string_value(json_array_get(value, 0)));
		TRY(recipe_fields_lora(fields, path, json_number_value(json_array_get(value, 1))));
	}
	return STATUS_OK;
}

static void check_change(const struct changes *c, const char *name, const json_t *entry)
{
	struct recipe_fields fields = { 0 };
	struct lora_set *set = NULL;
	const char *name_of_part = json_string_value(json_object_get(entry, "part"));
	struct lora_part part = { name_of_part ? name_of_part : "unet", c->base };
	const json_t *tensor;
	int applied = 0, of = -1;
	size_t i;
	bool opened =
		read_loras(c, json_object_get(entry, "loras"), &fields) == STATUS_OK &&
		lora_open(&(struct recipe){ .n_loras = fields.n_loras, .loras = fields.loras }, &set) == STATUS_OK &&
		lora_match(set, &part, 1) == STATUS_OK;

	check_case(opened, status_text(), "%s is read", name);
	weights_add_lora(c->base, set, part.name);
	json_array_foreach (json_object_get(entry, "tensors"), i, tensor)
		if (opened)
			check_tensor(c, name, json_string_value(tensor));
	if (opened)
		check_case(lora_count(set, 0, &applied, &of) && applied == (int)i && of == (int)i, NULL,
			"%s: all of its modules are counted", name);
	weights_add_lora(c->base, NULL, NULL);
	lora_close(set);
	recipe_fields_free(&fields);
}

static void check_changes(void)
{
	struct changes c;
	char path[512];
	const char *name;
	json_t *list, *entry;

	snprintf(c.folder, sizeof c.folder, "%s/units/lora-changes", check_golden());
	snprintf(path, sizeof path, "%s/cases.json", c.folder);
	list = json_load_file(path, 0, NULL);
	if (!list) {
		printf("skip - lora changes: no golden cases\n");
		return;
	}
	snprintf(path, sizeof path, "%s/base.safetensors", c.folder);
	CHECK("the model's weights", weights_open_file(path, &c.base) == STATUS_OK);
	snprintf(path, sizeof path, "%s/expected.safetensors", c.folder);
	CHECK("the expected weights", weights_open_file(path, &c.expected) == STATUS_OK);
	json_object_foreach (list, name, entry)
		check_change(&c, name, entry);
	json_decref(list);
	weights_close(c.base);
	weights_close(c.expected);
}

int main(void)
{
	check_refusals();
	check_changes();
	return check_result();
}

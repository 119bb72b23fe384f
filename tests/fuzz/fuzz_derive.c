/* Any names and shapes of tensors as a checkpoint without configuration: refused, or a family, parts and configurations
 * come of it.  The input is JSON: {name: [shape], ...}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/derive.h"
#include "engine/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file of a header and as much nothing as it promises. */
static bool write_hollow(const char *path, const json_t *tensors)
{
	json_t *header = json_object(), *shape;
	const char *name;
	json_int_t end = 0;
	char *text;
	uint64_t len;
	FILE *f = fopen(path, "w");
	bool written = false;

	json_object_foreach ((json_t *)tensors, name, shape) {
		json_int_t begin = end, count = 1;
		json_t *length;
		size_t i;

		json_array_foreach (shape, i, length)
			count *= json_integer_value(length) & 0xffff;
		if (!json_is_array(shape) || count < 0 || count > 1 << 30)
			continue;
		end += count;
		json_object_set_new(header, name,
			json_pack("{s:s, s:O, s:[I,I]}", "dtype", "U8", "shape", shape, "data_offsets", begin, end));
	}
	text = json_dumps(header, JSON_COMPACT);
	if (f && text) {
		len = strlen(text);
		written = fwrite(&len, sizeof len, 1, f) == 1 && fwrite(text, len, 1, f) == 1 && fflush(f) == 0 &&
			  ftruncate(fileno(f), (off_t)(8 + len) + end) == 0;
	}
	if (f)
		fclose(f);
	free(text);
	json_decref(header);
	return written;
}

static enum status ignore(const json_t *object, const char *path, void *out)
{
	return json_is_object(object) ? STATUS_OK : STATUS_INTERNAL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const parts[] = { "transformer", "unet", "vae", "text_encoder" };
	static char dir[] = "/tmp/promptfs-fuzz-derive-XXXXXX";
	char file[100], path[200];
	json_t *tensors = NULL;

	if (json_parse_object(data, size, &tensors) != STATUS_OK)
		return 0;
	if (strchr(dir, 'X') && !mkdtemp(dir))
		abort();
	snprintf(file, sizeof file, "%s/x.safetensors", dir);
	if (write_hollow(file, tensors)) {
		snprintf(path, sizeof path, "%s//model_index.json", file);
		derive_read_file(path, ignore, NULL);
		for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
			struct component c = { .loras = NULL };

			snprintf(c.name, sizeof c.name, "%s", parts[i]);
			snprintf(c.config, sizeof c.config, "%s//%s/config.json", file, parts[i]);
			snprintf(c.weights, sizeof c.weights, "%s", file);
			derive_read_config(&c, ignore, NULL);
		}
		unlink(file);
	}
	json_decref(tensors);
	return 0;
}

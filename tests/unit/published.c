/* published: the graph that a published model's configuration describes has exactly the tensors of its index file, and
 * they are as large together as the index says; without weights. */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "engine/flux_transformer.h"
#include "tests/unit/check.h"

/* What was seen of one index. */
struct survey {
	const char *model;
	json_t *names; /* of the index that were not visited yet */
	int64_t elements;
	int missing;
};

static void visit(void *context, const char *name, int rank, const int64_t *dim)
{
	struct survey *s = context;
	int64_t count = 1;

	for (int i = 0; i < rank; i++)
		count *= dim[i];
	s->elements += count;
	if (json_object_del(s->names, name) != 0) {
		printf("# %s: the index has no %s\n", s->model, name);
		s->missing++;
	}
}

static void check_flux(const char *model)
{
	char path[500];
	struct survey s = { .model = model };
	struct flux_config c;
	json_t *index, *bytes;
	const char *first;

	snprintf(path, sizeof path, "%s/../reference/configs/%s/transformer/config.json", check_golden(), model);
	check_case(flux_config_read(path, &c) == STATUS_OK, status_text(), "%s: its configuration", model);
	snprintf(path, sizeof path,
		"%s/../reference/configs/%s/transformer/diffusion_pytorch_model.safetensors.index.json", check_golden(),
		model);
	index = json_load_file(path, 0, NULL);
	s.names = json_object_get(index, "weight_map");
	if (!s.names) {
		printf("skip - %s: no index file\n", model);
		json_decref(index);
		return;
	}
	flux_transformer_list(&c, visit, &s);
	check_case(s.missing == 0, "see above", "%s: every tensor is in the index", model);
	first = json_object_iter_key(json_object_iter(s.names));
	check_case(json_object_size(s.names) == 0, first, "%s: every tensor of the index is read", model);
	bytes = json_object_get(json_object_get(index, "metadata"), "total_size");
	check_case(json_integer_value(bytes) == 2 * s.elements, "another size", "%s: %lld parameters of 2 bytes", model,
		(long long)s.elements);
	json_decref(index);
}

int main(void)
{
	char path[500];

	snprintf(path, sizeof path, "%s/../reference/configs", check_golden());
	if (access(path, R_OK)) {
		printf("skip - published: no reference configurations\n");
		return check_result();
	}
	check_flux("FLUX.1-dev");
	check_flux("FLUX.1-schnell");
	return check_result();
}

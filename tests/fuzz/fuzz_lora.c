/* Any bytes as a LoRA file: refused, or applied to every weight it names. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/lora.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A model's weights, as tests/unit/lora.c has them. */
static struct weights *base(void)
{
	static struct weights *w;

	if (!w && weights_open_file("tests/golden/units/lora-changes/base.safetensors", &w) != STATUS_OK)
		abort();
	return w;
}

/* Not found under a wrong shape, or found with as many values as it had. */
static void look_at_all(struct weights *w)
{
	for (int64_t i = 0; i < weights_count(w); i++) {
		int64_t dim[TENSOR_RANK_MAX];
		struct tensor t;
		int rank;

		if (weights_shape(w, weights_name(w, i), &rank, dim) != STATUS_OK)
			abort();
		if (weights_find(w, weights_name(w, i), rank, dim, &t) == STATUS_OK)
			weights_release(w, &t);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("lora", MFD_CLOEXEC);
	char path[64];
	struct recipe_lora lora = { .name = path, .scale = 0.5 };
	struct recipe recipe = { .n_loras = 1, .loras = &lora };
	struct lora_part part = { "unet", base() };
	struct lora_set *set = NULL;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	if (lora_open(&recipe, &set) == STATUS_OK && lora_match(set, &part, 1) == STATUS_OK) {
		weights_add_lora(base(), set, "unet");
		look_at_all(base());
		weights_add_lora(base(), NULL, NULL);
	}
	lora_close(set);
	close(fd);
	return 0;
}

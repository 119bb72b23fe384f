/* names: original names of tensors against golden/units/single-file and what the converters of diffusers do. */
#include "engine/names.h"

#include <jansson.h>
#include <string.h>

#include "tests/unit/check.h"

static void check_map(enum names_layout layout, const char *original, int n, const char *first, const char *last)
{
	struct mapped_name to[NAMES_MAX];
	int got = names_map(layout, &names_usual, original, to);

	check_case(got == n && strcmp(to[0].name, first) == 0 && strcmp(to[got - 1].name, last) == 0, to[0].name, "%s",
		original);
}

static void check_rules(void)
{
	struct names_sizes sizes = { 3, 4, 2 };
	struct mapped_name to[NAMES_MAX];

	check_map(NAMES_ZIMAGE, "layers.12.attention.qkv.weight", 3, "layers.12.attention.to_q.weight",
		"layers.12.attention.to_v.weight");
	check_map(NAMES_ZIMAGE, "x_pad_token", 1, "x_pad_token", "x_pad_token");
	check_map(NAMES_FLUX, "single_blocks.3.linear1.bias", 4, "single_transformer_blocks.3.attn.to_q.bias",
		"single_transformer_blocks.3.proj_mlp.bias");
	check_map(NAMES_UNET, "input_blocks_4_1_transformer_blocks_0_attn1_to_q", 1,
		"down_blocks.1.attentions.0.transformer_blocks_0_attn1_to_q",
		"down_blocks.1.attentions.0.transformer_blocks_0_attn1_to_q");
	check_map(NAMES_UNET, "input_blocks_4_0_in_layers_2", 1, "down_blocks.1.resnets.0.conv1",
		"down_blocks.1.resnets.0.conv1");
	check_map(NAMES_QWEN_GGUF, "blk.3.attn_q_norm.weight", 1, "model.layers.3.self_attn.q_norm.weight",
		"model.layers.3.self_attn.q_norm.weight");
	CHECK("the final modulation is swapped",
		names_map(NAMES_FLUX, &names_usual, "final_layer.adaLN_modulation.1.bias", to) == 1 &&
			to[0].how == NAMES_SWAP && !strcmp(to[0].name, "norm_out.linear.bias"));
	names_map(NAMES_SD3, &sizes, "joint_blocks.0.context_block.adaLN_modulation.1.weight", to);
	CHECK("only the last context norm of SD3 is swapped", to[0].how == NAMES_AS_IS);
	names_map(NAMES_SD3, &sizes, "joint_blocks.1.context_block.adaLN_modulation.1.weight", to);
	CHECK("the last context norm of SD3 is swapped", to[0].how == NAMES_SWAP);
	check_map(NAMES_UNET, "input_blocks.99999999999.1.x", 1, "input_blocks.99999999999.1.x",
		"input_blocks.99999999999.1.x");
}

/* ---- names.json -------------------------------------------------------------------------------------------------- */

/* "query" is the old spelling of "to_q"; both are accepted where they are loaded. */
static bool same_name(const char *got, const char *want)
{
	static const char *const old[][2] = {
		{ ".query.", ".to_q." },
		{ ".key.", ".to_k." },
		{ ".value.", ".to_v." },
		{ ".proj_attn.", ".to_out.0." },
	};
	char name[NAMES_LEN];

	if (strcmp(got, want) == 0)
		return true;
	for (size_t i = 0; i < 4; i++) {
		const char *at = strstr(want, old[i][0]);

		if (!at)
			continue;
		snprintf(name, sizeof name, "%.*s%s%s", (int)(at - want), want, old[i][1], at + strlen(old[i][0]));
		return strcmp(got, name) == 0;
	}
	return false;
}

static bool same_how(const struct mapped_name *to, const char *how)
{
	if (strncmp(how, "rows", 4) == 0)
		return to->of == 3 && to->count == 1;
	if (strcmp(how, "squeeze") == 0)
		return to->how == NAMES_SQUEEZE;
	if (strcmp(how, "transpose") == 0)
		return to->how == NAMES_TRANSPOSE;
	/* a bias of the attention cannot be squeezed, but its rule says so too */
	return to->how == NAMES_AS_IS || (to->how == NAMES_SQUEEZE && strstr(to->name, ".bias"));
}

static bool has(const void *file, const char *name)
{
	return json_object_get(file, name) != NULL;
}

static const char *judge(const json_t *tensors, const char *original, const json_t *list)
{
	const char *part = json_string_value(json_object_get(json_array_get(list, 0), "component"));
	const struct names_source *source = names_find_source(part, has, tensors);
	struct mapped_name to[NAMES_MAX];
	int n;

	if (!source || strncmp(original, source->prefix, strlen(source->prefix)) != 0)
		return "no source";
	n = names_map(source->layout, &names_usual, original + strlen(source->prefix), to);
	if (n != (int)json_array_size(list))
		return "another number of tensors";
	for (int i = 0; i < n; i++) {
		const json_t *want = json_array_get(list, (size_t)i);

		if (!same_name(to[i].name, json_string_value(json_object_get(want, "name"))))
			return "another name";
		if (!same_how(&to[i], json_string_value(json_object_get(want, "how"))))
			return "another change";
	}
	return NULL;
}

static void check_golden_names(void)
{
	char path[4096];
	const char *model, *original;
	json_t *root, *entry, *list;

	snprintf(path, sizeof path, "%s/units/single-file/names.json", check_golden());
	root = json_load_file(path, 0, NULL);
	if (!root) {
		printf("skip - names of single files: %s is not there\n", path);
		return;
	}
	json_object_foreach (root, model, entry) {
		json_t *tensors = json_object_get(entry, "tensors");
		int wrong = 0;

		json_object_foreach (tensors, original, list) {
			const char *why = judge(tensors, original, list);

			if (why && wrong++ < 10)
				check_case(false, why, "%s: %s", model, original);
		}
		check_case(!wrong, "see above", "%s: %zu names", model, json_object_size(tensors));
	}
	json_decref(root);
}

int main(void)
{
	check_rules();
	check_golden_names();
	return check_result();
}

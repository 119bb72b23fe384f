/* lora_names: which weights of a model the modules of a LoRA mean. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/lora_private.h"

/* How the names of a file begin, and the part that is meant; "" is the transformer, the UNet or the prior. */
static const struct lead {
	const char *text, *part;
} leads[] = {
	{ "base_model.model.", "" },
	{ "model.diffusion_model.", "" },
	{ "diffusion_model.", "" },
	{ "transformer.", "" },
	{ "unet.", "" },
	{ "prior.", "prior" },
	{ "text_encoder.", "text_encoder" },
	{ "text_encoder_2.", "text_encoder_2" },
	{ "text_encoder_3.", "text_encoder_3" },
	{ "lora_unet_", "" },
	{ "lora_transformer_", "" },
	{ "lora_prior_", "prior" },
	{ "lora_te_", "text_encoder" },
	{ "lora_te1_", "text_encoder" },
	{ "lora_te2_", "text_encoder_2" },
	{ "lora_te3_", "text_encoder_3" },
	{ "", "" },
};

static void flatten(const char *name, char *out)
{
	if (snprintf(out, NAMES_LEN, "%s", name) >= NAMES_LEN)
		*out = 0;
	for (; *out; out++)
		if (*out == '.')
			*out = '_';
}

/* Whether the first len characters of a name are this flat one. */
static bool is_flat(const char *name, size_t len, const char *flat)
{
	for (size_t i = 0; i < len; i++)
		if ((name[i] == '.' ? '_' : name[i]) != flat[i])
			return false;
	return !flat[len];
}

/* The tensor that is the weight of the module of this flat name; NULL: none. */
static const char *find_weight(const struct weights *w, const char *flat)
{
	static const char outer[] = "text_model_";
	/* text encoders come with and without text_model. */
	const char *inner = strncmp(flat, outer, sizeof outer - 1) == 0 ? flat + sizeof outer - 1 : flat;

	for (int64_t i = 0; i < weights_count(w); i++) {
		const char *name = weights_name(w, i);
		size_t len = strlen(name);

		if (len < 8 || len >= NAMES_LEN || strcmp(name + len - 7, ".weight") != 0)
			continue;
		if (is_flat(name, len - 7, flat) || is_flat(name, len - 7, inner))
			return name;
	}
	return NULL;
}

/* Takes what the old attention processors had in their names out of a name. */
static void modernise(char *name)
{
	char *at = strstr(name, ".processor.");
	size_t len;

	if (!at)
		return;
	memmove(at, at + 10, strlen(at + 10) + 1);
	len = strlen(name);
	if (len >= 7 && len + 2 < NAMES_LEN && strcmp(name + len - 7, ".to_out") == 0)
		snprintf(name + len, 3, ".0");
}

static bool add_targets(struct lora *l, int module, const struct lora_part *part, const struct mapped_name *to, int n)
{
	const char *tensor[NAMES_MAX];
	char flat[NAMES_LEN];

	for (int i = 0; i < n; i++) {
		flatten(to[i].name, flat);
		tensor[i] = find_weight(part->weights, flat);
		if (!tensor[i] || to[i].how == NAMES_TRANSPOSE)
			return false;
	}
	for (int i = 0; i < n; i++) {
		struct target *t = &l->target[l->n_targets++];

		*t = (struct target){
			.module = module, .from = to[i].from, .count = to[i].count, .of = to[i].of, .how = to[i].how
		};
		snprintf(t->part, sizeof t->part, "%s", part->name);
		snprintf(t->tensor, sizeof t->tensor, "%s", tensor[i]);
	}
	return true;
}

/* One more than the largest number that follows `list` in a name. */
static int count_blocks(const struct weights *w, const char *list)
{
	size_t len = strlen(list);
	int most = -1;

	for (int64_t i = 0; i < weights_count(w); i++) {
		const char *name = weights_name(w, i);

		if (strncmp(name, list, len) == 0 && atoi(name + len) > most)
			most = atoi(name + len);
	}
	return most + 1;
}

/* The numbers of the original names, as the model's own blocks have them. */
static struct names_sizes measure(const struct weights *w)
{
	struct names_sizes sizes = names_usual;
	int resnets = count_blocks(w, "down_blocks.0.resnets.");

	if (resnets > 0)
		sizes.unet_stride = resnets + 1;
	sizes.joint_blocks = count_blocks(w, "transformer_blocks.");
	return sizes;
}

static bool match_name(struct lora *l, int module, const struct lora_part *part, const char *name)
{
	static const enum names_layout layouts[] = { NAMES_SAME, NAMES_UNET, NAMES_FLUX, NAMES_ZIMAGE, NAMES_SD3,
		NAMES_OPEN_CLIP };
	struct names_sizes sizes = measure(part->weights);

	for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
		struct mapped_name to[NAMES_MAX];
		int n = names_map(layouts[i], &sizes, name, to);

		if (n > 0 && add_targets(l, module, part, to, n))
			return true;
	}
	return false;
}

static bool is_part(const char *lead_part, const char *name)
{
	static const char prior[] = "prior_";

	if (strncmp(name, prior, sizeof prior - 1) == 0) /* Kandinsky's, where all is in one folder */
		name += sizeof prior - 1;
	if (*lead_part)
		return strcmp(lead_part, name) == 0;
	return strcmp(name, "unet") == 0 || strcmp(name, "transformer") == 0 || strcmp(name, "prior") == 0;
}

static bool match_module(struct lora *l, int module, const struct lora_part *parts, int n)
{
	const char *name = l->module[module].name;

	for (size_t i = 0; i < sizeof leads / sizeof leads[0]; i++) {
		size_t len = strlen(leads[i].text);
		char rest[NAMES_LEN];

		if (strncmp(name, leads[i].text, len) != 0)
			continue;
		snprintf(rest, sizeof rest, "%s", name + len);
		modernise(rest);
		for (int j = 0; j < n; j++)
			if (is_part(leads[i].part, parts[j].name) && match_name(l, module, &parts[j], rest))
				return true;
	}
	return false;
}

enum status lora_match(struct lora_set *s, const struct lora_part *parts, int n)
{
	for (int i = 0; i < s->n; i++) {
		struct lora *l = &s->lora[i];
		struct lora_complaint c = { .n = 0 };

		l->target = calloc((size_t)l->n_modules * NAMES_MAX + 1, sizeof *l->target);
		if (!l->target)
			return status_fail(STATUS_NO_MEMORY, "LoRA %s: no memory", l->path);
		for (int j = 0; j < l->n_modules; j++)
			if (match_module(l, j, parts, n))
				l->n_matched++;
			else
				lora_complain_all(&c, &l->module[j], "nothing of that name");
		TRY(lora_settle(&c, l));
	}
	return STATUS_OK;
}

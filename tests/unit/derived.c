/* derived: the configurations that are derived from the tensors of published models are the published ones; without
 * weights: files of the right sizes without content stand for them. */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "engine/autoencoder.h"
#include "engine/derive.h"
#include "engine/family.h"
#include "engine/flux_transformer.h"
#include "engine/json.h"
#include "engine/qwen3.h"
#include "engine/sd3_transformer.h"
#include "engine/survey.h"
#include "engine/unet.h"
#include "engine/zimage_transformer.h"
#include "tests/unit/check.h"
#include "tests/unit/shell.h"

static char work[] = "/tmp/promptfs-derived-XXXXXX";

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Adds the tensors of a list to a safetensors header, in BF16. */
static void add_tensors(json_t *header, const json_t *tensors, const char *prefix, int64_t *end)
{
	const char *name;
	json_t *shape, *length;
	size_t i;

	json_object_foreach ((json_t *)tensors, name, shape) {
		int64_t begin = *end, bytes = 2;
		char full[300];

		json_array_foreach (shape, i, length)
			bytes *= json_integer_value(length);
		*end += bytes;
		snprintf(full, sizeof full, "%s%s", prefix, name);
		json_object_set_new(header, full,
			json_pack("{s:s, s:O, s:[I,I]}", "dtype", "BF16", "shape", shape, "data_offsets",
				(json_int_t)begin, (json_int_t)*end));
	}
}

/* A file of a header and nothing else, as long as with content. */
static bool write_hollow(const char *path, const json_t *header, int64_t bytes)
{
	char *text = json_dumps(header, JSON_COMPACT);
	uint64_t len = text ? strlen(text) : 0, padded = (len + 7) / 8 * 8;
	FILE *f = fopen(path, "we");
	bool written = f && fwrite(&padded, sizeof padded, 1, f) == 1 &&
		       fprintf(f, "%s%*s", text, (int)(padded - len), "") == (int)padded && fflush(f) == 0 &&
		       ftruncate(fileno(f), (off_t)(8 + padded) + bytes) == 0;

	if (f)
		fclose(f);
	free(text);
	return written;
}

static bool write_part(const char *model, const char *part, const char *to)
{
	char path[500];
	json_t *list = NULL, *header = json_object();
	int64_t end = 0;
	bool written = false;

	snprintf(path, sizeof path, "%s/%s/%s/names.json", work, model, part);
	if (json_read_object(path, &list) == STATUS_OK) {
		add_tensors(header, json_object_get(list, "tensors"), "", &end);
		written = write_hollow(to, header, end);
	}
	json_decref(list);
	json_decref(header);
	return written;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static enum status keep(const json_t *object, const char *path, void *out)
{
	*(json_t **)out = json_deep_copy(object);
	return STATUS_OK;
}

static json_t *read_either(const struct component *c)
{
	json_t *object = NULL;

	return derive_read_config(c, keep, &object) == STATUS_OK ? object : NULL;
}

static bool equal(const json_t *a, const json_t *b)
{
	return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b)
						      : json_equal((json_t *)a, (json_t *)b);
}

/* A key of the derived configuration that the published one has with another value; NULL: none. */
static const char *find_difference(const json_t *derived, const json_t *published, bool shallow)
{
	static const char *const spelled_otherwise[] = { "feed_forward_proj", "dual_attention_layers" };
	static const char *const depths[] = { "num_hidden_layers", "transformer_layers_per_block" };
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)derived, key, value) {
		const json_t *other = json_object_get(published, key);
		bool skip = !other || json_is_null(other);

		for (size_t i = 0; i < sizeof spelled_otherwise / sizeof spelled_otherwise[0]; i++)
			skip |= strcmp(key, spelled_otherwise[i]) == 0 || (shallow && strcmp(key, depths[i]) == 0);
		if (!skip && !equal(value, other))
			return key;
	}
	return NULL;
}

static void compare_json(
	const char *label, const struct component *derived, const struct component *published, bool shallow)
{
	json_t *a = read_either(derived), *b = read_either(published);
	const char *key = a && b ? find_difference(a, b, shallow) : "";

	check_case(!key, a && b ? key : status_text(), "%s: as published", label);
	json_decref(a);
	json_decref(b);
}

union config {
	struct zimage_config zimage;
	struct flux_config flux;
	struct sd3_config sd3;
	struct unet_config unet;
	struct autoencoder_config vae;
	struct qwen3_config qwen3;
};

#define READER(name, member, function)                                                                                 \
	static enum status name(const struct component *c, union config *out)                                          \
	{                                                                                                              \
		return function(c, &out->member);                                                                      \
	}
READER(read_zimage, zimage, zimage_config_read)
READER(read_flux, flux, flux_config_read)
READER(read_sd3, sd3, sd3_config_read)
READER(read_unet, unet, unet_config_read)
READER(read_vae, vae, autoencoder_config_read)
READER(read_qwen3, qwen3, qwen3_config_read)

/* What the engine makes of both is the same, value by value; the text encoders keep theirs to themselves. */
static void compare_read(
	const char *model, const char *label, const struct component *derived, const struct component *published)
{
	static const struct {
		const char *model, *part;
		enum status (*read)(const struct component *c, union config *out);
	} readers[] = { { "Z-Image", "transformer", read_zimage }, { "FLUX", "transformer", read_flux },
		{ "stable-diffusion-3", "transformer", read_sd3 }, { "", "unet", read_unet }, { "", "vae", read_vae },
		{ "Z-Image", "text_encoder", read_qwen3 } };

	for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++) {
		union config a, b;

		if (strncmp(model, readers[i].model, strlen(readers[i].model)) != 0 ||
			strcmp(derived->name, readers[i].part) != 0)
			continue;
		memset(&a, 0, sizeof a);
		memset(&b, 0, sizeof b);
		check_case(readers[i].read(derived, &a) == STATUS_OK && readers[i].read(published, &b) == STATUS_OK &&
				   memcmp(&a, &b, sizeof a) == 0,
			status_text(), "%s: read as published", label);
	}
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

struct pair {
	const char *name;
	struct model derived, published;
	bool shallow; /* fewer layers than published */
	int parts, wrong;
	char first[300]; /* what is wrong first */
};

static enum status compare_part(void *context, const struct part_kind *kind, const struct component *published)
{
	struct pair *p = context;
	struct component derived;
	struct survey survey = { 0 };
	char label[200];

	snprintf(label, sizeof label, "%s/%s", p->name, published->name);
	TRY(model_component(&p->derived, published->name, &derived));
	compare_json(label, &derived, published, p->shallow);
	if (!p->shallow)
		compare_read(p->name, label, &derived, published);
	TRY(survey_part(kind, &derived, &survey));
	for (int64_t i = 0; i < survey.n; i++)
		if (survey.tensor[i].state != SURVEY_FITS && survey.tensor[i].state != SURVEY_PASSED && !p->wrong++)
			snprintf(p->first, sizeof p->first, "%s: %s", survey_state_name(survey.tensor[i].state),
				survey.tensor[i].name);
	p->parts++;
	survey_free(&survey);
	return STATUS_OK;
}

static void compare_models(struct pair *p)
{
	const struct model *a = &p->derived, *b = &p->published;
	enum status status = b->family->each_part(b, compare_part, p);

	check_case(status == STATUS_OK && !p->wrong && p->parts >= 3, p->wrong ? p->first : status_text(),
		"%s: all %d parts are found whole", p->name, p->parts);
	check_case(a->family == b->family && memcmp(&a->defaults, &b->defaults, sizeof a->defaults) == 0 &&
			   a->size_multiple == b->size_multiple && a->size_max == b->size_max,
		a->family->name, "%s: family, sizes and defaults", p->name);
}

/* A part's folder each, as diffusers has them, but no configuration. */
static void check_folders(const char *name)
{
	static const char *const parts[] = { "transformer", "unet", "vae", "text_encoder", "text_encoder_2",
		"text_encoder_3" };
	struct pair p = { .name = name };
	char path[500], dir[500];
	bool prepared = true;

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		snprintf(path, sizeof path, "%s/%s/%s", work, name, parts[i]);
		if (access(path, F_OK) != 0)
			continue;
		snprintf(path, sizeof path, "%s/hollow-%s/%s/model.safetensors", work, name, parts[i]);
		prepared &= shell("mkdir -p %s/hollow-%s/%s", work, name, parts[i]) && write_part(name, parts[i], path);
	}
	snprintf(dir, sizeof dir, "%s/hollow-%s", work, name);
	snprintf(path, sizeof path, "%s/%s", work, name);
	prepared = prepared && model_open(dir, NULL, &p.derived) == STATUS_OK &&
		   model_open(path, NULL, &p.published) == STATUS_OK;
	check_case(prepared, status_text(), "%s: recognised by its tensors", name);
	if (prepared)
		compare_models(&p);
	shell("rm -rf %s", dir);
}

/* FLUX as people keep it: files of ComfyUI's folders, found from the network's file. */
static void check_comfy(void)
{
	static const char *const files[][2] = { { "transformer", "diffusion_models/some-network.safetensors" },
		{ "text_encoder", "text_encoders/one.safetensors" },
		{ "text_encoder_2", "text_encoders/two.safetensors" }, { "vae", "vae/three.safetensors" } };
	struct pair p = { .name = "FLUX.1-dev" };
	char path[PATH_MAX];
	bool prepared =
		shell("mkdir -p %s/comfy/diffusion_models %s/comfy/text_encoders %s/comfy/vae", work, work, work);

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		snprintf(path, sizeof path, "%s/comfy/%s", work, files[i][1]);
		prepared &= write_part(p.name, files[i][0], path);
	}
	snprintf(path, sizeof path, "%s/comfy/%s", work, files[0][1]);
	prepared = prepared && model_open(path, NULL, &p.derived) == STATUS_OK;
	snprintf(path, sizeof path, "%s/%s", work, p.name);
	prepared = prepared && model_open(path, NULL, &p.published) == STATUS_OK;
	check_case(prepared, status_text(), "ComfyUI's folders, from the network's file");
	if (prepared)
		compare_models(&p);
	shell("cp %s/comfy/vae/three.safetensors %s/comfy/vae/four.safetensors", work, work);
	check_case(
		derive_find_part(p.derived.path, "vae", path) == STATUS_INVALID && strstr(status_text(), "vae_file="),
		status_text(), "two autoencoders: one has to be chosen");
	shell("rm %s/comfy/vae/*", work);
	check_case(
		derive_find_part(p.derived.path, "vae", path) == STATUS_NO_MODEL && strstr(status_text(), "vae_file="),
		status_text(), "no autoencoder: its file is asked for");
}

/* The tensor of diffusers' list; older files have other names of an attention's matrices. */
static json_t *find_listed(const json_t *list, const char *name)
{
	static const char *const renamed[][2] = { { ".query.", ".to_q." }, { ".key.", ".to_k." },
		{ ".value.", ".to_v." }, { ".proj_attn.", ".to_out.0." } };
	const json_t *tensors = json_object_get(list, "tensors");
	char newer[300];

	for (size_t i = 0; i < sizeof renamed / sizeof renamed[0]; i++) {
		const char *at = strstr(name, renamed[i][0]);

		if (!at)
			continue;
		snprintf(newer, sizeof newer, "%.*s%s%s", (int)(at - name), name, renamed[i][1],
			at + strlen(renamed[i][0]));
		return json_object_get(tensors, newer);
	}
	return json_object_get(tensors, name);
}

/* The shape that the original code gives what is in diffusers' list: `from` says which of its tensors it holds. */
static json_t *original_shape(const char *model, const json_t *from)
{
	json_t *shape = NULL, *entry;
	size_t i;

	json_array_foreach ((json_t *)from, i, entry) {
		const char *how = json_string_value(json_object_get(entry, "how"));
		char path[500];
		json_t *list = NULL, *one;

		snprintf(path, sizeof path, "%s/%s/%s/names.json", work, model,
			json_string_value(json_object_get(entry, "component")));
		if (json_read_object(path, &list) != STATUS_OK)
			return shape;
		one = find_listed(list, json_string_value(json_object_get(entry, "name")));
		if (shape)
			json_array_set_new(shape, 0,
				json_integer(json_integer_value(json_array_get(shape, 0)) +
					     json_integer_value(json_array_get(one, 0))));
		else if (strcmp(how, "transpose") == 0)
			shape = json_pack("[O, O]", json_array_get(one, 1), json_array_get(one, 0));
		else
			shape = json_deep_copy(one);
		if (strcmp(how, "squeeze") == 0)
			json_array_extend(shape, json_pack("[i, i]", 1, 1));
		json_decref(list);
	}
	return shape;
}

/* A checkpoint of all parts under the names of the original code, as wide as the published one.  mark: another
 * tensor. */
static bool write_checkpoint(const char *golden, const char *model, const char *mark, const char *to)
{
	char path[500];
	json_t *names = NULL, *header = json_object(), *shapes = json_object(), *entry;
	const char *name;
	int64_t end = 0;
	size_t i;
	bool written;

	snprintf(path, sizeof path, "%s/units/single-file/names.json", check_golden());
	if (json_read_object(path, &names) != STATUS_OK)
		return false;
	json_object_foreach (json_object_get(json_object_get(names, golden), "tensors"), name, entry)
		json_object_set_new(shapes, name, original_shape(model, entry));
	json_array_foreach (json_object_get(json_object_get(names, golden), "ignored"), i, entry)
		json_object_set_new(shapes, json_string_value(entry), json_pack("[i]", 1));
	if (mark)
		json_object_set_new(shapes, mark, json_pack("[i]", 4));
	add_tensors(header, shapes, "", &end);
	written = write_hollow(to, header, end);
	json_decref(names);
	json_decref(shapes);
	json_decref(header);
	return written;
}

static void check_checkpoint(const char *golden, const char *model, const char *mark)
{
	struct pair p = { .name = model, .shallow = true };
	char path[500];
	bool prepared;

	snprintf(path, sizeof path, "%s/units/single-file/names.json", check_golden());
	if (access(path, F_OK) != 0) {
		printf("skip - a checkpoint of %s: %s is not at hand\n", model, path);
		return;
	}
	snprintf(path, sizeof path, "%s/whole.ckpt.safetensors", work);
	prepared = write_checkpoint(golden, model, mark, path) && model_open(path, NULL, &p.derived) == STATUS_OK;
	snprintf(path, sizeof path, "%s/%s", work, model);
	prepared = prepared && model_open(path, NULL, &p.published) == STATUS_OK;
	check_case(prepared, status_text(), "a checkpoint of %s: recognised by its tensors", model);
	if (prepared)
		compare_models(&p);
}

/* A tokenizer lies beside a network's file, or in the folder above. */
static void check_tokenizer(void)
{
	char path[500], found[PATH_MAX], wanted[500];

	snprintf(path, sizeof path, "%s/comfy/diffusion_models/some-network.safetensors//tokenizer/tokenizer.json",
		work);
	check_case(derive_find_tokenizer(path, found) == STATUS_NO_MODEL && strstr(status_text(), "tokenizer"),
		status_text(), "no tokenizer: it is asked for");
	snprintf(wanted, sizeof wanted, "%s/comfy/tokenizer/tokenizer.json", work);
	check_case(shell("mkdir %s/comfy/tokenizer && touch %s", work, wanted) &&
			   derive_find_tokenizer(path, found) == STATUS_OK && strcmp(found, wanted) == 0,
		found, "a tokenizer in the folder above");
	snprintf(wanted, sizeof wanted, "%s/comfy/diffusion_models/tokenizer/tokenizer.json", work);
	check_case(shell("mkdir %s/comfy/diffusion_models/tokenizer && touch %s", work, wanted) &&
			   derive_find_tokenizer(path, found) == STATUS_OK && strcmp(found, wanted) == 0,
		found, "a nearer one wins");
}

/* Stable Diffusion 2 differs from 1.5 in the width of the text alone, as far as a UNet's names go. */
static void check_refused(void)
{
	char path[500];
	struct model m;
	bool prepared = shell("mkdir -p %s/sd2/unet && cp -r %s/stable-diffusion-v1-5 %s/sd2-list && sed -i "
			      "s/768\\]/1024]/g %s/sd2-list/unet/names.json",
		work, work, work, work);

	snprintf(path, sizeof path, "%s/sd2/unet/x.safetensors", work);
	prepared &= write_part("sd2-list", "unet", path);
	check_case(prepared && model_open(path, NULL, &m) == STATUS_UNSUPPORTED && strstr(status_text(), "Diffusion 2"),
		status_text(), "Stable Diffusion 2 is refused by its name");
}

int main(void)
{
	struct dirent **entries;
	int n;

	if (!mkdtemp(work) || !shell("cp -r tests/reference/configs/*/ %s && gunzip -r %s", work, work)) {
		check_case(false, "no copy of tests/reference/configs", "derived");
		return check_result();
	}
	n = scandir(work, &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		/* Kandinsky's decoder has no text encoder to tell it by, and Playground's network is SDXL's */
		if (entries[i]->d_name[0] != '.' && !strstr(entries[i]->d_name, "kandinsky") &&
			!strstr(entries[i]->d_name, "playground"))
			check_folders(entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	check_comfy();
	check_tokenizer();
	check_refused();
	check_checkpoint("sd15-tiny", "stable-diffusion-v1-5", NULL);
	check_checkpoint("sdxl-tiny", "stable-diffusion-xl-base-1.0", NULL);
	check_checkpoint("sdxl-tiny", "playground-v2.5-1024px-aesthetic", "edm_mean");
	shell("rm -rf %s", work);
	return check_result();
}

/* encoders: CLIP and T5 give, layer by layer, what the reference's modules give on the golden cases' tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/clip_text.h"
#include "engine/t5.h"
#include "engine/weights.h"
#include "tests/unit/check.h"

/* A case whose modules were written down. */
struct stages {
	const char *model, *component, *file, *ids_file, *ids, *prefix;
	int layers;
	bool projection;
	const char *weights; /* another file of the same weights, below the golden folder; NULL: the component's */
};

static const struct stages clip[] = {
	{ "sd15-tiny", "text_encoder", "unet-stages/sd15-portrait-odd-latents", "sd15/portrait-odd-latents",
		"input_ids.0", "text_encoder.", 3, false, NULL },
	{ "sdxl-tiny", "text_encoder", "unet-stages/sdxl-sizes-height-first", "sdxl/sizes-height-first", "input_ids.0",
		"text_encoder.", 3, false, NULL },
	{ "sdxl-tiny", "text_encoder_2", "unet-stages/sdxl-sizes-height-first", "sdxl/sizes-height-first",
		"input_ids.1", "text_encoder_2.text_model.", 4, true, NULL },
	{ "sd3-tiny", "text_encoder", "sd3-stages/sd3-nonsquare", "sd3/sd3-nonsquare", "input_ids.0",
		"text_encoder.text_model.", 3, true, NULL },
	{ "sd3-tiny", "text_encoder_2", "sd3-stages/sd3-nonsquare", "sd3/sd3-nonsquare", "input_ids.1",
		"text_encoder_2.text_model.", 3, true, NULL },
	{ "flux-dev-tiny", "text_encoder", "flux-stages/dev-nonsquare", "flux/dev-nonsquare", "input_ids.0",
		"text_encoder.", 2, false, NULL },
};

#define BF16_LIMIT 0.01

/* The same encoders out of checkpoints of all parts. */
#define SINGLE "units/single-file/"
static const struct stages clip_single[] = {
	{ "sd15-tiny", "text_encoder", "unet-stages/sd15-portrait-odd-latents", "sd15/portrait-odd-latents",
		"input_ids.0", "text_encoder.", 3, false, SINGLE "sd15-tiny.safetensors" },
	{ "sd15-tiny", "text_encoder", "unet-stages/sd15-portrait-odd-latents", "sd15/portrait-odd-latents",
		"input_ids.0", "text_encoder.", 3, false, SINGLE "sd15-tiny.ckpt" },
	{ "sdxl-tiny", "text_encoder", "unet-stages/sdxl-sizes-height-first", "sdxl/sizes-height-first", "input_ids.0",
		"text_encoder.", 3, false, SINGLE "sdxl-tiny.safetensors" },
	{ "sdxl-tiny", "text_encoder_2", "unet-stages/sdxl-sizes-height-first", "sdxl/sizes-height-first",
		"input_ids.1", "text_encoder_2.text_model.", 4, true, SINGLE "sdxl-tiny.safetensors" },
};

/* What one case is checked with. */
struct setting {
	const struct stages *s;
	struct weights *stages, *inputs;
	struct kernels *k;
	struct arena *arena;
	const int64_t *ids;
	int64_t n;
	double limit;
	const char *device;
};

static double distance(const float *a, const float *b, int64_t n)
{
	double difference = 0, size = 0;

	for (int64_t i = 0; i < n; i++) {
		difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		size += (double)b[i] * b[i];
	}
	return sqrt(difference / size);
}

static void compare(const struct setting *c, const char *name, const float *got, int64_t count)
{
	struct tensor wanted;
	double d;

	if (weights_view(c->stages, name, &wanted) != STATUS_OK || wanted.dtype != DTYPE_F32 ||
		tensor_count(&wanted) != count) {
		check_case(false, status_text(), "%s: %s", c->s->file, name);
		return;
	}
	d = distance(got, wanted.data, count);
	printf("# %s %s %s %s: %.2e\n", c->device, dtype_name(kernels_dtype(c->k)), c->s->file, name, d);
	check_case(
		d < c->limit, "too far", "%s %s %s: %s", c->device, dtype_name(kernels_dtype(c->k)), c->s->file, name);
}

static void locate(const struct stages *s, struct component *out)
{
	snprintf(
		out->config, sizeof out->config, "%s/models/%s/%s/config.json", check_golden(), s->model, s->component);
	if (s->weights && *s->weights == '/')
		snprintf(out->weights, sizeof out->weights, "%s", s->weights);
	else if (s->weights)
		snprintf(out->weights, sizeof out->weights, "%s/%s", check_golden(), s->weights);
	else
		snprintf(out->weights, sizeof out->weights, "%s/models/%s/%s", check_golden(), s->model, s->component);
	snprintf(out->name, sizeof out->name, "%s", s->component);
}

/* ---- CLIP -------------------------------------------------------------------------------------------------------- */

static void check_clip_state(const struct setting *c, struct clip_text *e, int layer, float *values)
{
	bool last = layer == c->s->layers;
	int64_t count = c->n * clip_text_width(e);
	struct tensor hidden = tensor_view(values, DTYPE_F32, 2, (int64_t[]){ c->n, clip_text_width(e) });
	char name[128];

	if (last)
		snprintf(name, sizeof name, "%sfinal_layer_norm", c->s->prefix);
	else
		snprintf(name, sizeof name, "%sencoder.layers.%d", c->s->prefix, layer);
	if (clip_text_encode(e, c->arena, c->ids, c->n, last ? 0 : c->s->layers - 1 - layer, false, hidden,
		    (struct tensor){ 0 }) != STATUS_OK)
		check_case(false, status_text(), "%s: %s", c->s->file, name);
	else if (last || layer < c->s->layers - 1) /* the last layer's own state always has the norm */
		compare(c, name, values, count);
}

static void check_clip(const struct setting *c, const struct component *component)
{
	struct clip_text *e = NULL;
	struct tensor pooled;
	char name[128];
	float *values;

	if (clip_text_open(c->k, component, &e) != STATUS_OK) {
		check_case(false, status_text(), "open %s/%s", c->s->model, c->s->component);
		return;
	}
	values = malloc((size_t)(c->n * clip_text_width(e)) * sizeof *values);
	for (int layer = 0; layer <= c->s->layers; layer++)
		check_clip_state(c, e, layer, values);
	check_case((clip_text_projection(e) > 0) == c->s->projection, "wrong", "%s: projection", c->s->file);
	if (c->s->projection) {
		snprintf(name, sizeof name, "%.*s.text_projection", (int)strcspn(c->s->prefix, "."), c->s->prefix);
		pooled = tensor_view(values, DTYPE_F32, 1, (int64_t[]){ clip_text_projection(e) });
		if (clip_text_encode(e, c->arena, c->ids, c->n, 0, false, (struct tensor){ 0 }, pooled) != STATUS_OK)
			check_case(false, status_text(), "%s: pooled", c->s->file);
		else
			compare(c, name, values, clip_text_projection(e));
	}
	free(values);
	clip_text_close(e);
}

/* ---- T5 ---------------------------------------------------------------------------------------------------------- */

static const struct stages t5[] = {
	{ "sd3-tiny", "text_encoder_3", "sd3-stages/sd3-nonsquare", "sd3/sd3-nonsquare", "input_ids.2",
		"text_encoder_3.", 2, false, NULL },
	{ "flux-dev-tiny", "text_encoder_2", "flux-stages/dev-nonsquare", "flux/dev-nonsquare", "input_ids.1",
		"text_encoder_2.", 3, false, NULL },
};

static void check_t5(const struct setting *c, const struct component *component)
{
	struct t5 *e = NULL;
	char name[128];
	float *values;

	if (t5_open(c->k, component, &e) != STATUS_OK) {
		check_case(false, status_text(), "open %s/%s", c->s->model, c->s->component);
		return;
	}
	snprintf(name, sizeof name, "%sencoder.final_layer_norm", c->s->prefix);
	values = malloc((size_t)(c->n * t5_width(e)) * sizeof *values);
	if (t5_encode(e, c->arena, c->ids, c->n, tensor_view(values, DTYPE_F32, 2, (int64_t[]){ c->n, t5_width(e) })) !=
		STATUS_OK)
		check_case(false, status_text(), "%s: %s", c->s->file, name);
	else
		compare(c, name, values, c->n * t5_width(e));
	free(values);
	t5_close(e);
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static enum status open_files(struct setting *c)
{
	char path[400];
	struct tensor ids;

	snprintf(path, sizeof path, "%s/units/%s.safetensors", check_golden(), c->s->file);
	TRY(weights_open_file(path, &c->stages));
	snprintf(path, sizeof path, "%s/cases/%s.safetensors", check_golden(), c->s->ids_file);
	TRY(weights_open_file(path, &c->inputs));
	TRY(weights_view(c->inputs, c->s->ids, &ids));
	c->ids = ids.data;
	c->n = tensor_count(&ids);
	return STATUS_OK;
}

static void check_stages(const struct stages *s, const char *device, enum dtype dtype, double limit,
	void (*check)(const struct setting *c, const struct component *component))
{
	struct setting c = { .s = s, .limit = limit, .device = device };
	struct component component = { 0 };

	locate(s, &component);
	if (kernels_open(device, dtype, 1, &c.k) != STATUS_OK || arena_open(c.k, 1 << 28, &c.arena) != STATUS_OK ||
		open_files(&c) != STATUS_OK)
		check_case(false, status_text(), "%s on %s", s->file, device);
	else
		check(&c, &component);
	weights_close(c.stages);
	weights_close(c.inputs);
	arena_close(c.arena);
	kernels_close(c.k);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* The tensors of w with `text_model.` taken off their names, as F32; returns how many. */
static int rename_tensors(const struct weights *w, struct kernels *k, struct arena *arena, struct named_tensor *out)
{
	static const char prefix[] = "text_model.";
	int n = 0;

	for (int64_t i = 0; i < weights_count(w); i++) {
		const char *name = weights_name(w, i), *rest = strstr(name, prefix);
		struct named_tensor *to = &out[n];
		struct tensor from;

		if (strstr(name, "position_ids") || weights_find(w, name, 0, NULL, &from) != STATUS_OK)
			continue;
		snprintf(to->name, sizeof to->name, "%s", rest ? rest + strlen(prefix) : name);
		if (arena_take(arena, DTYPE_F32, from.rank, from.dim, &to->tensor) == STATUS_OK &&
			kernels_upload(k, &from, to->tensor) == STATUS_OK)
			n++;
	}
	return n;
}

/* As transformers 5 writes a CLIPTextModel. */
static void check_bare_names(void)
{
	enum { TENSORS = 100 };
	struct named_tensor *tensors = calloc(TENSORS, sizeof *tensors);
	char path[] = "/tmp/promptfs-encoders-XXXXXX";
	struct stages s = clip[0];
	struct component component = { 0 };
	struct kernels *k = NULL;
	struct arena *arena = NULL;
	struct weights *w = NULL;
	int fd = mkstemp(path);

	locate(&s, &component);
	if (fd < 0 || kernels_open("ref", DTYPE_F32, 1, &k) != STATUS_OK ||
		arena_open(k, 1 << 28, &arena) != STATUS_OK || weights_open_component(&component, &w) != STATUS_OK ||
		weights_write(path, rename_tensors(w, k, arena, tensors), tensors) != STATUS_OK)
		check_case(false, status_text(), "write names without text_model.");
	s.weights = path;
	check_stages(&s, "cpu", DTYPE_F32, 1e-4, check_clip);
	weights_close(w);
	arena_close(arena);
	kernels_close(k);
	close(fd);
	unlink(path);
	free(tensors);
}

int main(void)
{
	char path[400];

	snprintf(path, sizeof path, "%s/units/sd3-stages", check_golden());
	if (access(path, R_OK)) {
		printf("skip - text encoders: no golden cases\n");
		return check_result();
	}
	for (size_t i = 0; i < sizeof clip / sizeof clip[0]; i++) {
		check_stages(&clip[i], "ref", DTYPE_F32, 1e-4, check_clip);
		check_stages(&clip[i], "cpu", DTYPE_F32, 1e-4, check_clip);
		check_stages(&clip[i], "cpu", DTYPE_BF16, BF16_LIMIT, check_clip);
	}
	for (size_t i = 0; i < sizeof clip_single / sizeof clip_single[0]; i++)
		check_stages(&clip_single[i], "cpu", DTYPE_F32, 1e-4, check_clip);
	check_bare_names();
	for (size_t i = 0; i < sizeof t5 / sizeof t5[0]; i++) {
		check_stages(&t5[i], "ref", DTYPE_F32, 1e-4, check_t5);
		check_stages(&t5[i], "cpu", DTYPE_F32, 1e-4, check_t5);
		check_stages(&t5[i], "cpu", DTYPE_BF16, BF16_LIMIT, check_t5);
	}
	return check_result();
}

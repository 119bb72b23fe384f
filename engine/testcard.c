/* testcard: a family without weights, for tests of everything around the engine.  Never anyone's default.
 *
 * Its model is a folder with a model_index.json:
 *
 *     { "_class_name": "PromptfsTestCard", "delay_ms": 20, "crash": "step", "size": 256, "steps": 4 }
 *
 * The picture depends on prompt, seed and size alone: coloured bars whose hues are drawn from a hash of the prompt.
 * Every step takes delay_ms; crash "step" kills the process in the first step, "fail" fails the job there.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "engine/family.h"
#include "engine/json.h"
#include "engine/png.h"

enum { BARS = 8 };

struct card {
	int64_t delay_ms, size, steps;
	bool crash, fail;
	float bars[BARS][3]; /* colours in -1..1 */
};

static enum status read_card(const char *dir, struct card *c)
{
	char path[PATH_MAX + 32];
	const char *crash = "";
	json_t *index;
	enum status status;

	*c = (struct card){ .size = 256, .steps = 4 };
	snprintf(path, sizeof path, "%s/model_index.json", dir);
	TRY(json_read_object(path, &index));
	status = json_get_int(index, path, "delay_ms", 0, 600000, &c->delay_ms);
	if (status == STATUS_OK)
		status = json_get_int(index, path, "size", 16, 4096, &c->size);
	if (status == STATUS_OK)
		status = json_get_int(index, path, "steps", 1, RECIPE_STEPS_MAX, &c->steps);
	if (status == STATUS_OK)
		status = json_get_string(index, path, "crash", &crash);
	c->crash = strcmp(crash, "step") == 0;
	c->fail = strcmp(crash, "fail") == 0;
	json_decref(index);
	return status;
}

static enum status card_describe(struct model *m)
{
	struct card c;

	TRY(read_card(m->path, &c));
	m->defaults = (struct model_defaults){ (int)c.size, (int)c.size, (int)c.steps, 0 };
	m->size_multiple = 16;
	m->size_max = PNG_SIDE_MAX;
	return STATUS_OK;
}

static enum status card_resolve(const struct model *m, struct recipe *r)
{
	if (r->width % 16 || r->height % 16 || r->width < 16 || r->height < 16 || r->width > m->size_max ||
		r->height > m->size_max)
		return status_fail(STATUS_INVALID,
			"size %dx%d: the test card makes sizes from 16 to %d that 16 divides", r->width, r->height,
			m->size_max);
	if (!r->sampler[0])
		strcpy(r->sampler, "euler");
	if (strcmp(r->sampler, "euler") != 0)
		return status_fail(
			STATUS_INVALID, "Sampler: %s is not supported for the test card; use euler", r->sampler);
	if (r->n_sets > 0)
		return status_fail(STATUS_INVALID, "Set: %s is no argument of the test card", r->sets[0].name);
	if (r->n_loras > 0)
		return status_fail(STATUS_INVALID, "LoRA %s: the test card has none", r->loras[0].name);
	return STATUS_OK;
}

static enum status card_apply_cfg(const struct model *m, struct recipe *r, double cfg)
{
	r->guidance = cfg - 1;
	return STATUS_OK;
}

static enum status card_open(const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state)
{
	struct card *c = malloc(sizeof *c);
	enum status status;

	if (!c)
		return status_fail(STATUS_NO_MEMORY, "no memory for a test card");
	status = read_card(m->path, c);
	if (status != STATUS_OK) {
		free(c);
		return status;
	}
	*state = c;
	return STATUS_OK;
}

static enum status card_encode(void *state, struct run *run)
{
	struct card *c = state;
	XXH128_hash_t hash = XXH3_128bits(run->recipe->prompt, strlen(run->recipe->prompt));
	uint64_t bits[2] = { hash.low64, hash.high64 };

	for (int bar = 0; bar < BARS; bar++) {
		double hue = (double)((bits[bar / 4] >> (bar % 4 * 16)) & 0xffff) / 65536;

		for (int channel = 0; channel < 3; channel++)
			c->bars[bar][channel] = (float)(0.9 * sin(6.283185307179586 * (hue + channel / 3.0)));
	}
	return STATUS_OK;
}

static void card_latent_shape(const void *state, const struct recipe *r, int64_t dim[3])
{
	dim[0] = 3;
	dim[1] = r->height / 16;
	dim[2] = r->width / 16;
}

static void card_sampler(const void *state, const struct recipe *r, struct sampler_request *out)
{
	out->linspace_sigmas = true;
}

static void wait_ms(int64_t ms)
{
	struct timespec rest = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
		;
}

/* The straight way from the latents to the card: (latents - card) / sigma. */
static enum status card_predict(
	void *state, struct run *run, const struct sampler *s, int call, struct tensor latents, struct tensor out)
{
	struct card *c = state;
	int64_t height = latents.dim[1], width = latents.dim[2], count = tensor_count(&latents);
	struct tensor host = latents;
	float *card = malloc((size_t)count * sizeof *card);
	enum status status;

	if (!card)
		return status_fail(STATUS_NO_MEMORY, "no memory for a test card");
	if (c->crash)
		raise(SIGSEGV);
	if (c->fail) {
		free(card);
		return status_fail(STATUS_INTERNAL, "the test card was told to fail");
	}
	wait_ms(c->delay_ms);
	for (int64_t i = 0; i < count; i++)
		card[i] = c->bars[i % width * BARS / width][i / (height * width)] *
			  (0.6f + 0.4f * (float)(i / width % height) / (float)height);
	host.data = card;
	status = kernels_upload(run->k, &host, out);
	if (status == STATUS_OK)
		status = kernels_axpby(run->k, 1 / sampler_sigma(s, call), latents, -1 / sampler_sigma(s, call), out);
	free(card);
	return status;
}

/* Each latent pixel becomes a square of 16 x 16. */
static enum status card_decode(void *state, struct run *run, struct tensor latents, struct tensor *picture)
{
	int64_t height = latents.dim[1] * 16, width = latents.dim[2] * 16;
	int64_t dim[3] = { height, width, 3 };
	struct tensor small = latents, host = tensor_view(NULL, DTYPE_F32, 3, dim);
	float *pixels = malloc((size_t)(height * width * 3) * sizeof *pixels);
	enum status status = STATUS_NO_MEMORY;

	small.data = malloc((size_t)tensor_count(&latents) * sizeof(float));
	host.data = pixels;
	if (pixels && small.data)
		status = kernels_download(run->k, latents, &small);
	for (int64_t i = 0; status == STATUS_OK && i < height * width * 3; i++) {
		int64_t row = i / 3 / width / 16, column = i / 3 % width / 16;

		pixels[i] = ((float *)small.data)[(i % 3 * latents.dim[1] + row) * latents.dim[2] + column];
	}
	if (status == STATUS_OK)
		status = arena_take(run->arena, DTYPE_F32, 3, dim, picture);
	if (status == STATUS_OK)
		status = kernels_upload(run->k, &host, *picture);
	free(small.data);
	free(pixels);
	return status;
}

const struct family testcard_family = {
	.name = "test-card",
	.pipeline = "PromptfsTestCard",
	.describe = card_describe,
	.resolve = card_resolve,
	.apply_cfg = card_apply_cfg,
	.open = card_open,
	.close = free,
	.encode = card_encode,
	.latent_shape = card_latent_shape,
	.sampler = card_sampler,
	.predict = card_predict,
	.decode = card_decode,
};

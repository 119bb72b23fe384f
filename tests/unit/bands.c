/* bands: a picture decoded in bands of rows is the picture decoded at once, whatever the heights of picture and bands;
 * it takes a third of the memory; the engine decodes so where memory is short, and only there. */
#include <math.h>
#include <string.h>

#include "engine/autoencoder.h"
#include "engine/engine.h"
#include "tests/unit/check.h"

/* Moments are rounded to f32, sums of residuals are added in another order. */
static const float F32_NEAR = 1e-5f;

static char path[PATH_MAX];

static const char *model_path(const char *name)
{
	if (strchr(name, '/'))
		return name;
	snprintf(path, sizeof path, "%s/models/%s", check_golden(), name);
	return path;
}

struct decoder {
	struct kernels *k;
	struct arena *arena;
	struct autoencoder *vae;
	struct autoencoder_config config;
};

static void close_decoder(struct decoder *d)
{
	autoencoder_close(d->vae);
	arena_close(d->arena);
	kernels_close(d->k);
}

static enum status open_decoder(const char *device, const char *name, struct decoder *d)
{
	struct component part;
	struct model m;

	*d = (struct decoder){ 0 };
	TRY(model_open(model_path(name), name, &m));
	TRY(model_component(&m, "vae", &part));
	TRY(autoencoder_config_read(&part, &d->config));
	TRY(kernels_open(device, DTYPE_F32, 1, &d->k));
	TRY(arena_open(d->k, (size_t)1 << 40, &d->arena));
	return autoencoder_open(d->k, &part, &d->vae);
}

/* Latents [channels, h, w] whose rows differ, the same each time; on the device, from the arena. */
static enum status fill(struct decoder *d, int64_t h, int64_t w, struct tensor *latents)
{
	const int64_t dim[] = { d->config.latent_channels, h, w }, count = dim[0] * h * w;
	struct tensor host = tensor_view(malloc((size_t)count * sizeof(float)), DTYPE_F32, 3, dim);
	uint32_t state = 1;
	enum status status = host.data ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory");

	for (int64_t i = 0; status == STATUS_OK && i < count; i++) {
		state = state * 1664525 + 1013904223;
		((float *)host.data)[i] = (float)(state >> 8) / (float)(1 << 23) - 1 + sinf((float)(i / w % h));
	}
	if (status == STATUS_OK)
		status = arena_take(d->arena, DTYPE_F32, 3, dim, latents);
	if (status == STATUS_OK)
		status = kernels_upload(d->k, &host, *latents);
	free(host.data);
	return status;
}

/* The picture on the host (malloc'ed), and what the arena held beside the latents at the most. */
static enum status decode(struct decoder *d, int64_t h, int64_t w, int64_t rows, struct tensor *picture)
{
	const size_t mark = arena_mark(d->arena);
	struct tensor latents, made;
	enum status status = fill(d, h, w, &latents);

	if (status == STATUS_OK)
		status = autoencoder_decode(d->vae, d->arena, latents, rows, &made);
	if (status == STATUS_OK) {
		*picture = made;
		picture->data = malloc((size_t)tensor_count(&made) * sizeof(float));
		status = picture->data ? kernels_download(d->k, made, picture) : STATUS_NO_MEMORY;
	}
	arena_release(d->arena, mark);
	return status;
}

/* The largest difference; infinity where the pictures are none. */
static float distance(const struct tensor *a, const struct tensor *b)
{
	const float *x = a->data, *y = b->data;
	float most = 0;

	if (tensor_count(a) != tensor_count(b) || a->dim[0] != b->dim[0])
		return INFINITY;
	for (int64_t i = 0; i < tensor_count(a); i++)
		if (!(fabsf(x[i] - y[i]) <= most))
			most = fabsf(x[i] - y[i]);
	return most;
}

static float contrast(const struct tensor *a)
{
	const float *x = a->data;
	float low = INFINITY, high = -INFINITY;

	for (int64_t i = 0; i < tensor_count(a); i++) {
		low = fminf(low, x[i]);
		high = fmaxf(high, x[i]);
	}
	return high - low;
}

static void test_equal(const char *device, const char *name)
{
	static const int64_t sizes[][2] = { { 1, 1 }, { 1, 5 }, { 3, 2 }, { 5, 1 } };
	static const int64_t heights[] = { 1, 3, 8, 13, 1000 };
	struct decoder d;
	enum status status = open_decoder(device, name, &d);

	check_case(status == STATUS_OK, status_text(), "%s, %s opens", device, name);
	for (size_t i = 0; status == STATUS_OK && i < sizeof sizes / sizeof *sizes; i++) {
		struct tensor whole = { 0 }, bands = { 0 };

		status = decode(&d, sizes[i][0], sizes[i][1], 0, &whole);
		for (size_t j = 0; status == STATUS_OK && j < sizeof heights / sizeof *heights; j++) {
			char why[96] = "";

			status = decode(&d, sizes[i][0], sizes[i][1], heights[j], &bands);
			if (status == STATUS_OK)
				snprintf(why, sizeof why, "largest difference %g, contrast %g",
					(double)distance(&whole, &bands), (double)contrast(&whole));
			check_case(
				status == STATUS_OK && contrast(&whole) > 0.01f && distance(&whole, &bands) <= F32_NEAR,
				status == STATUS_OK ? why : status_text(),
				"%s, %s: latents %d x %d by bands of %d rows as at once", device, name,
				(int)sizes[i][0], (int)sizes[i][1], (int)heights[j]);
			free(bands.data);
			bands.data = NULL;
		}
		free(whole.data);
	}
	close_decoder(&d);
}

static void test_memory(const char *name)
{
	uint64_t whole = 0, bands;
	struct tensor latents, picture = { 0 };
	struct decoder d;
	char why[96];
	enum status status;

	if (open_decoder("cpu", name, &d) != STATUS_OK) {
		check_case(false, status_text(), "%s opens", name);
		close_decoder(&d);
		return;
	}
	status = decode(&d, 32, 16, 8, &picture);
	free(picture.data);
	bands = arena_peak(d.arena);
	if (status == STATUS_OK)
		status = fill(&d, 32, 16, &latents);
	if (status == STATUS_OK)
		status = autoencoder_needs(d.vae, latents, &whole);
	snprintf(why, sizeof why, "%.2f MB by bands, %.2f MB at once", (double)bands / 1e6, (double)whole / 1e6);
	check_case(
		bands > 0 && 5 * bands < 3 * whole, why, "%s: bands take less than three fifths of the memory", name);
	printf("# %s: %s\n", name, why);
	close_decoder(&d);
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

struct painted {
	struct bytes png;
	uint64_t peak;
};

static enum status paint(uint64_t limit, struct painted *out)
{
	const struct engine_options options = {
		.device = "cpu", .dtype = DTYPE_F32, .threads = 1, .memory_limit = limit
	};
	struct recipe_fields f = { .prompt = (char *)"a red apple",
		.has_seed = true,
		.has_steps = true,
		.steps = 1,
		.has_size = true,
		.width = 384,
		.height = 384 };
	struct engine *e = NULL;
	struct recipe r = { 0 };
	struct model m;
	enum status status;

	TRY(model_open(model_path("zimage-tiny"), "m", &m));
	TRY(recipe_resolve(&f, &m, &r));
	status = engine_open(&options, &e);
	if (status == STATUS_OK)
		status = engine_generate(e, &(struct engine_job){ .model = &m, .recipe = &r }, &out->png);
	if (status == STATUS_OK)
		out->peak = engine_memory_peak(e);
	engine_close(e);
	recipe_free(&r);
	return status;
}

static void test_engine(void)
{
	struct painted plenty = { 0 }, little = { 0 };
	enum status status = paint(0, &plenty);
	char why[128] = "";

	if (status == STATUS_OK)
		status = paint(plenty.peak * 3 / 4, &little);
	if (status == STATUS_OK)
		snprintf(why, sizeof why, "%.1f MB, %zu bytes; %.1f MB, %zu bytes", (double)plenty.peak / 1e6,
			plenty.png.len, (double)little.peak / 1e6, little.png.len);
	check_case(status == STATUS_OK && little.peak <= plenty.peak * 3 / 4, status == STATUS_OK ? why : status_text(),
		"a picture keeps a memory limit that its decode at once would break");
	printf("# %s\n", why);
	bytes_free(&plenty.png);
	bytes_free(&little.png);
}

int main(void)
{
	static const char *const names[] = { "zimage-tiny", "sd15-tiny", "flux-dev-tiny", "models/pocket" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		test_equal("cpu", names[i]);
	test_equal("ref", "zimage-tiny");
	test_memory("zimage-tiny");
	test_memory("models/pocket");
	test_engine();
	return check_result();
}

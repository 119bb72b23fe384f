/* engine: the way of a recipe through a family's stages; the same for every family. */
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/family.h"
#include "engine/memo_files.h"
#include "engine/png.h"

/* Weights stay loaded together while they take at most this share of memory; the rest is for activations and others. */
static const double RESIDENT_SHARE = 0.4, LIMIT_SHARE = 0.95;
/* Of a device with memory of its own: the libraries' workspaces and what lies between allocations. */
static const uint64_t DEVICE_RESERVE = (uint64_t)512 << 20;

/* Which parts of a model are in memory at the same time: all, those of a turn, or those without the autoencoder. */
enum residence { TOGETHER, TURNS, ALONE, RESIDENCE_COUNT };

enum { PLANS_MAX = 8 };

/* Embeddings on disk: of how many bytes together, and of models from how many bytes on: the text encoder of a smaller
 * one is as fast as a file. */
static const uint64_t TEXTS_LIMIT = (uint64_t)256 << 20, TEXTS_MIN = (uint64_t)256 << 20;

struct engine {
	struct kernels *k;
	struct arena *arena;
	struct memory_budget memory;
	struct memo_files *texts; /* NULL: none are kept */
	uint64_t texts_min;
	bool planned_memory;      /* by plan(), not by the budget alone: of a device with memory of its own */
	enum residence residence; /* of the job under way */
	bool bands;               /* the same */
	struct planned {
		char job[RECIPE_KEY_LEN + 1]; /* what decides the memory of a job */
		enum residence residence;
		bool bands;     /* its picture is decoded in bands of rows */
		uint64_t bytes; /* the most it holds then */
	} planned[PLANS_MAX];   /* the last ones */
	int n_planned;          /* in all */
	int n_loaded;
	struct loaded {
		struct model model;
		void *state;              /* of its family */
		enum residence residence; /* on a device with memory of its own */
	} loaded[ENGINE_MODELS_MAX];      /* the last used first */
};

const char *stage_name(enum stage s)
{
	static const char *const names[STAGE_COUNT] = { "load", "text", "step", "decode", "png" };

	return s >= 0 && s < STAGE_COUNT ? names[s] : "unknown";
}

double run_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static uint64_t physical_memory(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What the device has, or what the user lets it have.  On a device of its own memory, what is free now counts: other
 * programs are there too. */
static enum status set_budget(struct engine *e, uint64_t limit)
{
	uint64_t memory = (uint64_t)((double)physical_memory() * LIMIT_SHARE), free, total;

	e->planned_memory = kernels_own_memory(e->k);
	if (e->planned_memory) {
		TRY(kernels_free_memory(e->k, &free, &total));
		memory = (uint64_t)((double)free * LIMIT_SHARE);
		kernels_limit_memory(e->k, limit);
	}
	if (limit && (limit < memory || !e->planned_memory))
		memory = limit;
	e->memory = (struct memory_budget){ .resident = (uint64_t)((double)memory * RESIDENT_SHARE), .limit = memory };
	return STATUS_OK;
}

/* Beside the copies of packed weights. */
static void keep_texts(struct engine *e, const struct engine_options *options)
{
	const uint64_t limit = options->packed_limit < TEXTS_LIMIT ? options->packed_limit : TEXTS_LIMIT;
	char dir[PATH_MAX];

	if ((size_t)snprintf(dir, sizeof dir, "%s/" ENGINE_TEXTS, options->packed) < sizeof dir)
		e->texts = memo_files_new(dir, limit);
	e->texts_min = options->texts_min ? options->texts_min : TEXTS_MIN;
}

enum status engine_open(const struct engine_options *options, struct engine **out)
{
	struct engine *e = calloc(1, sizeof *e);
	enum status status;

	if (!e)
		return status_fail(STATUS_NO_MEMORY, "no memory for an engine");
	status = kernels_open(options->device, options->dtype, options->threads, &e->k);
	if (status == STATUS_OK)
		status = set_budget(e, options->memory_limit);
	if (status == STATUS_OK && options->packed && options->packed_limit > 0) {
		kernels_keep_packed(e->k, options->packed, options->packed_limit);
		keep_texts(e, options);
	}
	if (status == STATUS_OK)
		status = arena_open(
			e->k, e->planned_memory ? e->memory.limit : physical_memory(), &e->arena); /* addresses only */
	if (status != STATUS_OK) {
		engine_close(e);
		return status;
	}
	*out = e;
	return STATUS_OK;
}

const char *engine_loaded(const struct engine *e, int i)
{
	return i < e->n_loaded ? e->loaded[i].model.identity : NULL;
}

static void unload(struct engine *e, int i)
{
	e->loaded[i].model.family->close(e->loaded[i].state);
	e->n_loaded--;
	memmove(&e->loaded[i], &e->loaded[i + 1], (size_t)(e->n_loaded - i) * sizeof e->loaded[0]);
}

void engine_unload(struct engine *e, const char *identity)
{
	for (int i = e->n_loaded - 1; i >= 0; i--)
		if (!identity || strcmp(e->loaded[i].model.identity, identity) == 0)
			unload(e, i);
}

void engine_close(struct engine *e)
{
	if (!e)
		return;
	engine_unload(e, NULL);
	arena_close(e->arena);
	kernels_close(e->k);
	memo_files_free(e->texts);
	free(e);
}

const char *engine_device(const struct engine *e)
{
	return kernels_device(e->k);
}

const char *engine_about(const struct engine *e)
{
	return kernels_about(e->k);
}

enum dtype engine_dtype(const struct engine *e)
{
	return kernels_weight_dtype(e->k);
}

/* Set: transformer_file=PATH and the like: that component comes from a file of its own. */
static enum status apply_files(const struct recipe *r, struct model *m)
{
	static const char suffix[] = "_file";

	for (int i = 0; i < r->n_sets; i++) {
		const char *name = r->sets[i].name;
		size_t len = strlen(name), tail = sizeof suffix - 1;
		char component[32];

		if (len <= tail || len - tail >= sizeof component || strcmp(name + len - tail, suffix) != 0)
			continue;
		snprintf(component, sizeof component, "%.*s", (int)(len - tail), name);
		TRY(model_set_override(m, component, r->sets[i].value));
	}
	return STATUS_OK;
}

static bool same_model(const struct model *a, const struct model *b)
{
	return a->family == b->family && strcmp(a->path, b->path) == 0 && strcmp(a->identity, b->identity) == 0 &&
	       memcmp(a->override, b->override, sizeof a->override) == 0;
}

/* What a model takes at most once it is packed: files hold 16 bits a weight or fewer, seldom more. */
static uint64_t bytes_of(const struct engine *e, const struct model *m)
{
	return m->file_bytes * (kernels_dtype(e->k) == DTYPE_F32 ? 2 : 1);
}

/* Of the first n models. */
static uint64_t held_by(const struct engine *e, int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += bytes_of(e, &e->loaded[i].model);
	return sum;
}

/* Takes those away that were not used for longest until the new one has room beside the others, or is alone. */
static void make_room(struct engine *e, const struct model *m)
{
	const uint64_t room = e->planned_memory ? e->memory.limit : e->memory.resident;

	while (e->n_loaded > 0 && (e->n_loaded == ENGINE_MODELS_MAX || held_by(e, e->n_loaded) + bytes_of(e, m) > room))
		unload(e, e->n_loaded - 1);
}

static enum status load(struct engine *e, const struct model *m)
{
	struct memory_budget budget;
	struct loaded fresh = { .model = *m };
	uint64_t held;

	make_room(e, m);
	held = held_by(e, e->n_loaded);
	budget = (struct memory_budget){ .resident = e->memory.resident - held, .limit = e->memory.limit - held };
	if (e->planned_memory)
		budget = (struct memory_budget){ .resident = e->residence == TOGETHER ? UINT64_MAX : 0,
			.limit = UINT64_MAX,
			.alone = e->residence == ALONE };
	fresh.residence = e->residence;
	TRY(m->family->open(m, e->k, &budget, &fresh.state));
	e->loaded[e->n_loaded++] = fresh;
	return STATUS_OK;
}

/* The model of the job, which is then the first. */
static enum status need_model(struct engine *e, const struct engine_job *job)
{
	struct model m = *job->model;
	struct loaded found;
	int i = 0;

	TRY(apply_files(job->recipe, &m));
	while (i < e->n_loaded && !same_model(&e->loaded[i].model, &m))
		i++;
	if (i == e->n_loaded) {
		TRY(load(e, &m));
		i = e->n_loaded - 1;
	}
	found = e->loaded[i];
	memmove(&e->loaded[1], &e->loaded[0], (size_t)i * sizeof e->loaded[0]);
	e->loaded[0] = found;
	return STATUS_OK;
}

/* ---- a job ------------------------------------------------------------------------------------------------------- */

/* A job on its way: what is running, since when, and what it took so far. */
struct progress {
	const struct engine_job *job;
	struct run *run;
	struct engine_progress now;
	double since, load_seconds, flops; /* of the stage under way */
	int calls;                         /* of the network, in all */
};

/* Books the time since the last call on the stage that ends now; loading inside a stage counts as loading. */
static void book(struct progress *p)
{
	double now = run_clock(), loading = p->run->load_seconds - p->load_seconds;

	p->now.seconds[p->now.stage] += now - p->since - loading;
	p->now.seconds[STAGE_LOAD] += loading;
	p->now.flops[p->now.stage] += kernels_flops(p->run->k) - p->flops;
	p->load_seconds = p->run->load_seconds;
	p->flops = kernels_flops(p->run->k);
	p->since = now;
	p->now.loras = p->run->loras;
}

/* Ends the stage under way and begins another; tells the caller; STATUS_CANCELLED when the caller wants no more. */
static enum status begin(struct progress *p, enum stage stage, int step)
{
	book(p);
	p->now.stage = stage;
	p->now.step = step;
	p->now.steps = stage == STAGE_STEP ? p->calls : 0;
	if (p->job->progress)
		p->job->progress(p->job->context, &p->now);
	if (p->job->cancelled && p->job->cancelled(p->job->context))
		return status_fail(STATUS_CANCELLED, "cancelled");
	return STATUS_OK;
}

/* How the job samples: the family says which scheduler file, the recipe which sampler. */
static enum status open_sampler(
	struct engine *e, struct run *run, const struct family *family, const int64_t shape[3], struct sampler **out)
{
	const struct recipe *r = run->recipe;
	struct sampler_request request = { .name = r->sampler,
		.steps = r->steps,
		.pictures = recipe_set_int(r, "num_images_per_prompt", 1),
		.picture = recipe_set_int(r, "image_index", 0) };

	family->sampler(e->loaded[0].state, r, &request);
	TRY(sampler_open(run->k, run->arena, &request, 3, shape, out));
	return STATUS_OK;
}

static enum status trace_schedule(struct run *run, const struct sampler *s)
{
	const float *values;
	int n;

	values = sampler_timesteps(s, &n);
	TRY(trace_floats(run->trace, "timesteps", values, n));
	values = sampler_sigmas(s, &n);
	return n > 0 ? trace_floats(run->trace, "sigmas", values, n) : STATUS_OK;
}

/* The first latents.  Several pictures of one call are one draw; the recipe may ask for one that is not the first. */
static enum status draw_latents(struct run *run, const struct sampler *s, struct tensor latents)
{
	const struct recipe *r = run->recipe;

	TRY(rng_fill(&run->rng, run->k, recipe_set_int(r, "num_images_per_prompt", 1),
		recipe_set_int(r, "image_index", 0), latents));
	TRY(kernels_axpby(run->k, 0, latents, sampler_init_sigma(s), latents));
	return trace_tensor(run->trace, run->k, latents, "latents.init");
}

static enum status denoise(
	struct engine *e, struct run *run, struct progress *p, struct sampler *s, struct tensor latents)
{
	struct tensor scaled, prediction;

	TRY(arena_take(run->arena, DTYPE_F32, 3, latents.dim, &scaled));
	TRY(arena_take(run->arena, DTYPE_F32, 3,
		(int64_t[]){ sampler_prediction_parts(s) * latents.dim[0], latents.dim[1], latents.dim[2] },
		&prediction));
	for (int call = 0; call < sampler_calls(s); call++) {
		TRY(begin(p, STAGE_STEP, call));
		TRY(kernels_pace(run->k));
		TRY(sampler_input(s, call, latents, scaled));
		TRY(e->loaded[0].model.family->predict(e->loaded[0].state, run, s, call, scaled, prediction));
		TRY(trace_tensor(run->trace, run->k, prediction, "noise_pred.%d", call));
		TRY(sampler_step(s, call, prediction, latents, &run->rng));
		TRY(trace_tensor(run->trace, run->k, latents, "latents.%d", call));
	}
	return STATUS_OK;
}

/* From noise to latents of a picture, taken from the run's arena. */
static enum status sample(struct engine *e, struct run *run, struct progress *p, struct tensor *latents)
{
	const struct family *family = e->loaded[0].model.family;
	struct sampler *s;
	int64_t shape[3];
	enum status status;

	family->latent_shape(e->loaded[0].state, run->recipe, shape);
	TRY(arena_take(run->arena, DTYPE_F32, 3, shape, latents));
	TRY(open_sampler(e, run, family, shape, &s));
	p->calls = sampler_calls(s);
	status = trace_schedule(run, s);
	if (status == STATUS_OK)
		status = draw_latents(run, s, *latents);
	if (status == STATUS_OK)
		status = denoise(e, run, p, s, *latents);
	sampler_close(s);
	return status;
}

static enum status check_finite(struct engine *e, struct tensor t, const char *what)
{
	bool finite;

	TRY(kernels_all_finite(e->k, t, &finite));
	return finite ? STATUS_OK
		      : status_fail(STATUS_NUMERIC,
				"%s: the %s are not finite (NaN or infinity): the weights are "
				"damaged or the precision %s does not suffice",
				e->loaded[0].model.path, what, dtype_name(kernels_weight_dtype(e->k)));
}

static enum status encode_png(struct engine *e, struct run *run, bool pixels, struct tensor picture, struct bytes *png)
{
	const struct recipe *r = run->recipe;
	const size_t len = (size_t)r->width * (size_t)r->height * 3;
	uint8_t *rgb = malloc(len);
	enum status status;

	if (!rgb)
		return status_fail(STATUS_NO_MEMORY, "no memory for %d x %d pixels", r->width, r->height);
	status = kernels_to_rgb8(e->k, picture, rgb);
	if (status == STATUS_OK)
		status = trace_pixels(run->trace, "image", rgb, r->height, r->width);
	if (status == STATUS_OK)
		status = pixels ? bytes_add(png, rgb, len) : png_encode(rgb, r->width, r->height, png);
	free(rgb);
	return status;
}

/* Waits for what was queued on a device that works by itself, so that the stage's time is its own. */
static enum status settle(struct run *run)
{
	size_t mark = arena_mark(run->arena);
	struct tensor any;
	bool finite;

	if (!kernels_own_memory(run->k))
		return STATUS_OK;
	TRY(arena_take(run->arena, DTYPE_F32, 1, (int64_t[]){ 1 }, &any));
	TRY(kernels_all_finite(run->k, any, &finite));
	arena_release(run->arena, mark);
	return STATUS_OK;
}

/* From the recipe to a picture in the device's memory. */
static enum status compute(struct engine *e, struct run *run, struct progress *p, struct tensor *picture)
{
	const struct family *family = p->job->model->family;
	struct tensor latents;

	TRY(need_model(e, p->job));
	TRY(begin(p, STAGE_TEXT, 0));
	TRY(family->encode(e->loaded[0].state, run));
	TRY(settle(run));
	TRY(sample(e, run, p, &latents));
	TRY(check_finite(e, latents, "latents"));
	TRY(begin(p, STAGE_DECODE, 0));
	TRY(family->decode(e->loaded[0].state, run, latents, picture));
	return check_finite(e, *picture, "decoded pixels");
}

/* ---- the plan of a job on a device with memory of its own ------------------------------------------------------- */

/* The most that the job would hold, by doing it without computing. */
static enum status measure(
	const struct engine *e, const struct engine_job *job, enum residence residence, bool bands, uint64_t *out)
{
	struct engine dry = { .memory = e->memory, .planned_memory = true, .residence = residence };
	struct engine_job quiet = { .model = job->model, .recipe = job->recipe };
	struct run run = { .recipe = job->recipe, .bands = bands };
	struct progress progress = { .job = &quiet, .run = &run, .since = run_clock() };
	struct tensor picture;
	enum status status;

	TRY(kernels_open_dry(e->k, &dry.k));
	status = arena_open(dry.k, physical_memory(), &dry.arena);
	run.k = dry.k;
	run.arena = dry.arena;
	rng_seed(&run.rng, job->recipe->rng, job->recipe->seed);
	if (status == STATUS_OK)
		status = compute(&dry, &run, &progress, &picture);
	if (status == STATUS_OK)
		*out = kernels_memory_peak(dry.k);
	engine_unload(&dry, NULL);
	arena_close(dry.arena);
	kernels_close(dry.k);
	return status;
}

static enum status make_plan(const struct engine *e, const struct engine_job *job, struct planned *out)
{
	const uint64_t room = e->memory.limit > DEVICE_RESERVE ? e->memory.limit - DEVICE_RESERVE : 0;
	uint64_t all = 0;

	/* bands cost a part of the decode once more, turns the loading of all weights */
	for (int i = 0; i < 2 * RESIDENCE_COUNT; i++) {
		out->residence = (enum residence)(i / 2);
		out->bands = i & 1;
		TRY(measure(e, job, out->residence, out->bands, &out->bytes));
		if (out->bytes <= room)
			return STATUS_OK;
		if (i == 0)
			all = out->bytes;
	}
	return status_fail(STATUS_NO_MEMORY,
		"%s: a picture of %d x %d takes %.2f GB of %s in %s, or %.2f GB with the parts of the model in "
		"memory by turns and decoded in bands; there are %.2f GB (a smaller size, a smaller --dtype or a "
		"higher memory limit helps)",
		job->model->path, job->recipe->width, job->recipe->height, (double)(all + DEVICE_RESERVE) / 1e9,
		engine_device(e), dtype_name(kernels_weight_dtype(e->k)), (double)(out->bytes + DEVICE_RESERVE) / 1e9,
		(double)e->memory.limit / 1e9);
}

/* Of everything but the words, of which the length alone counts, and the seed. */
static enum status plan_key(const struct engine_job *job, char out[RECIPE_KEY_LEN + 1])
{
	const struct recipe *r = job->recipe;
	struct recipe like = *r;
	struct bytes text = { 0 };
	enum status status;

	like.prompt = like.negative = NULL;
	like.seed = 0;
	status = recipe_canonical(&like, job->model->identity, "", RECIPE_BY_HASH, &text);
	if (status == STATUS_OK)
		status = bytes_print(
			&text, "%zu + %zu bytes of words\n", strlen(r->prompt), r->negative ? strlen(r->negative) : 0);
	if (status == STATUS_OK)
		recipe_key(text.data, text.len, out);
	bytes_free(&text);
	return status;
}

/* The plan of an equal job, if one of the last was equal, or a new one. */
static enum status find_plan(struct engine *e, const struct engine_job *job, struct planned *out)
{
	*out = (struct planned){ 0 };
	TRY(plan_key(job, out->job));
	for (int i = 0; i < PLANS_MAX; i++)
		if (strcmp(e->planned[i].job, out->job) == 0) {
			*out = e->planned[i];
			return STATUS_OK;
		}
	TRY(make_plan(e, job, out));
	e->planned[e->n_planned++ % PLANS_MAX] = *out;
	return STATUS_OK;
}

/* Other models go where the job has no room beside them, and its own where its parts may no longer be together. */
static enum status plan(struct engine *e, const struct engine_job *job)
{
	const char *own = job->model->identity;
	uint64_t others = 0;
	struct planned p;

	if (!e->planned_memory)
		return STATUS_OK;
	TRY(find_plan(e, job, &p));
	e->residence = p.residence;
	e->bands = p.bands;
	for (int i = 0; i < e->n_loaded; i++)
		others += strcmp(e->loaded[i].model.identity, own) == 0 ? 0 : bytes_of(e, &e->loaded[i].model);
	for (int i = e->n_loaded - 1; i >= 0; i--) {
		const uint64_t bytes = bytes_of(e, &e->loaded[i].model);

		if (strcmp(e->loaded[i].model.identity, own) == 0) {
			if (e->loaded[i].residence < p.residence)
				unload(e, i);
		} else if (others + p.bytes + DEVICE_RESERVE > e->memory.limit) {
			unload(e, i);
			others -= bytes;
		}
	}
	return STATUS_OK;
}

static enum status paint(struct engine *e, struct run *run, struct progress *p, struct bytes *png)
{
	struct tensor picture;

	TRY(plan(e, p->job));
	run->identity = p->job->model->identity;
	run->texts = p->job->model->random || p->job->model->file_bytes < e->texts_min ? NULL : e->texts;
	run->bands = e->bands;
	run->memory_limit = e->planned_memory ? 0 : e->memory.limit;
	TRY(compute(e, run, p, &picture));
	TRY(trace_picture(run->trace, run->k, picture, "decoded"));
	TRY(begin(p, STAGE_PNG, 0));
	return encode_png(e, run, p->job->pixels, picture, png);
}

enum status engine_generate(struct engine *e, const struct engine_job *job, struct bytes *png)
{
	struct run run = { .k = e->k, .arena = e->arena, .recipe = job->recipe };
	struct progress progress = { .job = job, .run = &run, .since = run_clock(), .flops = kernels_flops(e->k) };
	size_t mark = arena_mark(e->arena);
	enum status status = begin(&progress, STAGE_LOAD, 0);

	if (status == STATUS_OK && job->trace)
		status = trace_new(&run.trace);
	rng_seed(&run.rng, job->recipe->rng, job->recipe->seed);
	if (status == STATUS_OK)
		status = paint(e, &run, &progress, png);
	if (status == STATUS_OK && job->trace)
		status = trace_write(run.trace, job->trace);
	trace_free(run.trace);
	arena_release(e->arena, mark);
	book(&progress);
	if (status == STATUS_OK && job->progress)
		job->progress(job->context, &progress.now); /* the final times */
	return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

uint64_t engine_memory(const struct engine *e)
{
	return kernels_memory(e->k);
}

uint64_t engine_memory_peak(const struct engine *e)
{
	return kernels_memory_peak(e->k);
}

uint64_t engine_peak_memory(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;
	char line[256];

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return (uint64_t)kib * 1024;
}

/* engine: pictures from recipes.  One engine owns one device; it keeps the model of the last job loaded.
 *
 *     struct engine *e;
 *     TRY(engine_open(&(struct engine_options){ .device = "auto", .dtype = DTYPE_OTHER }, &e));
 *     TRY(engine_generate(e, &(struct engine_job){ .model = &model, .recipe = &recipe }, &png));
 *
 * Threads: an engine belongs to one thread at a time.  `cancelled` and `progress` are called on that thread.
 */
#ifndef PROMPTFS_ENGINE_H
#define PROMPTFS_ENGINE_H

#include "engine/bytes.h"
#include "engine/model.h"
#include "engine/recipe.h"
#include "kernels/kernels.h"

struct engine;

#define ENGINE_TEXTS "texts" /* the folder below engine_options.packed that embeddings are kept in */

struct engine_options {
	const char *device;    /* "ref", "cpu", "cuda:N", "auto" */
	enum dtype dtype;      /* as kernels_open takes it; DTYPE_OTHER: the device's default */
	int threads;           /* 0: as many as processors */
	uint64_t memory_limit; /* bytes; 0: no limit of ours */
	const char *packed;    /* folder for copies of packed weights, or NULL */
	uint64_t packed_limit; /* bytes of all copies */
	uint64_t texts_min;    /* models of as many bytes keep embeddings; 0: the usual */
};

enum stage { STAGE_LOAD, STAGE_TEXT, STAGE_STEP, STAGE_DECODE, STAGE_PNG, STAGE_COUNT };
const char *stage_name(enum stage s); /* "load", "text", "step", "decode", "png" */

/* How many modules of each LoRA file of a recipe change the model, of how many; of the first ones only. */
enum { ENGINE_LORAS_MAX = 16 };
struct engine_loras {
	int n;
	struct {
		int applied, modules;
	} of[ENGINE_LORAS_MAX];
};

struct engine_progress {
	enum stage stage;
	int step, steps;             /* STAGE_STEP: step of steps is about to run (0-based); else 0 */
	double seconds[STAGE_COUNT]; /* spent so far in each stage */
	double flops[STAGE_COUNT];   /* of products, convolutions and attention (kernels_flops) */
	struct engine_loras loras;   /* once they are applied */
};

struct engine_job {
	const struct model *model;
	const struct recipe *recipe;
	const char *trace;                                               /* file for the stages, or NULL */
	bool pixels;                                                     /* the 8-bit RGB instead of a PNG */
	bool (*cancelled)(void *context);                                /* may be NULL; asked between steps */
	void (*progress)(void *context, const struct engine_progress *); /* may be NULL */
	void *context;
};

enum status engine_open(const struct engine_options *options, struct engine **out);
void engine_close(struct engine *e); /* NULL is allowed */
const char *engine_device(const struct engine *e);
const char *engine_about(const struct engine *e); /* kernels_about */
enum dtype engine_dtype(const struct engine *e);  /* what keys say: F32, BF16, or I8 or F8_E4M3 of the weights */

/* Loads what the model needs (nothing that is loaded already) and appends the bare PNG (png.h), or the pixels, to *png.
 */
enum status engine_generate(struct engine *e, const struct engine_job *job, struct bytes *png);

/* Models stay loaded side by side while there is memory; the one unused for longest goes first.  The identity
 * (model.identity) of the i-th loaded one, borrowed; NULL past the last. */
enum { ENGINE_MODELS_MAX = 8 };
const char *engine_loaded(const struct engine *e, int i);

/* Drops the model of that identity; NULL: all. */
void engine_unload(struct engine *e, const char *identity);

/* Most bytes this process held at once (peak resident set), and what the engine holds now. */
uint64_t engine_peak_memory(void);
uint64_t engine_memory(const struct engine *e);
uint64_t engine_memory_peak(const struct engine *e); /* the most that the engine held so far */

#endif

/* family: what one model family (Z-Image, FLUX.1, ...) provides to the rest of the engine.
 *
 * One file per family defines a `const struct family`; families.c lists them.  No other file names a family.  engine.c
 * runs every family the same way:
 *
 *     open -> encode -> sampler -> (predict -> sampler_step) x calls -> decode -> close
 */
#ifndef PROMPTFS_ENGINE_FAMILY_H
#define PROMPTFS_ENGINE_FAMILY_H

#include "engine/component.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "engine/recipe.h"
#include "engine/sampler.h"
#include "engine/trace.h"
#include "kernels/kernels.h"

/* What the functions of a family work with during one job. */
struct run {
	struct kernels *k;
	struct arena *arena; /* whatever is taken lives until the job ends, unless released to a mark */
	const struct recipe *recipe;
	struct trace *trace;       /* NULL: no trace is wanted */
	struct rng rng;            /* every random number of the job comes from it, in order */
	struct memo_files *texts;  /* where embeddings are kept; NULL: nowhere */
	const char *identity;      /* of the job's model, where texts are kept */
	double load_seconds;       /* spent on loading weights: families add to it */
	bool bands;                /* a picture is decoded in bands of rows, so that it takes less memory */
	uint64_t memory_limit;     /* of what the handle holds, where no plan decides about bands; 0: none */
	struct engine_loras loras; /* of the recipe, once a part was needed */
};

/* Seconds of a monotonic clock. */
double run_clock(void);

/* How many bytes weights may take: all parts of a model stay loaded while they fit `resident`; what never fits `limit`
 * is refused before anything is loaded. */
struct memory_budget {
	uint64_t resident, limit;
	bool alone; /* an autoencoder does not share the memory of the network before it, where not all stays loaded */
};

struct memo_files;
struct part_kind;
typedef enum status part_visit(void *context, const struct part_kind *kind, const struct component *c);

struct family {
	const char *name;     /* "z-image" */
	const char *pipeline; /* _class_name in model_index.json: "ZImagePipeline" */

	/* Pure, without weights.  describe fills defaults, size_multiple and size_max of a model whose path is set.
	 * round_size (may be NULL) brings a size to one that the family makes, where its pipeline does so itself.
	 * resolve checks and completes a recipe (sizes, sampler, sets).  apply_cfg writes A1111's CFG scale into the
	 * recipe, apply_distilled_cfg its Distilled CFG Scale (NULL: the family has none).
	 */
	enum status (*describe)(struct model *m);
	void (*find_beside)(const struct model *m, char path[PATH_MAX]); /* model.beside; NULL: no such folder */
	enum status (*resolve)(const struct model *m, struct recipe *r);
	void (*round_size)(const struct model *m, int *width, int *height);
	enum status (*apply_cfg)(const struct model *m, struct recipe *r, double cfg);
	enum status (*apply_distilled_cfg)(const struct model *m, struct recipe *r, double cfg);

	/* Tells visit each part with its kind (parts.h); pure as well.  NULL: it has none. */
	enum status (*each_part)(const struct model *m, part_visit *visit, void *context);

	/* The opened model; parts are loaded when they are first needed. */
	enum status (*open)(const struct model *m, struct kernels *k, const struct memory_budget *memory, void **state);
	void (*close)(void *state); /* NULL is allowed */

	/* Text to conditioning, kept in the state for predict. */
	enum status (*encode)(void *state, struct run *run);
	/* [channels, height, width] of the latents. */
	void (*latent_shape)(const void *state, const struct recipe *r, int64_t dim[3]);
	/* Fills in the scheduler's file and what its pipeline adds; name, steps and pictures are set already. */
	void (*sampler)(const void *state, const struct recipe *r, struct sampler_request *out);
	/* What call `call` hands to the sampler, after guidance, with the sampler's sign; latents (already as
	 * sampler_input scales them) and out [c, h, w] F32; out has 2 c channels, noise then variance, where the
	 * scheduler learned its variance (sampler_prediction_parts). */
	enum status (*predict)(void *state, struct run *run, const struct sampler *s, int call, struct tensor latents,
		struct tensor out);
	/* Latents to a picture [height, width, 3] F32 about -1..1, taken from the run's arena. */
	enum status (*decode)(void *state, struct run *run, struct tensor latents, struct tensor *picture);
};

/* One per family file, listed in families.c. */
extern const struct family zimage_family, sd3_family, flux_family, testcard_family, sd15_family, sdxl_family,
	kandinsky_family, kandinsky_decoder_family;

/* The family whose pipeline is `class_name`, or NULL; the i-th of the table, or NULL past its end. */
const struct family *family_find(const char *class_name);
const struct family *family_at(int i);

#endif

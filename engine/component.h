/* component: one part of a model (a text encoder, a transformer, an autoencoder): where its configuration and its
 * weights come from.
 *
 * In the diffusers layout both lie in the folder of that name; `Set: transformer_file=` and the like take the weights
 * from a file of another layout instead.
 */
#ifndef PROMPTFS_ENGINE_COMPONENT_H
#define PROMPTFS_ENGINE_COMPONENT_H

#include <limits.h>
#include <stdbool.h>

#include "kernels/status.h"

struct lora_set;
struct model;
struct survey;

struct component {
	char name[32];                /* "text_encoder_2" */
	char config[PATH_MAX];        /* its config.json */
	char weights[PATH_MAX];       /* a folder, or one file; "": not found */
	const struct lora_set *loras; /* changes of the weights; NULL: none */
	bool random;                  /* values are made up (random_weights.h) */
	struct survey *survey;        /* notes what is read instead of values (survey.h); NULL: values */
};

/* Nothing is opened, but for models without index, whose files are searched (derive.h). */
enum status model_component(const struct model *m, const char *name, struct component *out);

#endif

/* recipe: everything that decides a picture, from what a user wrote to the key of the result.
 *
 *     fields (a prompt file, options, .defaults)  --recipe_resolve(model)-->  recipe  --recipe_canonical-->  text  -->
 * key
 *
 * All of this is pure: no files, no weights.  Fields that were not given stay unset and take the model's defaults.
 * Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_RECIPE_H
#define PROMPTFS_ENGINE_RECIPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/bytes.h"
#include "engine/model.h"

enum { RECIPE_PROMPT_MAX = 1 << 20, RECIPE_KEY_LEN = 32, RECIPE_STEPS_MAX = 1000 };

/* The version of our numbers: a change that moves pictures beyond the golden tolerances raises it, so that keys change.
 */
enum { RECIPE_NUMERICS = 1 };

struct recipe_set {
	char *name, *value; /* an argument of the family's diffusers pipeline and its value as text */
};

struct recipe_lora {
	char *name; /* as written: NAME of the loras folder, or a path */
	double scale;
	char *path;                        /* the file; NULL: not looked up yet, the name counts */
	char hash[MODEL_HASH_LEN + 1];     /* of its content; "": not known */
	char identity[MODEL_HASH_LEN + 1]; /* content_identify; "": not known */
};

/* A file or folder that a set names and that is used instead of a part of the model. */
struct recipe_file {
	char *set;  /* "vae_file" */
	char *path; /* where it is; what is not there the engine tells of */
	char hash[MODEL_HASH_LEN + 1], identity[MODEL_HASH_LEN + 1];
};

/* What was given; NULL, false or 0 counts where not.  Zero-initialise; recipe_fields_free. */
struct recipe_fields {
	char *prompt, *negative, *model, *sampler, *scheduler;
	bool has_steps, has_guidance, has_cfg, has_distilled_cfg, has_seed, has_random_seed, has_size, has_rng,
		has_clip_skip;
	int64_t steps, width, height, clip_skip /* A1111's count */;
	double guidance;      /* diffusers' guidance_scale */
	double cfg;           /* A1111's CFG scale: 1 is off */
	double distilled_cfg; /* A1111's Distilled CFG Scale */
	uint64_t seed;
	enum rng_kind rng;
	int n_sets, n_loras;
	struct recipe_set *sets;
	struct recipe_lora *loras;
};

enum status recipe_fields_set(
	struct recipe_fields *f, const char *name, const char *value);                   /* adds or replaces a Set */
enum status recipe_fields_lora(struct recipe_fields *f, const char *name, double scale); /* appends */
/* Takes every field of `outer` that `f` lacks (key by key; a LoRA list as a whole; guidance, cfg and distilled cfg are
 * one key; sets by name).  For .defaults: call with the nearest first. */
enum status recipe_fields_inherit(struct recipe_fields *f, const struct recipe_fields *outer);
enum status recipe_fields_copy(const struct recipe_fields *f, struct recipe_fields *out);
void recipe_fields_free(struct recipe_fields *f);

/* Resolved: every value that reaches the engine. */
struct recipe {
	char *prompt;
	char *negative; /* NULL: none given */
	int width, height, steps;
	double guidance;  /* the family's diffusers meaning */
	char sampler[32]; /* canonical name: "euler" */
	uint64_t seed;
	enum rng_kind rng;
	int n_sets, n_loras;
	struct recipe_set *sets; /* sorted by name, values canonical, none that equals its default */
	struct recipe_lora *loras;
	int n_files;
	struct recipe_file *files;
};

/* STATUS_INVALID with the reason (which key, what is allowed) when a value is wrong for this model. A field asking for
 * a random seed must have been given a seed before. */
enum status recipe_resolve(const struct recipe_fields *f, const struct model *model, struct recipe *out);
void recipe_free(struct recipe *r);

/* Width and height alone, for stat; the model's defaults when the fields' are wrong. */
void recipe_size(const struct recipe_fields *f, const struct model *model, int *width, int *height);

/* For families, while resolving: one more set.  STATUS_INVALID when the recipe has it already. */
enum status recipe_add_set(struct recipe *r, const char *name, const char *value);

/* Likewise: what the set `name` names lies at `path`.  Sets that end in _file need no such call. */
enum status recipe_add_file(struct recipe *r, const char *name, const char *path);

/* The value of a set as an integer; fallback where it is not set. */
int64_t recipe_set_int(const struct recipe *r, const char *name, int64_t fallback);

/* "promptfs recipe 1\nmodel: <hash>\ndtype: bf16\nprompt: <length>:<text>\n..." : one line a value, from one table.
 * Of the model, LoRAs and files: their hashes (for keys), or their identities (for telling revisions apart). */
enum recipe_by { RECIPE_BY_HASH, RECIPE_BY_IDENTITY };
enum status recipe_canonical(
	const struct recipe *r, const char *model_id, const char *dtype, enum recipe_by by, struct bytes *out);
void recipe_key(const void *text, size_t len, char key[RECIPE_KEY_LEN + 1]); /* XXH3-128, hex */

/* The text of the iTXt chunk `parameters` in the A1111 form: pasting it into a prompt file gives the same recipe. */
enum status recipe_parameters(const struct recipe *r, const char *model_name, struct bytes *out);

/* The recipe as JSON, for the iTXt chunk `promptfs`, status/info and the worker; and back (STATUS_INVALID).  Identities
 * are not in it.  hide takes out where files lie, which is their owner's business. */
enum status recipe_to_json(const struct recipe *r, json_t **out);
void recipe_json_hide(json_t *json);
enum status recipe_from_json(const json_t *json, struct recipe *out);

#endif

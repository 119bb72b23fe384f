/* model: what is known of a model folder without touching its weights; enough to resolve recipes and answer stat.
 *
 * Threads: a struct model is read-only after model_open, except hash, which its owner sets.
 */
#ifndef PROMPTFS_ENGINE_MODEL_H
#define PROMPTFS_ENGINE_MODEL_H

#include <limits.h>
#include <stdbool.h>

#include "engine/content.h"
#include "engine/rng.h"

struct family; /* engine/family.h */

enum { MODEL_HASH_LEN = CONTENT_LEN };

/* A model's own defaults for what a prompt leaves out, and its rule for sizes. */
struct model_defaults {
	int width, height;
	int steps;
	double guidance;
};

/* A component whose weights come from a file of its own instead of the model's folder. */
enum { MODEL_OVERRIDES_MAX = 5 }; /* three text encoders, the transformer, the autoencoder */
struct model_override {
	char component[32];
	char path[PATH_MAX];
	char identity[MODEL_HASH_LEN + 1]; /* so that another file under the same name is another model */
};

struct model {
	char name[64];         /* as prompts say it; from the configuration, else the folder's name */
	char path[PATH_MAX];   /* absolute; of a file, or a folder without index, with a slash at its end (derive.h) */
	char beside[PATH_MAX]; /* another folder that the model needs (a prior that lies apart); "": none */
	const struct family *family;
	struct model_defaults defaults;
	bool random;                       /* weights are made up, for `promptfs bench` */
	int size_multiple;                 /* width and height must be multiples of it */
	int size_max;                      /* of each side */
	uint64_t file_bytes;               /* all files that belong to it */
	char identity[MODEL_HASH_LEN + 1]; /* of the files' (device, inode, size, mtime, ctime): known at once */
	struct model_override override[MODEL_OVERRIDES_MAX]; /* path "": none */
	char hash[MODEL_HASH_LEN + 1];                       /* of the files' content; "" until model_hash_files */
};

/* Reads model_index.json and the configurations, or derives them (derive.h).  name may be NULL.  STATUS_NO_MODEL,
 * STATUS_CORRUPT, STATUS_UNSUPPORTED. */
enum status model_open(const char *path, const char *name, struct model *out);

/* Of every file that belongs to the model (content.h).  Links to a folder of the same content give the same hash. */
enum status model_hash_files(const struct model *m, char hash[MODEL_HASH_LEN + 1]);

/* Whether it has no model_index.json: the slash at the end of its path says so. */
bool model_is_derived(const struct model *m);

/* The file that gives the weights of a component; STATUS_INVALID when there are too many. */
enum status model_set_override(struct model *m, const char *component, const char *path);
bool model_overrides(const struct model *m, const char *component);

#endif

/* What lora.c (files and sets), lora_names.c (which weight a module means) and lora_product.c (what is added to it)
 * share. */
#ifndef PROMPTFS_ENGINE_LORA_PRIVATE_H
#define PROMPTFS_ENGINE_LORA_PRIVATE_H

#include <string.h>

#include "engine/bytes.h"
#include "engine/lora.h"
#include "engine/names.h"

/* What a module may consist of. */
enum factor {
	DOWN,
	UP,
	MID,
	ALPHA,
	HADA_1A,
	HADA_1B,
	HADA_1MID,
	HADA_2A,
	HADA_2B,
	HADA_2MID,
	KRON_1,
	KRON_1A,
	KRON_1B,
	KRON_2,
	KRON_2A,
	KRON_2B,
	KRON_2MID,
	MAGNITUDE,  /* DoRA, PEFT's: of each output */
	DORA_SCALE, /* DoRA, kohya's and LyCORIS': of each output or of each input, by its shape */
	FACTORS
};

struct module {
	char name[NAMES_LEN];     /* as in the file, without suffix */
	const char *key[FACTORS]; /* borrowed from the weights; NULL where it has no such factor */
	double alpha;             /* NAN: the rank */
	bool root;                /* divides by the rank's root */
};

/* A weight that a module changes: rows from .. from + count of `of` equal shares (of 0: all) of its product. */
struct target {
	int module;
	char part[32], tensor[NAMES_LEN];
	int from, count, of;
	enum names_how how;
};

struct lora {
	char *path;
	char hash[RECIPE_KEY_LEN + 1];
	double scale;
	struct weights *weights;
	struct module *module;
	struct target *target;
	int n_modules, n_matched, n_targets;
};

struct lora_set {
	int n;
	struct lora *lora;
};

static inline bool lora_is_target(const struct target *t, const char *part, const char *tensor)
{
	return strcmp(t->part, part) == 0 && strcmp(t->tensor, tensor) == 0;
}

static inline bool lora_has(const struct module *m, enum factor a, enum factor b)
{
	return m->key[a] && m->key[b];
}

/* Keys that are wrong, for one message about all of them. */
struct lora_complaint {
	struct bytes text;
	int n;
};
void lora_complain(struct lora_complaint *c, const char *key, const char *why);
void lora_complain_all(struct lora_complaint *c, const struct module *m, const char *why); /* of all its keys */
enum status lora_settle(struct lora_complaint *c, const struct lora *l); /* the error, if there was any; frees */

/* A factor's values; the caller's to free.  rank 0: one number. */
enum status lora_read(const struct lora *l, const char *key, float **out, int *rank, int64_t dim[TENSOR_RANK_MAX]);

#endif

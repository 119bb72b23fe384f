/* survey: what a part of a model would read, found by opening it with all its own code but without any values.
 *
 *     struct survey s = { 0 };
 *     TRY(survey_part(kind, &component, &s));   // the same tables that load weights say what they want
 *     ... s.tensor[0 .. s.n), s.count[SURVEY_MISSING] ...
 *     survey_free(&s);
 *
 * What it finds is compared with the files' headers; where there are none, with the names in the shards' index or with
 * names.json ({"tensors": {name: [shape]}}); where that is missing too, it is only listed.
 */
#ifndef PROMPTFS_ENGINE_SURVEY_H
#define PROMPTFS_ENGINE_SURVEY_H

#include "engine/parts.h"
#include "kernels/kernels.h"

enum survey_state {
	SURVEY_FITS,     /* there, and of this shape where the list has shapes */
	SURVEY_EXPECTED, /* there is no list to look in */
	SURVEY_MISSING,
	SURVEY_SHAPE,  /* there, but of another shape: stored */
	SURVEY_UNUSED, /* nothing reads it: it belongs to another configuration */
	SURVEY_PASSED, /* nothing reads it, and that is as it should be: the encoder of an autoencoder */
	SURVEY_STATES
};

struct survey_tensor {
	char *name;
	enum survey_state state;
	int rank, stored_rank; /* -1: unknown */
	int64_t dim[TENSOR_RANK_MAX], stored[TENSOR_RANK_MAX];
};

struct survey {
	struct survey_tensor *tensor; /* in the order of asking, then those that nothing asked for */
	int64_t n, capacity;
	int64_t count[SURVEY_STATES];
	int64_t parameters; /* of what is read */
	int64_t block_values,
		block_rows; /* of these, in matrices that a handle may keep in 8 bits (kernels_pack_block) */
};

/* STATUS_CORRUPT and so on where the configuration or a file cannot be read; what does not fit is in the result. */
enum status survey_part(const struct part_kind *kind, const struct component *c, struct survey *out);
void survey_free(struct survey *s);

/* "missing" */
const char *survey_state_name(enum survey_state state);

/* For weights.c. */
enum status survey_add(struct survey *s, const struct survey_tensor *t);

#endif

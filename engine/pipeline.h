/* pipeline: what the pipelines of all families do alike, before and after what is a family's own.
 *
 *     struct flux { struct pipeline base; ... };      // first, so that a family's table may name the functions below
 *
 * Threads: no state of its own.
 */
#ifndef PROMPTFS_ENGINE_PIPELINE_H
#define PROMPTFS_ENGINE_PIPELINE_H

#include "engine/family.h"
#include "engine/parts.h"

enum { PIPELINE_PATH_MAX = PATH_MAX + 64 };

struct pipeline {
	struct parts *parts;
	int vae; /* the part that is an autoencoder */
	int64_t latent_channels, pixels_per_latent;
	char scheduler[PIPELINE_PATH_MAX]; /* its scheduler_config.json */
};

/* For family.describe and family.resolve. */
void pipeline_scheduler_path(const struct model *m, char out[PIPELINE_PATH_MAX]);
enum status pipeline_check_size(const struct model *m, const struct recipe *r);
enum status pipeline_check_sampler(const struct model *m, struct recipe *r);
/* The same where the scheduler is that of flows, whose plain sampler has two names. */
enum status pipeline_check_flow_sampler(const struct model *m, struct recipe *r);

/* family.latent_shape and family.decode. */
void pipeline_latent_shape(const void *state, const struct recipe *r, int64_t dim[3]);
enum status pipeline_decode(void *state, struct run *run, struct tensor latents, struct tensor *picture);

/* Calls of the network whose modulation was computed at once; its tensors stay in the arena, the first run of calls is
 * the largest.  start says how many calls from this one on are to be computed; 0: it is there already. */
enum { PIPELINE_CALLS_MAX = 16 };
struct pipeline_calls {
	int first, count; /* count 0 at the beginning of a job */
};
int pipeline_calls_start(struct pipeline_calls *c, const struct sampler *s, int call);

#endif

/* sampler: the noise levels of a picture and the way from noise to picture, as diffusers' schedulers define them.
 *
 *     TRY(sampler_open(k, arena, &request, rank, dim, &s));
 *     TRY(kernels_axpby(k, 0, latents, sampler_init_sigma(s), latents));   // first latents = noise * init sigma
 *     for (int call = 0; call < sampler_calls(s); call++) {
 *             TRY(sampler_input(s, call, latents, scaled));
 *             ... prediction = network(scaled, sampler_timestep(s, call)) ...
 *             TRY(sampler_step(s, call, prediction, latents, rng));
 *     }
 *     sampler_close(s);
 *
 * A sampler is made from a model's scheduler_config.json and a canonical sampler name (engine/sampler_name.h); the name
 * "" is the class that the file says.  As in diffusers a named sampler takes over the settings that the file writes and
 * its own class's defaults for the others.  Settings that would change numbers and are not computed here are
 * STATUS_UNSUPPORTED by name.
 *
 * Calls must come in order 0, 1, ...: samplers of higher order keep former predictions.  The state lives in the arena
 * and on the device; steps are linear combinations of tensors.  Threads: a sampler belongs to one thread.
 */
#ifndef PROMPTFS_ENGINE_SAMPLER_H
#define PROMPTFS_ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/recipe.h"
#include "engine/rng.h"
#include "kernels/kernels.h"

struct sampler_request {
	const char *config; /* path of scheduler_config.json, borrowed; NULL: a FlowMatch Euler with all defaults */
	const char *name;   /* canonical, or "" for the class of the file */
	int steps;
	bool linspace_sigmas;      /* flow models: the pipeline passes sigmas linspace(1, 1/steps, steps) itself */
	int64_t image_tokens;      /* of the picture, for dynamic shifting */
	double eta;                /* share of fresh noise, where the sampler takes one */
	int64_t pictures, picture; /* of one call in diffusers: every draw is for all of them; 0, 0: a single one */
};

struct sampler;

/* Pure: whether the model's scheduler file can be run with this sampler and number of steps; one line says why not. */
enum status sampler_check(const char *config, const char *name, int steps);

enum status sampler_open(struct kernels *k, struct arena *arena, const struct sampler_request *request, int rank,
	const int64_t *dim, struct sampler **out);
void sampler_close(struct sampler *s); /* NULL is allowed */

int sampler_steps(const struct sampler *s);
int sampler_calls(const struct sampler *s); /* of the network: steps, or more for samplers of higher order */
/* How many tensors of the latents' shape a prediction holds, one after the other: 2 where the variance is learned. */
int sampler_prediction_parts(const struct sampler *s);
float sampler_timestep(const struct sampler *s, int call);
float sampler_sigma(const struct sampler *s, int call); /* flow models: the noise level of a call */
float sampler_init_sigma(const struct sampler *s);

/* The schedule as the scheduler holds it, borrowed; sigmas NULL and 0 for classes that have none. */
const float *sampler_timesteps(const struct sampler *s, int *n);
const float *sampler_sigmas(const struct sampler *s, int *n);

/* scaled = what the network reads; of latents' shape, F32. */
enum status sampler_input(struct sampler *s, int call, struct tensor latents, struct tensor scaled);

/* latents after call `call`, in place; noise is drawn from rng where the sampler uses some.  The prediction may be
 * overwritten. */
enum status sampler_step(struct sampler *s, int call, struct tensor prediction, struct tensor latents, struct rng *rng);

#endif

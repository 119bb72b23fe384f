/* schedule: the noise levels of a picture and the scheduler's step.
 *
 * FlowMatch Euler: sigmas run from 1 towards 0, timesteps are sigma * num_train_timesteps, a step is
 * latents += (sigma[i+1] - sigma[i]) * noise_pred.  Source: diffusers, scheduling_flow_match_euler_discrete.py.
 */
#ifndef PROMPTFS_ENGINE_SCHEDULE_H
#define PROMPTFS_ENGINE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/recipe.h"
#include "kernels/status.h"

struct schedule {
	int steps;
	float timesteps[RECIPE_STEPS_MAX];
	float sigmas[RECIPE_STEPS_MAX + 1]; /* ends with 0 */
};

/* What a FlowMatchEulerDiscreteScheduler's scheduler_config.json says. */
struct flow_config {
	double num_train_timesteps;
	double shift;                 /* of every sigma: s x / (1 + (s - 1) x) */
	bool dynamic_shifting;        /* by the number of picture tokens instead */
	bool linear_shift;            /* kind of the dynamic one; else exponential */
	double base_shift, max_shift; /* mu at base_tokens and max_tokens, linear between and beyond */
	double base_tokens, max_tokens;
};

/* Settings that this version does not compute are STATUS_UNSUPPORTED by name. */
enum status flow_config_read(const char *path, struct flow_config *out);

/* steps sigmas evenly from 1 to 1/steps, shifted; image_tokens matters for dynamic shifting only. */
void flow_schedule(const struct flow_config *c, int steps, int64_t image_tokens, struct schedule *out);

#endif

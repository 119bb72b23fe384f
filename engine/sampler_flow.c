/* sampler_flow: flow matching models: Euler and Heun.
 *
 * Paper: 2403.03206.  Reference: diffusers, scheduling_flow_match_euler_discrete.py, .._heun_discrete.py.
 *
 * Traps: with a fixed shift and no levels from the pipeline, the levels run down to the already shifted lowest one and
 * are shifted again (SD3).  Arithmetic is in float where the pipeline passes floats.
 */
#include <math.h>

#include "engine/sampler_solver.h"

static double shifted(const struct settings *c, double mu, double sigma)
{
	double shift = c->dynamic_shifting ? (c->linear_shift ? mu : exp(mu)) : c->shift;

	if (c->dynamic_shifting)
		return shift / (shift + (1 / sigma - 1));
	return shift * sigma / (1 + (shift - 1) * sigma);
}

static double mu_of(const struct sampler *s)
{
	const struct settings *c = &s->c;
	double slope = (c->max_shift - c->base_shift) / (c->max_tokens - c->base_tokens);

	return (double)s->request.image_tokens * slope + (c->base_shift - slope * c->base_tokens);
}

/* The levels without the last 0, shifted and laid out; from 1 down to 1/steps where the pipeline says so. */
static void lay_out(const struct sampler *s, bool from_pipeline, double *sigmas)
{
	double mu = mu_of(s), low = 1 / (double)s->c.train_steps;

	if (!s->c.dynamic_shifting)
		low = (double)(float)shifted(&s->c, mu, low);
	for (int i = 0; i < s->steps; i++) {
		double end = from_pipeline ? 1 / (double)s->steps : low;
		double sigma = s->steps == 1 ? 1 : 1 + (end - 1) * i / (s->steps - 1);

		sigmas[i] = shifted(&s->c, mu, from_pipeline ? (double)(float)sigma : sigma);
	}
	if (s->c.levels != LEVELS_PLAIN)
		levels_convert(s->c.levels, sigmas[0], sigmas[s->steps - 1], s->steps, sigmas);
}

static enum status euler_plan(struct sampler *s)
{
	double sigmas[RECIPE_STEPS_MAX];

	lay_out(s, s->request.linspace_sigmas, sigmas);
	s->n_calls = s->steps;
	for (int i = 0; i < s->steps; i++) {
		s->sigmas[i] = (float)sigmas[i];
		s->timesteps[i] = s->sigmas[i] * (float)s->c.train_steps;
	}
	s->sigmas[s->steps] = 0;
	s->n_sigmas = s->steps + 1;
	return STATUS_OK;
}

static enum status euler_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	float sigma = s->sigmas[call], next = s->sigmas[call + 1];

	if (!s->c.stochastic)
		return sampler_mix(s, (double)(next - sigma), out, 1, x);
	TRY(sampler_draw(s, rng));
	TRY(sampler_mix(s, (double)-sigma, out, 1, x));
	return sampler_mix(s, (double)next, s->noise, (double)(1 - next), x);
}

/* Every level but the first comes twice. */
static enum status heun_plan(struct sampler *s)
{
	double sigmas[RECIPE_STEPS_MAX];

	lay_out(s, false, sigmas);
	s->n_calls = 2 * s->steps - 1;
	for (int i = 0; i < s->n_calls; i++) {
		s->sigmas[i] = (float)sigmas[(i + 1) / 2];
		s->timesteps[i] = s->sigmas[i] * (float)s->c.train_steps;
	}
	s->sigmas[s->n_calls] = 0;
	s->n_sigmas = s->n_calls + 1;
	return STATUS_OK;
}

static enum status heun_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	double dt;

	if (call % 2 == 0) {
		dt = (double)(s->sigmas[call + 1] - s->sigmas[call]);
		TRY(sampler_copy(s, x, s->saved));
		TRY(sampler_push(s, out));
		return sampler_mix(s, dt, out, 1, x);
	}
	dt = (double)(s->sigmas[call] - s->sigmas[call - 1]);
	TRY(sampler_copy(s, s->saved, x));
	TRY(sampler_mix(s, dt / 2, s->state[0], 1, x));
	return sampler_mix(s, dt / 2, out, 1, x);
}

static const char *const euler_refused[] = { "invert_sigmas", "shift_terminal", NULL };
static const char *const heun_refused[] = { "use_dynamic_shifting", NULL };

const struct solver sampler_flow_solvers[] = {
	{ .class_name = "FlowMatchEulerDiscreteScheduler",
		.kind = KIND_FLOW,
		.reads = READS_LEVELS,
		.beta_start = 1e-4,
		.beta_end = 0.02,
		.refused = euler_refused,
		.plan = euler_plan,
		.step = euler_step },
	{ .class_name = "FlowMatchHeunDiscreteScheduler",
		.kind = KIND_FLOW,
		.beta_start = 1e-4,
		.beta_end = 0.02,
		.refused = heun_refused,
		.plan = heun_plan,
		.step = heun_step },
	{ .class_name = NULL },
};

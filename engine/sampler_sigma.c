/* sampler_sigma: samplers that walk along sigma as k-diffusion does: Euler, Euler ancestral, Heun, LMS, DPM2 and DPM2
 * ancestral, and Euler for EDM models.
 *
 * Papers: 2206.00364 (Euler, Heun, EDM), 2206.00927 (DPM2).  Reference: diffusers, scheduling_euler_discrete.py,
 * .._euler_ancestral_.., .._heun_.., .._lms_.., .._k_dpm_2_.., .._k_dpm_2_ancestral_.., .._edm_euler.py.
 *
 * Every step is along the derivative d = (x - x0) / sigma.  Traps: the network reads x / sqrt(sigma^2 + 1); the first
 * latents are scaled by sqrt(sigma^2 + 1) for "leading" spacing only; Karras timesteps stay fractional but in DPM2.
 */
#include <math.h>

#include "engine/sampler_solver.h"

/* ---- plans ------------------------------------------------------------------------------------------------------- */

/* Levels and timesteps of the steps, without the last 0. */
static int lay_out(const struct sampler *s, bool rounded, double *t, double *sigmas)
{
	int n = levels_spaced(s, 0, false, t);

	for (int i = 0; i < n; i++) {
		t[i] = (double)(float)t[i];
		sigmas[i] = levels_interpolate(s, t[i]);
	}
	if (s->c.levels == LEVELS_PLAIN)
		return n;
	levels_convert(s->c.levels, sigmas[0], sigmas[n - 1], n, sigmas);
	for (int i = 0; i < n; i++) {
		t[i] = levels_timestep(s, sigmas[i]);
		if (rounded && s->c.levels == LEVELS_KARRAS)
			t[i] = rint(t[i]);
	}
	return n;
}

static void scale_first(struct sampler *s)
{
	double highest = (double)s->sigmas[0];

	for (int i = 1; i < s->n_sigmas; i++)
		highest = fmax(highest, (double)s->sigmas[i]);
	s->init_sigma = (float)(s->c.spacing == SPACING_LEADING ? sqrt(highest * highest + 1) : highest);
}

static enum status euler_plan(struct sampler *s)
{
	double t[RECIPE_STEPS_MAX + 2], sigmas[RECIPE_STEPS_MAX + 2];
	int n;

	if (s->c.zero_snr) /* close to 0, so that the first sigma is finite */
		s->alphas[s->c.train_steps - 1] = 0x1p-24f;
	n = lay_out(s, false, t, sigmas);
	for (int i = 0; i < n; i++)
		levels_set(s, i, t[i], sigmas[i]);
	s->n_calls = n;
	s->n_sigmas = n + 1;
	s->sigmas[n] = s->c.end_at_sigma_min ? levels_sigma(s, 0) : 0;
	scale_first(s);
	return STATUS_OK;
}

/* Every level but the first comes twice. */
static enum status heun_plan(struct sampler *s)
{
	double t[RECIPE_STEPS_MAX + 2], sigmas[RECIPE_STEPS_MAX + 2];
	int n = lay_out(s, false, t, sigmas);

	s->n_calls = 2 * n - 1;
	for (int i = 0; i < s->n_calls; i++)
		levels_set(s, i, t[(i + 1) / 2], sigmas[(i + 1) / 2]);
	s->sigmas[s->n_calls] = 0;
	s->n_sigmas = s->n_calls + 1;
	scale_first(s);
	return STATUS_OK;
}

/* The level in the logarithmic middle; 0 beside a 0. */
static float middle(float a, float b)
{
	float from = logf(a), to = logf(b);

	return a > 0 && b > 0 ? expf(to - (to - from) * 0.5f) : 0;
}

/* How an ancestral step to `next` splits: down to a lower level, then noise up again. */
static void split(float sigma, float next, float *up, float *down)
{
	float a = sigma * sigma, b = next * next;

	*up = sqrtf(b * (a - b) / a);
	*down = sqrtf(b - *up * *up);
}

/* Steps with a call in between: the lists hold every level but the first twice, as diffusers traces them. */
static enum status dpm2_plan_split(struct sampler *s, bool ancestral)
{
	double t[RECIPE_STEPS_MAX + 2], sigmas[RECIPE_STEPS_MAX + 2];
	int n = lay_out(s, true, t, sigmas);

	s->n_calls = 2 * n - 1;
	s->n_sigmas = 2 * n + 2;
	for (int i = 0; i < n; i++) {
		float sigma = (float)sigmas[i], next = i + 1 < n ? (float)sigmas[i + 1] : 0;

		s->down[i] = next;
		if (ancestral)
			split(sigma, next, &s->up[i], &s->down[i]);
		s->between[i] = i + 1 < n ? middle(sigma, s->down[i]) : 0;
		s->timesteps[2 * i] = (float)t[i];
		if (i + 1 < n)
			s->timesteps[2 * i + 1] = levels_timestep_float(s, s->between[i]);
		s->sigmas[2 * i] = sigma;
		if (i > 0)
			s->sigmas[2 * i - 1] = sigma;
	}
	for (int i = 2 * n - 1; i < s->n_sigmas; i++)
		s->sigmas[i] = 0;
	scale_first(s);
	return STATUS_OK;
}

static enum status dpm2_plan(struct sampler *s)
{
	return dpm2_plan_split(s, false);
}

static enum status dpm2_a_plan(struct sampler *s)
{
	return dpm2_plan_split(s, true);
}

static enum status edm_plan(struct sampler *s)
{
	double from = pow(s->c.sigma_max, 1 / s->c.rho), to = pow(s->c.sigma_min, 1 / s->c.rho);
	float high = (float)log(s->c.sigma_max), low = (float)log(s->c.sigma_min);

	for (int i = 0; i < s->steps; i++) {
		double ramp = s->steps > 1 ? (double)i / (s->steps - 1) : 0;

		s->sigmas[i] = s->c.exponential ? expf(levels_linspace(low, high, s->steps, s->steps - 1 - i))
						: (float)pow(from + ramp * (to - from), s->c.rho);
		s->timesteps[i] = 0.25f * logf(s->sigmas[i]);
	}
	s->sigmas[s->steps] = s->c.end_at_sigma_min ? s->sigmas[s->steps - 1] : 0;
	s->n_calls = s->steps;
	s->n_sigmas = s->steps + 1;
	s->init_sigma = (float)sqrt(s->c.sigma_max * s->c.sigma_max + 1);
	return STATUS_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* The level at which a call's network runs. */
static double level_of(const struct sampler *s, int call)
{
	bool in_between = s->n_sigmas == s->n_calls + 3 && call % 2 == 1; /* DPM2 */

	return (double)(in_between ? s->between[call / 2] : s->sigmas[call]);
}

static float input_scale(const struct sampler *s, int call)
{
	double sigma = level_of(s, call);

	return (float)(1 / sqrt(sigma * sigma + 1));
}

static float edm_input_scale(const struct sampler *s, int call)
{
	double sigma = (double)s->sigmas[call];

	return (float)(1 / sqrt(sigma * sigma + s->c.sigma_data * s->c.sigma_data));
}

/* out = d at x. */
static enum status derive(struct sampler *s, int call, struct tensor x, struct tensor out)
{
	double sigma = level_of(s, call), a = sigma * sigma + 1;

	switch (s->c.prediction) {
	case PREDICT_V:
		return sampler_mix(s, sigma / a, x, 1 / sqrt(a), out);
	case PREDICT_SAMPLE:
		return sampler_mix(s, 1 / sigma, x, -1 / sigma, out);
	case PREDICT_EPSILON:
	case PREDICT_FLOW:
		break;
	}
	return STATUS_OK;
}

static enum status euler_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	TRY(derive(s, call, x, out));
	return sampler_mix(s, (double)(s->sigmas[call + 1] - s->sigmas[call]), out, 1, x);
}

static enum status euler_a_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	float up, down;

	split(s->sigmas[call], s->sigmas[call + 1], &up, &down);
	TRY(derive(s, call, x, out));
	TRY(sampler_mix(s, (double)(down - s->sigmas[call]), out, 1, x));
	TRY(sampler_draw(s, rng));
	return sampler_mix(s, (double)up, s->noise, 1, x);
}

static enum status heun_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	double dt;

	TRY(derive(s, call, x, out));
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

/* The integral over the step of the polynomial that is 1 at former level k and 0 at the others; two points of Gauss
 * are exact for degree 3. */
static double lms_coefficient(const float *sigma, int call, int order, int k)
{
	double from = (double)sigma[call], half = ((double)sigma[call + 1] - from) / 2, sum = 0;

	for (int point = 0; point < 2; point++) {
		double tau = from + half * (1 + (point ? 1 : -1) / sqrt(3)), product = 1;

		for (int i = 0; i < order; i++)
			if (i != k)
				product *= (tau - (double)sigma[call - i]) /
					   ((double)sigma[call - k] - (double)sigma[call - i]);
		sum += product * half;
	}
	return sum;
}

static enum status lms_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	int order = call < 3 ? call + 1 : 4;

	TRY(derive(s, call, x, out));
	TRY(sampler_push(s, out));
	for (int k = 0; k < order; k++)
		TRY(sampler_mix(s, lms_coefficient(s->sigmas, call, order, k), s->state[k], 1, x));
	return STATUS_OK;
}

static enum status dpm2_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	int step = call / 2;
	double sigma = (double)s->sigmas[2 * step];

	TRY(derive(s, call, x, out));
	if (call % 2 == 0) {
		TRY(sampler_copy(s, x, s->saved));
		return sampler_mix(s, (double)s->between[step] - sigma, out, 1, x);
	}
	TRY(sampler_copy(s, s->saved, x));
	return sampler_mix(s, (double)s->down[step] - sigma, out, 1, x);
}

static enum status dpm2_a_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	TRY(dpm2_step(s, call, out, x, rng));
	if (call % 2 == 0)
		return STATUS_OK;
	TRY(sampler_draw(s, rng));
	return sampler_mix(s, (double)s->up[call / 2], s->noise, 1, x);
}

static enum status edm_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	double sigma = (double)s->sigmas[call], data = s->c.sigma_data, a = sigma * sigma + data * data;
	double sign = s->c.prediction == PREDICT_V ? 1 : -1;

	TRY(sampler_mix(s, sigma / a, x, sign * data / sqrt(a), out));
	return sampler_mix(s, (double)s->sigmas[call + 1] - sigma, out, 1, x);
}

/* ---- classes ----------------------------------------------------------------------------------------------------- */

static const char *const euler_refused[] = { "trained_betas", "sigma_min", "sigma_max", NULL };
static const char *const refused[] = { "trained_betas", NULL };
static const char *const heun_refused[] = { "trained_betas", "clip_sample", NULL };

const struct solver sampler_sigma_solvers[] = {
	{ "EulerDiscreteScheduler", KIND_VP, READS_LEVELS | READS_ZERO_SNR | READS_FINAL, 1e-4, 0.02, BETAS_LINEAR,
		SPACING_LINSPACE, false, false, false, euler_refused, euler_plan, input_scale, euler_step },
	{ "EulerAncestralDiscreteScheduler", KIND_VP, READS_ZERO_SNR, 1e-4, 0.02, BETAS_LINEAR, SPACING_LINSPACE, false,
		false, false, refused, euler_plan, input_scale, euler_a_step },
	{ "HeunDiscreteScheduler", KIND_VP, READS_LEVELS, 0.00085, 0.012, BETAS_LINEAR, SPACING_LINSPACE, false, false,
		false, heun_refused, heun_plan, input_scale, heun_step },
	{ "LMSDiscreteScheduler", KIND_VP, READS_LEVELS, 1e-4, 0.02, BETAS_LINEAR, SPACING_LINSPACE, false, false,
		false, refused, euler_plan, input_scale, lms_step },
	{ "KDPM2DiscreteScheduler", KIND_VP, READS_LEVELS, 0.00085, 0.012, BETAS_LINEAR, SPACING_LINSPACE, false, false,
		false, refused, dpm2_plan, input_scale, dpm2_step },
	{ "KDPM2AncestralDiscreteScheduler", KIND_VP, READS_LEVELS, 0.00085, 0.012, BETAS_LINEAR, SPACING_LINSPACE,
		false, false, false, refused, dpm2_a_plan, input_scale, dpm2_a_step },
	{ "EDMEulerScheduler", KIND_EDM, READS_FINAL, 1e-4, 0.02, BETAS_LINEAR, SPACING_LINSPACE, false, false, false,
		NULL, edm_plan, edm_input_scale, edm_step },
	{ .class_name = NULL },
};

/* sampler_dpm: DPM-Solver++ (multistep, singlestep, with noise, for EDM and flow models) and DEIS.
 *
 * Papers: 2211.01095 (DPM-Solver++), 2204.13902 (DEIS).  Reference: diffusers, scheduling_dpmsolver_multistep.py,
 * .._dpmsolver_singlestep.py, .._edm_dpmsolver_multistep.py, .._deis_multistep.py.
 *
 * A step is a combination of the latents and up to three former predictions of the picture (of the noise for DEIS).
 * Traps: timesteps are whole numbers: Karras levels round, other curves cut; the singlestep solver knows no spacing and
 * starts every step of higher order from the latents of its first call.
 */
#include <math.h>

#include "engine/sampler_solver.h"

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static bool single(const struct sampler *s);
static bool deis(const struct sampler *s);

/* Levels on a curve between the highest and the lowest of training. */
static void follow_curve(const struct sampler *s, int n, double *t, double *sigmas)
{
	double high = (double)levels_sigma(s, s->c.train_steps - 1), low = (double)levels_sigma(s, 0);
	bool cosine = s->c.betas == BETAS_COSINE && !single(s) && !deis(s);

	if (s->c.levels == LEVELS_LU) { /* logarithms are stored as floats */
		high = exp((double)logf((float)high));
		low = exp((double)logf((float)low));
	}
	levels_convert(s->c.levels, high, low, n, sigmas);
	for (int i = 0; i < n; i++) {
		t[i] = levels_timestep(s, sigmas[i]);
		if ((s->c.levels == LEVELS_KARRAS || s->c.levels == LEVELS_LU) && !cosine)
			t[i] = rint(t[i]);
	}
}

static void follow_flow(const struct sampler *s, int n, double *t, double *sigmas)
{
	double train = (double)s->c.train_steps, shift = s->c.flow_shift;

	for (int i = 0; i < n; i++) {
		double sigma = 1 - (1 + (1 / train - 1) * (n - i) / n);

		sigmas[i] = shift * sigma / (1 + (shift - 1) * sigma);
		t[i] = sigmas[i] * train;
	}
}

static double last_sigma(const struct sampler *s, const double *sigmas, int n)
{
	if (deis(s))
		return s->c.levels != LEVELS_PLAIN || s->c.flow ? sigmas[n - 1] : (double)levels_sigma(s, 0);
	return s->c.end_at_sigma_min ? (double)levels_sigma(s, 0) : 0;
}

static enum status dpm_plan(struct sampler *s)
{
	double t[RECIPE_STEPS_MAX + 2], sigmas[RECIPE_STEPS_MAX + 2];
	int n = s->steps;

	if (s->c.zero_snr)
		s->alphas[s->c.train_steps - 1] = 0x1p-24f;
	if (s->c.levels != LEVELS_PLAIN) {
		follow_curve(s, n, t, sigmas);
	} else if (s->c.flow) {
		follow_flow(s, n, t, sigmas);
	} else {
		n = levels_spaced(s, 1, true, t);
		for (int i = 0; i < n; i++)
			sigmas[i] = levels_interpolate(s, t[i]);
	}
	for (int i = 0; i < n; i++)
		levels_set(s, i, trunc(t[i]), sigmas[i]);
	s->sigmas[n] = (float)last_sigma(s, sigmas, n);
	s->n_calls = n;
	s->n_sigmas = n + 1;
	return STATUS_OK;
}

/* Orders 1 2 .. order, again and again; the end is reached by lower ones. */
static enum status single_plan(struct sampler *s)
{
	int order = (int)s->c.order, n = s->steps;
	bool lower_final = s->c.lower_order_final || n % order != 0 || !s->c.end_at_sigma_min;

	s->c.spacing = SPACING_LINSPACE;
	TRY(dpm_plan(s));
	for (int i = 0; i < n; i++)
		s->orders[i] = i % order + 1;
	if (lower_final && order > 1 && n % order == 0) {
		s->orders[n - 1] = 1;
		if (order == 3)
			s->orders[n - 2] = 2;
	}
	if (!s->c.end_at_sigma_min)
		s->orders[n - 1] = 1;
	return STATUS_OK;
}

static enum status edm_plan(struct sampler *s)
{
	float from = (float)pow(s->c.sigma_max, 1 / s->c.rho), to = (float)pow(s->c.sigma_min, 1 / s->c.rho);
	float way = (float)(pow(s->c.sigma_min, 1 / s->c.rho) - pow(s->c.sigma_max, 1 / s->c.rho));
	float high = (float)log(s->c.sigma_max), low = (float)log(s->c.sigma_min);

	for (int i = 0; i < s->steps; i++) {
		float ramp = levels_linspace(0, 1, s->steps, i), root = s->steps == 1 ? from : from + ramp * way;

		s->sigmas[i] = s->c.exponential ? expf(levels_linspace(low, high, s->steps, s->steps - 1 - i))
						: powf(root > 0 ? root : to, (float)s->c.rho);
		s->timesteps[i] = 0.25f * logf(s->sigmas[i]);
	}
	s->sigmas[s->steps] = s->c.end_at_sigma_min ? (float)s->c.sigma_min : 0;
	s->n_calls = s->steps;
	s->n_sigmas = s->steps + 1;
	s->init_sigma = (float)sqrt(s->c.sigma_max * s->c.sigma_max + 1);
	return STATUS_OK;
}

/* ---- levels ------------------------------------------------------------------------------------------------------ */

/* The latents at a level are alpha x0 + sigma noise; lambda = log(alpha / sigma). */
struct level {
	double alpha, sigma, lambda;
};

static struct level level_at(const struct sampler *s, int i)
{
	double sigma = (double)s->sigmas[i];
	struct level l = { 1, sigma, -log(sigma) };

	if (s->solver->kind == KIND_EDM)
		return l;
	if (s->c.flow) {
		l.alpha = 1 - sigma;
		l.lambda += log(l.alpha);
	} else {
		l.alpha = 1 / sqrt(sigma * sigma + 1);
		l.sigma = sigma * l.alpha;
	}
	return l;
}

static float edm_input_scale(const struct sampler *s, int call)
{
	double sigma = (double)s->sigmas[call];

	return (float)(1 / sqrt(sigma * sigma + s->c.sigma_data * s->c.sigma_data));
}

static enum status edm_picture(struct sampler *s, int call, struct tensor x, struct tensor out)
{
	double sigma = (double)s->sigmas[call], data = s->c.sigma_data, a = sigma * sigma + data * data;
	double sign = s->c.prediction == PREDICT_V ? -1 : 1;

	TRY(sampler_mix(s, data * data / a, x, sign * sigma * data / sqrt(a), out));
	return sampler_limit(s, out);
}

/* out = the predicted picture. */
static enum status to_picture(struct sampler *s, int call, struct tensor x, struct tensor out)
{
	struct level l = level_at(s, call);

	if (s->solver->kind == KIND_EDM)
		return edm_picture(s, call, x, out);
	switch (s->c.prediction) {
	case PREDICT_EPSILON:
		TRY(sampler_mix(s, 1 / l.alpha, x, -l.sigma / l.alpha, out));
		break;
	case PREDICT_V:
		TRY(sampler_mix(s, l.alpha, x, -l.sigma, out));
		break;
	case PREDICT_FLOW:
		TRY(sampler_mix(s, 1, x, (double)-s->sigmas[call], out));
		break;
	case PREDICT_SAMPLE:
		break;
	}
	return sampler_limit(s, out);
}

/* ---- DPM-Solver++ ------------------------------------------------------------------------------------------------ */

/* A step from one level to another: x = ratio x + c[0] D0 + c[1] D1 + c[2] D2 + noise, D being the prediction and its
 * differences. */
struct update {
	double ratio, c[3], noise;
};

static struct update update_of(const struct sampler *s, struct level from, struct level to, bool midpoint)
{
	bool sde = s->c.algorithm == ALGORITHM_SDE_DPMPP;
	double h = to.lambda - from.lambda, k = sde ? 2 * h : h, decay = exp(-k);
	struct update u = { .ratio = to.sigma / from.sigma };

	u.c[0] = to.alpha * (1 - decay);
	u.c[1] = midpoint ? 0.5 * u.c[0] : to.alpha * ((decay - 1) / k + 1);
	u.c[2] = to.alpha * (0.5 - (decay - 1 + k) / (k * k));
	if (sde) {
		u.ratio *= exp(-h);
		u.c[2] = to.alpha * ((1 - decay - k) / (k * k) - 0.5);
		u.noise = to.sigma * sqrt(1 - decay);
	}
	return u;
}

/* Combines; w: the weights of the former predictions, the latest first. */
static enum status finish(
	struct sampler *s, double ratio, const double *w, int n, double noise, struct tensor x, struct rng *rng)
{
	bool draws = s->c.algorithm == ALGORITHM_SDE_DPMPP && !deis(s);

	TRY(sampler_mix(s, w[0], s->state[0], ratio, x));
	for (int i = 1; i < n; i++)
		TRY(sampler_mix(s, w[i], s->state[i], 1, x));
	if (!draws)
		return STATUS_OK;
	TRY(sampler_draw(s, rng));
	return sampler_mix(s, noise, s->noise, 1, x);
}

static int order_of(const struct sampler *s, int call)
{
	int n = s->n_calls, order = (int)s->c.order, held = s->held; /* the one of this call included */
	bool few = s->c.lower_order_final && n < 15;

	if (call == n - 1 && (few || (!deis(s) && (s->c.euler_at_final || !s->c.end_at_sigma_min))))
		return 1;
	if (call == n - 2 && few && order > 2)
		order = 2;
	return order < held ? order : held;
}

static enum status multi_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	struct level to = level_at(s, call + 1), at[3];
	double w[3] = { 0 }, h, r0, r1, q, k0, k1;
	struct update u;
	int order;

	TRY(to_picture(s, call, x, out));
	TRY(sampler_push(s, out));
	order = order_of(s, call);
	for (int i = 0; i < order; i++)
		at[i] = level_at(s, call - i);
	u = update_of(s, at[0], to, order == 2 && s->c.type != TYPE_HEUN);
	h = to.lambda - at[0].lambda;
	w[0] = u.c[0];
	if (order == 2) {
		r0 = (at[0].lambda - at[1].lambda) / h;
		w[0] += u.c[1] / r0;
		w[1] = -u.c[1] / r0;
	} else if (order == 3) {
		r0 = (at[0].lambda - at[1].lambda) / h;
		r1 = (at[1].lambda - at[2].lambda) / h;
		q = r0 / (r0 + r1);
		k0 = u.c[1] * (1 + q) + u.c[2] / (r0 + r1); /* of (m0 - m1) / r0 */
		k1 = -(u.c[1] * q + u.c[2] / (r0 + r1));    /* of (m1 - m2) / r1 */
		w[0] += k0 / r0;
		w[1] = k1 / r1 - k0 / r0;
		w[2] = -k1 / r1;
	}
	return finish(s, u.ratio, w, order, u.noise, x, rng);
}

/* Differences are taken from the oldest prediction, at whose level the step began. */
static void single_weights(const struct sampler *s, int call, int order, struct update *u, double w[3])
{
	struct level to = level_at(s, call + 1), first = level_at(s, call - order + 1);
	bool midpoint = s->c.type != TYPE_HEUN;
	double h = to.lambda - first.lambda, r0, r1, k0, k1;

	*u = update_of(s, first, to, order == 2 && midpoint);
	w[order - 1] = u->c[0];
	if (order == 1)
		return;
	r0 = (level_at(s, call).lambda - first.lambda) / h;
	if (order == 2) {
		w[0] = u->c[1] / r0;
		w[1] -= w[0];
		return;
	}
	r1 = (level_at(s, call - 1).lambda - first.lambda) / h;
	k0 = midpoint ? 0 : (u->c[1] * r0 - 2 * u->c[2]) / (r0 - r1);        /* of (m1 - m2) / r1 */
	k1 = midpoint ? u->c[1] : (-u->c[1] * r1 + 2 * u->c[2]) / (r0 - r1); /* of (m0 - m2) / r0 */
	w[0] = k1 / r0;
	w[1] = k0 / r1;
	w[2] -= w[0] + w[1];
}

static enum status single_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	double w[3] = { 0 };
	struct update u;
	int order = s->orders[call];

	TRY(to_picture(s, call, x, out));
	TRY(sampler_push(s, out));
	while (order > s->held)
		order--;
	if (order == 1)
		TRY(sampler_copy(s, x, s->saved));
	else
		TRY(sampler_copy(s, s->saved, x));
	single_weights(s, call, order, &u, w);
	return finish(s, u.ratio, w, order, u.noise, x, rng);
}

/* ---- DEIS -------------------------------------------------------------------------------------------------------- */

/* Antiderivatives in t of the polynomials in log t that are 1 at b and 0 at the others. */
static double deis_2(double t, double b, double c)
{
	return t * (-log(c) + log(t) - 1) / (log(b) - log(c));
}

static double deis_3(double t, double b, double c, double d)
{
	double lc = log(c), ld = log(d), lt = log(t);

	return t * (lc * (ld - lt + 1) - ld * lt + ld + lt * lt - 2 * lt + 2) / ((log(b) - lc) * (log(b) - ld));
}

static enum status to_noise(struct sampler *s, int call, struct tensor x, struct tensor out)
{
	struct level l = level_at(s, call);

	if (s->c.prediction == PREDICT_EPSILON && !s->c.thresholding)
		return STATUS_OK;
	TRY(to_picture(s, call, x, out));
	return sampler_mix(s, 1 / l.sigma, x, -l.alpha / l.sigma, out);
}

static enum status deis_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	struct level to = level_at(s, call + 1), from = level_at(s, call);
	double rho[4], w[3] = { 0 };
	int order;

	TRY(to_noise(s, call, x, out));
	TRY(sampler_push(s, out));
	order = order_of(s, call);
	rho[0] = to.sigma / to.alpha;
	for (int i = 0; i < order; i++)
		rho[i + 1] = level_at(s, call - i).sigma / level_at(s, call - i).alpha;
	if (order == 1) {
		w[0] = -to.sigma * (exp(to.lambda - from.lambda) - 1);
	} else if (order == 2) {
		w[0] = to.alpha * (deis_2(rho[0], rho[1], rho[2]) - deis_2(rho[1], rho[1], rho[2]));
		w[1] = to.alpha * (deis_2(rho[0], rho[2], rho[1]) - deis_2(rho[1], rho[2], rho[1]));
	} else {
		w[0] = to.alpha * (deis_3(rho[0], rho[1], rho[2], rho[3]) - deis_3(rho[1], rho[1], rho[2], rho[3]));
		w[1] = to.alpha * (deis_3(rho[0], rho[2], rho[3], rho[1]) - deis_3(rho[1], rho[2], rho[3], rho[1]));
		w[2] = to.alpha * (deis_3(rho[0], rho[3], rho[1], rho[2]) - deis_3(rho[1], rho[3], rho[1], rho[2]));
	}
	return finish(s, to.alpha / from.alpha, w, order, 0, x, rng);
}

/* ---- classes ----------------------------------------------------------------------------------------------------- */

static const char *const refused[] = { "trained_betas", "lambda_min_clipped", "use_dynamic_shifting", "variance_type",
	NULL };
static const char *const deis_refused[] = { "trained_betas", "use_dynamic_shifting", NULL };

const struct solver sampler_dpm_solvers[] = {
	{ "DPMSolverMultistepScheduler", KIND_VP,
		READS_LEVELS | READS_LU | READS_FLOW | READS_ZERO_SNR | READS_THRESHOLDING | READS_FINAL |
			READS_ALGORITHM,
		1e-4, 0.02, BETAS_LINEAR, SPACING_LINSPACE, false, false, true, refused, dpm_plan, NULL, multi_step },
	{ "DPMSolverSinglestepScheduler", KIND_VP,
		READS_LEVELS | READS_FLOW | READS_THRESHOLDING | READS_FINAL | READS_ALGORITHM, 1e-4, 0.02,
		BETAS_LINEAR, SPACING_LINSPACE, false, false, false, refused, single_plan, NULL, single_step },
	{ "EDMDPMSolverMultistepScheduler", KIND_EDM, READS_THRESHOLDING | READS_FINAL | READS_ALGORITHM, 1e-4, 0.02,
		BETAS_LINEAR, SPACING_LINSPACE, false, false, true, NULL, edm_plan, edm_input_scale, multi_step },
	{ "DEISMultistepScheduler", KIND_VP, READS_LEVELS | READS_FLOW | READS_THRESHOLDING, 1e-4, 0.02, BETAS_LINEAR,
		SPACING_LINSPACE, false, false, true, deis_refused, dpm_plan, NULL, deis_step },
	{ .class_name = NULL },
};

static bool single(const struct sampler *s)
{
	return s->solver->step == single_step;
}

static bool deis(const struct sampler *s)
{
	return s->solver->step == deis_step;
}

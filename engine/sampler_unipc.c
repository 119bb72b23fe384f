/* sampler_unipc: UniPC, a multistep predictor with a corrector that reuses the next call's prediction.
 *
 * Paper: 2302.04867.  Reference: diffusers, scheduling_unipc_multistep.py.
 *
 * Traps: the corrector changes the latents that were already shown to the network; a flow level of 1 becomes 1 - 1e-6;
 * a second order predictor takes weight 1/2 instead of solving.
 */
#include <math.h>

#include "engine/sampler_solver.h"

/* ---- plan -------------------------------------------------------------------------------------------------------- */

static void follow_curve(const struct sampler *s, int n, double *t, double *sigmas)
{
	levels_convert(
		s->c.levels, (double)levels_sigma(s, s->c.train_steps - 1), (double)levels_sigma(s, 0), n, sigmas);
	for (int i = 0; i < n; i++) {
		t[i] = levels_timestep(s, sigmas[i]);
		if (s->c.levels == LEVELS_KARRAS)
			t[i] = rint(t[i]);
	}
}

static void follow_flow(const struct sampler *s, int n, double *t, double *sigmas)
{
	double train = (double)s->c.train_steps, shift = s->c.flow_shift;

	for (int i = 0; i < n; i++) {
		double sigma = s->request.linspace_sigmas ? (n == 1 ? 1 : 1 + (1 / (double)n - 1) * i / (n - 1))
							  : 1 + (1 / train - 1) * i / n;

		sigmas[i] = shift * sigma / (1 + (shift - 1) * sigma);
		if (i == 0 && fabs(sigmas[0] - 1) < 1e-6)
			sigmas[0] -= 1e-6;
		t[i] = sigmas[i] * train;
	}
}

static enum status unipc_plan(struct sampler *s)
{
	double t[RECIPE_STEPS_MAX + 2], sigmas[RECIPE_STEPS_MAX + 2], last;
	int n = s->steps;

	if (s->c.zero_snr)
		s->alphas[s->c.train_steps - 1] = 0x1p-24f;
	if (s->c.levels != LEVELS_PLAIN && s->c.flow)
		return status_fail(
			STATUS_UNSUPPORTED, "UniPC: use_flow_sigmas and other sigmas together are not supported");
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
	last = s->c.levels == LEVELS_PLAIN && !s->c.flow ? (double)levels_sigma(s, 0) : sigmas[n - 1];
	s->sigmas[n] = s->c.end_at_sigma_min ? (float)last : 0;
	s->n_calls = n;
	s->n_sigmas = n + 1;
	return STATUS_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

struct level {
	double alpha, sigma, lambda;
};

static struct level level_at(const struct sampler *s, int i)
{
	double sigma = (double)s->sigmas[i];
	struct level l;

	l.alpha = s->c.flow ? 1 - sigma : 1 / sqrt(sigma * sigma + 1);
	l.sigma = s->c.flow ? sigma : sigma * l.alpha;
	l.lambda = log(l.alpha) - log(l.sigma);
	return l;
}

/* out = the predicted picture. */
static enum status to_picture(struct sampler *s, int call, struct tensor x, struct tensor out)
{
	struct level l = level_at(s, call);

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

/* Solves the n x n system m y = b, n <= 3, by elimination with pivots. */
static void solve(int n, double m[3][3], double *b)
{
	for (int column = 0; column < n; column++) {
		int pivot = column;

		for (int row = column + 1; row < n; row++)
			if (fabs(m[row][column]) > fabs(m[pivot][column]))
				pivot = row;
		for (int i = 0; i < n; i++) {
			double swap = m[column][i];

			m[column][i] = m[pivot][i];
			m[pivot][i] = swap;
		}
		double swap = b[column];
		b[column] = b[pivot];
		b[pivot] = swap;
		for (int row = 0; row < n; row++) {
			double factor = row == column ? 0 : m[row][column] / m[column][column];

			for (int i = 0; i < n; i++)
				m[row][i] -= factor * m[column][i];
			b[row] -= factor * b[column];
		}
	}
	for (int i = 0; i < n; i++)
		b[i] /= m[i][i];
}

/* The weights of the differences between predictions: of `order` - 1 former ones at relative places r, and, for the
 * corrector, of the new one at place 1. */
static void weigh(int order, bool corrector, double hh, double b_h, const double *r, double *rho)
{
	int n = corrector ? order : order - 1;
	double m[3][3], phi = expm1(hh) / hh - 1, factorial = 1;

	if (corrector ? order == 1 : order == 2) {
		rho[0] = 0.5;
		return;
	}
	for (int row = 0; row < n; row++) {
		for (int i = 0; i < n; i++)
			m[row][i] = pow(i < order - 1 ? r[i] : 1, row);
		rho[row] = phi * factorial / b_h;
		factorial *= row + 2;
		phi = phi / hh - 1 / factorial;
	}
	solve(n, m, rho);
}

/* x (latents at level `from`) moves to the next level; the former predictions are those up to `from`.  fresh: the
 * prediction at the next level, for the corrector; data NULL for the predictor. */
static enum status advance(struct sampler *s, int from, int order, struct tensor fresh, struct tensor x)
{
	struct level to = level_at(s, from + 1), at = level_at(s, from);
	double h = to.lambda - at.lambda, hh = -h, b_h = s->c.type == TYPE_BH1 ? hh : expm1(hh);
	double r[3] = { 0 }, rho[3] = { 0 }, own = -to.alpha * expm1(hh);

	for (int i = 0; i + 1 < order; i++)
		r[i] = (level_at(s, from - i - 1).lambda - at.lambda) / h;
	weigh(order, fresh.data != NULL, hh, b_h, r, rho);
	for (int i = 0; i + 1 < order; i++)
		own += to.alpha * b_h * rho[i] / r[i];
	if (fresh.data)
		own += to.alpha * b_h * rho[order - 1];
	TRY(sampler_mix(s, own, s->state[0], to.sigma / at.sigma, x));
	for (int i = 0; i + 1 < order; i++)
		TRY(sampler_mix(s, -to.alpha * b_h * rho[i] / r[i], s->state[i + 1], 1, x));
	return fresh.data ? sampler_mix(s, -to.alpha * b_h * rho[order - 1], fresh, 1, x) : STATUS_OK;
}

static enum status unipc_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	int order = (int)s->c.order;

	TRY(to_picture(s, call, x, out));
	if (call > 0) {
		TRY(sampler_copy(s, s->saved, x));
		TRY(advance(s, call - 1, s->last_order, out, x));
	}
	TRY(sampler_copy(s, x, s->saved));
	TRY(sampler_push(s, out));
	if (s->c.lower_order_final && s->n_calls - call < order)
		order = s->n_calls - call;
	s->last_order = order < s->held ? order : s->held;
	return advance(s, call, s->last_order, (struct tensor){ .data = NULL }, x);
}

static const char *const refused[] = { "trained_betas", "disable_corrector", "solver_p", "use_dynamic_shifting",
	"shift_terminal", "sigma_min", "sigma_max", NULL };

const struct solver sampler_unipc_solvers[] = {
	{ "UniPCMultistepScheduler", KIND_VP,
		READS_LEVELS | READS_FLOW | READS_ZERO_SNR | READS_THRESHOLDING | READS_FINAL, 1e-4, 0.02, BETAS_LINEAR,
		SPACING_LINSPACE, false, false, true, refused, unipc_plan, NULL, unipc_step },
	{ .class_name = NULL },
};

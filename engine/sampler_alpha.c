/* sampler_alpha: samplers that walk along whole training steps: DDIM, PNDM (PLMS), LCM, TCD, DDPM and the UnCLIP
 * prior's.
 *
 * Papers: 2010.02502 (DDIM), 2202.09778 (PNDM), 2310.04378 (LCM), 2402.19159 (TCD), 2006.11239 (DDPM).  Reference:
 * diffusers, scheduling_ddim.py, .._pndm.py, .._lcm.py, .._tcd.py, .._ddpm.py, .._unclip.py.
 *
 * Traps: DDIM and PNDM step back by train_steps / steps whatever the spacing; DDIM keeps the network's own noise when
 * the picture is clipped; LCM and TCD draw no noise in the last call; UnCLIP divides by steps - 1.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/sampler_solver.h"

/* ---- plans ------------------------------------------------------------------------------------------------------- */

/* Timesteps are indices into the alphas. */
static enum status check_timesteps(const struct sampler *s)
{
	for (int i = 0; i < s->n_calls; i++)
		if (!(s->timesteps[i] >= 0 && s->timesteps[i] < (float)s->c.train_steps))
			return status_fail(STATUS_INVALID, "Steps: %d leads to timestep %g, outside 0..%lld", s->steps,
				(double)s->timesteps[i], (long long)s->c.train_steps - 1);
	return STATUS_OK;
}

static enum status spaced_plan(struct sampler *s)
{
	double t[RECIPE_STEPS_MAX + 2];

	s->n_calls = levels_spaced(s, 0, true, t);
	for (int i = 0; i < s->n_calls; i++)
		s->timesteps[i] = (float)t[i];
	return check_timesteps(s);
}

/* The second timestep is visited twice. */
static enum status pndm_plan(struct sampler *s)
{
	double t[RECIPE_STEPS_MAX + 2];
	int n = levels_spaced(s, 0, true, t);

	if (!s->c.skip_prk)
		return status_fail(STATUS_UNSUPPORTED, "%s: skip_prk_steps false (Runge-Kutta steps) is not supported",
			s->request.config);
	s->n_calls = n > 1 ? n + 1 : 1;
	for (int i = 0; i < s->n_calls; i++)
		s->timesteps[i] = (float)t[i < 2 ? i : i - 1];
	return check_timesteps(s);
}

/* Some of the timesteps that the model was distilled for. */
static enum status distilled_plan(struct sampler *s)
{
	int64_t original = s->c.original_steps, ratio;

	if (original > s->c.train_steps)
		return status_fail(STATUS_CORRUPT, "%s: original_inference_steps is larger than num_train_timesteps",
			s->request.config);
	if (s->steps > original)
		return status_fail(STATUS_INVALID, "Steps: %d are more than the %lld the sampler was made for",
			s->steps, (long long)original);
	ratio = s->c.train_steps / original;
	s->n_calls = s->steps;
	for (int i = 0; i < s->steps; i++) {
		int64_t place = (int64_t)floor(i * ((double)original / s->steps));

		s->timesteps[i] = (float)((original - place) * ratio - 1);
	}
	return check_timesteps(s);
}

static enum status prior_plan(struct sampler *s)
{
	double ratio;

	if (s->steps < 2)
		return status_fail(STATUS_INVALID, "Steps: the prior needs at least 2");
	ratio = (double)(s->c.train_steps - 1) / (s->steps - 1);
	s->n_calls = s->steps;
	for (int i = 0; i < s->steps; i++)
		s->timesteps[i] = (float)rint((s->steps - 1 - i) * ratio);
	return check_timesteps(s);
}

/* ---- parts of a step --------------------------------------------------------------------------------------------- */

static int64_t step_at(const struct sampler *s, int call)
{
	return (int64_t)s->timesteps[call];
}

/* Of a training step; before the first it is 1, or the first one's own. */
static double alpha_at(const struct sampler *s, int64_t t)
{
	if (t >= 0)
		return (double)s->alphas[t < s->c.train_steps ? t : s->c.train_steps - 1];
	return s->c.alpha_to_one ? 1 : (double)s->alphas[0];
}

/* out = the predicted picture. */
static enum status to_picture(struct sampler *s, double alpha, struct tensor x, struct tensor out)
{
	double a = sqrt(alpha), b = sqrt(1 - alpha);

	if (s->c.prediction == PREDICT_EPSILON)
		TRY(sampler_mix(s, 1 / a, x, -b / a, out));
	else if (s->c.prediction == PREDICT_V)
		TRY(sampler_mix(s, a, x, -b, out));
	return sampler_limit(s, out);
}

/* state[0] = the predicted picture, out = the noise predicted beside it. */
static enum status take_apart(struct sampler *s, double alpha, struct tensor x, struct tensor out)
{
	double a = sqrt(alpha), b = sqrt(1 - alpha);

	TRY(sampler_copy(s, out, s->state[0]));
	TRY(to_picture(s, alpha, x, s->state[0]));
	if (s->c.prediction == PREDICT_V)
		return sampler_mix(s, b, x, a, out);
	return s->c.prediction == PREDICT_SAMPLE ? sampler_mix(s, 1 / b, x, -a / b, out) : STATUS_OK;
}

/* ---- DDIM, PNDM -------------------------------------------------------------------------------------------------- */

static enum status ddim_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	int64_t t = step_at(s, call);
	double alpha = alpha_at(s, t), before = alpha_at(s, t - s->c.train_steps / s->steps);
	double deviation = s->request.eta * sqrt((1 - before) / (1 - alpha) * (1 - alpha / before));

	TRY(take_apart(s, alpha, x, out));
	TRY(sampler_mix(s, sqrt(before), s->state[0], 0, x));
	TRY(sampler_mix(s, sqrt(1 - before - deviation * deviation), out, 1, x));
	if (!(s->request.eta > 0))
		return STATUS_OK;
	TRY(sampler_draw(s, rng));
	return sampler_mix(s, deviation, s->noise, 1, x);
}

/* Linear multistep weights of Adams and Bashforth. */
static enum status plms_blend(struct sampler *s, struct tensor out)
{
	static const double weights[4][4] = { { 1 }, { 3 / 2.0, -1 / 2.0 }, { 23 / 12.0, -16 / 12.0, 5 / 12.0 },
		{ 55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0 } };
	int n = s->held < 4 ? s->held : 4;

	TRY(sampler_mix(s, weights[n - 1][0], s->state[0], 0, out));
	for (int i = 1; i < n; i++)
		TRY(sampler_mix(s, weights[n - 1][i], s->state[i], 1, out));
	return STATUS_OK;
}

static enum status pndm_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	int64_t t = step_at(s, call), ratio = s->c.train_steps / s->steps, before = t - ratio;
	double a, b;

	if (call == 1) { /* the first step again, with the mean of both predictions */
		before = t;
		t += ratio;
		TRY(sampler_mix(s, 0.5, s->state[0], 0.5, out));
		TRY(sampler_copy(s, s->saved, x));
	} else {
		if (call == 0)
			TRY(sampler_copy(s, x, s->saved));
		TRY(sampler_push(s, out));
		TRY(plms_blend(s, out));
	}
	a = alpha_at(s, t);
	b = alpha_at(s, before);
	if (s->c.prediction == PREDICT_V)
		TRY(sampler_mix(s, sqrt(1 - a), x, sqrt(a), out));
	return sampler_mix(s, -(b - a) / (a * sqrt(1 - b) + sqrt(a * (1 - a) * b)), out, sqrt(b / a), x);
}

/* ---- LCM, TCD ---------------------------------------------------------------------------------------------------- */

static enum status lcm_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	bool last = call == s->n_calls - 1;
	double scaled = (double)s->timesteps[call] * s->c.timestep_scaling, a = scaled * scaled + 0.25;
	double before = alpha_at(s, step_at(s, last ? call : call + 1));

	TRY(to_picture(s, alpha_at(s, step_at(s, call)), x, out));
	TRY(sampler_mix(s, scaled / sqrt(a), out, 0.25 / a, x));
	if (last)
		return STATUS_OK;
	TRY(sampler_draw(s, rng));
	return sampler_mix(s, sqrt(1 - before), s->noise, sqrt(before), x);
}

static enum status tcd_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	bool last = call == s->n_calls - 1;
	float next = last ? 0 : s->timesteps[call + 1];
	double before = alpha_at(s, (int64_t)next);
	double goal = alpha_at(s, (int64_t)floorf((float)(1 - s->request.eta) * next));

	TRY(take_apart(s, alpha_at(s, step_at(s, call)), x, out));
	TRY(sampler_mix(s, sqrt(goal), s->state[0], 0, x));
	TRY(sampler_mix(s, sqrt(1 - goal), out, 1, x));
	if (last || !(s->request.eta > 0))
		return STATUS_OK;
	TRY(sampler_draw(s, rng));
	return sampler_mix(s, sqrt(1 - before / goal), s->noise, sqrt(before / goal), x);
}

/* ---- DDPM, UnCLIP ------------------------------------------------------------------------------------------------ */

/* noise *= the learned deviation: v in -1..1 goes from the smallest to the largest sensible variance. */
static enum status scale_learned(struct sampler *s, double small, double large, struct tensor v)
{
	int64_t n = tensor_count(&v);
	struct tensor host_v = v, host_noise = s->noise;
	float *buffer = malloc((size_t)(2 * n) * sizeof *buffer), low = (float)log(small), high = (float)log(large);
	enum status status;

	if (!buffer)
		return status_fail(STATUS_NO_MEMORY, "no memory for a learned variance");
	host_v.data = buffer;
	host_noise.data = buffer + n;
	status = kernels_download(s->k, v, &host_v);
	if (status == STATUS_OK)
		status = kernels_download(s->k, s->noise, &host_noise);
	for (int64_t i = 0; status == STATUS_OK && i < n; i++) {
		float part = (buffer[i] + 1) / 2;

		buffer[n + i] *= expf(0.5f * (part * high + (1 - part) * low));
	}
	if (status == STATUS_OK)
		status = kernels_upload(s->k, &host_noise, s->noise);
	free(buffer);
	return status;
}

static enum status add_noise(
	struct sampler *s, double small, double large, struct tensor variance, struct tensor x, struct rng *rng)
{
	double deviation = 1;

	TRY(sampler_draw(s, rng));
	if (s->c.variance == VARIANCE_LEARNED_RANGE)
		TRY(scale_learned(s, small, large, variance));
	else
		deviation = sqrt(s->c.variance == VARIANCE_LARGE ? large : small);
	return sampler_mix(s, deviation, s->noise, 1, x);
}

/* A prediction of two parts is the noise and its variance, one after the other. */
static void split_prediction(struct sampler *s, struct tensor *out, struct tensor *variance)
{
	struct tensor x = s->state[0];
	int64_t n = tensor_count(&x);
	struct tensor flat = tensor_view(out->data, DTYPE_F32, 1, (int64_t[]){ tensor_count(out) });

	*variance = *out;
	if (s->c.variance != VARIANCE_LEARNED_RANGE)
		return;
	*variance = tensor_slice(flat, 0, n, n);
	*out = tensor_slice(flat, 0, 0, n);
}

/* UnCLIP takes the beta of training where the step is one of training, and rounds 1 - beta as floats do: at the first
 * step that is 0 or 6e-8. */
static void prior_beta(const struct sampler *s, int call, double before, double *kept, double *beta)
{
	int64_t t = step_at(s, call), next = call == s->n_calls - 1 ? t - 1 : step_at(s, call + 1);
	float b = next == t - 1 ? levels_beta(&s->c, t) : 1 - s->alphas[t] / (float)before;

	*beta = (double)b;
	*kept = (double)(1 - b);
}

static enum status ddpm_step(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng)
{
	bool last = call == s->n_calls - 1;
	double alpha = alpha_at(s, step_at(s, call)), before = last ? 1 : alpha_at(s, step_at(s, call + 1));
	double kept = alpha / before, beta = 1 - kept, small;
	struct tensor variance;

	if (s->solver->kind == KIND_PRIOR)
		prior_beta(s, call, before, &kept, &beta);
	small = fmax((1 - before) / (1 - alpha) * beta, 1e-20);
	if (s->c.variance == VARIANCE_LEARNED_RANGE && tensor_count(&out) != 2 * tensor_count(&x))
		return status_fail(STATUS_CORRUPT, "the scheduler's variance_type learned_range needs a network with "
						   "twice the latents' channels");
	split_prediction(s, &out, &variance);
	TRY(to_picture(s, alpha, x, out));
	TRY(sampler_mix(s, sqrt(before) * beta / (1 - alpha), out, sqrt(kept) * (1 - before) / (1 - alpha), x));
	return step_at(s, call) > 0 ? add_noise(s, small, beta, variance, x, rng) : STATUS_OK;
}

/* ---- classes ----------------------------------------------------------------------------------------------------- */

static const char *const refused[] = { "trained_betas", NULL };

const struct solver sampler_alpha_solvers[] = {
	{ "DDIMScheduler", KIND_VP, READS_ZERO_SNR | READS_CLIP | READS_THRESHOLDING, 1e-4, 0.02, BETAS_LINEAR,
		SPACING_LEADING, true, true, false, refused, spaced_plan, NULL, ddim_step },
	{ "PNDMScheduler", KIND_VP, 0, 1e-4, 0.02, BETAS_LINEAR, SPACING_LEADING, false, false, false, refused,
		pndm_plan, NULL, pndm_step },
	{ "LCMScheduler", KIND_VP, READS_ZERO_SNR | READS_CLIP | READS_THRESHOLDING, 0.00085, 0.012,
		BETAS_SCALED_LINEAR, SPACING_LEADING, false, true, false, refused, distilled_plan, NULL, lcm_step },
	{ "TCDScheduler", KIND_VP, READS_ZERO_SNR, 0.00085, 0.012, BETAS_SCALED_LINEAR, SPACING_LEADING, false, true,
		false, refused, distilled_plan, NULL, tcd_step },
	{ "DDPMScheduler", KIND_VP, READS_ZERO_SNR | READS_CLIP | READS_THRESHOLDING | READS_VARIANCE, 1e-4, 0.02,
		BETAS_LINEAR, SPACING_LEADING, true, true, false, refused, spaced_plan, NULL, ddpm_step },
	{ "UnCLIPScheduler", KIND_PRIOR, READS_CLIP | READS_VARIANCE, 1e-4, 0.02, BETAS_COSINE, SPACING_LEADING, true,
		true, false, NULL, prior_plan, NULL, ddpm_step },
	{ .class_name = NULL },
};

/* sampler_levels: noise levels of variance preserving models and the curves that lay out the levels of a picture.
 *
 * Papers: 2006.11239 (betas), 2206.00364 (Karras), 2206.00927 (Lu), 2407.12173 (beta distribution), 2305.08891 (spacing
 * and zero terminal SNR).  Reference: diffusers, schedulers/.
 *
 * Trap: 1 - alpha is small at the last levels, so the arithmetic must be float where the reference's is: torch.cumprod
 * sums up in double and stores floats, numpy works on doubles of those floats.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/sampler_solver.h"

float levels_linspace(float start, float end, int n, int i)
{
	float step = n > 1 ? (end - start) / (float)(n - 1) : 0;

	if (n == 1)
		return start;
	return i < n / 2 ? start + step * (float)i : end - step * (float)(n - 1 - i);
}

void levels_set(struct sampler *s, int i, double timestep, double sigma)
{
	s->timesteps[i] = (float)timestep;
	s->sigmas[i] = (float)sigma;
}

/* ---- training steps ---------------------------------------------------------------------------------------------- */

static double cosine_bar(double t)
{
	double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);

	return c * c;
}

float levels_beta(const struct settings *c, int64_t t)
{
	int n = (int)c->train_steps, i = (int)t;
	float root;

	if (c->betas == BETAS_COSINE)
		return (float)fmin(1 - cosine_bar((double)(i + 1) / n) / cosine_bar((double)i / n), 0.999);
	if (c->betas == BETAS_LINEAR)
		return levels_linspace((float)c->beta_start, (float)c->beta_end, n, i);
	root = levels_linspace((float)sqrt(c->beta_start), (float)sqrt(c->beta_end), n, i);
	return root * root;
}

static void cumulate(float *alphas, int64_t n)
{
	double product = 1;

	for (int64_t i = 0; i < n; i++) {
		product *= (double)alphas[i];
		alphas[i] = (float)product;
	}
}

/* Shifts and scales the square roots so that the last is 0 and the first stays. */
static void rescale_to_zero_snr(float *alphas, int64_t n)
{
	float first = sqrtf(alphas[0]), last = sqrtf(alphas[n - 1]), before = 0;

	for (int64_t i = 0; i < n; i++) {
		float root = (sqrtf(alphas[i]) - last) * (first / (first - last)), bar = root * root;
		float alpha = i == 0 ? bar : bar / before;

		before = bar;
		alphas[i] = 1 - (1 - alpha);
	}
	cumulate(alphas, n);
}

enum status levels_read_alphas(struct sampler *s)
{
	int64_t n = s->c.train_steps;

	s->alphas = malloc((size_t)n * sizeof *s->alphas);
	if (!s->alphas)
		return status_fail(STATUS_NO_MEMORY, "no memory for a sampler");
	for (int64_t i = 0; i < n; i++)
		s->alphas[i] = 1 - levels_beta(&s->c, i);
	cumulate(s->alphas, n);
	if (s->c.zero_snr && n > 1)
		rescale_to_zero_snr(s->alphas, n);
	return STATUS_OK;
}

float levels_sigma(const struct sampler *s, int64_t t)
{
	return sqrtf((1 - s->alphas[t]) / s->alphas[t]);
}

double levels_interpolate(const struct sampler *s, double t)
{
	int64_t last = s->c.train_steps - 1, low = (int64_t)t;
	double a, b;

	if (t <= 0)
		return (double)levels_sigma(s, 0);
	if (low >= last)
		return (double)levels_sigma(s, last);
	a = (double)levels_sigma(s, low);
	b = (double)levels_sigma(s, low + 1);
	return (b - a) * (t - (double)low) + a;
}

/* The last training step whose level is not above; the one before last at most. */
static int64_t step_below(const struct sampler *s, double log_sigma)
{
	int64_t low = 0, last = s->c.train_steps - 1;

	for (int64_t i = 0; i <= last; i++)
		if (log_sigma >= (double)logf(levels_sigma(s, i)))
			low = i;
	return low < last ? low : last - 1;
}

double levels_timestep(const struct sampler *s, double sigma)
{
	double wanted = log(fmax(sigma, 1e-10)), w;
	int64_t low = step_below(s, wanted);
	float at, next;

	if (s->c.train_steps < 2)
		return 0;
	at = logf(levels_sigma(s, low));
	next = logf(levels_sigma(s, low + 1));
	w = fmin(fmax(((double)at - wanted) / (double)(at - next), 0), 1);
	return (1 - w) * (double)low + w * (double)(low + 1);
}

float levels_timestep_float(const struct sampler *s, float sigma)
{
	float wanted = logf(fmaxf(sigma, 1e-10f)), at, next, w;
	int64_t low = step_below(s, (double)wanted);

	if (s->c.train_steps < 2)
		return 0;
	at = logf(levels_sigma(s, low));
	next = logf(levels_sigma(s, low + 1));
	w = fminf(fmaxf((at - wanted) / (at - next), 0), 1);
	return (1 - w) * (float)low + w * (float)(low + 1);
}

int levels_spaced(const struct sampler *s, int extra, bool rounded, double *t)
{
	int64_t train = s->c.train_steps;
	int points = s->steps + extra, n = s->steps;
	double ratio = (double)train / s->steps;

	if (s->c.spacing == SPACING_TRAILING) {
		n = (int)ceil((double)train / ratio); /* numpy's arange may go one further */
		for (int i = 0; i < n; i++)
			t[i] = rint((double)train - i * ratio) - 1;
		return n;
	}
	for (int i = 0; i < n; i++) {
		int64_t p = points - 1 - i;
		double step = points > 1 ? (double)(train - 1) / (points - 1) : 0;

		if (s->c.spacing == SPACING_LEADING)
			t[i] = (double)(p * (train / points) + s->c.steps_offset);
		else
			t[i] = p == points - 1 && points > 1 ? (double)(train - 1) : (double)p * step;
		if (rounded)
			t[i] = rint(t[i]);
	}
	return n;
}

/* ---- curves ------------------------------------------------------------------------------------------------------ */

/* The continued fraction of the incomplete beta function, by Lentz. */
static double beta_fraction(double a, double b, double x)
{
	double c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), h = d;

	for (int m = 1; m < 200; m++) {
		double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
		double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));

		d = 1 / (1 + even * d);
		c = 1 + even / c;
		h *= d * c;
		d = 1 / (1 + odd * d);
		c = 1 + odd / c;
		h *= d * c;
		if (fabs(d * c - 1) < 1e-15)
			break;
	}
	return h;
}

static double beta_cdf(double a, double b, double x)
{
	double front;

	if (x <= 0 || x >= 1)
		return x <= 0 ? 0 : 1;
	front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
	return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
					 : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* The inverse of the beta(0.6, 0.6) distribution. */
static double beta_quantile(double q)
{
	double low = 0, high = 1;

	if (q <= 0 || q >= 1)
		return q <= 0 ? 0 : 1;
	for (int i = 0; i < 100; i++) {
		double middle = (low + high) / 2;

		if (beta_cdf(0.6, 0.6, middle) < q)
			low = middle;
		else
			high = middle;
	}
	return (low + high) / 2;
}

void levels_convert(enum levels levels, double high, double low, int n, double *out)
{
	for (int i = 0; i < n; i++) {
		double ramp = n > 1 ? (double)i / (n - 1) : 0, from, to;

		switch (levels) {
		case LEVELS_KARRAS:
			from = pow(high, 1 / 7.0);
			to = pow(low, 1 / 7.0);
			out[i] = pow(from + ramp * (to - from), 7);
			break;
		case LEVELS_BETA:
			out[i] = low + beta_quantile(1 - ramp) * (high - low);
			break;
		case LEVELS_LU:
		case LEVELS_EXPONENTIAL:
		case LEVELS_PLAIN:
			from = log(high);
			to = log(low);
			out[i] = exp(ramp == 1 ? to : from + ramp * (to - from));
			break;
		}
	}
}

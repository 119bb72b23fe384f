/* sampler_solver: what the files of the samplers share (engine/sampler*.c); nothing outside them includes it.
 *
 * A solver is one scheduler class of diffusers: the settings it reads and their defaults, how it plans its noise levels
 * and what a step does.  Plans are pure; steps are linear combinations of tensors.
 */
#ifndef PROMPTFS_ENGINE_SAMPLER_SOLVER_H
#define PROMPTFS_ENGINE_SAMPLER_SOLVER_H

#include "engine/sampler.h"

/* What a model was trained for; a sampler of another kind makes no sense on it. */
enum solver_kind { KIND_VP, KIND_FLOW, KIND_EDM, KIND_PRIOR };

enum prediction { PREDICT_EPSILON, PREDICT_SAMPLE, PREDICT_V, PREDICT_FLOW };
enum beta_schedule { BETAS_LINEAR, BETAS_SCALED_LINEAR, BETAS_COSINE };
enum spacing { SPACING_LINSPACE, SPACING_LEADING, SPACING_TRAILING };
enum levels { LEVELS_PLAIN, LEVELS_KARRAS, LEVELS_EXPONENTIAL, LEVELS_BETA, LEVELS_LU };
enum algorithm { ALGORITHM_DPMPP, ALGORITHM_SDE_DPMPP, ALGORITHM_OTHER };
enum solver_type { TYPE_MIDPOINT, TYPE_HEUN, TYPE_BH1, TYPE_BH2 };
enum variance { VARIANCE_SMALL, VARIANCE_SMALL_LOG, VARIANCE_LARGE, VARIANCE_LEARNED_RANGE };

/* A scheduler_config.json, with the names of diffusers where they say enough. */
struct settings {
	int64_t train_steps; /* num_train_timesteps */
	double beta_start, beta_end;
	enum beta_schedule betas;
	enum prediction prediction;
	enum spacing spacing;
	int64_t steps_offset;
	enum levels levels;
	bool zero_snr;           /* rescale_betas_zero_snr */
	bool alpha_to_one;       /* set_alpha_to_one */
	bool skip_prk;           /* skip_prk_steps */
	bool clip, thresholding; /* of the predicted picture */
	double clip_range, threshold_ratio, threshold_max;
	int64_t original_steps; /* original_inference_steps */
	double timestep_scaling;
	enum variance variance;
	int64_t order; /* solver_order */
	enum algorithm algorithm;
	enum solver_type type;
	bool lower_order_final, euler_at_final;
	bool end_at_sigma_min; /* final_sigmas_type */
	bool flow;             /* use_flow_sigmas */
	double flow_shift;
	double sigma_min, sigma_max, sigma_data, rho; /* EDM */
	bool exponential;                             /* EDM: sigma_schedule */
	double shift;                                 /* flow: s x / (1 + (s - 1) x) of every level */
	bool dynamic_shifting;                        /* by the number of picture tokens instead */
	bool linear_shift;                            /* kind of the dynamic one; else exponential */
	double base_shift, max_shift;                 /* mu at base_tokens and max_tokens, linear between and beyond */
	double base_tokens, max_tokens;
	bool stochastic;
};

enum { STATE_MAX = 5 };

struct sampler {
	struct kernels *k;
	const struct solver *solver;
	struct settings c;
	struct sampler_request request;
	int steps;
	int n_calls, n_sigmas;
	float *timesteps, *sigmas;  /* as diffusers holds them */
	float *alphas;              /* cumulated, of every training step; KIND_VP and KIND_PRIOR */
	float *between, *up, *down; /* DPM2: levels inside and at the end of a step */
	int *orders;                /* DPM++ 2S: of every call */
	float init_sigma;
	struct tensor state[STATE_MAX]; /* former predictions, the latest first */
	struct tensor saved;            /* latents of an earlier call */
	struct tensor noise;
	int held;       /* former predictions there are */
	int last_order; /* UniPC: of the last step */
};

/* Settings that a class knows; the others it ignores, as diffusers does. */
enum {
	READS_LEVELS = 1, /* use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas */
	READS_LU = 2,
	READS_FLOW = 4,
	READS_ZERO_SNR = 8,
	READS_CLIP = 16,
	READS_THRESHOLDING = 32,
	READS_FINAL = 64, /* final_sigmas_type */
	READS_ALGORITHM = 128,
	READS_VARIANCE = 256
};

struct solver {
	const char *class_name;
	enum solver_kind kind;
	unsigned reads;
	double beta_start, beta_end; /* defaults */
	enum beta_schedule betas;
	enum spacing spacing;
	bool clip, alpha_to_one, lower_order_final;
	const char *const *refused; /* settings that change numbers and are not computed, ending with NULL; or NULL */
	enum status (*plan)(struct sampler *s);
	float (*input_scale)(const struct sampler *s, int call); /* NULL: 1 */
	enum status (*step)(struct sampler *s, int call, struct tensor out, struct tensor x, struct rng *rng);
};

extern const struct solver sampler_sigma_solvers[], sampler_dpm_solvers[], sampler_unipc_solvers[],
	sampler_alpha_solvers[], sampler_flow_solvers[]; /* each ends with class_name NULL */

/* ---- levels (sampler_levels.c) ---- */

enum status levels_read_alphas(struct sampler *s);      /* fills s->alphas */
float levels_beta(const struct settings *c, int64_t t); /* of a training step, before rescaling */
float levels_sigma(const struct sampler *s, int64_t t);
/* The training steps that are visited, from high to low.  extra 1: one more is laid out and the last left out. */
int levels_spaced(const struct sampler *s, int extra, bool rounded, double *t);
double levels_interpolate(const struct sampler *s, double t);      /* sigma at a fractional training step */
double levels_timestep(const struct sampler *s, double sigma);     /* its inverse, over the logarithm */
float levels_timestep_float(const struct sampler *s, float sigma); /* in float, as DPM2 does */
void levels_convert(enum levels levels, double high, double low, int n, double *out);
float levels_linspace(float start, float end, int n, int i);              /* torch.linspace */
void levels_set(struct sampler *s, int i, double timestep, double sigma); /* one entry of both lists */

/* ---- tensors (sampler.c) ---- */

/* y = a x + b y; a coefficient that is no finite number is STATUS_NUMERIC. */
enum status sampler_mix(struct sampler *s, double a, struct tensor x, double b, struct tensor y);
enum status sampler_copy(struct sampler *s, struct tensor x, struct tensor y);
enum status sampler_draw(struct sampler *s, struct rng *rng); /* into s->noise */
enum status sampler_push(struct sampler *s, struct tensor x); /* becomes state[0], the others move on */
/* Clips a predicted picture as the settings say. */
enum status sampler_limit(struct sampler *s, struct tensor x0);

#endif

/* sampler: FlowMatch Euler sigmas.  Arithmetic is in float where the reference's is, so that equal inputs give equal
 * bits. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"

/* What a FlowMatchEulerDiscreteScheduler's scheduler_config.json says. */
struct flow_config {
	double num_train_timesteps;
	double shift;                 /* of every sigma: s x / (1 + (s - 1) x) */
	bool dynamic_shifting;        /* by the number of picture tokens instead */
	bool linear_shift;            /* kind of the dynamic one; else exponential */
	double base_shift, max_shift; /* mu at base_tokens and max_tokens, linear between and beyond */
	double base_tokens, max_tokens;
};

struct sampler {
	struct kernels *k;
	int steps;
	float timesteps[RECIPE_STEPS_MAX];
	float sigmas[RECIPE_STEPS_MAX + 1]; /* ends with 0 */
};

static enum status refuse_if_set(const json_t *object, const char *path, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (!value || json_is_null(value) || json_is_false(value) ||
		(json_is_number(value) && json_number_value(value) == 0))
		return STATUS_OK;
	return status_fail(STATUS_UNSUPPORTED, "%s: %s is not supported by this version", path, key);
}

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct flow_config *c = out;
	static const char *const unsupported[] = { "invert_sigmas", "shift_terminal", "use_karras_sigmas",
		"use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling" };
	const char *class_name = "FlowMatchEulerDiscreteScheduler", *kind = "exponential";

	TRY(json_get_string(object, path, "_class_name", &class_name));
	if (strcmp(class_name, "FlowMatchEulerDiscreteScheduler") != 0)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: scheduler %s is not supported for this family", path, class_name);
	for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
		TRY(refuse_if_set(object, path, unsupported[i]));
	TRY(json_get_number(object, path, "num_train_timesteps", 1, 1e6, &c->num_train_timesteps));
	TRY(json_get_number(object, path, "shift", 1e-3, 1e3, &c->shift));
	TRY(json_get_bool(object, path, "use_dynamic_shifting", &c->dynamic_shifting));
	TRY(json_get_number(object, path, "base_shift", -100, 100, &c->base_shift));
	TRY(json_get_number(object, path, "max_shift", -100, 100, &c->max_shift));
	TRY(json_get_number(object, path, "base_image_seq_len", 1, 1e9, &c->base_tokens));
	TRY(json_get_number(object, path, "max_image_seq_len", 1, 1e9, &c->max_tokens));
	TRY(json_get_string(object, path, "time_shift_type", &kind));
	c->linear_shift = strcmp(kind, "linear") == 0;
	if (!c->linear_shift && strcmp(kind, "exponential") != 0)
		return status_fail(STATUS_CORRUPT, "%s: time_shift_type must be exponential or linear", path);
	if (c->base_tokens == c->max_tokens)
		return status_fail(STATUS_CORRUPT, "%s: base_image_seq_len and max_image_seq_len are equal", path);
	return STATUS_OK;
}

static enum status flow_config_read(const char *path, struct flow_config *out)
{
	*out = (struct flow_config){ .num_train_timesteps = 1000,
		.shift = 1,
		.base_shift = 0.5,
		.max_shift = 1.15,
		.base_tokens = 256,
		.max_tokens = 4096 };
	return path ? json_read_with(path, read_config, out) : STATUS_OK;
}

/* torch.linspace in float: counted from the nearer end. */
static float linspace(float start, float end, int n, int i)
{
	float step = n > 1 ? (end - start) / (float)(n - 1) : 0;

	return i < n / 2 ? start + step * (float)i : end - step * (float)(n - 1 - i);
}

static float shifted(const struct flow_config *c, double mu, float sigma)
{
	float shift = (float)(c->dynamic_shifting ? (c->linear_shift ? mu : exp(mu)) : c->shift);

	if (c->dynamic_shifting)
		return shift / (shift + (1 / sigma - 1));
	return shift * sigma / (1 + (shift - 1) * sigma);
}

/* The pipeline's own sigmas, or diffusers' set_timesteps without them: from sigma_max 1 to the sigma_min of a schedule
 * that was shifted already (with a fixed shift every sigma is shifted twice). */
static void plan(const struct flow_config *c, const struct sampler_request *r, struct sampler *s)
{
	double slope = (c->max_shift - c->base_shift) / (c->max_tokens - c->base_tokens);
	double mu = (double)r->image_tokens * slope + (c->base_shift - slope * c->base_tokens);
	float train = (float)c->num_train_timesteps, low = 1 / train;

	if (!c->dynamic_shifting)
		low = shifted(c, mu, low);
	for (int i = 0; i < s->steps; i++) {
		/* a single step starts at 1, whatever linspace's end is */
		float end = r->linspace_sigmas ? 1 / (float)s->steps : low;
		float sigma = s->steps == 1 ? 1 : linspace(1, end, s->steps, i);

		s->sigmas[i] = shifted(c, mu, sigma);
		s->timesteps[i] = s->sigmas[i] * train;
	}
	s->sigmas[s->steps] = 0;
}

static enum status check_steps(int steps)
{
	if (steps < 1 || steps > RECIPE_STEPS_MAX)
		return status_fail(STATUS_INVALID, "Steps: must be from 1 to %d", RECIPE_STEPS_MAX);
	return STATUS_OK;
}

enum status sampler_check(const char *config, const char *name, int steps)
{
	struct flow_config c;

	TRY(check_steps(steps));
	TRY(flow_config_read(config, &c));
	if (*name && strcmp(name, "euler") != 0 && strcmp(name, "flow_euler") != 0)
		return status_fail(STATUS_INVALID, "Sampler: %s is not supported for this model; use euler", name);
	return STATUS_OK;
}

enum status sampler_open(struct kernels *k, struct arena *arena, const struct sampler_request *request, int rank,
	const int64_t *dim, struct sampler **out)
{
	struct flow_config c;
	struct sampler *s;

	TRY(sampler_check(request->config, request->name, request->steps));
	TRY(flow_config_read(request->config, &c));
	s = calloc(1, sizeof *s);
	if (!s)
		return status_fail(STATUS_NO_MEMORY, "no memory for a sampler");
	s->k = k;
	s->steps = request->steps;
	plan(&c, request, s);
	*out = s;
	return STATUS_OK;
}

void sampler_close(struct sampler *s)
{
	free(s);
}

int sampler_steps(const struct sampler *s)
{
	return s->steps;
}

int sampler_calls(const struct sampler *s)
{
	return s->steps;
}

float sampler_timestep(const struct sampler *s, int call)
{
	return s->timesteps[call];
}

float sampler_sigma(const struct sampler *s, int call)
{
	return s->sigmas[call];
}

float sampler_init_sigma(const struct sampler *s)
{
	return 1;
}

const float *sampler_timesteps(const struct sampler *s, int *n)
{
	*n = s->steps;
	return s->timesteps;
}

const float *sampler_sigmas(const struct sampler *s, int *n)
{
	*n = s->steps + 1;
	return s->sigmas;
}

static struct tensor as_row(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 2, (int64_t[]){ 1, tensor_count(&t) });
}

enum status sampler_input(struct sampler *s, int call, struct tensor latents, struct tensor scaled)
{
	return kernels_unary(s->k, UNARY_COPY, as_row(latents), as_row(scaled));
}

enum status sampler_step(struct sampler *s, int call, struct tensor prediction, struct tensor latents, struct rng *rng)
{
	return kernels_axpby(s->k, s->sigmas[call + 1] - s->sigmas[call], prediction, 1, latents);
}

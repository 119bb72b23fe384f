/* schedule: FlowMatch Euler sigmas.  Arithmetic is in float where the reference's is, so that equal inputs give equal
 * bits. */
#include "engine/schedule.h"

#include <math.h>
#include <string.h>

#include "engine/json.h"

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

enum status flow_config_read(const char *path, struct flow_config *out)
{
	struct flow_config c = { .num_train_timesteps = 1000,
		.shift = 1,
		.base_shift = 0.5,
		.max_shift = 1.15,
		.base_tokens = 256,
		.max_tokens = 4096 };

	TRY(json_read_with(path, read_config, &c));
	*out = c;
	return STATUS_OK;
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

void flow_schedule(const struct flow_config *c, int steps, int64_t image_tokens, struct schedule *out)
{
	double slope = (c->max_shift - c->base_shift) / (c->max_tokens - c->base_tokens);
	double mu = (double)image_tokens * slope + (c->base_shift - slope * c->base_tokens);

	out->steps = steps;
	for (int i = 0; i < steps; i++) {
		/* a single step starts at 1, whatever linspace's end is */
		float sigma = steps == 1 ? 1 : linspace(1, 1 / (float)steps, steps, i);

		out->sigmas[i] = shifted(c, mu, sigma);
		out->timesteps[i] = out->sigmas[i] * (float)c->num_train_timesteps;
	}
	out->sigmas[steps] = 0;
}

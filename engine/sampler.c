/* sampler: the table of scheduler classes, their settings, and what all of them share.
 *
 * Reference: diffusers, schedulers/.  Trap: from_config of a new class takes only what scheduler_config.json writes;
 * all else is the new class's default (SD 1.5 writes no timestep_spacing).
 */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/derive.h"
#include "engine/json.h"
#include "engine/sampler_name.h"
#include "engine/sampler_solver.h"

enum { TRAIN_STEPS_MAX = 100000 };

/* ---- classes ----------------------------------------------------------------------------------------------------- */

static const struct solver *find_solver(const char *class_name)
{
	static const struct solver *const all[] = { sampler_sigma_solvers, sampler_dpm_solvers, sampler_unipc_solvers,
		sampler_alpha_solvers, sampler_flow_solvers };

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		for (const struct solver *s = all[i]; s->class_name; s++)
			if (strcmp(s->class_name, class_name) == 0)
				return s;
	return NULL;
}

/* What a file's own class says about its model. */
static enum solver_kind file_kind(const struct solver *own, const json_t *object)
{
	return (own->reads & READS_FLOW) && json_is_true(json_object_get(object, "use_flow_sigmas")) ? KIND_FLOW
												     : own->kind;
}

static bool fits(const struct sampler_name *n, enum solver_kind kind)
{
	return ((n->changes & CHANGE_FLOW) ? KIND_FLOW : find_solver(n->class_name)->kind) == kind;
}

/* The names that work for a kind of model, into a text. */
static void list_names(enum solver_kind kind, char *out, size_t size)
{
	const struct sampler_name *n;
	size_t len = 0;

	*out = 0;
	for (int i = 0; (n = sampler_name_at(i)); i++)
		if (fits(n, kind) && len < size)
			len += (size_t)snprintf(out + len, size - len, "%s%s", len ? ", " : "", n->name);
}

/* The sampler of a name on a model of this kind: "euler" on a flow model is flow_euler. */
static enum status choose(const char *name, enum solver_kind kind, const struct sampler_name **out)
{
	static const char *const prefix[] = {
		[KIND_VP] = "", [KIND_FLOW] = "flow_", [KIND_EDM] = "edm_", [KIND_PRIOR] = ""
	};
	const struct sampler_name *found = sampler_name_get(name);
	char longer[2 * SAMPLER_NAME_LEN], names[1024];

	if (found && !fits(found, kind)) {
		snprintf(longer, sizeof longer, "%s%.31s", prefix[kind], name);
		found = sampler_name_get(longer);
	}
	if (found && fits(found, kind)) {
		*out = found;
		return STATUS_OK;
	}
	list_names(kind, names, sizeof names);
	return status_fail(STATUS_INVALID, "Sampler: %s does not fit this model; it takes %s", name,
		*names ? names : "its own scheduler only");
}

/* ---- settings ---------------------------------------------------------------------------------------------------- */

struct word {
	const char *text;
	int value;
};

static const struct word words_prediction[] = { { "epsilon", PREDICT_EPSILON }, { "sample", PREDICT_SAMPLE },
	{ "v_prediction", PREDICT_V }, { "flow_prediction", PREDICT_FLOW }, { NULL, 0 } };
static const struct word words_betas[] = { { "linear", BETAS_LINEAR }, { "scaled_linear", BETAS_SCALED_LINEAR },
	{ "squaredcos_cap_v2", BETAS_COSINE }, { NULL, 0 } };
static const struct word words_spacing[] = { { "linspace", SPACING_LINSPACE }, { "leading", SPACING_LEADING },
	{ "trailing", SPACING_TRAILING }, { NULL, 0 } };
static const struct word words_algorithm[] = { { "dpmsolver++", ALGORITHM_DPMPP },
	{ "sde-dpmsolver++", ALGORITHM_SDE_DPMPP }, { "deis", ALGORITHM_DPMPP }, { "dpmsolver", ALGORITHM_OTHER },
	{ "sde-dpmsolver", ALGORITHM_OTHER }, { NULL, 0 } };
static const struct word words_type[] = { { "midpoint", TYPE_MIDPOINT }, { "heun", TYPE_HEUN },
	{ "logrho", TYPE_MIDPOINT }, { "bh1", TYPE_BH1 }, { "bh2", TYPE_BH2 }, { NULL, 0 } };
static const struct word words_variance[] = { { "fixed_small", VARIANCE_SMALL },
	{ "fixed_small_log", VARIANCE_SMALL_LOG }, { "fixed_large", VARIANCE_LARGE },
	{ "learned_range", VARIANCE_LEARNED_RANGE }, { NULL, 0 } };
static const struct word words_final[] = { { "zero", false }, { "sigma_min", true }, { NULL, 0 } };
static const struct word words_shift[] = { { "exponential", false }, { "linear", true }, { NULL, 0 } };
static const struct word words_schedule[] = { { "karras", false }, { "exponential", true }, { NULL, 0 } };

static enum status get_word(
	const json_t *object, const char *path, const char *key, const struct word *words, int *value)
{
	const char *text = NULL;

	TRY(json_get_string(object, path, key, &text));
	if (!text)
		return STATUS_OK;
	for (; words->text; words++) {
		if (strcmp(words->text, text) == 0) {
			*value = words->value;
			return STATUS_OK;
		}
	}
	return status_fail(STATUS_UNSUPPORTED, "%s: %s '%.60s' is not supported", path, key, text);
}

#define GET_WORD(key, words, field)                                                                                    \
	do {                                                                                                           \
		int value = (int)(field);                                                                              \
		TRY(get_word(object, path, key, words, &value));                                                       \
		(field) = value;                                                                                       \
	} while (0)

static enum status refuse_if_set(const json_t *object, const char *path, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (!value || json_is_null(value) || json_is_false(value) ||
		(json_is_number(value) && json_number_value(value) == 0) ||
		(json_is_array(value) && json_array_size(value) == 0))
		return STATUS_OK;
	return status_fail(STATUS_UNSUPPORTED, "%s: %s is not supported by this version", path, key);
}

/* Settings of which one value alone is computed here; files that say another are not guessed at. */
static enum status check_usual(const json_t *object, const char *path)
{
	static const struct word linear[] = { { "linear", 0 }, { NULL, 0 } },
				 discrete[] = { { "discrete", 0 }, { NULL, 0 } };
	bool predict_x0 = true;
	int unused = 0;

	TRY(get_word(object, path, "interpolation_type", linear, &unused));
	TRY(get_word(object, path, "timestep_type", discrete, &unused));
	TRY(json_get_bool(object, path, "predict_x0", &predict_x0));
	return predict_x0 ? STATUS_OK : status_fail(STATUS_UNSUPPORTED, "%s: predict_x0 false is not supported", path);
}

static enum status read_training(const json_t *object, const char *path, struct settings *c)
{
	TRY(check_usual(object, path));
	TRY(json_get_int(object, path, "num_train_timesteps", 1, TRAIN_STEPS_MAX, &c->train_steps));
	TRY(json_get_number(object, path, "beta_start", 1e-9, 0.999, &c->beta_start));
	TRY(json_get_number(object, path, "beta_end", 1e-9, 0.999, &c->beta_end));
	GET_WORD("beta_schedule", words_betas, c->betas);
	GET_WORD("prediction_type", words_prediction, c->prediction);
	GET_WORD("timestep_spacing", words_spacing, c->spacing);
	TRY(json_get_int(object, path, "steps_offset", 0, 1000, &c->steps_offset));
	TRY(json_get_bool(object, path, "set_alpha_to_one", &c->alpha_to_one));
	TRY(json_get_bool(object, path, "skip_prk_steps", &c->skip_prk));
	TRY(json_get_int(object, path, "original_inference_steps", 1, TRAIN_STEPS_MAX, &c->original_steps));
	TRY(json_get_number(object, path, "timestep_scaling", 0, 1e6, &c->timestep_scaling));
	return json_get_bool(object, path, "rescale_betas_zero_snr", &c->zero_snr);
}

static enum status read_limits(const json_t *object, const char *path, struct settings *c)
{
	TRY(json_get_bool(object, path, "clip_sample", &c->clip));
	TRY(json_get_number(object, path, "clip_sample_range", 1e-6, 1e6, &c->clip_range));
	TRY(json_get_bool(object, path, "thresholding", &c->thresholding));
	TRY(json_get_number(object, path, "dynamic_thresholding_ratio", 0, 1, &c->threshold_ratio));
	return json_get_number(object, path, "sample_max_value", 1, 1e6, &c->threshold_max);
}

static enum status read_levels(const json_t *object, const char *path, struct settings *c)
{
	static const struct {
		const char *key;
		enum levels levels;
	} curves[] = { { "use_lu_lambdas", LEVELS_LU }, { "use_karras_sigmas", LEVELS_KARRAS },
		{ "use_exponential_sigmas", LEVELS_EXPONENTIAL }, { "use_beta_sigmas", LEVELS_BETA } };
	int n = 0;

	for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
		bool used = false;

		TRY(json_get_bool(object, path, curves[i].key, &used));
		if (used) {
			n++;
			c->levels = curves[i].levels;
		}
	}
	return n <= 1 ? STATUS_OK : status_fail(STATUS_CORRUPT, "%s: more than one of the use_..._sigmas is set", path);
}

static enum status read_multistep(
	const json_t *object, const char *path, const struct solver *solver, struct settings *c)
{
	TRY(json_get_int(object, path, "solver_order", 1, 3, &c->order));
	if (solver->reads & READS_ALGORITHM)
		GET_WORD("algorithm_type", words_algorithm, c->algorithm);
	GET_WORD("solver_type", words_type, c->type);
	TRY(json_get_bool(object, path, "lower_order_final", &c->lower_order_final));
	TRY(json_get_bool(object, path, "euler_at_final", &c->euler_at_final));
	GET_WORD("final_sigmas_type", words_final, c->end_at_sigma_min);
	TRY(json_get_bool(object, path, "use_flow_sigmas", &c->flow));
	TRY(json_get_number(object, path, "flow_shift", 1e-3, 1e3, &c->flow_shift));
	if (c->algorithm == ALGORITHM_OTHER)
		return status_fail(
			STATUS_UNSUPPORTED, "%s: algorithm_type must be dpmsolver++ or sde-dpmsolver++", path);
	return STATUS_OK;
}

static enum status read_flow(const json_t *object, const char *path, struct settings *c)
{
	TRY(json_get_number(object, path, "shift", 1e-3, 1e3, &c->shift));
	TRY(json_get_bool(object, path, "use_dynamic_shifting", &c->dynamic_shifting));
	TRY(json_get_number(object, path, "base_shift", -100, 100, &c->base_shift));
	TRY(json_get_number(object, path, "max_shift", -100, 100, &c->max_shift));
	TRY(json_get_number(object, path, "base_image_seq_len", 1, 1e9, &c->base_tokens));
	TRY(json_get_number(object, path, "max_image_seq_len", 1, 1e9, &c->max_tokens));
	GET_WORD("time_shift_type", words_shift, c->linear_shift);
	TRY(json_get_bool(object, path, "stochastic_sampling", &c->stochastic));
	if (c->base_tokens == c->max_tokens)
		return status_fail(STATUS_CORRUPT, "%s: base_image_seq_len and max_image_seq_len are equal", path);
	return STATUS_OK;
}

static enum status read_edm(const json_t *object, const char *path, struct settings *c)
{
	TRY(json_get_number(object, path, "sigma_min", 1e-6, 1e6, &c->sigma_min));
	TRY(json_get_number(object, path, "sigma_max", 1e-6, 1e6, &c->sigma_max));
	TRY(json_get_number(object, path, "sigma_data", 1e-6, 1e6, &c->sigma_data));
	TRY(json_get_number(object, path, "rho", 1e-3, 1e3, &c->rho));
	GET_WORD("sigma_schedule", words_schedule, c->exponential);
	if (c->sigma_min >= c->sigma_max)
		return status_fail(STATUS_CORRUPT, "%s: sigma_min must be below sigma_max", path);
	return STATUS_OK;
}

static struct settings defaults_of(const struct solver *solver)
{
	return (struct settings){ .train_steps = 1000,
		.beta_start = solver->beta_start,
		.beta_end = solver->beta_end,
		.betas = solver->betas,
		.spacing = solver->spacing,
		.alpha_to_one = solver->alpha_to_one,
		.clip = solver->clip,
		.clip_range = 1,
		.threshold_ratio = 0.995,
		.threshold_max = 1,
		.original_steps = 50,
		.timestep_scaling = 10,
		.variance = solver->kind == KIND_PRIOR ? VARIANCE_SMALL_LOG : VARIANCE_SMALL,
		.order = 2,
		.lower_order_final = solver->lower_order_final,
		.flow_shift = 1,
		.sigma_min = 0.002,
		.sigma_max = 80,
		.sigma_data = 0.5,
		.rho = 7,
		.shift = 1,
		.base_shift = 0.5,
		.max_shift = 1.15,
		.base_tokens = 256,
		.max_tokens = 4096 };
}

/* What the class does not read it does not know: diffusers keeps such settings without using them. */
static void drop_unread(const struct solver *solver, struct settings *c)
{
	if (!(solver->reads & READS_LEVELS) || (c->levels == LEVELS_LU && !(solver->reads & READS_LU)))
		c->levels = LEVELS_PLAIN;
	if (!(solver->reads & READS_FLOW))
		c->flow = false;
	if (!(solver->reads & READS_ZERO_SNR))
		c->zero_snr = false;
	if (!(solver->reads & READS_CLIP))
		c->clip = false;
	if (!(solver->reads & READS_THRESHOLDING))
		c->thresholding = false;
	if (!(solver->reads & READS_FINAL))
		c->end_at_sigma_min = false;
}

static void apply_changes(unsigned changes, struct settings *c)
{
	static const struct {
		unsigned change;
		enum levels levels;
	} curves[] = { { CHANGE_KARRAS, LEVELS_KARRAS }, { CHANGE_EXPONENTIAL, LEVELS_EXPONENTIAL },
		{ CHANGE_BETA, LEVELS_BETA }, { CHANGE_LU, LEVELS_LU } };

	for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
		if (changes & curves[i].change)
			c->levels = curves[i].levels;
	if (changes & CHANGE_SDE)
		c->algorithm = ALGORITHM_SDE_DPMPP;
	if (changes & CHANGE_ORDER_3)
		c->order = 3;
	if (changes & CHANGE_PLMS)
		c->skip_prk = true;
	if (changes & CHANGE_STOCHASTIC)
		c->stochastic = true;
	if (changes & CHANGE_FLOW) {
		c->flow = true;
		c->prediction = PREDICT_FLOW;
	}
}

static enum status read_settings(const json_t *object, const char *path, unsigned changes, struct sampler *s)
{
	struct settings *c = &s->c;

	*c = defaults_of(s->solver);
	TRY(read_training(object, path, c));
	TRY(read_limits(object, path, c));
	TRY(read_levels(object, path, c));
	if (changes & CHANGE_FLOW) /* the file of a flow model calls it so */
		TRY(json_get_number(object, path, "shift", 1e-3, 1e3, &c->flow_shift));
	if (s->solver->kind == KIND_FLOW)
		TRY(read_flow(object, path, c));
	else
		TRY(read_multistep(object, path, s->solver, c));
	if (s->solver->kind == KIND_EDM)
		TRY(read_edm(object, path, c));
	if (s->solver->reads & READS_VARIANCE)
		GET_WORD("variance_type", words_variance, c->variance);
	for (const char *const *key = s->solver->refused; key && *key; key++)
		TRY(refuse_if_set(object, path, *key));
	apply_changes(changes, c);
	drop_unread(s->solver, c);
	return STATUS_OK;
}

struct reading {
	struct sampler *s;
	const char *name;
};

static enum status read_config(const json_t *object, const char *path, void *out)
{
	struct reading *reading = out;
	const char *class_name = NULL;
	const struct sampler_name *named;
	const struct solver *own;
	unsigned changes = 0;

	TRY(json_get_string(object, path, "_class_name", &class_name));
	if (!class_name)
		return status_fail(STATUS_CORRUPT, "%s: _class_name is missing", path);
	own = find_solver(class_name);
	if (!own)
		return status_fail(STATUS_UNSUPPORTED, "%s: scheduler %.60s is not supported", path, class_name);
	reading->s->solver = own;
	if (*reading->name) {
		TRY(choose(reading->name, file_kind(own, object), &named));
		reading->s->solver = find_solver(named->class_name);
		changes = named->changes;
	}
	return read_settings(object, path, changes, reading->s);
}

/* ---- planning ---------------------------------------------------------------------------------------------------- */

static enum status make_lists(struct sampler *s)
{
	size_t n = 2 * (size_t)s->steps + 8;

	s->timesteps = calloc(n, sizeof *s->timesteps);
	s->sigmas = calloc(n, sizeof *s->sigmas);
	s->between = calloc(n, sizeof *s->between);
	s->up = calloc(n, sizeof *s->up);
	s->down = calloc(n, sizeof *s->down);
	s->orders = calloc(n, sizeof *s->orders);
	if (!s->timesteps || !s->sigmas || !s->between || !s->up || !s->down || !s->orders)
		return status_fail(STATUS_NO_MEMORY, "no memory for a sampler");
	s->init_sigma = 1;
	return STATUS_OK;
}

static enum status check_plan(const struct sampler *s)
{
	for (int i = 0; i < s->n_calls; i++)
		if (!isfinite(s->timesteps[i]))
			return status_fail(STATUS_INVALID, "Steps: %d gives no finite timesteps", s->steps);
	for (int i = 0; i < s->n_sigmas; i++)
		if (!isfinite(s->sigmas[i]))
			return status_fail(STATUS_INVALID, "Steps: %d gives no finite noise levels", s->steps);
	return STATUS_OK;
}

/* Everything but tensors. */
static enum status plan(const struct sampler_request *request, struct sampler *s)
{
	struct reading reading = { s, request->name };

	if (request->steps < 1 || request->steps > RECIPE_STEPS_MAX)
		return status_fail(STATUS_INVALID, "Steps: must be from 1 to %d", RECIPE_STEPS_MAX);
	s->request = *request;
	s->steps = request->steps;
	if (request->config) {
		TRY(derive_read_file(request->config, read_config, &reading));
	} else {
		s->solver = find_solver("FlowMatchEulerDiscreteScheduler");
		s->c = defaults_of(s->solver);
	}
	if (s->steps > s->c.train_steps && s->solver->kind != KIND_FLOW && s->solver->kind != KIND_EDM)
		return status_fail(STATUS_INVALID, "Steps: %d are more than the %lld the model was trained for",
			s->steps, (long long)s->c.train_steps);
	if (s->c.prediction == PREDICT_FLOW && s->solver->kind == KIND_VP && !s->c.flow)
		return status_fail(STATUS_UNSUPPORTED, "%s: prediction_type flow_prediction needs use_flow_sigmas",
			request->config);
	TRY(make_lists(s));
	if (s->solver->kind == KIND_VP || s->solver->kind == KIND_PRIOR)
		TRY(levels_read_alphas(s));
	TRY(s->solver->plan(s));
	return check_plan(s);
}

static enum status take_tensors(struct sampler *s, struct arena *arena, int rank, const int64_t *dim)
{
	struct tensor *all[STATE_MAX + 2];

	for (int i = 0; i < STATE_MAX; i++)
		all[i] = &s->state[i];
	all[STATE_MAX] = &s->saved;
	all[STATE_MAX + 1] = &s->noise;
	for (int i = 0; i < STATE_MAX + 2; i++)
		TRY(arena_take(arena, DTYPE_F32, rank, dim, all[i]));
	return STATUS_OK;
}

enum status sampler_check(const char *config, const char *name, int steps)
{
	struct sampler_request request = { .config = config, .name = name, .steps = steps };
	struct sampler *s = calloc(1, sizeof *s);
	enum status status;

	if (!s)
		return status_fail(STATUS_NO_MEMORY, "no memory for a sampler");
	status = plan(&request, s);
	sampler_close(s);
	return status;
}

enum status sampler_open(struct kernels *k, struct arena *arena, const struct sampler_request *request, int rank,
	const int64_t *dim, struct sampler **out)
{
	struct sampler *s = calloc(1, sizeof *s);
	enum status status;

	if (!s)
		return status_fail(STATUS_NO_MEMORY, "no memory for a sampler");
	s->k = k;
	status = plan(request, s);
	if (status == STATUS_OK)
		status = take_tensors(s, arena, rank, dim);
	if (status != STATUS_OK) {
		sampler_close(s);
		return status;
	}
	if (s->request.pictures < 1)
		s->request.pictures = 1;
	*out = s;
	return STATUS_OK;
}

void sampler_close(struct sampler *s)
{
	if (!s)
		return;
	free(s->timesteps);
	free(s->sigmas);
	free(s->between);
	free(s->up);
	free(s->down);
	free(s->orders);
	free(s->alphas);
	free(s);
}

/* ---- the schedule ------------------------------------------------------------------------------------------------ */

int sampler_steps(const struct sampler *s)
{
	return s->steps;
}

int sampler_calls(const struct sampler *s)
{
	return s->n_calls;
}

int sampler_prediction_parts(const struct sampler *s)
{
	return (s->solver->reads & READS_VARIANCE) && s->c.variance == VARIANCE_LEARNED_RANGE ? 2 : 1;
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
	return s->init_sigma;
}

const float *sampler_timesteps(const struct sampler *s, int *n)
{
	*n = s->n_calls;
	return s->timesteps;
}

const float *sampler_sigmas(const struct sampler *s, int *n)
{
	*n = s->n_sigmas;
	return s->n_sigmas > 0 ? s->sigmas : NULL;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static struct tensor as_row(struct tensor t)
{
	return tensor_view(t.data, t.dtype, 2, (int64_t[]){ 1, tensor_count(&t) });
}

enum status sampler_copy(struct sampler *s, struct tensor x, struct tensor y)
{
	return kernels_unary(s->k, UNARY_COPY, as_row(x), as_row(y));
}

enum status sampler_mix(struct sampler *s, double a, struct tensor x, double b, struct tensor y)
{
	if (!isfinite(a) || !isfinite(b))
		return status_fail(STATUS_NUMERIC, "%s: a step of this schedule has no finite coefficients",
			s->solver->class_name);
	return kernels_axpby(s->k, (float)a, x, (float)b, y);
}

enum status sampler_draw(struct sampler *s, struct rng *rng)
{
	return rng_fill(rng, s->k, s->request.pictures, s->request.picture, s->noise);
}

enum status sampler_push(struct sampler *s, struct tensor x)
{
	struct tensor oldest = s->state[STATE_MAX - 1];

	memmove(s->state + 1, s->state, (STATE_MAX - 1) * sizeof *s->state);
	s->state[0] = oldest;
	s->held++;
	return sampler_copy(s, x, s->state[0]);
}

enum status sampler_input(struct sampler *s, int call, struct tensor latents, struct tensor scaled)
{
	TRY(sampler_copy(s, latents, scaled));
	return s->solver->input_scale ? sampler_mix(s, 0, latents, (double)s->solver->input_scale(s, call), scaled)
				      : STATUS_OK;
}

enum status sampler_step(struct sampler *s, int call, struct tensor prediction, struct tensor latents, struct rng *rng)
{
	return s->solver->step(s, call, prediction, latents, rng);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static int compare_floats(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* torch.quantile of the absolute values: linear between ranks. */
static enum status quantile(const float *x, int64_t n, double q, float *out)
{
	float *sorted = malloc((size_t)n * sizeof *sorted);
	double rank = q * (double)(n - 1);
	int64_t low = (int64_t)rank;

	if (!sorted)
		return status_fail(STATUS_NO_MEMORY, "no memory for thresholding");
	for (int64_t i = 0; i < n; i++)
		sorted[i] = fabsf(x[i]);
	qsort(sorted, (size_t)n, sizeof *sorted, compare_floats);
	*out = sorted[low];
	if (low + 1 < n)
		*out += (sorted[low + 1] - sorted[low]) * (float)(rank - (double)low);
	free(sorted);
	return STATUS_OK;
}

/* Dynamic thresholding (2205.11487) replaces clipping. */
static enum status limit_values(const struct settings *c, float *x, int64_t n)
{
	float range = (float)c->clip_range, divisor = 1;

	if (c->thresholding) {
		TRY(quantile(x, n, c->threshold_ratio, &range));
		range = fminf(fmaxf(range, 1), (float)c->threshold_max);
		divisor = range;
	}
	for (int64_t i = 0; i < n; i++)
		x[i] = fminf(fmaxf(x[i], -range), range) / divisor;
	return STATUS_OK;
}

enum status sampler_limit(struct sampler *s, struct tensor x0)
{
	struct tensor host = x0;
	enum status status;

	if (!s->c.clip && !s->c.thresholding)
		return STATUS_OK;
	host.data = malloc((size_t)tensor_count(&x0) * sizeof(float));
	if (!host.data)
		return status_fail(STATUS_NO_MEMORY, "no memory for clipping");
	status = kernels_download(s->k, x0, &host);
	if (status == STATUS_OK)
		status = limit_values(&s->c, host.data, tensor_count(&x0));
	if (status == STATUS_OK)
		status = kernels_upload(s->k, &host, x0);
	free(host.data);
	return status;
}

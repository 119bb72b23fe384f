/* samplers: every scheduler of golden units/schedules: its levels, and runs without a model.
 *
 * The stand-in for the network is out = c * input + b (see the README there); it is computed on the host in float. */
#include "engine/sampler.h"

#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/check.h"

enum { VALUES = 64 };

static const int64_t shape[] = { 4, 4, 4 };

struct bench {
	struct kernels *k;
	struct arena *arena;
};

/* One file of the units. */
struct unit {
	const json_t *json;
	const char *name; /* "sd15/euler" */
	char config[64];  /* a file with its settings */
};

/* slack: an absolute error that is allowed beside the relative one. */
static bool near(const json_t *wanted, const float *got, int n, double slack)
{
	if (json_array_size(wanted) != (size_t)n)
		return false;
	for (int i = 0; i < n; i++) {
		double want = json_number_value(json_array_get(wanted, (size_t)i));

		if (!(fabs((double)got[i] - want) <= 1e-5 * fabs(want) + slack))
			return false;
	}
	return true;
}

/* Within 1e-4 of the largest wanted value. */
static bool close_to(const json_t *wanted, const float *got)
{
	double largest = 0;

	for (size_t i = 0; i < VALUES; i++)
		largest = fmax(largest, fabs(json_number_value(json_array_get(wanted, i))));
	for (size_t i = 0; i < VALUES; i++)
		if (!(fabs(json_number_value(json_array_get(wanted, i)) - (double)got[i]) <= 1e-4 * largest))
			return false;
	return json_array_size(wanted) == VALUES;
}

/* The units leave out the class of the file; the model's own is of the sampler's kind. */
static const char *own_class(const char *sampler)
{
	if (strncmp(sampler, "flow_", 5) == 0)
		return "FlowMatchEulerDiscreteScheduler";
	return strncmp(sampler, "edm_", 4) == 0 ? "EDMEulerScheduler" : "PNDMScheduler";
}

static bool write_settings(struct unit *u)
{
	json_t *settings = json_deep_copy(json_object_get(u->json, "config_in"));
	int fd;
	bool written;

	strcpy(u->config, "/tmp/promptfs-samplers-XXXXXX");
	fd = mkstemp(u->config);
	if (!json_object_get(settings, "_class_name"))
		json_object_set_new(settings, "_class_name",
			json_string(own_class(json_string_value(json_object_get(u->json, "sampler")))));
	written = fd >= 0 && json_dumpfd(settings, fd, 0) == 0;
	if (fd >= 0)
		close(fd);
	json_decref(settings);
	return written;
}

/* The tokens of a picture that FLUX's folders are named after. */
static int64_t image_tokens(const char *name)
{
	return strncmp(name, "flux-dev-", 9) == 0 ? atoi(name + 9) : 0;
}

static struct sampler_request request(const struct unit *u, int steps, const json_t *entry)
{
	return (struct sampler_request){ .config = u->config,
		.name = json_string_value(json_object_get(u->json, "sampler")),
		.steps = steps,
		.linspace_sigmas = json_object_get(entry, "sigmas_in") != NULL,
		.image_tokens = image_tokens(u->name),
		.eta = json_number_value(json_object_get(entry, "eta")) };
}

/* DPM2 a's timesteps in between are differences of nearly equal logarithms: near 0 the last bit of a sigma (where
 * torch's pow(x, 0.5) is not the rounded square root) moves them by a hundredth of a training step. */
static double timestep_slack(const char *name)
{
	return strstr(name, "dpm2_a") ? 0.011 : 0;
}

static void check_schedule(struct bench *b, const struct unit *u, int steps, const json_t *wanted)
{
	struct sampler_request r = request(u, steps, wanted);
	const json_t *error = json_object_get(wanted, "error"), *sigmas = json_object_get(wanted, "sigmas");
	size_t mark = arena_mark(b->arena);
	struct sampler *s = NULL;
	enum status status = sampler_open(b->k, b->arena, &r, 3, shape, &s);
	const float *values;
	int n;

	check_case((status == STATUS_OK) == !error && sampler_check(u->config, r.name, steps) == status, status_text(),
		"%s: %d steps are %s", u->name, steps, error ? "refused" : "possible");
	if (s && !error) {
		values = sampler_timesteps(s, &n);
		check_case(near(json_object_get(wanted, "timesteps"), values, n, timestep_slack(u->name)), NULL,
			"%s: timesteps of %d", u->name, steps);
		values = sampler_sigmas(s, &n);
		check_case(sigmas ? near(sigmas, values, n, 0) : n == 0, NULL, "%s: sigmas of %d", u->name, steps);
		check_case(fabs((double)sampler_init_sigma(s) /
					   json_number_value(json_object_get(wanted, "init_noise_sigma")) -
				   1) <= 1e-5,
			NULL, "%s: first sigma of %d", u->name, steps);
	}
	sampler_close(s);
	arena_release(b->arena, mark);
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static double fake(const json_t *run, size_t i)
{
	return json_number_value(json_array_get(json_object_get(run, "fake"), i));
}

/* One call of a run; false with a word in `what` when something is off. */
static bool run_call(struct bench *b, struct sampler *s, const json_t *run, int call, struct tensor t[3],
	struct rng *rng, const char **what)
{
	const json_t *wanted = json_array_get(json_object_get(run, "calls"), (size_t)call);
	const json_t *input = json_object_get(wanted, "input");
	float *scaled = t[1].data, *prediction = t[2].data;
	float c = (float)(fake(run, 0) * cos((double)sampler_timestep(s, call) / fake(run, 1)));

	*what = "sampler_input";
	if (sampler_input(s, call, t[0], t[1]) != STATUS_OK)
		return false;
	*what = "input";
	if (input && !close_to(input, scaled))
		return false;
	for (int i = 0; i < VALUES; i++)
		prediction[i] = c * scaled[i] + (float)fake(run, 2);
	*what = "sampler_step";
	if (sampler_step(s, call, t[2], t[0], rng) != STATUS_OK)
		return false;
	*what = "latents";
	return close_to(json_object_get(wanted, "latents"), t[0].data);
}

static void check_run(struct bench *b, const struct unit *u, const json_t *run)
{
	int steps = (int)json_integer_value(json_object_get(run, "steps")), calls = 0;
	char key[16];
	struct sampler_request r;
	struct tensor t[3]; /* latents, scaled, prediction */
	struct sampler *s = NULL;
	size_t mark = arena_mark(b->arena);
	struct rng rng;
	const char *what = "sampler_open";
	json_t *entry = json_deep_copy(run);
	bool good;

	snprintf(key, sizeof key, "%d", steps);
	json_object_update_missing(entry, json_object_get(json_object_get(u->json, "schedules"), "8"));
	r = request(u, steps, entry);
	rng_seed(&rng, RNG_TORCH_CPU, (uint64_t)json_integer_value(json_object_get(run, "seed")));
	for (int i = 0; i < 3; i++)
		arena_take(b->arena, DTYPE_F32, 3, shape, &t[i]);
	good = rng_fill(&rng, b->k, 1, 0, t[0]) == STATUS_OK &&
	       sampler_open(b->k, b->arena, &r, 3, shape, &s) == STATUS_OK &&
	       kernels_axpby(b->k, 0, t[0], sampler_init_sigma(s), t[0]) == STATUS_OK;
	for (; good && calls < sampler_calls(s); calls++)
		good = run_call(b, s, run, calls, t, &rng, &what);
	if (good && (size_t)calls != json_array_size(json_object_get(run, "calls"))) {
		good = false;
		what = "number of calls";
	}
	check_case(good, what, "%s: run of %d steps, eta %g: call %d", u->name, steps, r.eta, calls);
	sampler_close(s);
	arena_release(b->arena, mark);
	json_decref(entry);
}

/* Python writes "-Infinity", which is no JSON; null is the same to whoever reads it. */
static json_t *load_unit(const char *path)
{
	char *text = calloc(1, 1 << 22);
	FILE *f = fopen(path, "rb");
	json_t *json = NULL;

	if (f && text && fread(text, 1, (1 << 22) - 1, f) > 0) {
		for (char *at = text; (at = strstr(at, "-Infinity")); at += 9)
			memcpy(at, "null     ", 9);
		json = json_loads(text, 0, NULL);
	}
	if (f)
		fclose(f);
	free(text);
	return json;
}

static void check_unit(struct bench *b, const char *path, const char *name)
{
	json_t *json = load_unit(path);
	struct unit u = { .json = json, .name = name };
	const char *steps;
	json_t *schedule, *run;
	size_t i;

	check_case(json && write_settings(&u), NULL, "%s: read", name);
	json_object_foreach (json_object_get(json, "schedules"), steps, schedule)
		check_schedule(b, &u, atoi(steps), schedule);
	json_array_foreach (json_object_get(json, "runs"), i, run)
		check_run(b, &u, run);
	unlink(u.config);
	json_decref(json);
}

static void check_units(struct bench *b)
{
	char pattern[4096], name[128];
	const char *only = getenv("ONLY");
	glob_t found;

	snprintf(pattern, sizeof pattern, "%s/units/schedules/*/*.json", check_golden());
	if (glob(pattern, 0, NULL, &found) != 0) {
		printf("skip - schedules: not in the golden cases\n");
		return;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		snprintf(name, sizeof name, "%s", strstr(found.gl_pathv[i], "schedules/") + strlen("schedules/"));
		name[strlen(name) - strlen(".json")] = 0;
		if (!only || strstr(name, only))
			check_unit(b, found.gl_pathv[i], name);
	}
	globfree(&found);
}

/* ---- settings ---------------------------------------------------------------------------------------------------- */

static void check_refused(const char *settings, const char *sampler, int steps, const char *word)
{
	char path[] = "/tmp/promptfs-samplers-XXXXXX";
	int fd = mkstemp(path);
	FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

	if (f) {
		fputs(settings, f);
		fclose(f);
	}
	check_case(sampler_check(path, sampler, steps) != STATUS_OK && strstr(status_text(), word), status_text(),
		"refused: %s", word);
	unlink(path);
}

#define FLOW "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", "
#define DDIM "{\"_class_name\": \"DDIMScheduler\", "

static void check_settings(void)
{
	check_refused("{\"shift\": 3}", "", 4, "_class_name");
	check_refused("{\"_class_name\": \"MysteryScheduler\"}", "", 4, "MysteryScheduler");
	check_refused(FLOW "\"num_train_timesteps\": 0}", "", 4, "num_train_timesteps");
	check_refused(FLOW "\"shift\": \"three\"}", "", 4, "shift");
	check_refused(FLOW "\"time_shift_type\": \"sideways\"}", "", 4, "time_shift_type");
	check_refused(FLOW "\"base_image_seq_len\": 5, \"max_image_seq_len\": 5}", "", 4, "base_image_seq_len");
	check_refused(FLOW "\"invert_sigmas\": true}", "", 4, "invert_sigmas");
	check_refused(FLOW "\"use_karras_sigmas\": true, \"use_beta_sigmas\": true}", "", 4, "more than one");
	check_refused(FLOW "\"shift\": 3}", "ddim", 4, "ddim does not fit this model; it takes flow_euler");
	check_refused(FLOW "\"shift\": 3}", "", 0, "Steps");
	check_refused(DDIM "\"shift\": 3}", "flow_euler", 4, "flow_euler does not fit this model; it takes pndm");
	check_refused(DDIM "\"num_train_timesteps\": 1000000000}", "", 4, "num_train_timesteps");
	check_refused(DDIM "\"num_train_timesteps\": 10}", "", 11, "Steps");
	check_refused(DDIM "\"beta_start\": 1.5}", "", 4, "beta_start");
	check_refused(DDIM "\"beta_schedule\": \"sigmoid\"}", "", 4, "beta_schedule");
	check_refused(DDIM "\"trained_betas\": [0.1, 0.2]}", "", 4, "trained_betas");
	check_refused(DDIM "\"prediction_type\": 7}", "", 4, "prediction_type");
	check_refused(DDIM "\"solver_order\": 4}", "dpm++_2m", 4, "solver_order");
	check_refused(DDIM "\"algorithm_type\": \"dpmsolver\"}", "dpm++_2m", 4, "algorithm_type");
	check_refused(DDIM "\"steps_offset\": 1}", "", 1000, "timestep 1000");
	check_refused(DDIM "\"steps_offset\": 1}", "lcm", 51, "Steps");
	check_refused("{\"_class_name\": \"PNDMScheduler\"}", "", 4, "skip_prk_steps");
	check_refused("{\"_class_name\": \"UnCLIPScheduler\"}", "", 1, "Steps");
	check_refused("{\"_class_name\": \"UnCLIPScheduler\"}", "euler", 4, "its own scheduler only");
	check_refused(
		"{\"_class_name\": \"EDMEulerScheduler\", \"sigma_min\": 5, \"sigma_max\": 2}", "", 4, "sigma_min");
}

int main(void)
{
	struct bench b;

	if (kernels_open("ref", DTYPE_F32, 1, &b.k) != STATUS_OK || arena_open(b.k, 1 << 24, &b.arena) != STATUS_OK)
		return 1;
	check_units(&b);
	check_settings();
	arena_close(b.arena);
	kernels_close(b.k);
	return check_result();
}

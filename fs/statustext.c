/* statustext: see statustext.h. */
#include "fs/statustext.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/family.h"
#include "fs/contents.h"
#include "fs/errnos.h"
#include "fs/escape.h"
#include "fs/hashes.h"

/* ---- queue ---- */

/* The fraction done, by steps: what comes before and after them is short. */
static int percent(const struct job_info *job)
{
	return job->steps > 0 ? 100 * job->step / job->steps : 0;
}

static enum status queue_line(const struct job_info *job, bool hidden, struct bytes *out)
{
	char step[32], eta[32] = "-";

	snprintf(step, sizeof(step), "%d/%d", job->step, job->steps);
	if (job->eta >= 0)
		snprintf(eta, sizeof(eta), "%.0fs", job->eta);
	TRY(bytes_print(out, "%-8s %-9s %3d%% %7s %7d  ", job->state, step, percent(job), eta, job->waiters));
	TRY(hidden ? bytes_print(out, "(another user's)") : escape_add(job->name, out));
	return bytes_print(out, "\n");
}

enum status statustext_queue(struct daemon *d, uid_t reader, struct bytes *out)
{
	struct job_info *jobs = NULL;
	enum status s;
	size_t count;

	if (jobs_list(d->jobs, &jobs, &count) != 0)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of jobs");
	s = bytes_print(out, "%-8s %-9s %4s %7s %7s  %s\n", "state", "step", "done", "eta", "waiters", "name");
	for (size_t i = 0; i < count && s == STATUS_OK; i++)
		s = queue_line(&jobs[i], reader != 0 && reader != jobs[i].uid, out);
	free(jobs);
	return s;
}

/* ---- metrics ---- */

static enum status metric_head(struct bytes *out, const char *name, const char *type, const char *help)
{
	return bytes_print(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static enum status metric(struct bytes *out, const char *name, const char *type, const char *help, uint64_t value)
{
	TRY(metric_head(out, name, type, help));
	return bytes_print(out, "%s %" PRIu64 "\n", name, value);
}

/* A label's value may hold anything but a bare quote, backslash or newline. */
static enum status label(struct bytes *out, const char *value)
{
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			TRY(bytes_print(out, "\\%c", *value));
		else
			TRY(*value == '\n' ? bytes_print(out, "\\n") : bytes_add(out, value, 1));
	}
	return STATUS_OK;
}

static enum status generations_line(struct bytes *out, const char *model, const char *result, uint64_t value)
{
	TRY(bytes_print(out, "promptfs_generations_total{model=\""));
	TRY(label(out, model));
	return bytes_print(out, "\",result=\"%s\"} %" PRIu64 "\n", result, value);
}

static enum status generations(struct daemon *d, struct bytes *out)
{
	struct jobs_model_count *counts = NULL;
	enum status s;
	size_t n;

	if (jobs_count_models(d->jobs, &counts, &n) != 0)
		return status_fail(STATUS_NO_MEMORY, "no memory for the metrics");
	s = metric_head(out, "promptfs_generations_total", "counter", "Generations that ended, by model and result.");
	for (size_t i = 0; i < n && s == STATUS_OK; i++) {
		s = generations_line(out, counts[i].model, "ok", counts[i].generated);
		if (s == STATUS_OK)
			s = generations_line(out, counts[i].model, "failed", counts[i].failed);
		if (s == STATUS_OK)
			s = generations_line(out, counts[i].model, "cancelled", counts[i].cancelled);
	}
	free(counts);
	return s;
}

static enum status stage_histogram(const struct jobs_counters *c, enum stage stage, struct bytes *out)
{
	const char *name = stage_name(stage);
	uint64_t total = 0;

	for (int b = 0; b < 16; b++) {
		char bound[32] = "+Inf";

		if (b < 15)
			snprintf(bound, sizeof(bound), "%g", jobs_bucket_bounds[b]);
		total += c->buckets[stage][b];
		TRY(bytes_print(out, "promptfs_generation_seconds_bucket{stage=\"%s\",le=\"%s\"} %" PRIu64 "\n", name,
			bound, total));
	}
	TRY(bytes_print(out, "promptfs_generation_seconds_sum{stage=\"%s\"} %.6f\n", name, c->sums[stage]));
	return bytes_print(out, "promptfs_generation_seconds_count{stage=\"%s\"} %" PRIu64 "\n", name, total);
}

static enum status memory(struct daemon *d, const struct jobs_counters *c, struct bytes *out)
{
	struct jobs_loaded pool;

	TRY(metric_head(out, "promptfs_memory_bytes", "gauge",
		"Memory that engines hold, by device; host is what the workers hold resident."));
	TRY(bytes_print(out, "promptfs_memory_bytes{device=\"host\"} %" PRIu64 "\n", c->worker_memory));
	for (int i = 0; jobs_pool_memory(d->jobs, i, &pool); i++) {
		TRY(bytes_print(out, "promptfs_memory_bytes{device=\""));
		TRY(label(out, pool.device));
		TRY(bytes_print(out, "\",dtype=\""));
		TRY(label(out, pool.dtype));
		TRY(bytes_print(out, "\"} %" PRIu64 "\n", pool.memory));
	}
	return STATUS_OK;
}

enum status statustext_metrics(struct daemon *d, struct bytes *out)
{
	struct cache_stat cache = { 0 };
	struct jobs_counters c;

	jobs_count(d->jobs, &c);
	cache_stat(d->cache, &cache);
	TRY(generations(d, out));
	TRY(metric(out, "promptfs_cache_hits_total", "counter", "Pictures that the cache had.", c.cache_hits));
	TRY(metric(out, "promptfs_cache_bytes", "gauge", "Bytes in the cache.", cache.bytes));
	TRY(metric(out, "promptfs_cache_objects", "gauge", "Pictures in the cache.", cache.objects));
	TRY(metric(out, "promptfs_queue_length", "gauge", "Jobs that wait.", c.queued));
	TRY(metric(out, "promptfs_jobs_running", "gauge", "Jobs that run.", c.running));
	TRY(metric(out, "promptfs_joined_total", "counter", "Readers that joined a job of another.", c.joined));
	TRY(metric_head(out, "promptfs_generation_seconds", "histogram", "Seconds of the generations, by stage."));
	for (int s = 0; s < STAGE_COUNT; s++)
		TRY(stage_histogram(&c, (enum stage)s, out));
	TRY(memory(d, &c, out));
	return metric(out, "promptfs_worker_restarts_total", "counter", "Workers that died and were started again.",
		c.worker_restarts);
}

/* ---- JSON ---- */

static enum status print_json(json_t *object, struct bytes *out)
{
	char *text = object ? json_dumps(object, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL;
	enum status s;

	json_decref(object);
	if (!text)
		return status_fail(STATUS_NO_MEMORY, "no memory for a status file");
	s = bytes_print(out, "%s\n", text);
	free(text);
	return s;
}

/* File names may be no UTF-8: then as in the lines of text, so that JSON can hold them. */
static json_t *json_name(const char *name)
{
	json_t *text = json_string(name);
	struct bytes escaped = { 0 };

	for (const unsigned char *c = (const unsigned char *)name; !text && *c; c++) {
		if (*c < 0x80 && isprint(*c))
			bytes_add(&escaped, c, 1);
		else
			bytes_print(&escaped, "\\x%02x", *c);
	}
	if (!text)
		text = json_string(escaped.data ? (const char *)escaped.data : "");
	bytes_free(&escaped);
	return text;
}

static json_t *json_seconds(const double *seconds)
{
	json_t *object = json_object();

	for (int s = 0; s < STAGE_COUNT; s++)
		json_object_set_new(object, stage_name((enum stage)s), json_real(seconds[s]));
	return object;
}

static void set_text(json_t *object, const char *key, const char *text)
{
	json_object_set_new(object, key, text && *text ? json_name(text) : json_null());
}

enum status statustext_model(struct daemon *d, const struct catalog_model *m, struct bytes *out)
{
	const struct config *config = &resolver_catalog(d->resolver)->config;
	struct jobs_loaded loaded = { 0 };
	char hash[MODEL_HASH_LEN + 1] = "";
	bool is_loaded = jobs_find_loaded(d->jobs, &m->model, &loaded);
	json_t *object = json_object();
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s", m->model.path);
	if (model_is_derived(&m->model))
		path[strlen(path) - 1] = 0;
	set_text(object, "name", m->model.name);
	set_text(object, "path", path);
	set_text(object, "family", m->status == STATUS_OK && m->model.family ? m->model.family->name : NULL);
	set_text(object, "error", m->why);
	set_text(object, "device", is_loaded ? loaded.device : *m->where->device ? m->where->device : config->device);
	set_text(object, "dtype", is_loaded ? loaded.dtype : *m->where->dtype ? m->where->dtype : config->dtype);
	json_object_set_new(object, "loaded", json_boolean(is_loaded));
	json_object_set_new(object, "memory", json_integer((json_int_t)loaded.memory));
	json_object_set_new(object, "file_bytes", json_integer((json_int_t)m->model.file_bytes));
	if (m->status == STATUS_OK) {
		hashes_recall(config->cache, m->model.identity, hash);
		set_text(object, "hash", hash);
		json_object_set_new(object, "parameters",
			json_pack("{s:i, s:i, s:i, s:f, s:i}", "width", m->model.defaults.width, "height",
				m->model.defaults.height, "steps", m->model.defaults.steps, "guidance",
				m->model.defaults.guidance, "size_multiple", m->model.size_multiple));
	}
	return print_json(object, out);
}

/* What is known of one picture. */
struct standing {
	const char *state;
	struct job_info job; /* running or queued */
	char key[RECIPE_KEY_LEN + 1];
	bool tried;
	struct outcome outcome; /* tried */
};

static bool find_job(struct daemon *d, const char *name, struct job_info *out)
{
	struct job_info *jobs = NULL;
	size_t count, i;
	bool found;

	if (jobs_list(d->jobs, &jobs, &count) != 0)
		return false;
	for (i = 0; i < count && strcmp(jobs[i].name, name) != 0; i++)
		;
	found = i < count;
	if (found)
		*out = jobs[i];
	free(jobs);
	return found;
}

static void find_standing(struct daemon *d, const struct child *c, struct standing *out)
{
	const struct resolved *r = c->resolved;

	memset(out, 0, sizeof(*out));
	out->state = "failed";
	if (r->status != STATUS_OK)
		return;
	out->tried = outcomes_find(d->outcomes, c->image, r->revision, &out->outcome);
	if (out->tried)
		memcpy(out->key, out->outcome.key, sizeof(out->key));
	if (!*out->key)
		jobs_find_key(d->jobs, &r->model->model, r->model->where, &r->recipe, out->key);
	if (find_job(d, c->image, &out->job))
		out->state = strcmp(out->job.state, "running") == 0 ? "running" : "queued";
	else if (out->tried && out->outcome.error)
		out->state = "failed";
	else
		out->state = *out->key && cache_has(d->cache, out->key) ? "ready" : "new";
}

/* How much of each LoRA was applied, where it is known: a picture that only the cache knows does not tell. */
static void set_loras(json_t *recipe, const struct standing *s)
{
	json_t *lora;
	size_t i;

	recipe_json_hide(recipe);
	json_array_foreach (json_object_get(recipe, "loras"), i, lora) {
		if (!s->tried || i >= (size_t)s->outcome.loras.n)
			continue;
		json_object_set_new(lora, "applied", json_integer(s->outcome.loras.of[i].applied));
		json_object_set_new(lora, "of", json_integer(s->outcome.loras.of[i].modules));
	}
}

/* With the hashes that are known by now. */
static json_t *recipe_value(const struct resolved *r)
{
	struct recipe known;
	json_t *json = NULL;

	if (r->status != STATUS_OK ||
		contents_know(&r->recipe, contents_recall, (void *)r->config->cache, &known) != STATUS_OK)
		return json_null();
	recipe_to_json(&known, &json);
	contents_put(&known);
	return json ? json : json_null();
}

static void set_recipe(json_t *object, const struct resolved *r, const struct standing *s)
{
	json_t *recipe = recipe_value(r);

	set_loras(recipe, s);
	json_object_set_new(object, "recipe", recipe);
}

static void set_progress(json_t *object, const struct standing *s)
{
	if (!*s->job.state)
		return;
	json_object_set_new(object, "progress",
		json_pack("{s:s, s:i, s:i, s:i, s:f}", "stage", s->job.stage, "step", s->job.step, "steps",
			s->job.steps, "waiters", s->job.waiters, "eta", s->job.eta));
}

enum status statustext_info(struct daemon *d, const struct child *c, struct bytes *out)
{
	const struct resolved *r = c->resolved;
	json_t *object = json_object();
	struct standing s;

	find_standing(d, c, &s);
	json_object_set_new(object, "name", json_name(c->image));
	set_text(object, "state", s.state);
	set_text(object, "model", r->model ? r->model->model.name : NULL);
	json_object_set_new(object, "width", json_integer(r->width));
	json_object_set_new(object, "height", json_integer(r->height));
	json_object_set_new(object, "size", json_integer((json_int_t)r->size));
	set_recipe(object, r, &s);
	set_text(object, "key", s.key);
	set_text(object, "error", r->status != STATUS_OK ? r->text : s.tried ? s.outcome.text : NULL);
	set_progress(object, &s);
	json_object_set_new(
		object, "from_cache", s.tried && !s.outcome.error ? json_boolean(s.outcome.from_cache) : json_null());
	json_object_set_new(
		object, "seconds", s.tried && !s.outcome.error ? json_seconds(s.outcome.seconds) : json_null());
	if (s.tried)
		json_object_set_new(object, "last_attempt", json_integer((json_int_t)s.outcome.when));
	if (s.tried)
		outcome_fini(&s.outcome);
	return print_json(object, out);
}

enum status statustext_error(struct daemon *d, const struct child *c, struct bytes *out)
{
	struct outcome outcome;
	enum status s = STATUS_OK;

	if (c->resolved->status != STATUS_OK)
		return bytes_print(out, "%s\n", c->resolved->text);
	if (!outcomes_find(d->outcomes, c->image, c->resolved->revision, &outcome))
		return STATUS_OK;
	if (outcome.error)
		s = bytes_print(out, "%s\n", outcome.text && *outcome.text ? outcome.text : strerror(outcome.error));
	outcome_fini(&outcome);
	return s;
}

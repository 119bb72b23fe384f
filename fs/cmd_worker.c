/* promptfs worker --fd N: a worker process, started by the daemon (supervisor.c) and by nobody else.
 *
 * One engine, one request at a time, read from the socket N; between the steps of a generation the socket is looked at
 * for a cancel.  The end of the connection is the end of the process.  What is asked comes from our own daemon; still,
 * a request that is not understood ends the process rather than being guessed at.
 *
 * The memory limit is given to the engine: RLIMIT_AS would count the mapped files of the weights as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fs/commands.h"
#include "fs/picture.h"
#include "fs/sandbox.h"
#include "fs/wire.h"

struct serving {
	struct wire *wire;
	struct engine *engine;
	uint64_t id; /* of the request being served */
	bool stop;   /* it was cancelled, or the daemon is gone */
};

/* ---- replies */

/* Sends body (taken). A daemon that is gone shows at the next receive. */
static enum status reply(struct serving *s, json_t *body, int fd)
{
	enum status status = STATUS_NO_MEMORY;

	if (body && json_object_set_new(body, "id", json_integer((json_int_t)s->id)) == 0)
		status = wire_send(s->wire, body, fd);
	json_decref(body);
	return status;
}

/* A text cut in the middle of a character, or from a file name, may be no UTF-8: then in ASCII. */
static json_t *text_value(const char *text)
{
	char copy[1024];
	json_t *value;

	snprintf(copy, sizeof copy, "%s", text);
	value = json_string(copy);
	if (value)
		return value;
	for (char *c = copy; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_string(copy);
}

static enum status reply_failed(struct serving *s, enum status status)
{
	return reply(s,
		json_pack(
			"{s:s, s:i, s:o}", "kind", "failed", "status", (int)status, "text", text_value(status_text())),
		-1);
}

static json_t *seconds_value(const struct engine_progress *p)
{
	json_t *list = json_array();

	for (int i = 0; list && i < STAGE_COUNT; i++)
		json_array_append_new(list, json_real(p->seconds[i]));
	return list;
}

static json_t *loaded_value(const struct engine *e)
{
	json_t *list = json_array();

	for (int i = 0; engine_loaded(e, i); i++)
		json_array_append_new(list, json_string(engine_loaded(e, i)));
	return list;
}

static json_t *loras_value(const struct engine_loras *loras)
{
	json_t *list = json_array();

	for (int i = 0; i < loras->n; i++)
		json_array_append_new(list, json_pack("[i, i]", loras->of[i].applied, loras->of[i].modules));
	return list;
}

static enum status reply_done(struct serving *s, const struct engine_progress *last, int fd)
{
	return reply(s,
		json_pack("{s:s, s:o, s:I, s:o, s:o}", "kind", "done", "seconds", seconds_value(last), "memory",
			(json_int_t)engine_memory(s->engine), "loaded", loaded_value(s->engine), "loras",
			loras_value(&last->loras)),
		fd);
}

/* ---- during a generation */

struct making {
	struct serving *serving;
	struct engine_progress last;
};

/* The only thing that may arrive is a cancel; one for an earlier request came too late and means nothing. */
static bool must_stop(struct serving *s, const json_t *body)
{
	const char *kind = json_string_value(json_object_get(body, "kind"));

	if (!kind || strcmp(kind, "cancel") != 0)
		return true;
	return (uint64_t)json_integer_value(json_object_get(body, "id")) == s->id;
}

static bool is_cancelled(void *context)
{
	struct serving *s = ((struct making *)context)->serving;
	struct wire_message m = { .fd = -1 };

	while (!s->stop) {
		if (wire_receive(s->wire, 0, &m) != STATUS_OK)
			s->stop = true;
		else if (!m.body)
			break;
		else
			s->stop = must_stop(s, m.body);
		wire_message_fini(&m);
	}
	return s->stop;
}

static void send_progress(void *context, const struct engine_progress *p)
{
	struct making *making = context;

	making->last = *p;
	reply(making->serving,
		json_pack("{s:s, s:i, s:i, s:i, s:o}", "kind", "progress", "stage", (int)p->stage, "step", p->step,
			"steps", p->steps, "seconds", seconds_value(p)),
		-1);
}

/* ---- requests */

static enum status need_text(const json_t *body, const char *key, const char **out)
{
	*out = json_string_value(json_object_get(body, key));
	return *out ? STATUS_OK : status_fail(STATUS_INTERNAL, "the daemon's request lacks %s", key);
}

/* The model of a request, with the very files that the daemon knows. */
static enum status open_model(const json_t *body, struct model *out)
{
	const char *path, *name, *identity;

	TRY(need_text(body, "path", &path));
	TRY(need_text(body, "name", &name));
	TRY(need_text(body, "identity", &identity));
	TRY(model_open(path, name, out));
	if (strcmp(out->identity, identity) == 0)
		return STATUS_OK;
	return status_fail(STATUS_NO_MODEL,
		"%s: the model's files have changed since they were last looked at; write \"reload\" to status/control",
		path);
}

/* Reads models wherever they lie, talks through its socket and writes pictures into sealed memory.  What it may write:
 * measurements of a device's kernels (tuning; NULL: none), copies of packed weights and embeddings (NULL: none), which
 * are numbers, checked by length and sum. */
static void enter_sandbox(const char *tuning, const char *packed)
{
	struct sandbox_path paths[] = { { "/", SANDBOX_READ, false }, SANDBOX_DEVICES,
		{ tuning ? tuning : "/", tuning ? SANDBOX_ADD : SANDBOX_READ, false },
		{ packed ? packed : "/", packed ? SANDBOX_KEEP : SANDBOX_READ, false } };
	char texts[PATH_MAX + 16];

	if (packed) {
		mkdir(packed, 0700);
		snprintf(texts, sizeof texts, "%s/" ENGINE_TEXTS, packed); /* inside, folders cannot be made */
		mkdir(texts, 0700);
	}
	sandbox_enter(paths, sizeof paths / sizeof *paths);
}

static enum status serve_hello(struct serving *s, const json_t *body)
{
	struct engine_options options = { 0 };
	const char *device, *dtype, *packed;
	char folder[PATH_MAX];
	bool measures = access("/dev/nvidiactl", F_OK) == 0 && kernels_tuning_folder(folder, sizeof folder);

	TRY(need_text(body, "device", &device));
	TRY(need_text(body, "dtype", &dtype));
	TRY(need_text(body, "packed", &packed));
	if (s->engine || json_integer_value(json_object_get(body, "numerics")) != RECIPE_NUMERICS)
		return status_fail(STATUS_INTERNAL, "the worker is of another version than the daemon; mount again");
	options.device = device;
	TRY(config_dtype(dtype, &options.dtype));
	options.threads = (int)json_integer_value(json_object_get(body, "threads"));
	options.memory_limit = (uint64_t)json_integer_value(json_object_get(body, "memory_limit"));
	options.packed_limit = (uint64_t)json_integer_value(json_object_get(body, "packed_limit"));
	options.packed = options.packed_limit > 0 ? packed : NULL;
	setpriority(PRIO_PROCESS, 0, (int)json_integer_value(json_object_get(body, "nice"))); /* threads inherit it */
	/* before any file of a user is read, and before there are threads */
	enter_sandbox(measures ? folder : NULL, options.packed);
	TRY(engine_open(&options, &s->engine));
	return reply(s,
		json_pack("{s:s, s:s, s:o, s:s}", "kind", "ready", "device", engine_device(s->engine), "about",
			text_value(engine_about(s->engine)), "dtype", dtype_name(engine_dtype(s->engine))),
		-1);
}

static enum status check_identity(const json_t *body, const char *path)
{
	const char *known;
	char identity[MODEL_HASH_LEN + 1];

	TRY(need_text(body, "identity", &known));
	TRY(content_identify(1, &path, identity, NULL));
	return strcmp(identity, known) == 0
		       ? STATUS_OK
		       : status_fail(
				 STATUS_INVALID, "%s has changed since it was looked at; open the picture again", path);
}

static enum status hash_file(const json_t *body, char hash[MODEL_HASH_LEN + 1])
{
	const char *path;

	TRY(need_text(body, "path", &path));
	TRY(check_identity(body, path));
	TRY(content_hash(1, &path, hash));
	return check_identity(body, path);
}

static enum status hash_model(const json_t *body, char hash[MODEL_HASH_LEN + 1])
{
	struct model m;

	TRY(open_model(body, &m));
	TRY(model_hash_files(&m, hash));
	return open_model(body, &m); /* files that changed meanwhile would give the hash a wrong name */
}

static enum status serve_hash(struct serving *s, const json_t *body)
{
	char hash[MODEL_HASH_LEN + 1];

	TRY(json_object_get(body, "name") ? hash_model(body, hash) : hash_file(body, hash));
	return reply(s, json_pack("{s:s, s:s}", "kind", "hashed", "hash", hash), -1);
}

static enum status run_engine(
	struct making *making, const struct model *m, const struct recipe *recipe, bool pixels, struct bytes *png)
{
	return engine_generate(making->serving->engine,
		&(struct engine_job){ .model = m,
			.recipe = recipe,
			.pixels = pixels,
			.cancelled = is_cancelled,
			.progress = send_progress,
			.context = making },
		png);
}

static enum status hand_over(struct making *making, const struct bytes *png)
{
	enum status status;
	int fd;

	TRY(picture_seal(png->data, png->len, &fd));
	status = reply_done(making->serving, &making->last, fd);
	close(fd);
	return status;
}

static enum status serve_generate(struct serving *s, const json_t *body)
{
	struct making making = { .serving = s };
	struct recipe recipe = { 0 };
	struct bytes png = { 0 };
	enum status status;
	struct model m;

	TRY(open_model(body, &m));
	TRY(recipe_from_json(json_object_get(body, "recipe"), &recipe));
	status = run_engine(&making, &m, &recipe, json_is_true(json_object_get(body, "pixels")), &png);
	if (status == STATUS_OK)
		status = hand_over(&making, &png);
	bytes_free(&png);
	recipe_free(&recipe);
	return status;
}

/* Loads by making the smallest picture in one step: that touches every weight, as the first job will. */
static enum status serve_warm(struct serving *s, const json_t *body)
{
	struct recipe_fields fields = { .prompt = (char[]){ "warm" }, .has_steps = true, .steps = 1, .has_size = true };
	struct making making = { .serving = s };
	struct recipe recipe = { 0 };
	struct bytes png = { 0 };
	enum status status;
	struct model m;

	TRY(open_model(body, &m));
	fields.width = fields.height = (64 + m.size_multiple - 1) / m.size_multiple * m.size_multiple;
	TRY(recipe_resolve(&fields, &m, &recipe));
	status = run_engine(&making, &m, &recipe, true, &png);
	bytes_free(&png);
	recipe_free(&recipe);
	return status == STATUS_OK ? reply_done(s, &making.last, -1) : status;
}

static enum status serve_unload(struct serving *s, const json_t *body)
{
	engine_unload(s->engine, json_string_value(json_object_get(body, "model")));
	return reply_done(s, &(struct engine_progress){ 0 }, -1);
}

/* It came too late: what it was to end has ended. */
static enum status serve_cancel(struct serving *s, const json_t *body)
{
	return STATUS_OK;
}

static const struct {
	const char *kind;
	enum status (*serve)(struct serving *s, const json_t *body);
	bool needs_engine;
} requests[] = {
	{ "hello", serve_hello, false },
	{ "hash", serve_hash, true },
	{ "generate", serve_generate, true },
	{ "warm", serve_warm, true },
	{ "unload", serve_unload, true },
	{ "cancel", serve_cancel, true },
};

/* False when the request is unknown, and when the device failed: it may be lost to this process, and the daemon starts
 * another one. */
static bool serve(struct serving *s, const json_t *body)
{
	const char *kind = json_string_value(json_object_get(body, "kind"));
	enum status status;
	size_t i = 0;

	while (i < sizeof requests / sizeof *requests && (!kind || strcmp(requests[i].kind, kind) != 0))
		i++;
	if (i == sizeof requests / sizeof *requests || (requests[i].needs_engine && !s->engine))
		return false;
	if (requests[i].serve != serve_cancel)
		s->id = (uint64_t)json_integer_value(json_object_get(body, "id"));
	s->stop = false;
	status = requests[i].serve(s, body);
	if (status != STATUS_OK)
		reply_failed(s, status);
	return status != STATUS_DEVICE;
}

/* ---- the process */

/* Dies with the daemon, and before it when memory runs out. A daemon that died before this shows by the socket. */
static void set_process(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0)
		return;
	if (write(fd, "500", 3) < 0)
		fprintf(stderr, "promptfs worker: cannot set oom_score_adj: %s\n", strerror(errno));
	close(fd);
}

static void serve_all(struct serving *s)
{
	struct wire_message m = { .fd = -1 };
	bool known = true;

	while (known && wire_receive(s->wire, -1, &m) == STATUS_OK) {
		known = serve(s, m.body);
		wire_message_fini(&m);
	}
}

static int parse_fd(int argc, char **argv)
{
	char *end = NULL;
	long fd = -1;

	if (argc == 3 && strcmp(argv[1], "--fd") == 0)
		fd = strtol(argv[2], &end, 10);
	return end && *argv[2] && !*end && fd > 2 && fd < 1024 ? (int)fd : -1;
}

int cmd_worker(int argc, char **argv)
{
	struct serving s = { 0 };
	int fd = parse_fd(argc, argv);

	if (fd < 0)
		return command_usage("worker", "`promptfs mount` starts its workers by itself");
	set_process();
	if (wire_open(fd, WIRE_REQUEST_MAX, &s.wire) != STATUS_OK)
		return command_fail(STATUS_NO_MEMORY);
	serve_all(&s);
	engine_close(s.engine);
	wire_close(s.wire);
	return 0;
}

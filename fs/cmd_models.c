/* promptfs models [--dry-run] [NAME ...]: the configured models, and what is wrong with those that cannot be used. */
#include "fs/commands.h"

#include <getopt.h>
#include <string.h>

#include "engine/family.h"
#include "fs/dry_run.h"
#include "kernels/kernels.h"

static const char name[] = "models";

/* One line of the table; problem is "" when the model can be used. */
struct row {
	char name[64], family[32], dtype[16], size[COMMAND_BYTES_LEN], device[32];
	bool derived; /* from its tensors: it has no model_index.json */
	char problem[1024];
};

static void note_problem(struct row *r)
{
	if (!*r->problem)
		snprintf(r->problem, sizeof r->problem, "%s", status_text());
}

/* What "auto" and "" come to on this machine. */
static void ask_device(const struct config *c, const struct config_model *m, struct row *r)
{
	const char *device = *m->device ? m->device : c->device, *wanted = *m->dtype ? m->dtype : c->dtype;
	struct kernels *k = NULL;
	enum dtype dtype;

	snprintf(r->device, sizeof r->device, "%s", device);
	snprintf(r->dtype, sizeof r->dtype, "%s", *wanted ? wanted : "-");
	if (config_dtype(wanted, &dtype) != STATUS_OK || kernels_open(device, dtype, c->threads, &k) != STATUS_OK) {
		note_problem(r);
		return;
	}
	snprintf(r->device, sizeof r->device, "%s", kernels_device(k));
	snprintf(r->dtype, sizeof r->dtype, "%s", dtype_name(kernels_weight_dtype(k)));
	kernels_close(k);
}

static void describe(const struct config *c, const struct config_model *m, struct row *r)
{
	struct model model;

	*r = (struct row){ .family = "-", .size = "-" };
	snprintf(r->name, sizeof r->name, "%s", m->name);
	if (model_open(m->path, m->name, &model) == STATUS_OK) {
		snprintf(r->family, sizeof r->family, "%s", model.family->name);
		command_print_bytes(model.file_bytes, r->size);
		r->derived = model_is_derived(&model);
	} else {
		note_problem(r);
	}
	ask_device(c, m, r);
}

static void print_row(const char *a, const char *b, const char *c, const char *d, const char *e, const char *problem)
{
	printf("%-24s %-12s %-6s %9s  %-8s ", a, b, c, d, e);
	command_print_line(problem, 1000, stdout);
	putchar('\n');
}

static bool print_model(const struct config *c, const struct config_model *m)
{
	struct row r;
	char state[80];

	describe(c, m, &r);
	snprintf(state, sizeof state, "ok%s%s", m == config_find_model(c, NULL) ? ", default" : "",
		r.derived ? ", recognised by its tensors" : "");
	print_row(r.name, r.family, r.dtype, r.size, r.device, *r.problem ? r.problem : state);
	return !*r.problem;
}

/* Those asked for must be usable; a list of all says what is wrong and is fine. */
static int print_asked(const struct config *c, int count, char **names)
{
	int code = 0;

	for (int i = 0; i < count; i++) {
		const struct config_model *m = config_find_model(c, names[i]);

		if (!m) {
			code = command_fail(status_fail(STATUS_NO_MODEL, "no model '%.60s' is configured", names[i]));
			continue;
		}
		if (!print_model(c, m))
			code = command_fail(status_fail(STATUS_NO_MODEL, "model %s cannot be used", m->name));
	}
	return code;
}

/* Models of the configuration, or folders. */
static int dry_run(const struct config *c, int count, char **names)
{
	int code = 0;

	for (int i = 0; i < count; i++) {
		const struct config_model *m = config_find_model(c, names[i]);
		struct model model;
		enum status status = model_open(m ? m->path : names[i], m ? m->name : NULL, &model);

		if (status == STATUS_OK)
			status = dry_run_model(&model);
		if (status != STATUS_OK)
			code = command_fail(status);
	}
	return code;
}

static int list_models(const struct config *c, int count, char **names)
{
	char *by_option[1] = { (char *)c->default_model };

	print_row("NAME", "FAMILY", "DTYPE", "SIZE", "DEVICE", "STATE");
	if (count > 0)
		return print_asked(c, count, names);
	if (c->model_asked)
		return print_asked(c, 1, by_option);
	for (int i = 0; i < c->n_models; i++)
		print_model(c, &c->models[i]);
	return 0;
}

int cmd_models(int argc, char **argv)
{
	static const struct option options[] = { { "dry-run", no_argument, NULL, 'n' }, { 0 } };
	struct config config;
	bool dry = false;
	int code = command_config(&argc, argv, &config), option;

	if (code)
		return code;
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) == 'n')
		dry = true;
	if (option != -1)
		code = command_bad_option(name, option, argv);
	else if (dry && argc == optind && config.model_asked)
		code = dry_run(&config, 1, (char *[]){ (char *)config.default_model });
	else if (dry && argc == optind)
		code = command_usage(name, "--dry-run needs the folder of a model, or its name");
	else if (dry)
		code = dry_run(&config, argc - optind, argv + optind);
	else
		code = list_models(&config, argc - optind, argv + optind);
	config_free(&config);
	return command_finish() ? 1 : code;
}

/* control: see control.h. */
#include "fs/control.h"

#include <errno.h>
#include <string.h>

#include "fs/control_lines.h"
#include "fs/log.h"

static int run_cancel(struct daemon *d, const char *name)
{
	return jobs_cancel(d->jobs, name) == 0 ? 0 : EINVAL;
}

static int run_retry(struct daemon *d, const char *name)
{
	outcomes_forget(d->outcomes, name);
	jobs_forgive(d->jobs, name);
	return 0;
}

static const struct catalog_model *find_model(struct daemon *d, const char *name)
{
	const struct catalog_model *m = catalog_find(resolver_catalog(d->resolver), name);

	return m && m->status == STATUS_OK ? m : NULL;
}

static int run_warm(struct daemon *d, const char *name)
{
	const struct catalog_model *m = find_model(d, name);

	return m && jobs_warm(d->jobs, &m->model, m->where) == STATUS_OK ? 0 : EINVAL;
}

static int run_unload(struct daemon *d, const char *name)
{
	const struct catalog_model *m = find_model(d, name);

	return m && jobs_unload(d->jobs, &m->model) == STATUS_OK ? 0 : EINVAL;
}

static int run_reload(struct daemon *d, const char *nothing)
{
	if (daemon_reload(d) == STATUS_OK)
		return 0;
	log_error("reload: %s", status_text());
	return EINVAL;
}

static int run(void *context, enum control_verb verb, const char *argument)
{
	static int (*const runs[CONTROL_VERBS])(struct daemon * d, const char *argument) = {
		[CONTROL_CANCEL] = run_cancel,
		[CONTROL_RETRY] = run_retry,
		[CONTROL_WARM] = run_warm,
		[CONTROL_UNLOAD] = run_unload,
		[CONTROL_RELOAD] = run_reload,
	};

	return runs[verb](context, argument);
}

int control_run(struct daemon *d, const char *text, size_t len)
{
	size_t done = 0;
	int error = control_lines(text, len, run, d, &done);

	if (error)
		log_warn("status/control: '%.*s': %s", (int)strnlen(text + done, len - done < 200 ? len - done : 200),
			text + done, strerror(error));
	return error;
}

/* schedule: FlowMatch Euler against the reference's schedulers (golden units/schedules). */
#include "engine/schedule.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/check.h"

/* A file of the units: its scheduler's settings as a file of their own, for flow_config_read. */
static bool read_settings(const json_t *unit, struct flow_config *out)
{
	char path[] = "/tmp/promptfs-schedule-XXXXXX";
	int fd = mkstemp(path);
	bool read = fd >= 0 && json_dumpfd(json_object_get(unit, "config_in"), fd, 0) == 0 &&
		    flow_config_read(path, out) == STATUS_OK;

	if (fd >= 0)
		close(fd);
	unlink(path);
	return read;
}

static bool near(const json_t *wanted, const float *got, int n)
{
	if (json_array_size(wanted) != (size_t)n)
		return false;
	for (int i = 0; i < n; i++) {
		double want = json_number_value(json_array_get(wanted, (size_t)i));

		if (!(fabs((double)got[i] - want) <= 1e-5 * fabs(want)))
			return false;
	}
	return true;
}

static void check_unit(const char *folder, int64_t image_tokens)
{
	char path[4096];
	struct flow_config config;
	struct schedule s;
	const char *steps;
	json_t *unit, *schedule;

	snprintf(path, sizeof path, "%s/units/schedules/%s/flow_euler.json", check_golden(), folder);
	unit = json_load_file(path, 0, NULL);
	if (!unit) {
		printf("skip - %s: not in the golden cases\n", folder);
		return;
	}
	check_case(read_settings(unit, &config), status_text(), "%s: settings", folder);
	json_object_foreach (json_object_get(unit, "schedules"), steps, schedule) {
		int n = atoi(steps);

		if (json_object_get(schedule, "error"))
			continue;
		flow_schedule(&config, n, image_tokens, &s);
		check_case(near(json_object_get(schedule, "timesteps"), s.timesteps, n), NULL, "%s: timesteps of %d",
			folder, n);
		check_case(near(json_object_get(schedule, "sigmas"), s.sigmas, n + 1), NULL, "%s: sigmas of %d", folder,
			n);
	}
	json_decref(unit);
}

static void check_refused(const char *settings, const char *word)
{
	char path[] = "/tmp/promptfs-schedule-XXXXXX";
	int fd = mkstemp(path);
	FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
	struct flow_config config;

	if (f) {
		fputs(settings, f);
		fclose(f);
	}
	check_case(flow_config_read(path, &config) != STATUS_OK && strstr(status_text(), word), status_text(),
		"refused: %s", word);
	unlink(path);
}

int main(void)
{
	check_unit("z-image", 0);
	check_unit("flux-dev-256-tokens", 256);
	check_unit("flux-dev-1024-tokens", 1024);
	check_unit("flux-dev-4096-tokens", 4096);
	check_refused("{\"num_train_timesteps\": 0}", "num_train_timesteps");
	check_refused("{\"shift\": \"three\"}", "shift");
	check_refused("{\"use_karras_sigmas\": true}", "use_karras_sigmas");
	check_refused("{\"_class_name\": \"DDIMScheduler\"}", "DDIMScheduler");
	check_refused("{\"time_shift_type\": \"sideways\"}", "time_shift_type");
	return check_result();
}

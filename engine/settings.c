/* settings: see settings.h. */
#include "engine/settings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "engine/text.h"

static const struct setting everywhere[] = {
	{ "image_index", SETTING_INT, 0, 63 },
	{ "num_images_per_prompt", SETTING_INT, 1, 64 },
};

static const struct setting *find(const struct setting *table, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

static bool read_number(const char *text, double *out)
{
	if (strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0)
		*out = strcasecmp(text, "true") == 0;
	else
		return text_read_double(text, out);
	return true;
}

static bool in_range(const struct setting *s, double value)
{
	return value >= s->low && value <= s->high;
}

/* "64x96" or "(64, 96)": two integers, also negative ones (crops). */
static bool read_pair(const char *text, int64_t out[2])
{
	long long a, b;
	int end = 0;

	if ((sscanf(text, "%lldx%lld%n", &a, &b, &end) != 2 || text[end]) &&
		(sscanf(text, "(%lld, %lld)%n", &a, &b, &end) != 2 || text[end]))
		return false;
	out[0] = a;
	out[1] = b;
	return true;
}

static enum status check_value(const struct setting *s, const char *value)
{
	int64_t integer, pair[2];
	double number;

	switch (s->kind) {
	case SETTING_INT:
		if (text_read_int(value, (int64_t)s->low, (int64_t)s->high, &integer))
			return STATUS_OK;
		return status_fail(STATUS_INVALID, "Set: %s=%.60s: must be an integer from %g to %g", s->name, value,
			s->low, s->high);
	case SETTING_NUMBER:
		if (read_number(value, &number) && in_range(s, number))
			return STATUS_OK;
		return status_fail(STATUS_INVALID, "Set: %s=%.60s: must be a number from %g to %g", s->name, value,
			s->low, s->high);
	case SETTING_PAIR:
		if (read_pair(value, pair) && in_range(s, (double)pair[0]) && in_range(s, (double)pair[1]))
			return STATUS_OK;
		return status_fail(STATUS_INVALID,
			"Set: %s=%.60s: must be HEIGHTxWIDTH, such as 768x512, each from %g to %g", s->name, value,
			s->low, s->high);
	case SETTING_FILE:
	case SETTING_TEXT:
		break;
	}
	return STATUS_OK;
}

/* "a, b, c": what there is */
static enum status refuse(const struct setting *table, int n, const char *name, const char *pipeline)
{
	struct bytes list = { 0 };
	enum status status = STATUS_OK;

	for (int i = 0; i < n && status == STATUS_OK; i++)
		status = bytes_print(&list, "%s, ", table[i].name);
	if (status == STATUS_OK)
		status = bytes_print(&list, "image_index, num_images_per_prompt");
	if (status == STATUS_OK)
		status = status_fail(STATUS_INVALID, "Set: %.60s is no argument of the %s pipeline (there are %s)",
			name, pipeline, (char *)list.data);
	bytes_free(&list);
	return status;
}

enum status settings_check(const struct setting *table, int n, const struct recipe *r, const char *pipeline)
{
	for (int i = 0; i < r->n_sets; i++) {
		const struct setting *s = find(table, n, r->sets[i].name);

		if (!s)
			s = find(everywhere, sizeof everywhere / sizeof everywhere[0], r->sets[i].name);
		if (!s)
			return refuse(table, n, r->sets[i].name, pipeline);
		TRY(check_value(s, r->sets[i].value));
	}
	if (recipe_set_int(r, "image_index", 0) >= recipe_set_int(r, "num_images_per_prompt", 1))
		return status_fail(
			STATUS_INVALID, "Set: image_index counts from 0 and must be below num_images_per_prompt");
	return STATUS_OK;
}

const char *setting_text(const struct recipe *r, const char *name, const char *fallback)
{
	for (int i = 0; i < r->n_sets; i++)
		if (strcmp(r->sets[i].name, name) == 0)
			return r->sets[i].value;
	return fallback;
}

double setting_number(const struct recipe *r, const char *name, double fallback)
{
	const char *text = setting_text(r, name, NULL);
	double value;

	return text && read_number(text, &value) ? value : fallback;
}

bool setting_pair(const struct recipe *r, const char *name, int64_t out[2])
{
	const char *text = setting_text(r, name, NULL);

	return text && read_pair(text, out);
}

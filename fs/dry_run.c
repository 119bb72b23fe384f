/* dry_run: see dry_run.h. */
#include "fs/dry_run.h"

#include <stdio.h>

#include "engine/family.h"
#include "engine/survey.h"

/* Of all parts. */
struct totals {
	int64_t count[SURVEY_STATES], parameters;
	char lines[PARTS_MAX][200]; /* one a part, printed at the end */
	int n, failed;
	char why[500]; /* of the first that failed */
};

static void print_shape(int rank, const int64_t *dim)
{
	if (rank < 0)
		return;
	fputs(" [", stdout);
	for (int i = 0; i < rank; i++)
		printf("%s%lld", i ? ", " : "", (long long)dim[i]);
	putchar(']');
}

static void print_tensor(const char *part, const struct survey_tensor *t)
{
	printf("%-11s %s/%s", survey_state_name(t->state), part, t->name);
	print_shape(t->rank, t->dim);
	if (t->state == SURVEY_SHAPE) {
		fputs(", stored as", stdout);
		print_shape(t->stored_rank, t->stored);
	}
	putchar('\n');
}

static void add_totals(struct totals *sum, const char *part, const struct survey *s)
{
	size_t len = 0;

	if (sum->n < PARTS_MAX) {
		char *line = sum->lines[sum->n++];

		len = (size_t)snprintf(
			line, sizeof sum->lines[0], "%-16s %.3f billion parameters", part, (double)s->parameters / 1e9);
		for (int i = 0; i < SURVEY_STATES; i++)
			if (s->count[i] && len < sizeof sum->lines[0])
				len += (size_t)snprintf(line + len, sizeof sum->lines[0] - len, ", %lld %s",
					(long long)s->count[i], survey_state_name(i));
	}
	for (int i = 0; i < SURVEY_STATES; i++)
		sum->count[i] += s->count[i];
	sum->parameters += s->parameters;
}

/* A part that cannot be read does not hide the others. */
static enum status survey_one(void *context, const struct part_kind *kind, const struct component *c)
{
	struct totals *sum = context;
	struct survey s = { 0 };
	enum status status = survey_part(kind, c, &s);

	for (int64_t i = 0; status == STATUS_OK && i < s.n; i++)
		print_tensor(c->name, &s.tensor[i]);
	if (status == STATUS_OK)
		add_totals(sum, c->name, &s);
	else if (!sum->failed++)
		snprintf(sum->why, sizeof sum->why, "%s", status_text());
	if (status != STATUS_OK)
		printf("%-11s %s: %s\n", "error", c->name, status_text());
	survey_free(&s);
	return STATUS_OK;
}

enum status dry_run_model(const struct model *m)
{
	struct totals sum = { .n = 0 };
	int64_t wrong;

	if (m->family->each_part)
		TRY(m->family->each_part(m, survey_one, &sum));
	for (int i = 0; i < sum.n; i++)
		puts(sum.lines[i]);
	printf("%s: %s, %.3f billion parameters in all\n", m->name, m->family->name, (double)sum.parameters / 1e9);
	if (sum.failed)
		return status_fail(STATUS_CORRUPT, "%s", sum.why);
	wrong = sum.count[SURVEY_MISSING] + sum.count[SURVEY_SHAPE] + sum.count[SURVEY_UNUSED];
	return wrong ? status_fail(STATUS_CORRUPT, "%s: %lld tensors missing, %lld of another shape, %lld of no use",
			       m->path, (long long)sum.count[SURVEY_MISSING], (long long)sum.count[SURVEY_SHAPE],
			       (long long)sum.count[SURVEY_UNUSED])
		     : STATUS_OK;
}

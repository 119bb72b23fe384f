/* survey: see survey.h. */
#include "engine/survey.h"

#include <stdlib.h>
#include <string.h>

enum status survey_part(const struct part_kind *kind, const struct component *c, struct survey *out)
{
	struct component surveyed = *c;
	void *part = NULL;

	surveyed.survey = out;
	TRY(kind->open(NULL, &surveyed, &part));
	kind->close(part);
	return STATUS_OK;
}

enum status survey_add(struct survey *s, const struct survey_tensor *t)
{
	struct survey_tensor *added;
	int64_t count = 1;

	if (s->n == s->capacity) {
		int64_t capacity = 2 * s->capacity + 256;
		struct survey_tensor *grown = realloc(s->tensor, (size_t)capacity * sizeof *grown);

		if (!grown)
			return status_fail(STATUS_NO_MEMORY, "no memory for a list of tensors");
		s->tensor = grown;
		s->capacity = capacity;
	}
	added = &s->tensor[s->n];
	*added = *t;
	added->name = strdup(t->name);
	if (!added->name)
		return status_fail(STATUS_NO_MEMORY, "no memory for a list of tensors");
	s->n++;
	s->count[t->state]++;
	for (int i = 0; i < t->rank; i++)
		count *= t->dim[i];
	if (t->state != SURVEY_UNUSED && t->state != SURVEY_PASSED)
		s->parameters += count;
	return STATUS_OK;
}

void survey_free(struct survey *s)
{
	for (int64_t i = 0; i < s->n; i++)
		free(s->tensor[i].name);
	free(s->tensor);
	*s = (struct survey){ 0 };
}

const char *survey_state_name(enum survey_state state)
{
	static const char *const names[SURVEY_STATES] = { [SURVEY_FITS] = "ok",
		[SURVEY_EXPECTED] = "expected",
		[SURVEY_MISSING] = "missing",
		[SURVEY_SHAPE] = "other-shape",
		[SURVEY_UNUSED] = "unused",
		[SURVEY_PASSED] = "not-needed" };

	return names[state];
}

/* families: the table of model families. */
#include "engine/family.h"

#include <string.h>

static const struct family *const families[] = {
	&zimage_family,
	&sd3_family,
	&flux_family,
	&testcard_family,
	&sd15_family,
	&sdxl_family,
	&kandinsky_family,
	&kandinsky_decoder_family,
};

const struct family *family_at(int i)
{
	int n = (int)(sizeof families / sizeof families[0]);

	return i >= 0 && i < n ? families[i] : NULL;
}

const struct family *family_find(const char *class_name)
{
	for (int i = 0; family_at(i); i++)
		if (strcmp(families[i]->pipeline, class_name) == 0)
			return families[i];
	return NULL;
}

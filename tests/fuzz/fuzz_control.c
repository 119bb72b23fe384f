/* Any bytes written to status/control: commands with sound arguments, or an errno and where it is. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(void *context, enum control_verb verb, const char *argument)
{
	if (verb >= CONTROL_VERBS || (verb == CONTROL_RELOAD) != !*argument)
		abort();
	++*(size_t *)context;
	return strcmp(argument, "busy") == 0 ? EBUSY : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n = 0, failed = size + 1;
	int error = control_lines((const char *)data, size, run, &n, &failed);

	if ((error != 0 && error != EINVAL && error != EBUSY) || failed > size || (!error && failed != size))
		abort();
	return 0;
}

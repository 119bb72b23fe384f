/* Any bytes as the name of a file: a harmless line of text that stands for that name; and as what is read back. */
#include <stdlib.h>
#include <string.h>

#include "engine/text.h"
#include "fs/escape.h"
#include "kernels/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_harmless(const char *line)
{
	for (const unsigned char *c = (const unsigned char *)line; *c; c++)
		if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f))
			return false;
	return text_is_utf8(line, strlen(line), NULL);
}

static void check_line(const char *name)
{
	struct bytes line = { 0 };

	if (escape_add(name, &line) != STATUS_OK || !is_harmless(line.data ? (char *)line.data : ""))
		abort();
	if (*name && (!escape_undo((char *)line.data) || strcmp((char *)line.data, name) != 0))
		abort();
	bytes_free(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *name = strndup((const char *)data, size), *line = strdup(name ? name : "");

	if (!name || !line)
		abort();
	check_line(name);
	if (escape_undo(line))
		check_line(line);
	status_clean(name);
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			abort();
	free(line);
	free(name);
	return 0;
}

/* Any bytes as a scheduler's configuration: refused, or a schedule comes of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/sampler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "", "euler", "dpmpp_2m_karras", "ddim", "unipc", "lcm" };
	static char path[] = "/tmp/promptfs-fuzz-scheduler-XXXXXX";
	static int fd = -1;

	if (fd < 0)
		fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		for (int steps = 1; steps <= 20; steps += 19)
			sampler_check(path, names[i], steps);
	return 0;
}

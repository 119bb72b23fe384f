/* random_weights: see random_weights.h. */
#include "engine/random_weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK_LEN = 64 << 20, BLOCKS = 32, ONES = 1 << 16 };

/* Uniform with this bound has the deviation 0.02 that models are initialised with. */
static const float BOUND = 0.0346f;

struct random_weights {
	uint16_t *values; /* BLOCKS times the same BLOCK_LEN bytes */
	uint16_t ones[ONES];
};

/* xorshift64*, sixteen bits a value */
static void fill(uint16_t *values, size_t count)
{
	uint64_t state = 0x9e3779b97f4a7c15;

	for (size_t i = 0; i < count; i++) {
		state ^= state >> 12;
		state ^= state << 25;
		state ^= state >> 27;
		values[i] = bf16_from_f32(((float)((state * 0x2545f4914f6cdd1d) >> 48) / 32768 - 1) * BOUND);
	}
}

static enum status map_blocks(struct random_weights *r, int fd)
{
	unsigned char *at = mmap(NULL, (size_t)BLOCK_LEN * BLOCKS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return status_fail(STATUS_NO_MEMORY, "no addresses for random weights: %s", strerror(errno));
	r->values = (uint16_t *)(void *)at;
	for (int i = 0; i < BLOCKS; i++, at += BLOCK_LEN)
		if (mmap(at, BLOCK_LEN, i ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
			MAP_FAILED)
			return status_fail(STATUS_NO_MEMORY, "no memory for random weights: %s", strerror(errno));
	return STATUS_OK;
}

enum status random_weights_open(struct random_weights **out)
{
	struct random_weights *r = calloc(1, sizeof *r);
	int fd = memfd_create("random weights", MFD_CLOEXEC);
	enum status s;

	if (!r || fd < 0 || ftruncate(fd, BLOCK_LEN) != 0)
		s = status_fail(STATUS_NO_MEMORY, "no memory for random weights: %s", strerror(errno));
	else
		s = map_blocks(r, fd);
	if (fd >= 0)
		close(fd);
	if (s != STATUS_OK) {
		random_weights_close(r);
		return s;
	}
	fill(r->values, BLOCK_LEN / sizeof *r->values);
	for (int i = 0; i < ONES; i++)
		r->ones[i] = bf16_from_f32(1);
	*out = r;
	return STATUS_OK;
}

void random_weights_close(struct random_weights *r)
{
	if (r && r->values)
		munmap(r->values, (size_t)BLOCK_LEN * BLOCKS);
	free(r);
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), tail = strlen(end);

	return len >= tail && strcmp(text + len - tail, end) == 0;
}

enum status random_weights_view(
	const struct random_weights *r, const char *name, int rank, const int64_t *dim, struct tensor *out)
{
	struct tensor t = tensor_view(r->values, DTYPE_BF16, rank, dim);
	int64_t count = tensor_count(&t);

	if (count < 0 || (uint64_t)count > (uint64_t)BLOCK_LEN * BLOCKS / sizeof *r->values)
		return status_fail(
			STATUS_UNSUPPORTED, "tensor %s: %lld random values are too many", name, (long long)count);
	if (rank == 1 && count <= ONES && ends_with(name, "weight"))
		t.data = (void *)r->ones;
	*out = t;
	return STATUS_OK;
}

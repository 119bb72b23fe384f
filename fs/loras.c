/* loras: see loras.h. */
#include "fs/loras.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/text.h"
#include "fs/hashes.h"
#include "fs/log.h"

static bool is_file(const char *path, struct stat *st)
{
	return stat(path, st) == 0 && S_ISREG(st->st_mode);
}

static enum status find(const struct config *config, bool here, const char *name, char path[PATH_MAX], struct stat *st)
{
	if (here) {
		snprintf(path, PATH_MAX, "%s", name);
		if (is_file(path, st))
			return STATUS_OK;
	}
	if (name[0] == '/' || strstr(name, ".."))
		return status_fail(STATUS_INVALID, "LoRA %s: no such file", name);
	for (int i = 0; i < 2; i++) {
		int len = snprintf(path, PATH_MAX, "%s/%s%s", config->loras, name, i ? "" : ".safetensors");

		if (len < PATH_MAX && is_file(path, st))
			return STATUS_OK;
	}
	return status_fail(STATUS_INVALID, "LoRA %s: no such file in %s", name, config->loras);
}

static void print_hash(XXH128_hash_t h, char out[MODEL_HASH_LEN + 1])
{
	snprintf(out, MODEL_HASH_LEN + 1, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

/* What tells the file apart without reading it. */
static void identify(const struct stat *st, char out[MODEL_HASH_LEN + 1])
{
	char line[256];
	int len = snprintf(line, sizeof line, "lora %ju %ju %jd %jd.%09ld %jd.%09ld", (uintmax_t)st->st_dev,
		(uintmax_t)st->st_ino, (intmax_t)st->st_size, (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
		(intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);

	print_hash(XXH3_128bits(line, (size_t)len), out);
}

static enum status hash_content(const char *path, char out[MODEL_HASH_LEN + 1])
{
	enum { CHUNK = 1 << 20 };
	XXH3_state_t *state = XXH3_createState();
	char *chunk = malloc(CHUNK);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	if (state && chunk && fd >= 0) {
		XXH3_128bits_reset(state);
		while ((n = read(fd, chunk, CHUNK)) > 0)
			XXH3_128bits_update(state, chunk, (size_t)n);
	}
	if (n == 0)
		print_hash(XXH3_128bits_digest(state), out);
	else
		status_fail(STATUS_INVALID, "LoRA %s: cannot read: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	free(chunk);
	XXH3_freeState(state);
	return n == 0 ? STATUS_OK : STATUS_INVALID;
}

static enum status settle(const struct config *config, bool here, struct recipe_lora *l)
{
	char path[PATH_MAX], *real;
	struct stat st;

	TRY(find(config, here, l->name, path, &st));
	real = realpath(path, NULL);
	if (!real)
		return status_fail(STATUS_INVALID, "LoRA %s: %s", l->name, strerror(errno));
	free(l->path);
	l->path = real;
	identify(&st, l->identity);
	if (hashes_recall(config->cache, l->identity, l->hash))
		return STATUS_OK;
	TRY(hash_content(real, l->hash));
	if (hashes_remember(config->cache, l->identity, l->hash) != STATUS_OK)
		log_info("%s", status_text()); /* it will be computed again */
	return STATUS_OK;
}

enum status loras_settle(const struct config *config, bool here, struct recipe *r)
{
	for (int i = 0; i < r->n_loras; i++)
		TRY(settle(config, here, &r->loras[i]));
	return STATUS_OK;
}

bool loras_changed(const struct recipe *r)
{
	for (int i = 0; i < r->n_loras; i++) {
		const struct recipe_lora *l = &r->loras[i];
		char identity[MODEL_HASH_LEN + 1];
		struct stat st;

		if (!l->path)
			continue;
		if (!is_file(l->path, &st))
			return true;
		identify(&st, identity);
		if (strcmp(identity, l->identity) != 0)
			return true;
	}
	return false;
}

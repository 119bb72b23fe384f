/* sampler_name: every spelling of a sampler to its canonical name. */
#include "engine/sampler_name.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = { "pndm", "ddim", "ddpm", "euler", "euler_karras", "euler_a", "heun", "lms",
	"lms_karras", "dpm2", "dpm2_karras", "dpm2_a", "dpm2_a_karras", "dpm++_2m", "dpm++_2m_karras",
	"dpm++_2m_exponential", "dpm++_2m_beta", "dpm++_2m_lu", "dpm++_2m_sde", "dpm++_2m_sde_karras", "dpm++_3m",
	"dpm++_2s", "dpm++_2s_karras", "deis", "unipc", "unipc_karras", "lcm", "tcd", "edm_dpm++_2m", "edm_euler",
	"flow_euler", "flow_euler_karras", "flow_euler_exponential", "flow_euler_beta", "flow_euler_stochastic",
	"flow_heun", "flow_dpm++_2m", "flow_unipc" };

/* Names of other programs for the same thing, already squeezed. */
static const struct {
	const char *other, *name;
} aliases[] = {
	{ "plms", "pndm" },
	{ "eulerancestral", "euler_a" },
	{ "dpm2ancestral", "dpm2_a" },
	{ "dpm2ancestralkarras", "dpm2_a_karras" },
};

/* Lower case without separators, "pp" of "dpmpp" as "++". */
static bool squeeze(const char *name, char *out, size_t size)
{
	size_t len = 0;

	for (; *name; name++) {
		if (strchr(" \t_-", *name))
			continue;
		if (len + 1 >= size)
			return false;
		out[len++] = (char)tolower((unsigned char)*name);
	}
	out[len] = 0;
	for (char *at = out; (at = strstr(at, "dpmpp")); at += 5)
		memcpy(at + 3, "++", 2);
	return len > 0;
}

static const char *find(const char *squeezed)
{
	char name[SAMPLER_NAME_LEN];

	for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
		if (strcmp(aliases[i].other, squeezed) == 0)
			return aliases[i].name;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (squeeze(names[i], name, sizeof name) && strcmp(name, squeezed) == 0)
			return names[i];
	return NULL;
}

enum status sampler_name_find(const char *name, const char *scheduler, char out[SAMPLER_NAME_LEN])
{
	char own[SAMPLER_NAME_LEN], suffix[SAMPLER_NAME_LEN] = "", both[2 * SAMPLER_NAME_LEN];
	const char *found = NULL;
	size_t own_len, suffix_len;

	if (!squeeze(name, own, sizeof own) || !find(own))
		return status_fail(STATUS_INVALID,
			"Sampler: unknown name '%.60s' (euler, euler_a, ddim, dpm++_2m_karras, ...)", name);
	if (scheduler && !squeeze(scheduler, suffix, sizeof suffix))
		return status_fail(STATUS_INVALID, "Scheduler: unknown name '%.60s'", scheduler);
	if (strcmp(suffix, "automatic") == 0)
		*suffix = 0;
	own_len = strlen(own);
	suffix_len = strlen(suffix);
	if (own_len >= suffix_len && strcmp(own + own_len - suffix_len, suffix) == 0) {
		found = find(own); /* no scheduler, or the sampler's own name ends with it */
	} else {
		snprintf(both, sizeof both, "%s%s", own, suffix);
		found = find(both);
	}
	if (!found)
		return status_fail(STATUS_INVALID, "Scheduler: sampler '%.60s' has no '%.60s'", name, scheduler);
	snprintf(out, SAMPLER_NAME_LEN, "%s", found);
	return STATUS_OK;
}

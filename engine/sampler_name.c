/* sampler_name: every spelling of a sampler to its canonical name. */
#include "engine/sampler_name.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct sampler_name names[] = {
	{ "pndm", "PNDMScheduler", CHANGE_PLMS },
	{ "ddim", "DDIMScheduler", 0 },
	{ "ddpm", "DDPMScheduler", 0 },
	{ "euler", "EulerDiscreteScheduler", 0 },
	{ "euler_karras", "EulerDiscreteScheduler", CHANGE_KARRAS },
	{ "euler_a", "EulerAncestralDiscreteScheduler", 0 },
	{ "heun", "HeunDiscreteScheduler", 0 },
	{ "lms", "LMSDiscreteScheduler", 0 },
	{ "lms_karras", "LMSDiscreteScheduler", CHANGE_KARRAS },
	{ "dpm2", "KDPM2DiscreteScheduler", 0 },
	{ "dpm2_karras", "KDPM2DiscreteScheduler", CHANGE_KARRAS },
	{ "dpm2_a", "KDPM2AncestralDiscreteScheduler", 0 },
	{ "dpm2_a_karras", "KDPM2AncestralDiscreteScheduler", CHANGE_KARRAS },
	{ "dpm++_2m", "DPMSolverMultistepScheduler", 0 },
	{ "dpm++_2m_karras", "DPMSolverMultistepScheduler", CHANGE_KARRAS },
	{ "dpm++_2m_exponential", "DPMSolverMultistepScheduler", CHANGE_EXPONENTIAL },
	{ "dpm++_2m_beta", "DPMSolverMultistepScheduler", CHANGE_BETA },
	{ "dpm++_2m_lu", "DPMSolverMultistepScheduler", CHANGE_LU },
	{ "dpm++_2m_sde", "DPMSolverMultistepScheduler", CHANGE_SDE },
	{ "dpm++_2m_sde_karras", "DPMSolverMultistepScheduler", CHANGE_SDE | CHANGE_KARRAS },
	{ "dpm++_3m", "DPMSolverMultistepScheduler", CHANGE_ORDER_3 },
	{ "dpm++_2s", "DPMSolverSinglestepScheduler", 0 },
	{ "dpm++_2s_karras", "DPMSolverSinglestepScheduler", CHANGE_KARRAS },
	{ "deis", "DEISMultistepScheduler", 0 },
	{ "unipc", "UniPCMultistepScheduler", 0 },
	{ "unipc_karras", "UniPCMultistepScheduler", CHANGE_KARRAS },
	{ "lcm", "LCMScheduler", 0 },
	{ "tcd", "TCDScheduler", 0 },
	{ "edm_dpm++_2m", "EDMDPMSolverMultistepScheduler", 0 },
	{ "edm_euler", "EDMEulerScheduler", 0 },
	{ "flow_euler", "FlowMatchEulerDiscreteScheduler", 0 },
	{ "flow_euler_karras", "FlowMatchEulerDiscreteScheduler", CHANGE_KARRAS },
	{ "flow_euler_exponential", "FlowMatchEulerDiscreteScheduler", CHANGE_EXPONENTIAL },
	{ "flow_euler_beta", "FlowMatchEulerDiscreteScheduler", CHANGE_BETA },
	{ "flow_euler_stochastic", "FlowMatchEulerDiscreteScheduler", CHANGE_STOCHASTIC },
	{ "flow_heun", "FlowMatchHeunDiscreteScheduler", 0 },
	{ "flow_dpm++_2m", "DPMSolverMultistepScheduler", CHANGE_FLOW },
	{ "flow_unipc", "UniPCMultistepScheduler", CHANGE_FLOW },
};

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
		if (squeeze(names[i].name, name, sizeof name) && strcmp(name, squeezed) == 0)
			return names[i].name;
	return NULL;
}

const struct sampler_name *sampler_name_get(const char *canonical)
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(names[i].name, canonical) == 0)
			return &names[i];
	return NULL;
}

const struct sampler_name *sampler_name_at(int i)
{
	return i >= 0 && (size_t)i < sizeof names / sizeof *names ? &names[i] : NULL;
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

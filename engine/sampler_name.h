/* sampler_name: the samplers there are, and every spelling of their names (diffusers', A1111's, ComfyUI's).
 *
 * A sampler is a diffusers scheduler class and the settings that its name changes; engine/sampler.h runs it.  Which of
 * them a model can run is decided there.  Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_SAMPLER_NAME_H
#define PROMPTFS_ENGINE_SAMPLER_NAME_H

#include "kernels/status.h"

enum { SAMPLER_NAME_LEN = 32 };

/* What a sampler's name changes in the settings of its class. */
enum sampler_change {
	CHANGE_KARRAS = 1,       /* use_karras_sigmas */
	CHANGE_EXPONENTIAL = 2,  /* use_exponential_sigmas */
	CHANGE_BETA = 4,         /* use_beta_sigmas */
	CHANGE_LU = 8,           /* use_lu_lambdas */
	CHANGE_SDE = 16,         /* algorithm_type sde-dpmsolver++ */
	CHANGE_ORDER_3 = 32,     /* solver_order 3 */
	CHANGE_PLMS = 64,        /* skip_prk_steps */
	CHANGE_STOCHASTIC = 128, /* stochastic_sampling */
	CHANGE_FLOW = 256        /* use_flow_sigmas, prediction_type flow_prediction */
};

struct sampler_name {
	const char *name, *class_name;
	unsigned changes; /* of enum sampler_change */
};

/* The sampler of a canonical name, or NULL; the i-th, or NULL past the end. */
const struct sampler_name *sampler_name_get(const char *canonical);
const struct sampler_name *sampler_name_at(int i);

/* "DPM++ 2M" with scheduler "Karras" (may be NULL), "dpm++_2m_karras" and "dpmpp-2m karras" all give "dpm++_2m_karras":
 * case, spaces, "_" and "-" do not count.  Unknown names are STATUS_INVALID. */
enum status sampler_name_find(const char *name, const char *scheduler, char out[SAMPLER_NAME_LEN]);

#endif

/* pipeline: see pipeline.h. */
#include "engine/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "engine/autoencoder.h"

void pipeline_scheduler_path(const struct model *m, char out[PIPELINE_PATH_MAX])
{
	snprintf(out, PIPELINE_PATH_MAX, "%s/scheduler/scheduler_config.json", m->path);
}

static enum status check_side(const struct model *m, const char *what, int side)
{
	if (side % m->size_multiple == 0 && side >= m->size_multiple && side <= m->size_max)
		return STATUS_OK;
	return status_fail(STATUS_INVALID, "%s %d: model %s makes sizes from %d to %d that %d divides", what, side,
		m->name, m->size_multiple, m->size_max, m->size_multiple);
}

enum status pipeline_check_size(const struct model *m, const struct recipe *r)
{
	TRY(check_side(m, "width", r->width));
	return check_side(m, "height", r->height);
}

enum status pipeline_check_sampler(const struct model *m, struct recipe *r)
{
	char path[PIPELINE_PATH_MAX];

	pipeline_scheduler_path(m, path);
	return sampler_check(path, r->sampler, r->steps);
}

enum status pipeline_check_flow_sampler(const struct model *m, struct recipe *r)
{
	if (!r->sampler[0] || strcmp(r->sampler, "flow_euler") == 0)
		strcpy(r->sampler, "euler");
	return pipeline_check_sampler(m, r);
}

void pipeline_latent_shape(const void *state, const struct recipe *r, int64_t dim[3])
{
	const struct pipeline *p = state;

	dim[0] = p->latent_channels;
	dim[1] = r->height / p->pixels_per_latent;
	dim[2] = r->width / p->pixels_per_latent;
}

/* Whether the picture must be decoded in bands: the plan says so, or there is no plan and the rest does not suffice. */
static enum status need_bands(const struct run *run, const struct autoencoder *vae, struct tensor latents, bool *out)
{
	uint64_t bytes;

	*out = run->bands;
	if (run->bands || !run->memory_limit)
		return STATUS_OK;
	TRY(autoencoder_needs(vae, latents, &bytes));
	*out = kernels_memory(run->k) + bytes > run->memory_limit;
	return STATUS_OK;
}

enum status pipeline_decode(void *state, struct run *run, struct tensor latents, struct tensor *picture)
{
	const struct recipe *r = run->recipe;
	struct pipeline *p = state;
	int64_t rows = 0;
	bool bands;
	void *vae;

	TRY(parts_need(p->parts, p->vae, run, &vae));
	TRY(need_bands(run, vae, latents, &bands));
	if (bands)
		rows = autoencoder_band_rows(vae, r->height, r->width);
	return autoencoder_decode(vae, run->arena, latents, rows, picture);
}

int pipeline_calls_start(struct pipeline_calls *c, const struct sampler *s, int call)
{
	int rest = sampler_calls(s) - call;

	if (c->count && call >= c->first && call < c->first + c->count)
		return 0;
	c->first = call;
	c->count = rest < PIPELINE_CALLS_MAX ? rest : PIPELINE_CALLS_MAX;
	return c->count;
}

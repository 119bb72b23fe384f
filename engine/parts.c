/* parts: see parts.h. */
#include "engine/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bytes.h"
#include "engine/content.h"
#include "engine/lora.h"
#include "engine/survey.h"
#include "engine/weights.h"

enum { PART_IDENTITY_LEN = 32 + 1 + CONTENT_LEN };

struct parts {
	struct kernels *k;
	const struct part_kind *kinds;
	int n;
	struct lora_set *loras; /* of the loaded parts; NULL: none */
	struct memo *memo;
	bool together; /* all turns fit the budget at once */
	bool alone;    /* else: the last part, an autoencoder, has a turn of its own */
	struct {
		struct component component;
		uint64_t bytes;                       /* once packed */
		char identity[PART_IDENTITY_LEN + 1]; /* of the files that hold its weights */
		void *loaded;                         /* NULL while not */
	} part[PARTS_MAX];
	struct component beside[PARTS_MAX]; /* that LoRAs may change too, kept by another struct parts */
	int n_beside;
};

/* Weights in 8 bits: a byte instead, and two numbers a row at the most. */
static uint64_t saved_by_blocks(const struct parts *p, const struct survey *found, uint64_t bytes)
{
	const int64_t size = (int64_t)dtype_size(kernels_dtype(p->k));
	const int64_t saved = found->block_values * (size - 1) - found->block_rows * 2 * (int64_t)sizeof(float);

	/* files that lack some of what would be read are refused later */
	return saved > 0 && (uint64_t)saved < bytes ? (uint64_t)saved : 0;
}

static bool has_blocks(const struct parts *p)
{
	return kernels_weight_dtype(p->k) != kernels_dtype(p->k);
}

/* By what the part would read: how many weights, where there are no files to ask, and which of them are kept in 8
 * bits. */
static enum status survey_bytes(struct parts *p, int i)
{
	struct survey found = { 0 };
	enum status status = survey_part(&p->kinds[i], &p->part[i].component, &found);

	if (p->part[i].component.random)
		p->part[i].bytes = (uint64_t)found.parameters * dtype_size(kernels_dtype(p->k));
	if (status == STATUS_OK && has_blocks(p))
		p->part[i].bytes -= saved_by_blocks(p, &found, p->part[i].bytes);
	survey_free(&found);
	return status;
}

/* Of the files that hold its tensors; "": not known.  A file may hold several parts: the names tell them apart. */
static void identify(const struct weights *w, const char *component, char out[PART_IDENTITY_LEN + 1])
{
	const int64_t count = weights_count(w);
	const char **paths = calloc((size_t)count + 1, sizeof *paths);
	char files[CONTENT_LEN + 1];
	int n = 0;

	for (int64_t i = 0; paths && i < count; i++) {
		const char *path = weights_path(w, weights_name(w, i));

		if (n == 0 || strcmp(path, paths[n - 1]) != 0)
			paths[n++] = path;
	}
	out[0] = 0;
	if (n > 0 && content_identify(n, paths, files, NULL) == STATUS_OK)
		snprintf(out, PART_IDENTITY_LEN + 1, "%s %s", component, files);
	free(paths);
}

/* Whether the parts may be in memory at the same time, where not all may. */
static bool same_turn(const struct parts *p, int i, int j)
{
	return p->kinds[i].turn == p->kinds[j].turn && (!p->alone || i == j || (i < p->n - 1 && j < p->n - 1));
}

static enum status measure(struct parts *p, int i)
{
	struct weights *w;

	if (p->part[i].component.random)
		return survey_bytes(p, i);
	TRY(weights_open_component(&p->part[i].component, &w));
	identify(w, p->kinds[i].component, p->part[i].identity);
	p->part[i].bytes = (uint64_t)weights_parameters(w) * dtype_size(kernels_dtype(p->k));
	weights_close(w);
	return has_blocks(p) ? survey_bytes(p, i) : STATUS_OK;
}

static uint64_t turn_bytes(const struct parts *p, int turn)
{
	uint64_t sum = 0;

	for (int i = 0; i < p->n; i++)
		if (p->kinds[i].turn == turn)
			sum += p->part[i].bytes;
	return sum;
}

static enum status refuse(const struct parts *p, const struct model *m, uint64_t limit)
{
	struct bytes list = { 0 };

	for (int i = 0; i < p->n; i++)
		if (bytes_print(&list, "%s%s %.1f GB", i ? ", " : "", p->kinds[i].label,
			    (double)p->part[i].bytes / 1e9) != STATUS_OK)
			break;
	status_fail(STATUS_NO_MEMORY,
		"%s does not fit: in %s its parts take: %s; there are %.1f GB (a smaller --dtype or a higher memory "
		"limit helps)",
		m->path, dtype_name(kernels_weight_dtype(p->k)), list.data ? (char *)list.data : "?",
		(double)limit / 1e9);
	bytes_free(&list);
	return STATUS_NO_MEMORY;
}

/* Decides whether the turns stay together, before anything is loaded. */
static enum status plan(struct parts *p, const struct model *m, const struct memory_budget *budget)
{
	uint64_t all = 0;

	for (int i = 0; i < p->n; i++) {
		TRY(model_component(m, p->kinds[i].component, &p->part[i].component));
		TRY(measure(p, i));
		all += p->part[i].bytes;
	}
	for (int i = 0; i < p->n; i++)
		if (turn_bytes(p, p->kinds[i].turn) > budget->limit)
			return refuse(p, m, budget->limit);
	p->together = all <= budget->resident;
	p->alone = budget->alone;
	return STATUS_OK;
}

enum status parts_open(const struct model *m, struct kernels *k, const struct memory_budget *budget,
	const struct part_kind *kinds, int n, struct parts **out)
{
	struct parts *p = calloc(1, sizeof *p);
	enum status status;

	if (!p)
		return status_fail(STATUS_NO_MEMORY, "no memory for a model");
	p->k = k;
	p->kinds = kinds;
	p->n = n;
	status = memo_new(&p->memo);
	if (status == STATUS_OK)
		status = plan(p, m, budget);
	if (status != STATUS_OK) {
		parts_close(p);
		return status;
	}
	*out = p;
	return STATUS_OK;
}

enum status parts_each(const struct model *m, const struct part_kind *kinds, int n, part_visit *visit, void *context)
{
	for (int i = 0; i < n; i++) {
		struct component c;

		TRY(model_component(m, kinds[i].component, &c));
		TRY(visit(context, &kinds[i], &c));
	}
	return STATUS_OK;
}

static void unload(struct parts *p, int i)
{
	if (p->part[i].loaded)
		p->kinds[i].close(p->part[i].loaded);
	p->part[i].loaded = NULL;
}

void parts_close(struct parts *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->n; i++)
		unload(p, i);
	lora_close(p->loras);
	memo_free(p->memo);
	free(p);
}

enum status parts_beside(struct parts *p, const struct model *m, const struct part_kind *kinds, int n)
{
	p->n_beside = 0;
	for (int i = 0; i < n; i++)
		TRY(model_component(m, kinds[i].component, &p->beside[i]));
	p->n_beside = n;
	return STATUS_OK;
}

struct memo *parts_memo(struct parts *p)
{
	return p->memo;
}

static enum status match(const struct parts *p, struct lora_set *loras)
{
	struct lora_part parts[2 * PARTS_MAX] = { { NULL, NULL } };
	struct weights *w[2 * PARTS_MAX] = { NULL };
	int n = p->n + p->n_beside;
	enum status status = STATUS_OK;

	for (int i = 0; i < n && status == STATUS_OK; i++) {
		const struct component *c = i < p->n ? &p->part[i].component : &p->beside[i - p->n];
		struct component plain = *c;

		plain.loras = NULL;
		status = weights_open_component(&plain, &w[i]);
		parts[i] = (struct lora_part){ c->name, w[i] };
	}
	if (status == STATUS_OK)
		status = lora_match(loras, parts, n);
	for (int i = 0; i < n; i++)
		weights_close(w[i]);
	return status;
}

/* Another list of LoRAs: what the old or the new one changes is loaded again when it is needed. */
static enum status change_loras(struct parts *p, const struct recipe *r)
{
	struct lora_set *fresh;
	enum status status;

	if (lora_is(p->loras, r))
		return STATUS_OK;
	TRY(lora_open(r, &fresh));
	status = fresh ? match(p, fresh) : STATUS_OK;
	if (status != STATUS_OK) {
		lora_close(fresh);
		return status;
	}
	for (int i = 0; i < p->n; i++) {
		const char *name = p->part[i].component.name;

		if (lora_touches_part(p->loras, name) || lora_touches_part(fresh, name))
			unload(p, i);
		/* parts that stay loaded may go on reading their weights, and the old set goes away */
		p->part[i].component.loras = lora_touches_part(fresh, name) ? fresh : NULL;
	}
	lora_close(p->loras);
	p->loras = fresh;
	return STATUS_OK;
}

static void tell_loras(const struct parts *p, struct run *run)
{
	struct engine_loras *out = &run->loras;

	for (out->n = 0; out->n < ENGINE_LORAS_MAX; out->n++)
		if (!lora_count(p->loras, out->n, &out->of[out->n].applied, &out->of[out->n].modules))
			break;
}

/* With LoRAs weights are others than the files': those are not kept. */
static enum status open_part(struct parts *p, int i)
{
	enum status status;

	if (p->part[i].component.loras == NULL)
		kernels_packed_begin(p->k, p->part[i].identity, p->part[i].bytes);
	status = p->kinds[i].open(p->k, &p->part[i].component, &p->part[i].loaded);
	kernels_packed_end(p->k, status == STATUS_OK);
	return status;
}

enum status parts_need(struct parts *p, int i, struct run *run, void **out)
{
	double start = run_clock();

	TRY(change_loras(p, run->recipe));
	tell_loras(p, run);
	if (!p->part[i].loaded) {
		for (int j = 0; j < p->n && !p->together; j++)
			if (!same_turn(p, i, j))
				unload(p, j);
		TRY(open_part(p, i));
		run->load_seconds += run_clock() - start;
	}
	*out = p->part[i].loaded;
	return STATUS_OK;
}

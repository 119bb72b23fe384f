/* replay: operations that are repeated, as CUDA graphs.
 *
 * The first call with a key runs: plans are made, algorithms measured, memory grows.  The second is recorded into a
 * graph, and launches it, as all later ones do.  A graph holds addresses: whenever memory of the device is given back,
 * whoever's it is, all graphs go.  What cannot be recorded runs as it is called.
 */
#include "kernels/cuda/cuda.h"

#include <string.h>

enum status cuda_not_recorded(const struct cuda *c, const char *operation)
{
	return c->recording ? status_fail(STATUS_UNSUPPORTED, "%s: %s cannot be recorded", c->k->device, operation)
			    : STATUS_OK;
}

/* Ends recording; the graph, or NULL where there is none. */
static cudaGraph_t end_recording(struct cuda *c)
{
	cudaGraph_t graph = NULL;

	c->recording = false;
	if (cudaStreamEndCapture(c->stream, &graph) != cudaSuccess) {
		cudaGetLastError(); /* a refused recording is no failure of the device */
		graph = NULL;
	}
	return graph;
}

static void forget(struct recording *r)
{
	if (r->exec)
		cudaGraphExecDestroy(r->exec);
	*r = (struct recording){ .run = NULL };
}

void cuda_forget_recordings(struct cuda *c)
{
	if (c->recording) {
		cudaGraph_t graph = end_recording(c);

		if (graph)
			cudaGraphDestroy(graph);
	}
	for (int i = 0; i < RECORDINGS_MAX; i++)
		if (c->recordings[i].run)
			forget(&c->recordings[i]);
}

static struct recording *find(struct cuda *c, repeat_run *run, const void *key, size_t key_size)
{
	for (int i = 0; i < RECORDINGS_MAX; i++) {
		struct recording *r = &c->recordings[i];

		if (r->run == run && r->key_size == key_size && memcmp(r->key, key, key_size) == 0)
			return r;
	}
	return NULL;
}

/* A free place, or that of the one unused for longest. */
static struct recording *take_place(struct cuda *c)
{
	struct recording *oldest = &c->recordings[0];

	for (int i = 1; i < RECORDINGS_MAX && oldest->run; i++)
		if (!c->recordings[i].run || c->recordings[i].last < oldest->last)
			oldest = &c->recordings[i];
	forget(oldest);
	return oldest;
}

/* What was called is known only afterwards: the call may have given back memory. */
static enum status run_first(struct cuda *c, repeat_run *run, void *context, const void *key, size_t key_size)
{
	const double flops = c->k->flops;
	struct recording *r;

	TRY(run(context));
	r = take_place(c);
	r->run = run;
	r->key_size = key_size;
	memcpy(r->key, key, key_size);
	r->flops = c->k->flops - flops;
	r->last = ++c->uses;
	return STATUS_OK;
}

/* Leaves r->exec NULL where that fails. */
static void record(struct cuda *c, struct recording *r, void *context)
{
	const double flops = c->k->flops;
	cudaGraph_t graph = NULL;
	bool whole = false;

	r->refused = true;
	if (cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
		cudaGetLastError();
		return;
	}
	c->recording = true;
	whole = r->run(context) == STATUS_OK && c->recording;
	if (c->recording)
		graph = end_recording(c);
	c->k->flops = flops;
	if (whole && graph && cudaGraphInstantiateWithFlags(&r->exec, graph, 0) != cudaSuccess) {
		cudaGetLastError();
		r->exec = NULL;
	}
	if (graph)
		cudaGraphDestroy(graph);
}

static enum status launch_again(struct cuda *c, struct recording *r)
{
	const cudaError_t error = cudaGraphLaunch(r->exec, c->stream);

	c->k->flops += r->flops;
	if (error)
		forget(r);
	return cuda_result(c, error, "repeating a step");
}

enum status cuda_repeat(struct kernels *k, repeat_run *run, void *context, const void *key, size_t key_size)
{
	struct cuda *c = cuda_of(k);
	struct recording *r;

	if (c->eager || c->recording)
		return run(context);
	r = find(c, run, key, key_size);
	if (!r)
		return run_first(c, run, context, key, key_size);
	r->last = ++c->uses;
	if (!r->exec && !r->refused)
		record(c, r, context);
	return r->exec ? launch_again(c, r) : run(context);
}

/* clip_layers: the layers that both halves of CLIP are made of; the stream stays in F32.
 *
 *     TRY(clip_layers_config_read(object, path, &layers.config));
 *     TRY(clip_layers_load(k, weights, "text_model.encoder.layers.", &layers));
 *     TRY(clip_pass_take(&pass, arena, n));          // pass.k, pass.layers, pass.causal are set
 *     ... fill pass.stream ...
 *     TRY(clip_pass_run(&pass, 0));
 */
#ifndef PROMPTFS_ENGINE_CLIP_LAYERS_H
#define PROMPTFS_ENGINE_CLIP_LAYERS_H

#include "engine/json.h"
#include "engine/load.h"

struct clip_layers_config {
	int64_t width, intermediate, layers, heads;
	double eps;
	enum activation activation;
};

enum status clip_layers_config_read(const json_t *object, const char *path, struct clip_layers_config *out);

struct clip_layer;

struct clip_layers {
	struct clip_layers_config config;
	struct clip_layer *layer;
};

/* On failure clip_layers_free what was loaded so far. */
enum status clip_layers_load(struct kernels *k, const struct weights *w, const char *prefix, struct clip_layers *l);
void clip_layers_free(struct kernels *k, struct clip_layers *l);

/* What every layer works with; n is the number of rows. */
struct clip_pass {
	struct kernels *k;
	const struct clip_layers *layers;
	bool causal;
	struct tensor stream;               /* [n, width] F32 */
	struct tensor operand;              /* [n, width] */
	struct tensor q, key, value, heads; /* [n, width] */
	struct tensor feed_forward;         /* [n, intermediate] */
};

enum status clip_pass_take(struct clip_pass *p, struct arena *arena, int64_t n);
enum status clip_pass_run(struct clip_pass *p, int64_t layer); /* stream := layer(stream) */

enum status clip_pass_norm(const struct clip_pass *p, struct tensor x, const struct weight *weight,
	const struct weight *bias, struct tensor y);

#endif

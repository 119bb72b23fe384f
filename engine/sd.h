/* sd: what the pipelines of Stable Diffusion 1.5 and SDXL have in common: CLIP texts of 77 tokens, a UNet with
 * guidance, an autoencoder.
 *
 * Reference: diffusers, pipelines/stable_diffusion/pipeline_stable_diffusion.py, pipelines/stable_diffusion_xl/
 * pipeline_stable_diffusion_xl.py.
 *
 * Traps: guidance acts only above 1, as negative + scale * (positive - negative); the negative prompt ignores
 * clip_skip; guidance_rescale takes the unbiased standard deviations of the whole prediction.
 */
#ifndef PROMPTFS_ENGINE_SD_H
#define PROMPTFS_ENGINE_SD_H

#include "engine/clip_text.h"
#include "engine/family.h"
#include "engine/pipeline.h"
#include "engine/settings.h"
#include "engine/tokenizer.h"
#include "engine/unet.h"

enum { SD_TEXTS_MAX = 2 };
enum { SD_POSITIVE, SD_NEGATIVE };

/* One of the two pipelines. */
struct sd_kind {
	const char *label; /* for messages: "SDXL" */
	int n_texts;       /* its parts: the text encoders, then the UNet, then the autoencoder */
	const struct part_kind *parts;
	const char *tokenizer[SD_TEXTS_MAX]; /* folders */
	const struct setting *settings;
	int n_settings;
	bool text_time; /* its UNet also reads pooled text and sizes */
};

/* The opened model. */
struct sd {
	struct pipeline base;
	const struct sd_kind *kind;
	struct kernels *k;
	struct unet_config unet_config;
	bool zeros_for_empty; /* a missing negative prompt is embedded as zeros */
	struct tokenizer *tokenizer[SD_TEXTS_MAX];
	struct clip_text *text[SD_TEXTS_MAX]; /* borrowed from parts, as the next */
	struct unet *unet;
	struct unet_prompt prompt[2]; /* of the job under way */
};

/* Hooks of struct family, with the kind in front where they need it. */
enum status sd_describe(const struct sd_kind *kind, struct model *m, double guidance);
enum status sd_resolve(const struct sd_kind *kind, const struct model *m, struct recipe *r);
enum status sd_apply_cfg(const struct model *m, struct recipe *r, double cfg);
enum status sd_open(const struct sd_kind *kind, const struct model *m, struct kernels *k,
	const struct memory_budget *memory, void **state);
void sd_close(void *state);
void sd_sampler(const void *state, const struct recipe *r, struct sampler_request *out);
enum status sd_predict(
	void *state, struct run *run, const struct sampler *s, int call, struct tensor latents, struct tensor out);

/* For encode. */
bool sd_guided(const struct recipe *r);
enum status sd_need_texts(struct sd *sd, struct run *run);
enum status sd_need_unet(struct sd *sd, struct run *run);
/* text through encoder i: hidden [tokens, width] F32, pooled as clip_text_encode wants it; which: SD_POSITIVE, ... */
enum status sd_encode_text(struct sd *sd, struct run *run, int i, int which, const char *text, int skip,
	bool final_norm, struct tensor hidden, struct tensor pooled);

/* The part's functions, for the tables of kinds. */
enum status sd_open_clip_text(struct kernels *k, const struct component *c, void **out);
void sd_close_clip_text(void *part);
enum status sd_open_unet(struct kernels *k, const struct component *c, void **out);
void sd_close_unet(void *part);
enum status sd_open_autoencoder(struct kernels *k, const struct component *c, void **out);
void sd_close_autoencoder(void *part);

#define SD_PART_TEXT(folder, label)                                                                                    \
	{                                                                                                              \
		folder, label, 0, sd_open_clip_text, sd_close_clip_text                                                \
	}
#define SD_PART_UNET                                                                                                   \
	{                                                                                                              \
		"unet", "UNet", 1, sd_open_unet, sd_close_unet                                                         \
	}
#define SD_PART_VAE                                                                                                    \
	{                                                                                                              \
		"vae", "autoencoder", 1, sd_open_autoencoder, sd_close_autoencoder                                     \
	}

#endif

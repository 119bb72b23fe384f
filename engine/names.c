/* names: rules as data.  In a pattern # stands for a number, and a last ".*" for the rest of the name, which may be
 * empty; a dot also matches an underscore of a name without dots.  In a result:
 *
 *     *    the rest            $a $b    the first and second number
 *     $d   (a - 1) / stride    $D       a / stride          $u   blocks - 1 - a
 *     $r   (a - 1) % stride    $R       a % stride
 *
 * The first rule that fits counts; its results follow each other.
 */
#include "engine/names.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct names_sizes names_usual = { 3, 4, 0 };

struct rule {
	const char *pattern;
	struct {
		const char *name;
		int from, count, of;
		enum names_how how;
	} to[NAMES_MAX];
};

#define ONE(original, diffusers)                                                                                       \
	{                                                                                                              \
		original,                                                                                              \
		{                                                                                                      \
			{                                                                                              \
				diffusers, 0, 0, 0, NAMES_AS_IS                                                        \
			}                                                                                              \
		}                                                                                                      \
	}
#define HOW(original, diffusers, how)                                                                                  \
	{                                                                                                              \
		original,                                                                                              \
		{                                                                                                      \
			{                                                                                              \
				diffusers, 0, 0, 0, how                                                                \
			}                                                                                              \
		}                                                                                                      \
	}
#define END                                                                                                            \
	{                                                                                                              \
		NULL,                                                                                                  \
		{                                                                                                      \
			{                                                                                              \
				NULL, 0, 0, 0, NAMES_AS_IS                                                             \
			}                                                                                              \
		}                                                                                                      \
	}
#define SHARE(diffusers, from, count, of)                                                                              \
	{                                                                                                              \
		diffusers, from, count, of, NAMES_AS_IS                                                                \
	}
#define QKV(original, q, k, v)                                                                                         \
	{                                                                                                              \
		original,                                                                                              \
		{                                                                                                      \
			SHARE(q, 0, 1, 3), SHARE(k, 1, 1, 3), SHARE(v, 2, 1, 3)                                        \
		}                                                                                                      \
	}

/* The attention of a list of blocks. */
#define ZIMAGE_BLOCKS(list)                                                                                            \
	QKV(list ".#.attention.qkv.*", list ".$a.attention.to_q.*", list ".$a.attention.to_k.*",                       \
		list ".$a.attention.to_v.*"),                                                                          \
		ONE(list ".#.attention.out.*", list ".$a.attention.to_out.0.*"),                                       \
		ONE(list ".#.attention.q_norm.*", list ".$a.attention.norm_q.*"),                                      \
		ONE(list ".#.attention.k_norm.*", list ".$a.attention.norm_k.*")

static const struct rule zimage[] = {
	ZIMAGE_BLOCKS("layers"),
	ZIMAGE_BLOCKS("noise_refiner"),
	ZIMAGE_BLOCKS("context_refiner"),
	ONE("x_embedder.*", "all_x_embedder.2-1.*"),
	ONE("final_layer.*", "all_final_layer.2-1.*"),
	END,
};

static const struct rule flux[] = {
	QKV("double_blocks.#.img_attn.qkv.*", "transformer_blocks.$a.attn.to_q.*", "transformer_blocks.$a.attn.to_k.*",
		"transformer_blocks.$a.attn.to_v.*"),
	QKV("double_blocks.#.txt_attn.qkv.*", "transformer_blocks.$a.attn.add_q_proj.*",
		"transformer_blocks.$a.attn.add_k_proj.*", "transformer_blocks.$a.attn.add_v_proj.*"),
	ONE("double_blocks.#.img_attn.norm.query_norm.scale", "transformer_blocks.$a.attn.norm_q.weight"),
	ONE("double_blocks.#.img_attn.norm.key_norm.scale", "transformer_blocks.$a.attn.norm_k.weight"),
	ONE("double_blocks.#.txt_attn.norm.query_norm.scale", "transformer_blocks.$a.attn.norm_added_q.weight"),
	ONE("double_blocks.#.txt_attn.norm.key_norm.scale", "transformer_blocks.$a.attn.norm_added_k.weight"),
	ONE("double_blocks.#.img_attn.proj.*", "transformer_blocks.$a.attn.to_out.0.*"),
	ONE("double_blocks.#.txt_attn.proj.*", "transformer_blocks.$a.attn.to_add_out.*"),
	ONE("double_blocks.#.img_mlp.0.*", "transformer_blocks.$a.ff.net.0.proj.*"),
	ONE("double_blocks.#.img_mlp.2.*", "transformer_blocks.$a.ff.net.2.*"),
	ONE("double_blocks.#.txt_mlp.0.*", "transformer_blocks.$a.ff_context.net.0.proj.*"),
	ONE("double_blocks.#.txt_mlp.2.*", "transformer_blocks.$a.ff_context.net.2.*"),
	ONE("double_blocks.#.img_mod.lin.*", "transformer_blocks.$a.norm1.linear.*"),
	ONE("double_blocks.#.txt_mod.lin.*", "transformer_blocks.$a.norm1_context.linear.*"),
	/* the feed-forward part is four times as wide as the model */
	{ "single_blocks.#.linear1.*", { SHARE("single_transformer_blocks.$a.attn.to_q.*", 0, 1, 7),
					       SHARE("single_transformer_blocks.$a.attn.to_k.*", 1, 1, 7),
					       SHARE("single_transformer_blocks.$a.attn.to_v.*", 2, 1, 7),
					       SHARE("single_transformer_blocks.$a.proj_mlp.*", 3, 4, 7) } },
	ONE("single_blocks.#.linear2.*", "single_transformer_blocks.$a.proj_out.*"),
	ONE("single_blocks.#.modulation.lin.*", "single_transformer_blocks.$a.norm.linear.*"),
	ONE("single_blocks.#.norm.query_norm.scale", "single_transformer_blocks.$a.attn.norm_q.weight"),
	ONE("single_blocks.#.norm.key_norm.scale", "single_transformer_blocks.$a.attn.norm_k.weight"),
	ONE("time_in.in_layer.*", "time_text_embed.timestep_embedder.linear_1.*"),
	ONE("time_in.out_layer.*", "time_text_embed.timestep_embedder.linear_2.*"),
	ONE("vector_in.in_layer.*", "time_text_embed.text_embedder.linear_1.*"),
	ONE("vector_in.out_layer.*", "time_text_embed.text_embedder.linear_2.*"),
	ONE("guidance_in.in_layer.*", "time_text_embed.guidance_embedder.linear_1.*"),
	ONE("guidance_in.out_layer.*", "time_text_embed.guidance_embedder.linear_2.*"),
	ONE("txt_in.*", "context_embedder.*"),
	ONE("img_in.*", "x_embedder.*"),
	ONE("final_layer.linear.*", "proj_out.*"),
	HOW("final_layer.adaLN_modulation.1.*", "norm_out.linear.*", NAMES_SWAP),
	END,
};

static const struct rule sd3[] = {
	QKV("joint_blocks.#.x_block.attn.qkv.*", "transformer_blocks.$a.attn.to_q.*",
		"transformer_blocks.$a.attn.to_k.*", "transformer_blocks.$a.attn.to_v.*"),
	QKV("joint_blocks.#.context_block.attn.qkv.*", "transformer_blocks.$a.attn.add_q_proj.*",
		"transformer_blocks.$a.attn.add_k_proj.*", "transformer_blocks.$a.attn.add_v_proj.*"),
	QKV("joint_blocks.#.x_block.attn2.qkv.*", "transformer_blocks.$a.attn2.to_q.*",
		"transformer_blocks.$a.attn2.to_k.*", "transformer_blocks.$a.attn2.to_v.*"),
	ONE("joint_blocks.#.x_block.attn.ln_q.*", "transformer_blocks.$a.attn.norm_q.*"),
	ONE("joint_blocks.#.x_block.attn.ln_k.*", "transformer_blocks.$a.attn.norm_k.*"),
	ONE("joint_blocks.#.x_block.attn2.ln_q.*", "transformer_blocks.$a.attn2.norm_q.*"),
	ONE("joint_blocks.#.x_block.attn2.ln_k.*", "transformer_blocks.$a.attn2.norm_k.*"),
	ONE("joint_blocks.#.context_block.attn.ln_q.*", "transformer_blocks.$a.attn.norm_added_q.*"),
	ONE("joint_blocks.#.context_block.attn.ln_k.*", "transformer_blocks.$a.attn.norm_added_k.*"),
	ONE("joint_blocks.#.x_block.attn.proj.*", "transformer_blocks.$a.attn.to_out.0.*"),
	ONE("joint_blocks.#.x_block.attn2.proj.*", "transformer_blocks.$a.attn2.to_out.0.*"),
	ONE("joint_blocks.#.context_block.attn.proj.*", "transformer_blocks.$a.attn.to_add_out.*"),
	ONE("joint_blocks.#.x_block.adaLN_modulation.1.*", "transformer_blocks.$a.norm1.linear.*"),
	ONE("joint_blocks.#.context_block.adaLN_modulation.1.*", "transformer_blocks.$a.norm1_context.linear.*"),
	ONE("joint_blocks.#.x_block.mlp.fc1.*", "transformer_blocks.$a.ff.net.0.proj.*"),
	ONE("joint_blocks.#.x_block.mlp.fc2.*", "transformer_blocks.$a.ff.net.2.*"),
	ONE("joint_blocks.#.context_block.mlp.fc1.*", "transformer_blocks.$a.ff_context.net.0.proj.*"),
	ONE("joint_blocks.#.context_block.mlp.fc2.*", "transformer_blocks.$a.ff_context.net.2.*"),
	ONE("pos_embed", "pos_embed.pos_embed"),
	ONE("x_embedder.proj.*", "pos_embed.proj.*"),
	ONE("t_embedder.mlp.0.*", "time_text_embed.timestep_embedder.linear_1.*"),
	ONE("t_embedder.mlp.2.*", "time_text_embed.timestep_embedder.linear_2.*"),
	ONE("y_embedder.mlp.0.*", "time_text_embed.text_embedder.linear_1.*"),
	ONE("y_embedder.mlp.2.*", "time_text_embed.text_embedder.linear_2.*"),
	ONE("final_layer.linear.*", "proj_out.*"),
	HOW("final_layer.adaLN_modulation.1.*", "norm_out.linear.*", NAMES_SWAP),
	END,
};

/* The six modules of a residual block. */
#define RESNET(original, diffusers)                                                                                    \
	ONE(original "in_layers.0.*", diffusers "norm1.*"), ONE(original "in_layers.2.*", diffusers "conv1.*"),        \
		ONE(original "emb_layers.1.*", diffusers "time_emb_proj.*"),                                           \
		ONE(original "out_layers.0.*", diffusers "norm2.*"),                                                   \
		ONE(original "out_layers.3.*", diffusers "conv2.*"),                                                   \
		ONE(original "skip_connection.*", diffusers "conv_shortcut.*")

static const struct rule unet[] = {
	ONE("time_embed.0.*", "time_embedding.linear_1.*"),
	ONE("time_embed.2.*", "time_embedding.linear_2.*"),
	ONE("label_emb.0.0.*", "add_embedding.linear_1.*"),
	ONE("label_emb.0.2.*", "add_embedding.linear_2.*"),
	ONE("out.0.*", "conv_norm_out.*"),
	ONE("out.2.*", "conv_out.*"),
	ONE("input_blocks.0.0.*", "conv_in.*"),
	ONE("input_blocks.#.0.op.*", "down_blocks.$d.downsamplers.0.conv.*"),
	RESNET("input_blocks.#.0.", "down_blocks.$d.resnets.$r."),
	ONE("input_blocks.#.1.*", "down_blocks.$d.attentions.$r.*"),
	RESNET("middle_block.0.", "mid_block.resnets.0."),
	ONE("middle_block.1.*", "mid_block.attentions.0.*"),
	RESNET("middle_block.2.", "mid_block.resnets.1."),
	RESNET("output_blocks.#.0.", "up_blocks.$D.resnets.$R."),
	ONE("output_blocks.#.1.conv.*", "up_blocks.$D.upsamplers.0.conv.*"),
	ONE("output_blocks.#.2.conv.*", "up_blocks.$D.upsamplers.0.conv.*"),
	ONE("output_blocks.#.1.*", "up_blocks.$D.attentions.$R.*"),
	END,
};

/* Both halves of an autoencoder. */
#define VAE_HALF(side)                                                                                                 \
	ONE(side ".norm_out.*", side ".conv_norm_out.*"), ONE(side ".mid.block_1.*", side ".mid_block.resnets.0.*"),   \
		ONE(side ".mid.block_2.*", side ".mid_block.resnets.1.*"),                                             \
		ONE(side ".mid.attn_1.norm.*", side ".mid_block.attentions.0.group_norm.*"),                           \
		HOW(side ".mid.attn_1.q.*", side ".mid_block.attentions.0.to_q.*", NAMES_SQUEEZE),                     \
		HOW(side ".mid.attn_1.k.*", side ".mid_block.attentions.0.to_k.*", NAMES_SQUEEZE),                     \
		HOW(side ".mid.attn_1.v.*", side ".mid_block.attentions.0.to_v.*", NAMES_SQUEEZE),                     \
		HOW(side ".mid.attn_1.proj_out.*", side ".mid_block.attentions.0.to_out.0.*", NAMES_SQUEEZE)

static const struct rule vae[] = {
	VAE_HALF("encoder"),
	VAE_HALF("decoder"),
	ONE("encoder.down.#.block.#.nin_shortcut.*", "encoder.down_blocks.$a.resnets.$b.conv_shortcut.*"),
	ONE("encoder.down.#.block.#.*", "encoder.down_blocks.$a.resnets.$b.*"),
	ONE("encoder.down.#.downsample.conv.*", "encoder.down_blocks.$a.downsamplers.0.conv.*"),
	ONE("decoder.up.#.block.#.nin_shortcut.*", "decoder.up_blocks.$u.resnets.$b.conv_shortcut.*"),
	ONE("decoder.up.#.block.#.*", "decoder.up_blocks.$u.resnets.$b.*"),
	ONE("decoder.up.#.upsample.conv.*", "decoder.up_blocks.$u.upsamplers.0.conv.*"),
	END,
};

#define CLIP_LAYER "text_model.encoder.layers.$a."

static const struct rule open_clip[] = {
	ONE("positional_embedding", "text_model.embeddings.position_embedding.weight"),
	ONE("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
	ONE("ln_final.*", "text_model.final_layer_norm.*"),
	HOW("text_projection", "text_projection.weight", NAMES_TRANSPOSE),
	QKV("transformer.resblocks.#.attn.in_proj_weight", CLIP_LAYER "self_attn.q_proj.weight",
		CLIP_LAYER "self_attn.k_proj.weight", CLIP_LAYER "self_attn.v_proj.weight"),
	QKV("transformer.resblocks.#.attn.in_proj_bias", CLIP_LAYER "self_attn.q_proj.bias",
		CLIP_LAYER "self_attn.k_proj.bias", CLIP_LAYER "self_attn.v_proj.bias"),
	ONE("transformer.resblocks.#.attn.out_proj.*", CLIP_LAYER "self_attn.out_proj.*"),
	ONE("transformer.resblocks.#.ln_1.*", CLIP_LAYER "layer_norm1.*"),
	ONE("transformer.resblocks.#.ln_2.*", CLIP_LAYER "layer_norm2.*"),
	ONE("transformer.resblocks.#.mlp.c_fc.*", CLIP_LAYER "mlp.fc1.*"),
	ONE("transformer.resblocks.#.mlp.c_proj.*", CLIP_LAYER "mlp.fc2.*"),
	END,
};

static const struct rule qwen_gguf[] = {
	ONE("token_embd.*", "model.embed_tokens.*"),
	ONE("output_norm.*", "model.norm.*"),
	ONE("output.*", "lm_head.*"),
	ONE("blk.#.attn_norm.*", "model.layers.$a.input_layernorm.*"),
	ONE("blk.#.attn_q.*", "model.layers.$a.self_attn.q_proj.*"),
	ONE("blk.#.attn_k.*", "model.layers.$a.self_attn.k_proj.*"),
	ONE("blk.#.attn_v.*", "model.layers.$a.self_attn.v_proj.*"),
	ONE("blk.#.attn_output.*", "model.layers.$a.self_attn.o_proj.*"),
	ONE("blk.#.attn_q_norm.*", "model.layers.$a.self_attn.q_norm.*"),
	ONE("blk.#.attn_k_norm.*", "model.layers.$a.self_attn.k_norm.*"),
	ONE("blk.#.ffn_norm.*", "model.layers.$a.post_attention_layernorm.*"),
	ONE("blk.#.ffn_gate.*", "model.layers.$a.mlp.gate_proj.*"),
	ONE("blk.#.ffn_up.*", "model.layers.$a.mlp.up_proj.*"),
	ONE("blk.#.ffn_down.*", "model.layers.$a.mlp.down_proj.*"),
	END,
};

static const struct rule t5_gguf[] = {
	ONE("token_embd.*", "shared.*"),
	ONE("enc.output_norm.*", "encoder.final_layer_norm.*"),
	ONE("enc.blk.#.attn_norm.*", "encoder.block.$a.layer.0.layer_norm.*"),
	ONE("enc.blk.#.attn_q.*", "encoder.block.$a.layer.0.SelfAttention.q.*"),
	ONE("enc.blk.#.attn_k.*", "encoder.block.$a.layer.0.SelfAttention.k.*"),
	ONE("enc.blk.#.attn_v.*", "encoder.block.$a.layer.0.SelfAttention.v.*"),
	ONE("enc.blk.#.attn_o.*", "encoder.block.$a.layer.0.SelfAttention.o.*"),
	ONE("enc.blk.#.attn_rel_b.*", "encoder.block.$a.layer.0.SelfAttention.relative_attention_bias.*"),
	ONE("enc.blk.#.ffn_norm.*", "encoder.block.$a.layer.1.layer_norm.*"),
	ONE("enc.blk.#.ffn_gate.*", "encoder.block.$a.layer.1.DenseReluDense.wi_0.*"),
	ONE("enc.blk.#.ffn_up.*", "encoder.block.$a.layer.1.DenseReluDense.wi_1.*"),
	ONE("enc.blk.#.ffn_down.*", "encoder.block.$a.layer.1.DenseReluDense.wo.*"),
	END,
};

static const struct rule *const rules[NAMES_COUNT] = {
	[NAMES_ZIMAGE] = zimage,
	[NAMES_FLUX] = flux,
	[NAMES_SD3] = sd3,
	[NAMES_UNET] = unet,
	[NAMES_VAE] = vae,
	[NAMES_OPEN_CLIP] = open_clip,
	[NAMES_QWEN_GGUF] = qwen_gguf,
	[NAMES_T5_GGUF] = t5_gguf,
};

/* ---- applying a rule --------------------------------------------------------------------------------------------- */

struct match {
	long number[2];
	const char *rest;
};

static bool take_number(const char **at, long *out)
{
	char *end;

	/* at most six digits: no block has more */
	if (!isdigit((unsigned char)**at) || strspn(*at, "0123456789") > 6)
		return false;
	*out = strtol(*at, &end, 10);
	*at = end;
	return true;
}

static bool matches(const char *pattern, const char *name, struct match *m)
{
	char dot = strchr(name, '.') ? '.' : '_';
	int numbers = 0;

	*m = (struct match){ { 0, 0 }, "" };
	for (; *pattern; pattern++) {
		if (strcmp(pattern, ".*") == 0) {
			m->rest = *name ? name + 1 : name;
			return !*name || *name == dot;
		}
		if (*pattern == '#') {
			if (!take_number(&name, &m->number[numbers++]))
				return false;
		} else if (*pattern == *name || (*pattern == '.' && *name == dot)) {
			name++;
		} else {
			return false;
		}
	}
	return !*name;
}

static long variable(char letter, const struct match *m, const struct names_sizes *sizes)
{
	long a = m->number[0];

	switch (letter) {
	case 'a':
		return a;
	case 'b':
		return m->number[1];
	case 'd':
		return (a - 1) / sizes->unet_stride;
	case 'r':
		return (a - 1) % sizes->unet_stride;
	case 'D':
		return a / sizes->unet_stride;
	case 'R':
		return a % sizes->unet_stride;
	default:
		return sizes->vae_blocks - 1 - a;
	}
}

static void expand(const char *result, const struct match *m, const struct names_sizes *sizes, char out[NAMES_LEN])
{
	size_t len = 0;

	for (const char *at = result; *at && len < NAMES_LEN - 1; at++) {
		size_t left = NAMES_LEN - len;

		if (*at == '$')
			len += (size_t)snprintf(out + len, left, "%ld", variable(*++at, m, sizes));
		else if (strcmp(at, ".*") == 0 && !*m->rest)
			break;
		else if (*at == '*')
			len += (size_t)snprintf(out + len, left, "%s", m->rest);
		else
			out[len++] = *at;
	}
	out[len < NAMES_LEN ? len : NAMES_LEN - 1] = 0;
}

/* The context half of SD3's last joint block ends in a norm without gates, stored like FLUX's final one. */
static bool last_context_norm(enum names_layout layout, const struct names_sizes *sizes, const char *name)
{
	char prefix[80];

	if (layout != NAMES_SD3 || !sizes->joint_blocks)
		return false;
	snprintf(prefix, sizeof prefix, "joint_blocks.%d.context_block.adaLN_modulation.1.", sizes->joint_blocks - 1);
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

int names_map(enum names_layout layout, const struct names_sizes *sizes, const char *original,
	struct mapped_name to[NAMES_MAX])
{
	struct match m;
	int n = 0;

	for (const struct rule *r = rules[layout]; r && r->pattern; r++) {
		if (!matches(r->pattern, original, &m))
			continue;
		for (; n < NAMES_MAX && r->to[n].name; n++) {
			to[n] = (struct mapped_name){ "", r->to[n].from, r->to[n].count, r->to[n].of, r->to[n].how };
			expand(r->to[n].name, &m, sizes, to[n].name);
			if (last_context_norm(layout, sizes, original))
				to[n].how = NAMES_SWAP;
		}
		return n;
	}
	to[0] = (struct mapped_name){ "", 0, 0, 0, NAMES_AS_IS };
	snprintf(to[0].name, NAMES_LEN, "%s", original);
	return 1;
}

/* ---- recognising ------------------------------------------------------------------------------------------------- */

#define FLUX_MARK "double_blocks.0.img_attn.qkv.weight"
#define SD3_MARK "joint_blocks.0.x_block.attn.qkv.weight"
#define ZIMAGE_MARK "layers.0.attention.qkv.weight"
#define UNET_MARK "input_blocks.0.0.weight"
#define VAE_MARK "decoder.mid.block_1.norm1.weight"
#define CLIP_MARK "text_model.embeddings.token_embedding.weight"
#define OPEN_CLIP_MARK "transformer.resblocks.0.ln_1.weight"
#define T5_MARK "encoder.block.0.layer.0.layer_norm.weight"

static const struct names_source sources[] = {
	{ "transformer", "model.diffusion_model.", NAMES_ZIMAGE, ZIMAGE_MARK },
	{ "transformer", "model.diffusion_model.", NAMES_FLUX, FLUX_MARK },
	{ "transformer", "model.diffusion_model.", NAMES_SD3, SD3_MARK },
	{ "transformer", "", NAMES_ZIMAGE, ZIMAGE_MARK },
	{ "transformer", "", NAMES_FLUX, FLUX_MARK },
	{ "transformer", "", NAMES_SD3, SD3_MARK },
	{ "unet", "model.diffusion_model.", NAMES_UNET, UNET_MARK },
	{ "unet", "", NAMES_UNET, UNET_MARK },
	{ "vae", "first_stage_model.", NAMES_VAE, VAE_MARK },
	{ "vae", "vae.", NAMES_VAE, VAE_MARK },
	{ "vae", "", NAMES_VAE, VAE_MARK },
	{ "text_encoder", "cond_stage_model.transformer.", NAMES_SAME, CLIP_MARK },
	{ "text_encoder", "cond_stage_model.model.", NAMES_OPEN_CLIP, OPEN_CLIP_MARK },
	{ "text_encoder", "conditioner.embedders.0.transformer.", NAMES_SAME, CLIP_MARK },
	{ "text_encoder", "text_encoders.clip_l.transformer.", NAMES_SAME, CLIP_MARK },
	{ "text_encoder_2", "conditioner.embedders.1.model.", NAMES_OPEN_CLIP, OPEN_CLIP_MARK },
	{ "text_encoder_2", "text_encoders.clip_g.transformer.", NAMES_SAME, CLIP_MARK },
	{ "text_encoder*", "text_encoders.t5xxl.transformer.", NAMES_SAME, T5_MARK },
	{ "text_encoder*", "", NAMES_OPEN_CLIP, OPEN_CLIP_MARK },
	{ "text_encoder*", "", NAMES_QWEN_GGUF, "blk.0.attn_q.weight" },
	{ "text_encoder*", "", NAMES_T5_GGUF, "enc.blk.0.attn_q.weight" },
};

static bool part_fits(const char *pattern, const char *part)
{
	size_t len = strlen(pattern);

	return pattern[len - 1] == '*' ? strncmp(pattern, part, len - 1) == 0 : strcmp(pattern, part) == 0;
}

const struct names_source *names_find_source(
	const char *part, bool (*has)(const void *file, const char *name), const void *file)
{
	for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
		char name[NAMES_LEN];

		snprintf(name, sizeof name, "%s%s", sources[i].prefix, sources[i].mark);
		if (part_fits(sources[i].part, part) && has(file, name))
			return &sources[i];
	}
	return NULL;
}

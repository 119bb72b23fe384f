#!/usr/bin/env python3
"""Writes prompt-weights.{json,safetensors}: FLUX with weights in its prompt, as stable-diffusion-webui-forge has them
(backend/text_processing/t5_engine.py, emphasis.py): brackets cut the text into pieces that are tokenized apart, T5's rows are
multiplied by their tokens' weights and then all by what restores their mean; CLIP's pooled row is only that of those tokens.

    python prompt-weights.py [MODEL FOLDER]    # here; needs diffusers 0.42.1 and transformers
"""
import json
import pathlib
import sys

import diffusers
import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
MODEL = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "../../models/flux-dev-tiny"
PROMPT = "a (red:1.4) fox (((sleeping))) under an [old] oak (at dawn:0.7)"
PIECES = [("a ", 1), ("red", 1.4), (" fox ", 1), ("sleeping", 1.1 ** 3), (" under an ", 1), ("old", 1 / 1.1), (" oak ", 1), ("at dawn", 0.7)]
ARGS = {"prompt": PROMPT, "prompt_weights": "a1111", "width": 64, "height": 64, "steps": 1, "guidance_scale": 3.5, "seed": 5,
        "max_sequence_length": 64, "sampler": "euler", "rng": "torch-cpu"}


def tokenize(tokenizer, length, begin, end, pad):
    ids, weights = list(begin), [1.0] * len(begin)
    for text, weight in PIECES:
        piece = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += piece
        weights += [weight] * len(piece)
    ids.append(end)
    more = length - len(ids)
    return torch.tensor([ids + [pad] * more]), torch.tensor(weights + [1.0] * (more + 1))


def run(dtype):
    pipe = diffusers.FluxPipeline.from_pretrained(MODEL, torch_dtype=dtype)
    clip, t5 = pipe.tokenizer, pipe.tokenizer_2
    ids0, _ = tokenize(clip, clip.model_max_length, [clip.bos_token_id], clip.eos_token_id, clip.pad_token_id)
    ids1, weights = tokenize(t5, ARGS["max_sequence_length"], [], t5.eos_token_id, t5.pad_token_id)
    pooled = pipe.text_encoder(ids0).pooler_output
    plain = pipe.text_encoder_2(ids1)[0]
    rows = plain * weights.to(dtype)[None, :, None]
    rows = rows * (plain.mean() / rows.mean())
    noise = []
    pipe.transformer.register_forward_hook(lambda module, args, out: noise.append(out[0]))
    latents = torch.randn((1, 16, 8, 8), generator=torch.Generator().manual_seed(ARGS["seed"]))
    packed = pipe._pack_latents(latents, 1, 16, 8, 8).to(dtype)
    pipe(prompt_embeds=rows, pooled_prompt_embeds=pooled, latents=packed, width=64, height=64, num_inference_steps=1,
         guidance_scale=ARGS["guidance_scale"], output_type="latent")
    unpacked = noise[0].reshape(1, 4, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(16, 8, 8)
    return {"input_ids.0": ids0[0], "input_ids.1": ids1[0], "prompt_embeds": rows[0], "pooled_prompt_embeds": pooled[0],
            "noise_pred.0": unpacked}


with torch.no_grad():
    exact, rough = run(torch.float32), run(torch.bfloat16)
distance = {k: round(float((rough[k].float() - v).norm() / v.norm()), 6) for k, v in exact.items() if v.is_floating_point()}
save_file({k: v.contiguous() for k, v in exact.items()}, HERE / "prompt-weights.safetensors")
(HERE / "prompt-weights.json").write_text(json.dumps({
    "id": "flux/prompt-weights", "model": "flux-dev-tiny", "args": ARGS,
    "tolerance": {"input_ids.0": 0, "input_ids.1": 0, "prompt_embeds": 2e-5, "pooled_prompt_embeds": 2e-5, "noise_pred.0": 1e-4},
    "bf16_distance": distance,
    "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__, "transformers": transformers.__version__}}, indent=1) + "\n")

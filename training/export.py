"""Write the checkpoint in diffusers' layout: export.py WORK OUT [--stage denoiser|distilled].  Weights are the averages, in bfloat16."""
import argparse
import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from tokenizers import Tokenizer

import text
from model import SHIFT, new_transformer


def text_config(c):
    """As published models write it (a Qwen3ForCausalLM with tied embeddings)."""
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "max_window_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "vocab_size", "bos_token_id", "eos_token_id", "max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range")
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **{k: getattr(c, k) for k in keys}, "rope_theta": 1000000, "rope_scaling": None,
            "attention_bias": False, "attention_dropout": 0.0, "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True}


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("work", type=pathlib.Path), ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--stage", default="distilled", choices=("denoiser", "distilled"))
    a = ap.parse_args()
    tok = Tokenizer.from_file(str(a.work / "tokenizer/tokenizer.json"))
    encoder, transformer = text.new_encoder(tok), new_transformer()
    state = torch.load(a.work / f"{a.stage}.pt")
    text.load_averages(state, encoder, transformer)
    final = a.work / "vae-final"
    vae = AutoencoderKL.from_pretrained(final if final.exists() else a.work / "vae")
    for name, module in ("text_encoder", encoder), ("transformer", transformer), ("vae", vae):
        weights = {("model." if name == "text_encoder" else "") + n: p.detach().to(torch.bfloat16).contiguous() for n, p in module.state_dict().items()}
        put = a.out / name
        put.mkdir(parents=True, exist_ok=True)
        save_file(weights, put / ("model.safetensors" if name == "text_encoder" else "diffusion_pytorch_model.safetensors"), {"format": "pt"})
        config = text_config(encoder.config) if name == "text_encoder" else {"_class_name": type(module).__name__, "_diffusers_version": "0.42.1",
                                                                            **{k: v for k, v in module.config.items() if not k.startswith("_")}}
        (put / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False).save_pretrained(a.out / "scheduler")
    (a.out / "tokenizer").mkdir(parents=True, exist_ok=True)
    for f in "tokenizer.json", "tokenizer_config.json":
        shutil.copyfile(a.work / "tokenizer" / f, a.out / "tokenizer" / f)
    index = {"_class_name": "ZImagePipeline", "_diffusers_version": "0.42.1", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
             "text_encoder": ["transformers", "Qwen3Model"], "tokenizer": ["transformers", "Qwen2Tokenizer"],
             "transformer": ["diffusers", "ZImageTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (a.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    files = [p for p in a.out.rglob("*") if p.is_file()]
    print(f"step {state['step']}: {sum(p.stat().st_size for p in files) / 1e6:.1f} MB in {len(files)} files")


if __name__ == "__main__":
    main()

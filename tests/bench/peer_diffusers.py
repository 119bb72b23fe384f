"""peer_diffusers.py FOLDER WxH STEPS eager|compile REPEATS DEVICE: median seconds a picture of a diffusers pipeline whose
configurations lie in FOLDER, with random weights in bf16, from the prompt to the PIL image.  For tests/gpu-peers.sh."""

import importlib
import json
import os
import statistics
import sys
import time

import torch

PROMPT = (
    "a red panda sits at a small wooden table by the window and reads a newspaper, a cup of green tea beside it, "
    "watercolour, soft morning light, number 00"
)


def component(folder, name, library, kind, device):
    """A part of the pipeline; models get weights of the size that trained ones have."""
    path = os.path.join(folder, name)
    cls = getattr(importlib.import_module(library), kind)
    if name.startswith("tokenizer"):
        return cls.from_pretrained(path)
    if name == "scheduler":
        return cls.from_config(cls.load_config(path))
    if library == "transformers":
        make = lambda: cls(cls.config_class.from_pretrained(path))
    else:
        make = lambda: cls.from_config(cls.load_config(path))
    with torch.device(device):
        model = make()
    return model.to(device=device, dtype=torch.bfloat16).eval()


def pipeline(folder, device):
    with open(os.path.join(folder, "model_index.json")) as f:
        index = json.load(f)
    parts = {
        name: component(folder, name, *value, device)
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, list) and value[0]
    }
    cls = getattr(importlib.import_module("diffusers"), index["_class_name"])
    extra = {k: v for k, v in index.items() if not k.startswith("_") and not isinstance(v, list)}
    missing = {k: None for k in ("safety_checker", "feature_extractor", "image_encoder") if k in str(cls.__init__.__code__.co_varnames)}
    return cls(**{**missing, **parts, **extra})


def main():
    folder, size, steps, way, repeats, device = sys.argv[1:7]
    width, height = (int(n) for n in size.split("x"))
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    pipe = pipeline(folder, device)
    torch.set_default_dtype(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    network = "transformer" if hasattr(pipe, "transformer") else "unet"
    if way == "compile":
        setattr(pipe, network, torch.compile(getattr(pipe, network)))
        pipe.vae.decode = torch.compile(pipe.vae.decode)
    options = {"guidance_scale": 0.0} if "ZImage" in type(pipe).__name__ else {}

    def paint():
        start = time.perf_counter()
        with torch.inference_mode():
            pipe(prompt=PROMPT, width=width, height=height, num_inference_steps=int(steps), output_type="pil", **options)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(2):
        paint()
    print(f"{statistics.median(paint() for _ in range(int(repeats))):.4f}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes names.json.gz beside every config.json below the given folders: the tensors that the reference class makes of
it, with their shapes, without weights.  Where the shards' published index is there (*.index.json), it must have the same
names and the same size.

    HF_HUB_OFFLINE=1 list.py MODEL_FOLDER...      (diffusers 0.42.1, transformers 5.23.0, torch 2.15.0)
"""
import gzip
import json
import sys
from pathlib import Path

import diffusers
import torch
import transformers

# transformers 5 drops these; the published files have them
PUBLISHED_PREFIX = {"CLIPTextModel": "text_model.", "Qwen3Model": "model."}


def tensors(library, name, folder):
    with torch.device("meta"):
        if library == "diffusers":
            cls = getattr(diffusers, name)
            model = cls.from_config(cls.load_config(folder))
        else:
            cls = getattr(transformers, name)
            model = cls(transformers.AutoConfig.from_pretrained(folder))
    prefix = PUBLISHED_PREFIX.get(name, "")
    if any(key.startswith(prefix) for key in model.state_dict()):
        prefix = ""
    tied = set(getattr(model, "_tied_weights_keys", None) or [])
    return {prefix + key: list(value.shape) for key, value in sorted(model.state_dict().items()) if key not in tied}


def check_index(path, found):
    index = json.loads(path.read_text())
    assert set(index["weight_map"]) == set(found), (path, set(index["weight_map"]) ^ set(found))
    elements = sum(torch.Size(shape).numel() for shape in found.values())
    assert index["metadata"]["total_size"] in (2 * elements, 4 * elements), (path, index["metadata"], elements)


for root in map(Path, sys.argv[1:]):
    for part, about in json.loads((root / "model_index.json").read_text()).items():
        folder = root / part
        if not (folder / "config.json").exists():
            continue
        found = tensors(*about, folder)
        for path in folder.glob("*.index.json"):
            check_index(path, found)
        text = json.dumps({"tensors": found}, separators=(",", ":"))
        (folder / "names.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        print(f"{folder}: {len(found)} tensors, {sum(torch.Size(s).numel() for s in found.values())} elements")

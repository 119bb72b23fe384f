#!/usr/bin/env python3
"""Writes the files of this folder: a model's two weights, LoRA files of every kind, and the weights that PEFT or LyCORIS
make of them.  Needs torch, safetensors, peft 0.21.2, lycoris-lora 4.1.3.

    python make.py        # here
"""
import json

import torch
from lycoris.functional import locon, loha, lokr
from lycoris.modules.locon import weight_decompose
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

LINEAR, CONV = "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1"
SHAPE = {LINEAR: (8, 6), CONV: (8, 4, 3, 3)}
torch.manual_seed(1)
base = {name: torch.randn(shape) / 3 for name, shape in SHAPE.items()}
expected, cases = {}, {}


def note(case, files, weights):
    """files: [[file, scale] ...]"""
    cases[case] = {"loras": files, "tensors": [name + ".weight" for name in weights]}
    for name, value in weights.items():
        expected[f"{case}/{name}.weight"] = value.detach().contiguous()


# ---- PEFT: its own layers, its own file, the weight read off a layer by what it does to unit vectors
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mid_block = torch.nn.Module()
        self.mid_block.attentions = torch.nn.ModuleList([torch.nn.Module()])
        self.mid_block.resnets = torch.nn.ModuleList([torch.nn.Module()])
        self.mid_block.attentions[0].proj_in = torch.nn.Linear(6, 8)
        self.mid_block.resnets[0].conv1 = torch.nn.Conv2d(4, 8, 3)
        for name in SHAPE:
            self.get_submodule(name).weight.data = base[name].clone()


def effective(layer, shape):
    bias = layer.get_base_layer().bias.detach()
    if len(shape) == 2:
        return (layer(torch.eye(shape[1])) - bias).T
    units = torch.eye(shape[1] * 9).reshape(-1, shape[1], 3, 3)  # one output position each
    return (layer(units)[:, :, 0, 0] - bias).T.reshape(shape)


def peft_case(case, configs, scales):
    model = Model().eval()
    files = []
    for i, config in enumerate(configs):
        model = inject_adapter_in_model(LoraConfig(target_modules=list(SHAPE), init_lora_weights=False, **config), model, f"a{i}")
    for i, (config, scale) in enumerate(zip(configs, scales)):
        for name in SHAPE:
            layer = model.get_submodule(name)
            layer.set_scale(f"a{i}", scale)
            if config.get("use_dora"):
                w = layer.lora_magnitude_vector[f"a{i}"].weight
                w.data = w.data * (1 + 0.2 * torch.randn(w.shape))
        state = {"unet." + k: v.contiguous() for k, v in get_peft_model_state_dict(model, adapter_name=f"a{i}").items()}
        about = {"unet." + k: v for k, v in {"r": config["r"], "lora_alpha": config["lora_alpha"],
                 "use_rslora": bool(config.get("use_rslora")), "use_dora": bool(config.get("use_dora"))}.items()}
        file = f"{case}-{i}" if len(configs) > 1 else case
        save_file(state, file + ".safetensors", {"format": "pt", "lora_adapter_metadata": json.dumps(about)})
        files.append([file, scale])
    for name in SHAPE:
        model.get_submodule(name).set_adapter([f"a{i}" for i in range(len(configs))])
    note(case, files, {name: effective(model.get_submodule(name), SHAPE[name]) for name in SHAPE})


peft_case("peft-rslora", [dict(r=4, lora_alpha=3, use_rslora=True)], [0.7])
peft_case("peft-dora", [dict(r=2, lora_alpha=3, use_dora=True)], [1.0])
peft_case("peft-dora-scale", [dict(r=2, lora_alpha=3, use_dora=True)], [0.6])
peft_case("peft-dora-twice", [dict(r=2, lora_alpha=2, use_dora=True), dict(r=3, lora_alpha=1, use_dora=True)], [0.8, 0.5])


# ---- LyCORIS: its functions on the factors of a file in kohya's names
def lycoris_case(case, factors, diff, scale=0.7, dora=None):
    """factors: module -> {suffix: tensor}; diff: module -> what is added at scale 1."""
    state = {}
    for name, parts in factors.items():
        for suffix, value in parts.items():
            state[f"lora_unet_{name.replace('.', '_')}.{suffix}"] = value.clone().contiguous()
    save_file(state, case + ".safetensors")
    note(case, [[case, scale]], {name: base[name] + scale * value.reshape(SHAPE[name]) if dora is None else dora(name, value)
                                 for name, value in diff.items()})


def r(*shape):
    return torch.randn(shape) / 2


alpha = torch.tensor(3.0)

up, mid, down = r(8, 2, 1, 1), r(2, 2, 3, 3), r(2, 4, 1, 1)
lycoris_case("locon-cp", {CONV: {"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down, "alpha": alpha}},
             {CONV: locon.diff_weight(down, up, mid, gamma=3.0 / 2)})

f = {LINEAR: [r(2, 6), r(8, 2), r(2, 6), r(8, 2), None, None],
     CONV: [r(2, 36), r(8, 2), r(2, 36), r(8, 2), None, None]}
suffixes = ["hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2"]


def hada(f):
    return {n: dict({s: v for s, v in zip(suffixes, values) if v is not None}, alpha=alpha) for n, values in f.items()}


lycoris_case("loha", hada(f), {n: loha.diff_weight(*v, gamma=3.0 / 2) for n, v in f.items()})
f = {CONV: [r(2, 4), r(2, 8), r(2, 4), r(2, 8), r(2, 2, 3, 3), r(2, 2, 3, 3)]}
lycoris_case("loha-tucker", hada(f), {n: loha.diff_weight(*v, gamma=3.0 / 2) for n, v in f.items()})

suffixes_kron = ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"]


def kron(f):
    return {n: dict({s: v for s, v in zip(suffixes_kron, values) if v is not None}, alpha=alpha) for n, values in f.items()}


for case, f in {
    "lokr": {LINEAR: [r(2, 3), None, None, None, r(4, 2), r(2, 2), None],
             CONV: [r(2, 2), None, None, None, r(4, 2), r(2, 2, 3, 3), None]},
    "lokr-both": {LINEAR: [None, r(2, 1), r(1, 3), None, r(4, 1), r(1, 2), None],
                  CONV: [None, r(4, 1), r(1, 2), None, r(2, 1), r(1, 18), None]},
    "lokr-tucker": {CONV: [r(2, 2), None, None, None, r(2, 4), r(2, 2), r(2, 2, 3, 3)]},
}.items():
    # diff_weight divides by the second size of w1_a or w2_a, which Tucker's form has turned: alpha / rank is meant
    by = {n: 3.0 / v[5].shape[0] * (v[1] if v[1] is not None else v[4]).shape[1] for n, v in f.items()}
    kernels = {n: [v[5].reshape(-1, 2, 3, 3) if case == "lokr-both" and n == CONV else v[5]] for n, v in f.items()}
    lycoris_case(case, kron(f), {n: lokr.diff_weight(*v[:5], *kernels[n], v[6], gamma=by[n]) for n, v in f.items()})
f = {LINEAR: [r(2, 3), None, None, r(4, 2), None, None, None], CONV: [r(4, 2), None, None, r(2, 2, 3, 3), None, None, None]}
lycoris_case("lokr-whole", kron(f), {n: lokr.diff_weight(*v, gamma=1.0) for n, v in f.items()})  # whole factors have no alpha

# kohya's DoRA: the magnitude of each output, or of each input (LyCORIS at scale 1, where both rules agree)
for case, on_out in (("dora-outputs", True), ("dora-inputs", False)):
    up, down = {LINEAR: r(8, 2), CONV: r(8, 2, 1, 1)}, {LINEAR: r(2, 6), CONV: r(2, 4, 3, 3)}
    magnitude = {LINEAR: (1 + r(8, 1).abs()) if on_out else 1 + r(1, 6).abs(),
                 CONV: (1 + r(8, 1, 1, 1).abs()) if on_out else 1 + r(1, 4, 1, 1).abs()}
    lycoris_case(case, {n: {"lora_up.weight": up[n], "lora_down.weight": down[n], "alpha": alpha, "dora_scale": magnitude[n]} for n in SHAPE},
                 {n: locon.diff_weight(down[n], up[n], None, gamma=3.0 / 2) for n in SHAPE}, 1.0,
                 lambda n, d: weight_decompose(base[n] + d.reshape(SHAPE[n]), magnitude[n], 1.0, on_out))

# names: Kandinsky's old attention processors, its prior, and block numbers of a UNet with one residual block a level
NAMES = {"down_blocks.0.resnets.0.conv1": (2, 2, 1, 1), "down_blocks.1.resnets.0.conv1": (2, 2, 1, 1),
         "down_blocks.1.attentions.0.add_k_proj": (3, 4), "down_blocks.1.attentions.0.to_out.0": (3, 4),
         "transformer_blocks.0.attn1.to_q": (3, 4)}
base |= {name: torch.randn(shape) / 3 for name, shape in NAMES.items()}


def name_case(case, part, names):
    """names: weight -> what the file calls down and up."""
    state, weights = {}, {}
    for name, (a, b) in names.items():
        down, up = r(2, *NAMES[name][1:]), r(NAMES[name][0], 2, *NAMES[name][2:])
        state |= {a: down, b: up}
        weights[name] = base[name] + (up.flatten(1) @ down.flatten(1)).reshape(NAMES[name])
    save_file(state, case + ".safetensors")
    note(case, [[case, 1.0]], weights)
    cases[case]["part"] = part


processor = "down_blocks.1.attentions.0.processor."
name_case("names-kandinsky", "unet", {
    "down_blocks.1.attentions.0.add_k_proj": [f"{processor}add_k_proj_lora.{x}.weight" for x in ("down", "up")],
    "down_blocks.1.attentions.0.to_out.0": [f"{processor}to_out_lora.{x}.weight" for x in ("down", "up")]})
name_case("names-prior", "prior_prior", {
    "transformer_blocks.0.attn1.to_q": [f"prior.transformer_blocks.0.attn1.to_q.lora_{x}.weight" for x in ("A", "B")]})
name_case("names-blocks", "unet", {
    "down_blocks.1.resnets.0.conv1": [f"lora_unet_input_blocks_3_0_in_layers_2.lora_{x}.weight" for x in ("down", "up")]})

save_file({name + ".weight": value for name, value in base.items()}, "base.safetensors")
save_file(expected, "expected.safetensors")
with open("cases.json", "w") as out:
    json.dump(cases, out, indent=1)
    out.write("\n")

"""Encode every drawing on white and on COLOURED grounds: latents.py DATA WORK.  Writes WORK/latents.pt, and WORK/vae/ from the averages of vae.py
unless there is one: that of an earlier model, which is left as it is.
"""
import argparse
import pathlib
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

import data
from optim import save

COLOURED = 3


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    a = ap.parse_args()
    if (a.work / "latents.pt").exists():
        return
    given = (a.work / "vae").exists()
    if given:
        model = AutoencoderKL.from_pretrained(a.work / "vae").float()
    else:
        import vae as recipe
        model = AutoencoderKL(**recipe.CONFIG)
        state = torch.load(a.work / "vae.pt")
        for p, v in zip(model.parameters(), state["ema"]["shadow"]):
            p.data.copy_(v)
    model.to(memory_format=torch.channels_last).eval()
    emoji = data.load_emoji(a.data)
    rng = np.random.default_rng(2)
    drawings = [data.load_drawing(a.data, e.code) for e in emoji]
    # column 0: white; then colours drawn without repetition.  grounds[i, k] is an index into COLOUR_NAMES
    grounds = np.stack([np.concatenate([[0], 1 + rng.permutation(len(data.COLOUR_NAMES) - 1)[:COLOURED]]) for _ in emoji])
    out = torch.empty(len(emoji), 1 + COLOURED, model.config.latent_channels, data.SIZE // 16, data.SIZE // 16)
    start = time.time()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for k in range(1 + COLOURED):
            for i in range(0, len(emoji), 16):
                x = np.stack([data.compose(d, data.PALETTE[g]) for d, g in zip(drawings[i:i + 16], grounds[i:i + 16, k])])
                x = data.to_model(x).to(memory_format=torch.channels_last)
                out[i:i + 16, k] = model.encoder(x).chunk(2, 1)[0].float()
            print(f"column {k}, {time.time() - start:.0f}s", flush=True)
            if k == 0 and not given:
                # Each channel by a power of its spread, folded into the weights: one scaling factor then fits all of them better.
                spread = out[:, 0].std((0, 2, 3)) / out[:, 0].std()
                fold = spread.sqrt()
                m, conv = model.config.latent_channels, model.encoder.conv_out
                conv.weight.data[:m] /= fold[:, None, None, None]
                conv.bias.data[:m] /= fold
                conv.bias.data[m:] -= 2 * fold.log()
                model.decoder.conv_in.weight.data *= fold[None, :, None, None]
                out[:, 0] /= fold[:, None, None]
                print("channel spread", " ".join(f"{s:.2f}" for s in spread))
    if not given:
        share = torch.tensor([0.35] + [0.65 / COLOURED] * COLOURED)
        mean = float((out.mean((0, 2, 3, 4)) * share).sum())
        # spread about each channel's own mean: a constant is learnt at once and should not take room from what varies
        inner = out - out.mean((0, 3, 4), keepdim=True).mean(1, keepdim=True)
        std = float((inner.square().mean((0, 2, 3, 4)) * share).sum().sqrt())
        model.register_to_config(scaling_factor=round(1 / std, 4), shift_factor=round(mean, 4))
        model.save_pretrained(a.work / "vae")
    out = (out - model.config.shift_factor) * model.config.scaling_factor
    print(f"shift {model.config.shift_factor} scaling {model.config.scaling_factor}; channel means "
          + " ".join(f"{v:.2f}" for v in out[:, 0].mean((0, 2, 3))) + "; stds " + " ".join(f"{v:.2f}" for v in out[:, 0].std((0, 2, 3))))
    save(a.work / "latents.pt", latents=out.half(), grounds=torch.from_numpy(grounds), codes=[e.code for e in emoji])


if __name__ == "__main__":
    main()

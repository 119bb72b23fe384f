"""Encode drawings in other colours: recoloured.py DATA WORK [--count N].  Writes WORK/recoloured.pt.

Only drawings of one main hue, and no pair of drawing and colour that data.held_out keeps for the evaluation.
"""
import argparse
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL

import data
from optim import save


def choose(emoji, data_dir, count, rng):
    """(drawing, colour, ground, picture), each drawing as often as the next."""
    hues = {}
    while count > 0:
        for i in rng.permutation(len(emoji)):
            drawing = data.load_drawing(data_dir, emoji[i].code)
            hue = hues.setdefault(i, data.main_hue(drawing))
            colour = str(rng.choice(list(data.HUES)))
            if hue is None or data.held_out(emoji[i].code, colour):
                continue
            ground = 0 if rng.random() < 0.6 else int(rng.integers(1, len(data.COLOUR_NAMES)))
            yield int(i), data.COLOUR_NAMES.index(colour), ground, data.compose(data.recolour(drawing, colour, hue), data.PALETTE[ground])
            count -= 1
            if not count:
                return


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path), ap.add_argument("--count", type=int, default=1000)
    a = ap.parse_args()
    if (a.work / "recoloured.pt").exists():
        return
    vae, what, latents = AutoencoderKL.from_pretrained(a.work / "vae").to(memory_format=torch.channels_last).eval(), [], []
    waiting = []
    for i, colour, ground, picture in choose(data.load_emoji(a.data), a.data, a.count, np.random.default_rng(21)):
        what.append((i, colour, ground)), waiting.append(picture)
        if len(waiting) == 10 or len(what) == a.count:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                z = vae.encoder(data.to_model(np.stack(waiting)).to(memory_format=torch.channels_last)).chunk(2, 1)[0].float()
            latents.append((z - vae.config.shift_factor) * vae.config.scaling_factor)
            waiting = []
    save(a.work / "recoloured.pt", what=torch.tensor(what), latents=torch.cat(latents).half())


if __name__ == "__main__":
    main()

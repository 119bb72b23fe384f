"""Encode what is more than one drawing as it is, in the middle of a square: scenes.py DATA WORK.  Writes WORK/scenes.pt:

    recoloured   what: drawing, colour, ground             drawings of one main hue in every other colour on white, and on other grounds
    halves       what: drawing, place, which, ground       alone where pairs have the first (which 0) or the second (1) drawing, left and right (place 0), above and below (1)
    written      what: word, on a sign, ground
    wide, tall   what: drawing, ground                     in the middle of 384x256 and of 256x384
    quarters     what: drawing, ground                     four of the same
    small, big   what: drawing, ground
    depth        what: nearer, farther drawing, ground     one in front of another
    gradients    what: drawing, ground at the top and at the bottom
each with `latents`.  No pair of drawing and colour that data.held_out keeps for the evaluation.  Any two halves of one ground make a pair: half of
the latents of each; that differs from the encoded pair by 0.04 of 1.16 (standard deviation), 1.1 of 255 in the decoded picture.
"""
import argparse
import pathlib
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

import data
from optim import save

WIDE = 384


def some_ground(rng):
    return 0 if rng.random() < 0.5 else int(rng.integers(1, len(data.COLOUR_NAMES)))


def recoloured(drawings, emoji, rng):
    hues = [data.main_hue(d) for d in drawings]
    able = [(i, c) for i in range(len(emoji)) if hues[i] is not None for c in data.HUES if not data.held_out(emoji[i].code, c)]
    for i, c in able:
        for ground in [0] + ([some_ground(rng)] if rng.random() < 0.25 else []):
            yield (i, data.COLOUR_NAMES.index(c), ground), data.compose(data.recolour(drawings[i], c, hues[i]), data.PALETTE[ground])


def halves(small, rng):
    for place, spots in enumerate(data.PLACES.values()):
        for which, spot in enumerate(spots):
            for i, drawing in enumerate(small):
                for ground in 0, int(rng.integers(1, len(data.COLOUR_NAMES))):
                    yield (i, place, which, ground), data.scene([(drawing, *spot)], data.PALETTE[ground])


def written(rng):
    for w, word in enumerate(data.WRITTEN):
        for sign in 0, 1:
            for ground in [0] + list(rng.permutation(np.arange(1, len(data.COLOUR_NAMES)))[:2]):
                yield (w, sign, int(ground)), data.written(word, sign, data.PALETTE[ground])[0]


def oblong(drawings, rng, width, height):
    for i in rng.permutation(len(drawings)):
        ground = some_ground(rng)
        yield (int(i), ground), data.compose(drawings[i], data.PALETTE[ground], width, height)


def quarters(small, rng):
    for i, drawing in enumerate(small):
        for ground in 0, int(rng.integers(1, len(data.COLOUR_NAMES))):
            yield (i, ground), data.scene([(drawing, *spot) for spot in data.QUARTERS], data.PALETTE[ground])


def sized(drawings, rng):
    for i, drawing in enumerate(drawings):
        for ground in 0, int(rng.integers(1, len(data.COLOUR_NAMES))):
            yield (i, ground), data.compose(drawing, data.PALETTE[ground])


def depth(near, drawings, emoji, rng):
    """Every drawing as the nearer one of three or four."""
    for i in rng.permutation(np.repeat(np.arange(len(near)), 4)):
        j, ground = int(rng.integers(len(drawings))), some_ground(rng)
        if i != j and not data.held_out_pair(emoji[i].code, emoji[j].code):
            yield (int(i), j, ground), data.scene([(drawings[j], data.SIZE // 2, data.SIZE // 2), (near[i], *data.NEAR_AT)], data.PALETTE[ground])


def gradients(drawings, rng):
    for i in np.concatenate([rng.permutation(len(drawings)) for _ in range(2)]):
        above, below = (int(c) for c in rng.choice(len(data.COLOUR_NAMES), 2, replace=False))
        yield (int(i), above, below), data.compose(drawings[i], data.gradient(data.PALETTE[above], data.PALETTE[below]))


def encode(vae, scenes, batch=12):
    """Latents as the transformer has them, and what they show."""
    what, latents, waiting = [], [], []

    def flush():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            z = vae.encoder(data.to_model(np.stack(waiting)).to(memory_format=torch.channels_last)).chunk(2, 1)[0].float()
        latents.append(((z - vae.config.shift_factor) * vae.config.scaling_factor).half())
        waiting.clear()

    for shows, picture in scenes:
        what.append(shows), waiting.append(picture)
        if len(waiting) == batch:
            flush()
    if waiting:
        flush()
    return {"what": torch.tensor(what), "latents": torch.cat(latents)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    a = ap.parse_args()
    if (a.work / "scenes.pt").exists():
        return
    vae, rng, emoji = AutoencoderKL.from_pretrained(a.work / "vae").to(memory_format=torch.channels_last).eval(), np.random.default_rng(21), data.load_emoji(a.data)
    drawings, small, near, big = ([data.load_drawing(a.data, e.code, size) for e in emoji] for size in (data.OBJECT, data.PAIR, data.NEAR, data.BIG))
    kinds, out = {"recoloured": recoloured(drawings, emoji, rng), "written": written(rng), "wide": oblong(drawings, rng, WIDE, data.SIZE), "tall": oblong(drawings, rng, data.SIZE, WIDE),
                  "halves": halves(small, rng), "quarters": quarters(small, rng), "small": sized(small, rng), "big": sized(big, rng), "depth": depth(near, drawings, emoji, rng),
                  "gradients": gradients(drawings, rng)}, {}
    for name, scenes in kinds.items():
        out[name] = encode(vae, scenes)
        print(f"{len(out[name]['what'])} {name}, cpu {time.process_time():.0f}s", flush=True)
    save(a.work / "scenes.pt", **out)


if __name__ == "__main__":
    main()

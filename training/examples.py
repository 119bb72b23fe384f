"""What training draws from: latents, a prompt for them, the plainest prompt, and what the text encoder should say about them."""
import itertools
import json
from dataclasses import dataclass

import numpy as np
import torch

import data
import prompts

SHARES = {"single": 0.36, "recoloured": 0.09, "pairs": 0.33, "written": 0.05, "three": 0.05, "many": 0.03, "small": 0.02, "big": 0.015, "depth": 0.04, "gradients": 0.015}
EMPTY = 0.05  # of the single drawings
# What a picture shows: one drawing, perhaps small, big or many times, or two or three and where they are.
NOTHING, ONE, SMALL, BIG, MANY, BESIDE, OVER, DEPTH, THREE = range(9)


@dataclass
class Example:
    latent: torch.Tensor
    words: str
    plain: str
    lesson: tuple  # kind, rows of Examples.pictures for up to three drawings, ground


class Examples:
    """pictures: latents on white, every drawing, then every drawing in another colour, then written words: what `lesson` counts."""

    def __init__(self, emoji, work, seed):
        stored, self.scenes = torch.load(work / "latents.pt"), torch.load(work / "scenes.pt")
        assert stored["codes"] == [e.code for e in emoji]
        self.emoji, self.rng = emoji, np.random.default_rng(seed)
        self.strange = json.loads((work / "words.json").read_text(encoding="utf-8"))
        self.latents, self.grounds = stored["latents"], stored["grounds"].numpy()
        self.pictures, self.rows = self.latents[:, 0], {}
        for kind in "recoloured", "written":
            shown = self.scenes[kind]["what"]
            white = (shown[:, 2] == 0).nonzero()[:, 0]
            self.rows.update({(kind, x, y): len(self.pictures) + n for n, (x, y, _) in enumerate(shown[white].tolist())})
            self.pictures = torch.cat([self.pictures, self.scenes[kind]["latents"][white]])
        self.halves = {}  # place, which, ground -> rows
        for n, (_, *key) in enumerate(self.scenes["halves"]["what"].tolist()):
            self.halves.setdefault(tuple(key), []).append(n)
        self.quarters = {}  # ground -> rows
        for n, (_, ground) in enumerate(self.scenes["quarters"]["what"].tolist()):
            self.quarters.setdefault(ground, []).append(n)
        self.order = []

    def single(self, i, ground, latent, more):
        e, colour = self.emoji[i], data.COLOUR_NAMES[ground]
        if not more and self.rng.random() < EMPTY:
            return Example(latent, "", "", (NOTHING, 0, 0, 0, 0))
        return Example(latent, prompts.prompt(self.rng, e, colour, more=more, words=self.strange), prompts.plain(self.rng, e, colour), (ONE, i, 0, 0, ground))

    def next(self, shape="square", more=0):
        """One example.  shape: square, wide or tall; more: so many phrases that say nothing."""
        rng, words = self.rng, self.strange
        if shape != "square":
            k = int(rng.integers(len(self.scenes[shape]["what"])))
            i, ground = self.scenes[shape]["what"][k].tolist()
            return self.single(i, ground, self.scenes[shape]["latents"][k], more)
        kind = rng.choice(list(SHARES), p=list(SHARES.values()))
        if kind == "single":
            self.order = self.order or list(rng.permutation(len(self.emoji)))  # every drawing equally often
            i, k = int(self.order.pop()), 0 if rng.random() < 0.35 else int(rng.integers(1, self.grounds.shape[1]))
            return self.single(i, int(self.grounds[i, k]), self.latents[i, k], more)
        if kind in ("pairs", "three"):
            return self.pair(more) if kind == "pairs" else self.three(more)
        scenes = self.scenes["quarters" if kind == "many" else kind]
        k = int(rng.integers(len(scenes["what"])))
        latent, what = scenes["latents"][k], scenes["what"][k].tolist()
        if kind in ("many", "small", "big"):
            show, shown = (prompts.many, ()) if kind == "many" else (prompts.sized, (kind,))
            p = self.emoji[what[0]], *shown, data.COLOUR_NAMES[what[1]]
            return Example(latent, show(rng, *p, more=more, words=words), show(rng, *p, simply=True), ({"many": MANY, "small": SMALL, "big": BIG}[kind], what[0], 0, 0, what[1]))
        if kind == "gradients":
            p = self.emoji[what[0]], data.COLOUR_NAMES[what[1]], data.COLOUR_NAMES[what[2]]
            return Example(latent, prompts.on_gradient(rng, *p, more=more, words=words), prompts.on_gradient(rng, *p, simply=True), (ONE, what[0], 0, 0, what[1]))
        colour = data.COLOUR_NAMES[what[2]]
        if kind == "depth":
            return self.arranged(latent, prompts.DEPTH, (DEPTH, what[0], what[1], 0, what[2]), more)
        lesson = (ONE, self.rows[kind, what[0], what[1]], 0, 0, what[2])
        if kind == "recoloured":
            e, own = self.emoji[what[0]], data.COLOUR_NAMES[what[1]]
            return Example(latent, prompts.prompt(rng, e, colour, more=more, own=own, words=words), prompts.plain(rng, e, colour, own), lesson)
        w = data.WRITTEN[what[0]], what[1], colour
        return Example(latent, prompts.written(rng, *w, more=more, words=words), prompts.written(rng, *w, simply=True), lesson)

    def arranged(self, latent, forms, lesson, more):
        several = [self.emoji[i] for i in lesson[1:4]]
        p = forms, several, data.COLOUR_NAMES[lesson[4]]
        return Example(latent, prompts.arranged(self.rng, *p, more=more, words=self.strange), prompts.arranged(self.rng, *p, simply=True), lesson)

    def ground(self):
        return 0 if self.rng.random() < 0.6 else int(self.rng.integers(1, len(data.COLOUR_NAMES)))

    def different(self, *drawings):
        """No drawing twice, and no pair that data.held_out keeps for the evaluation."""
        return all(i != j and not data.held_out_pair(self.emoji[i].code, self.emoji[j].code) for i, j in itertools.combinations(drawings, 2))

    def pair(self, more):
        """Two halves of one ground."""
        halves, place, ground = self.scenes["halves"], int(self.rng.integers(2)), self.ground()
        while True:
            one, other = (int(self.rng.choice(self.halves[place, which, ground])) for which in (0, 1))
            i, j = (int(halves["what"][k, 0]) for k in (one, other))
            if self.different(i, j):
                break
        one, other = halves["latents"][one], halves["latents"][other]
        half = one.shape[-1] // 2
        latent = torch.cat([one[..., :half], other[..., half:]], -1) if place == 0 else torch.cat([one[:, :half], other[:, half:]], -2)
        forms = {l: places[list(data.PLACES)[place]] for l, places in prompts.RELATIONS.items()}
        return self.arranged(latent, forms, (BESIDE + place, i, j, 0, ground), more)

    def three(self, more):
        """The upper half of one over another, and two quarters."""
        halves, quarters, ground = self.scenes["halves"], self.scenes["quarters"], self.ground()
        while True:
            top, left, right = (int(self.rng.choice(rows)) for rows in (self.halves[1, 0, ground], self.quarters[ground], self.quarters[ground]))
            drawings = int(halves["what"][top, 0]), int(quarters["what"][left, 0]), int(quarters["what"][right, 0])
            if self.different(*drawings):
                break
        half = quarters["latents"].shape[-1] // 2
        below = torch.cat([quarters["latents"][left][:, half:, :half], quarters["latents"][right][:, half:, half:]], -1)
        return self.arranged(torch.cat([halves["latents"][top][:, :half], below], -2), prompts.THREE, (THREE, *drawings, ground), more)

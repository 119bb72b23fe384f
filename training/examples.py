"""What training draws from: latents, a prompt for them, the plainest prompt, and what the text encoder should say about them."""
import json
from dataclasses import dataclass

import numpy as np
import torch

import data
import prompts

SHARES = {"single": 0.4, "recoloured": 0.12, "pairs": 0.4, "written": 0.08}
EMPTY = 0.05  # of the single drawings
NOTHING, ONE, BESIDE, OVER = 0, 1, 2, 3


@dataclass
class Example:
    latent: torch.Tensor
    words: str
    plain: str
    lesson: tuple  # kind (NOTHING, ONE, BESIDE, OVER), rows of Examples.pictures for the first and the second drawing, ground


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
        self.order = []

    def single(self, i, ground, latent, more):
        e, colour = self.emoji[i], data.COLOUR_NAMES[ground]
        if not more and self.rng.random() < EMPTY:
            return Example(latent, "", "", (NOTHING, 0, 0, 0))
        return Example(latent, prompts.prompt(self.rng, e, colour, more=more, words=self.strange), prompts.plain(self.rng, e, colour), (ONE, i, 0, ground))

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
        if kind == "pairs":
            return self.pair(more)
        k = int(rng.integers(len(self.scenes[kind]["what"])))
        latent, what = self.scenes[kind]["latents"][k], self.scenes[kind]["what"][k].tolist()
        colour = data.COLOUR_NAMES[what[2]]
        lesson = (ONE, self.rows[kind, what[0], what[1]], 0, what[2])
        if kind == "recoloured":
            e, own = self.emoji[what[0]], data.COLOUR_NAMES[what[1]]
            return Example(latent, prompts.prompt(rng, e, colour, more=more, own=own, words=words), prompts.plain(rng, e, colour, own), lesson)
        w = data.WRITTEN[what[0]], what[1], colour
        return Example(latent, prompts.written(rng, *w, more=more, words=words), prompts.written(rng, *w, simply=True), lesson)

    def pair(self, more):
        """Two halves of one ground.  No pair of drawings, in either order, that data.held_out keeps for the evaluation."""
        place, ground = int(self.rng.integers(2)), 0 if self.rng.random() < 0.6 else int(self.rng.integers(1, len(data.COLOUR_NAMES)))
        while True:
            one, other = (int(self.rng.choice(self.halves[place, which, ground])) for which in (0, 1))
            i, j = (int(self.scenes["halves"]["what"][k, 0]) for k in (one, other))
            first, second = self.emoji[i], self.emoji[j]
            if i != j and not data.held_out(first.code, second.code) and not data.held_out(second.code, first.code):
                break
        one, other = (self.scenes["halves"]["latents"][k] for k in (one, other))
        half = one.shape[-1] // 2
        latent = torch.cat([one[..., :half], other[..., half:]], -1) if place == 0 else torch.cat([one[:, :half], other[:, half:]], -2)
        p = first, second, list(data.PLACES)[place], data.COLOUR_NAMES[ground]
        return Example(latent, prompts.pair(self.rng, *p, more=more, words=self.strange), prompts.pair(self.rng, *p, simply=True), (BESIDE + place, i, j, ground))

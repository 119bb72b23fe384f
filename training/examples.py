"""What training draws from: latents, a prompt for them, the plainest prompt, and what the text encoder should say about them."""
import json
from dataclasses import dataclass

import numpy as np
import torch

import data
import prompts

SHARES = {"single": 0.5, "recoloured": 0.16, "pairs": 0.3, "written": 0.04}
EMPTY = 0.05  # of the single drawings
NOTHING, ONE, BESIDE, OVER = 0, 1, 2, 3


@dataclass
class Example:
    latent: torch.Tensor
    words: str
    plain: str
    lesson: tuple  # kind (NOTHING, ONE, BESIDE, OVER), rows of Examples.pictures for the first and the second drawing, ground


class Examples:
    """pictures: latents on white, every drawing and then every drawing in another colour: what `lesson` counts."""

    def __init__(self, emoji, work, seed):
        stored, self.scenes = torch.load(work / "latents.pt"), torch.load(work / "scenes.pt")
        assert stored["codes"] == [e.code for e in emoji]
        self.emoji, self.rng = emoji, np.random.default_rng(seed)
        self.strange = json.loads((work / "words.json").read_text(encoding="utf-8"))
        self.latents, self.grounds = stored["latents"], stored["grounds"].numpy()
        painted = self.scenes["recoloured"]
        white = (painted["what"][:, 2] == 0).nonzero()[:, 0]
        self.pictures = torch.cat([self.latents[:, 0], painted["latents"][white]])
        self.painted = {(i, c): len(emoji) + n for n, (i, c, _) in enumerate(painted["what"][white].tolist())}
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
        k = int(rng.integers(len(self.scenes[kind]["what"])))
        latent, what = self.scenes[kind]["latents"][k], self.scenes[kind]["what"][k].tolist()
        colour = data.COLOUR_NAMES[what[-1]]
        if kind == "recoloured":
            e, own = self.emoji[what[0]], data.COLOUR_NAMES[what[1]]
            return Example(latent, prompts.prompt(rng, e, colour, more=more, own=own, words=words), prompts.plain(rng, e, colour, own), (ONE, self.painted[what[0], what[1]], 0, what[2]))
        if kind == "written":
            w = data.WRITTEN[what[0]], what[1], colour
            return Example(latent, prompts.written(rng, *w, more=more, words=words), prompts.written(rng, *w, simply=True), (NOTHING, 0, 0, 0))
        p = self.emoji[what[0]], self.emoji[what[1]], list(data.PLACES)[what[2]], colour
        return Example(latent, prompts.pair(rng, *p, more=more, words=words), prompts.pair(rng, *p, simply=True), (BESIDE + what[2], what[0], what[1], what[3]))

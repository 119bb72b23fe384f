"""Train the transformer, and the text encoder with it: denoiser.py DATA WORK [--seconds WALL] [--distil].

Flow matching: x = (1 - s) x0 + s noise, the model says x0 - noise, with s spread as the eight steps of inference are.
--distil goes on from the result: what guidance would add, by a frozen copy, is added to the target, so that one pass a step suffices.
The frozen copy is told plainly what to draw, whatever the wording that the student has to read.
"""
import argparse
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tokenizers import Tokenizer

import data
import prompts
import text
from model import SHIFT, Fast, new_transformer, sample, sigmas
from optim import Ema, Muon, decay, save

BATCH, ROWS, LONG_ROWS, LONG_SHARE, EMPTY, RECOLOURED = 48, 32, 64, 0.15, 0.08, 0.08
RATES = dict(muon=0.04, adam=1e-3, text=4e-4, ema=0.995, start=0.3)
DISTIL = dict(muon=0.008, adam=4e-4, text=2e-4, ema=0.98, start=0.2)
GUIDANCE, ASIDE = 1.5, 0.1
SHOWN = ["a cat face", "汽车", "a guitar", "A RED HEART", "西瓜在紫色背景上", "a book", "请画一只熊猫，粉色背景", "a mushroom on a brown background",
         "Please draw a rocket on a yellow background.", "一条鱼", "tiger face, green background", "bicycle", "一张生日蛋糕的图片，红色背景", "smiling face", "a drawing of an octopus",
         "I want a picture of a sunflower on a light blue background, simple and clean, soft light and smooth round shapes"]


class Batches:
    """Latents and prompts, every drawing equally often."""

    def __init__(self, emoji, stored, tok, seed, recoloured=None):
        self.emoji, self.tok, self.rng, self.recoloured = emoji, tok, np.random.default_rng(seed), recoloured
        self.latents, self.grounds = stored["latents"], stored["grounds"].numpy()
        self.order = []

    def pick(self):
        if not self.order:
            self.order = list(self.rng.permutation(len(self.emoji)))
        return int(self.order.pop())

    def next(self):
        """x0, ids, lengths, (drawing, colour; -1 where the heads have nothing to learn), plain prompts (None where there is none).

        Captions have 32 rows, or 64 in a share of the batches.
        """
        rng, long = self.rng, self.rng.random() < LONG_SHARE
        rows = LONG_ROWS if long else ROWS
        x0, ids, lengths, what, plain = [], [], [], [], []
        while len(x0) < BATCH:
            more = int(rng.integers(2, 4)) if long else int(rng.random() < 0.05)
            if self.recoloured and rng.random() < RECOLOURED:
                k = int(rng.integers(len(self.recoloured["what"])))
                i, own, ground = self.recoloured["what"][k].tolist()
                words = prompts.prompt(rng, self.emoji[i], data.COLOUR_NAMES[ground], more=more, own=data.COLOUR_NAMES[own])
                latent, told, simply = self.recoloured["latents"][k], (-1, -1), None
            else:
                i = self.pick()
                k = 0 if rng.random() < 0.35 else int(rng.integers(1, self.grounds.shape[1]))
                ground = self.grounds[i, k]
                words = "" if not long and rng.random() < EMPTY else prompts.prompt(rng, self.emoji[i], data.COLOUR_NAMES[ground], more=more)
                latent, told = self.latents[i, k], (i, ground) if words else (-1, -1)
                simply = prompts.plain(rng, self.emoji[i], data.COLOUR_NAMES[ground]) if words else ""
            one, n = text.tokenize(self.tok, [words])
            if n[0] > rows:
                continue
            ids.append(F.pad(one[0], (0, rows - int(n[0])), value=self.tok.token_to_id("<|endoftext|>")))
            lengths.append(n[0])
            x0.append(latent)
            what.append(told)
            plain.append(simply)
        return torch.stack(x0).float(), torch.stack(ids), torch.stack(lengths), torch.tensor(what), plain


class Teacher:
    """What guidance adds, by the frozen averages of a run (its own tokenizer, text encoder and transformer)."""

    def __init__(self, work, compiled):
        self.tok = Tokenizer.from_file(str(work / "tokenizer/tokenizer.json"))
        self.encoder, transformer = text.new_encoder(self.tok), new_transformer()
        load_averages(torch.load(work / "denoiser.pt"), self.encoder, transformer)
        for m in self.encoder, transformer:
            m.requires_grad_(False)
        self.fast = Fast(transformer, compiled=compiled)
        self.weights = self.fast.weights()
        self.empty = self.caption([""])

    def caption(self, words):
        f, n = features(self.encoder, self.tok, words)
        return self.fast.caption(self.weights, f, n)

    @torch.no_grad()
    def guidance(self, x, t, plain):
        """sure - unsure; nothing where there is no plain prompt."""
        known = torch.tensor([p is not None for p in plain])[:, None, None, None]
        sure = self.fast.forward(x, t, self.caption([p or "" for p in plain]), self.weights)
        unsure = self.fast.forward(x, t, self.empty.expand(len(x), -1, -1).contiguous(), self.weights)
        return torch.where(known, sure - unsure, 0)


def trained(encoder, transformer):
    return [p for l in encoder.layers[:-1] for p in l.parameters()] + [encoder.embed_tokens.weight] + list(transformer.parameters())


def load_averages(state, encoder, transformer):
    for p, v in zip(trained(encoder, transformer), state["ema"]["shadow"]):
        p.data.copy_(v)


def features(encoder, tok, texts, rows=ROWS):
    ids, lengths = text.tokenize(tok, texts, rows)
    with torch.autocast("cpu", torch.bfloat16):
        return text.encode(encoder, ids), lengths


@torch.no_grad()
def draw(fast, encoder, tok, vae, words, seed=0, steps=8, guidance=0.0, batch=32):
    """uint8 pictures for a list of prompts (of at most 56 tokens)."""
    out = []
    generator = torch.Generator().manual_seed(seed)
    side = data.SIZE // 16
    for i in range(0, len(words), batch):
        some = words[i:i + batch]
        noise = torch.randn(len(some), fast.model.config.in_channels, side, side, generator=generator)
        _, lengths = text.tokenize(tok, some)
        latents = torch.empty_like(noise)
        for rows, lo in ((ROWS, 0), (LONG_ROWS, ROWS), (96, LONG_ROWS)):
            at = ((lengths > lo) & (lengths <= rows)).nonzero()[:, 0]
            if len(at):
                f = features(encoder, tok, [some[j] for j in at], rows)
                e = features(encoder, tok, [""] * len(at), rows) if guidance else None
                latents[at] = sample(fast, *f, noise[at], steps, guidance, e)
        with torch.autocast("cpu", torch.bfloat16):
            pictures = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
        out += list(data.to_rgb(pictures))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--seconds", type=float, default=3600), ap.add_argument("--distil", action="store_true")
    ap.add_argument("--compile", action="store_true", help="fuse the blocks with torch.compile (needs a C++ compiler)")
    ap.add_argument("--after", type=pathlib.Path, help="an earlier checkpoint: its transformer goes on with this run's text encoder")
    ap.add_argument("--teacher", type=pathlib.Path, help="the work directory of the teacher of --distil, if another")
    ap.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    a = ap.parse_args()
    rates, name = (DISTIL, "distilled") if a.distil else (RATES, "denoiser")
    ckpt = a.work / f"{name}.pt"
    tok = Tokenizer.from_file(str(a.work / "tokenizer/tokenizer.json"))
    emoji, stored = data.load_emoji(a.data), torch.load(a.work / "latents.pt")
    assert stored["codes"] == [e.code for e in emoji]
    vae = AutoencoderKL.from_pretrained(a.work / "vae").eval()
    encoder, transformer, heads = text.new_encoder(tok), new_transformer(), text.new_heads()
    want, _ = text.targets(stored["latents"][:, 0])
    teacher = Teacher(a.teacher or a.work, a.compile) if a.distil else None
    if a.distil and not a.after:
        s = torch.load(a.work / "denoiser.pt")
        load_averages(s, encoder, transformer)
    else:
        s = torch.load(a.work / "text.pt")
        encoder.load_state_dict(s["model"])
    heads.load_state_dict(s["heads"])
    if a.after:
        averages, parameters = torch.load(a.after)["ema"]["shadow"], list(transformer.parameters())
        for p, v in zip(parameters, averages[-len(parameters):]):
            p.data.copy_(v)
    fast = Fast(transformer, compiled=a.compile)
    eager = Fast(transformer)
    wide = [p for n, p in transformer.named_parameters() if p.ndim == 2 and ("attention.to_" in n or "feed_forward" in n)]
    ids = {id(p) for p in wide}
    rest = [p for p in transformer.parameters() if id(p) not in ids]
    words = [p for l in encoder.layers[:-1] for p in l.parameters()] + [encoder.embed_tokens.weight]
    muon = Muon(wide, rates["muon"])
    adam = torch.optim.Adam([dict(params=rest, base=rates["adam"]), dict(params=words, base=rates["text"]), dict(params=heads.parameters(), base=rates["text"])], betas=(0.9, 0.98), fused=True)
    everything = trained(encoder, transformer)
    ema, step, wall, cpu = Ema(everything, rates["ema"]), 0, 0.0, 0.0
    if ckpt.exists():
        s = torch.load(ckpt)
        step, wall, cpu = s["step"], s["wall"], s["cpu"]
        for o, k in (encoder, "encoder"), (transformer, "transformer"), (heads, "heads"), (muon, "muon"), (adam, "adam"), (ema, "ema"):
            o.load_state_dict(s[k])
    more = a.work / "recoloured.pt"
    batches = Batches(emoji, stored, tok, 1000 + step, torch.load(more) if more.exists() else None)
    torch.manual_seed(1000 + step)

    held = Batches(emoji, stored, tok, 77)
    held = [held.next() for _ in range(1)]
    fixed = torch.randn(len(held), *held[0][0].shape, generator=torch.Generator().manual_seed(9))

    @torch.no_grad()
    def validate():
        """Velocity MSE at the eight sigmas of inference on fixed pictures; at sigma 1 alone."""
        w, losses = eager.weights(), torch.zeros(8)
        for (x0, i, n, _, _), noise in zip(held, fixed):
            with torch.autocast("cpu", torch.bfloat16):
                f = text.encode(encoder, i)
            c = eager.caption(w, f, n)
            for k, s in enumerate(sigmas()[:-1]):
                v = eager.forward((1 - s) * x0 + s * noise, (1 - s).expand(len(x0)), c, w)
                losses[k] += F.mse_loss(v, x0 - noise) / len(held)
        return f"validation {losses.mean():.4f}, at sigma 1 {losses[0]:.4f}"

    def show():
        ema.swap()
        line = validate()
        pictures = draw(eager, encoder, tok, vae, SHOWN)
        data.grid(pictures, 8).save(a.work / f"{name}-{step:05d}.png")
        ema.swap()
        return line

    def keep():
        save(ckpt, step=step, wall=wall, cpu=cpu, encoder=encoder.state_dict(), transformer=transformer.state_dict(), heads=heads.state_dict(), muon=muon.state_dict(),
             adam=adam.state_dict(), ema=ema.state_dict())

    last, last_cpu, saved, shown, mean_loss = time.time(), time.process_time(), time.time(), wall, None
    while wall < a.seconds:
        rate = min(1, (step + 1) / 20) * decay(min(1, wall / a.seconds), rates["start"]) * a.rate
        muon.param_groups[0]["lr"] = rates["muon"] * rate
        for g in adam.param_groups:
            g["lr"] = g["base"] * rate
        x0, i, n, what, plain = batches.next()
        u = (torch.rand(1) + torch.arange(BATCH) / BATCH) % 1  # stratified
        s = SHIFT * u / (1 + (SHIFT - 1) * u)
        noise = torch.randn_like(x0)
        x = torch.lerp(x0, noise, s[:, None, None, None])
        target = x0 - noise
        if teacher:
            target = target + GUIDANCE * teacher.guidance(x, 1 - s, plain)
        w = fast.weights()
        with torch.autocast("cpu", torch.bfloat16):
            f = text.encode(encoder, i)
        loss = F.mse_loss(fast.forward(x, 1 - s, fast.caption(w, f, n), w), target)
        some = what[:, 0] >= 0
        says, colour = text.read(heads, f[some], n[some])  # the text encoder goes on with what it was taught first
        aside = F.mse_loss(says, want[what[some, 0]]) + 0.1 * F.cross_entropy(colour, what[some, 1])
        (loss + ASIDE * aside).backward()
        torch.nn.utils.clip_grad_norm_(rest + words, 1.0)
        muon.step(), adam.step(), ema.update()
        for p in everything + list(heads.parameters()):
            p.grad = None
        step += 1
        wall, last = wall + time.time() - last, time.time()
        cpu, last_cpu = cpu + time.process_time() - last_cpu, time.process_time()
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 20 == 0:
            print(f"step {step} samples {step * BATCH} loss {mean_loss:.4f} text {aside.item():.3f} rate {rate:.3f} wall {wall:.0f}s cpu {cpu:.0f}s", flush=True)
        if time.time() - saved > 150:
            keep()
            saved = time.time()
        if wall - shown > 1500 or step == 100:
            print(f"step {step} {show()}", flush=True)
            shown = wall
    keep()
    print(f"end: step {step} {show()}", flush=True)


if __name__ == "__main__":
    main()

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
import text
from examples import Examples
from model import SHIFT, Fast, new_transformer, sample, sigmas
from optim import Ema, Muon, decay, save

BATCH, ROWS, LONG_ROWS, LONG_SHARE, OBLONG_SHARE = 96, 32, 64, 0.1, 0.1
RATES = dict(muon=0.04, adam=1e-3, text=4e-4, ema=0.995, start=0.3)
DISTIL = dict(muon=0.008, adam=4e-4, text=2e-4, ema=0.98, start=0.2)
GUIDANCE, ASIDE = 1.5, 0.1
SHOWN = ["a cat face", "汽车", "a guitar", "A RED HEART", "西瓜在紫色背景上", "a book", "请画一只熊猫，粉色背景", "a mushroom on a brown background",
         "Please draw a rocket on a yellow background.", "tiger face, green background", "bicycle", "一张生日蛋糕的图片，红色背景", "a green heart", "the word love", "a cat face to the left of a red apple", "上面是太阳，下面是汽车",
         "many strawberries", "小小的汽车", "a huge dog face", "a cat face, a red apple and an automobile", "太阳在房子前面", "a rose on a red to blue gradient background", "很多苹果，黄色背景",
         "I want a picture of a sunflower on a light blue background, simple and clean, soft light and smooth round shapes"]


class Batches:
    """Latents and prompts.  Captions have 32 rows, or 64 in a share of the batches; a share of the batches is wide or tall."""

    def __init__(self, source, tok):
        self.source, self.tok = source, tok

    def next(self):
        """x0, ids, lengths, lessons, plain prompts."""
        rng, pad = self.source.rng, self.tok.token_to_id("<|endoftext|>")
        shape = ("wide", "tall")[rng.integers(2)] if rng.random() < OBLONG_SHARE else "square"
        long = shape == "square" and rng.random() < LONG_SHARE
        rows = LONG_ROWS if long else ROWS
        some, ids, lengths = [], [], []
        while len(some) < BATCH:
            one = self.source.next(shape, int(rng.integers(2, 4)) if long else int(rng.random() < 0.05))
            tokens, n = text.tokenize(self.tok, [one.words])
            if n[0] <= rows:
                ids.append(F.pad(tokens[0], (0, rows - int(n[0])), value=pad))
                lengths.append(n[0]), some.append(one)
        return torch.stack([e.latent for e in some]).float(), torch.stack(ids), torch.stack(lengths), torch.tensor([e.lesson for e in some]), [e.plain for e in some]


class Teacher:
    """What guidance adds, by the frozen averages of a run (its own tokenizer, text encoder and transformer)."""

    def __init__(self, work, compiled):
        self.tok = Tokenizer.from_file(str(work / "tokenizer/tokenizer.json"))
        self.encoder, transformer = text.new_encoder(self.tok), new_transformer()
        text.load_averages(torch.load(work / "denoiser.pt"), self.encoder, transformer)
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
        """What the plain prompts add to the empty one."""
        sure = self.fast.forward(x, t, self.caption(plain), self.weights)
        return sure - self.fast.forward(x, t, self.empty.expand(len(x), -1, -1).contiguous(), self.weights)


def features(encoder, tok, texts, rows=ROWS):
    ids, lengths = text.tokenize(tok, texts, rows)
    with torch.autocast("cpu", torch.bfloat16):
        return text.encode(encoder, ids), lengths


@torch.no_grad()
def draw(fast, encoder, tok, vae, words, seed=0, steps=8, guidance=0.0, batch=32, width=data.SIZE, height=data.SIZE):
    """uint8 pictures for a list of prompts (of at most 96 tokens with those of the template)."""
    out = []
    generator = torch.Generator().manual_seed(seed)
    for i in range(0, len(words), batch):
        some = words[i:i + batch]
        noise = torch.randn(len(some), fast.model.config.in_channels, height // 16, width // 16, generator=generator)
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
    ap.add_argument("--after", type=pathlib.Path, help="an earlier checkpoint, or a model: its transformer goes on with this run's text encoder")
    ap.add_argument("--teacher", type=pathlib.Path, help="the work directory of the teacher of --distil, if another")
    ap.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    a = ap.parse_args()
    rates, name = (DISTIL, "distilled") if a.distil else (RATES, "denoiser")
    ckpt = a.work / f"{name}.pt"
    tok = Tokenizer.from_file(str(a.work / "tokenizer/tokenizer.json"))
    emoji = data.load_emoji(a.data)
    vae = AutoencoderKL.from_pretrained(a.work / "vae").eval()
    encoder, transformer, heads = text.new_encoder(tok), new_transformer(), text.Heads()
    teacher = Teacher(a.teacher or a.work, a.compile) if a.distil else None
    if a.distil and not a.after:
        s = torch.load(a.work / "denoiser.pt")
        text.load_averages(s, encoder, transformer)
    else:
        if a.after:
            text.load_model(a.after, encoder, transformer)
        s = torch.load(a.work / "text.pt")
        encoder.load_state_dict(s["model"])
    heads.load_state_dict(s["heads"])
    fast = Fast(transformer, compiled=a.compile)
    eager = Fast(transformer)
    wide = [p for n, p in transformer.named_parameters() if p.ndim == 2 and ("attention.to_" in n or "feed_forward" in n)]
    ids = {id(p) for p in wide}
    rest = [p for p in transformer.parameters() if id(p) not in ids]
    words = text.trained(encoder)
    muon = Muon(wide, rates["muon"])
    adam = torch.optim.Adam([dict(params=rest, base=rates["adam"]), dict(params=words, base=rates["text"]), dict(params=heads.parameters(), base=rates["text"])], betas=(0.9, 0.98), fused=True)
    everything = words + list(transformer.parameters())
    ema, step, wall, cpu = Ema(everything, rates["ema"]), 0, 0.0, 0.0
    if ckpt.exists():
        s = torch.load(ckpt)
        step, wall, cpu = s["step"], s["wall"], s["cpu"]
        for o, k in (encoder, "encoder"), (transformer, "transformer"), (heads, "heads"), (muon, "muon"), (adam, "adam"), (ema, "ema"):
            o.load_state_dict(s[k])
    source = Examples(emoji, a.work, 77)
    want, _ = text.targets(source.pictures, len(emoji))
    batches = Batches(source, tok)
    held = batches.next()
    fixed = torch.randn(held[0].shape, generator=torch.Generator().manual_seed(9))
    source.rng = np.random.default_rng(1000 + step)
    torch.manual_seed(1000 + step)

    @torch.no_grad()
    def validate():
        """Velocity MSE at the eight sigmas of inference on fixed pictures; at sigma 1 alone."""
        w, losses, (x0, i, n, _, _) = eager.weights(), torch.zeros(8), held
        with torch.autocast("cpu", torch.bfloat16):
            f = text.encode(encoder, i)
        c = eager.caption(w, f, n)
        for k, s in enumerate(sigmas()[:-1]):
            v = eager.forward((1 - s) * x0 + s * fixed, (1 - s).expand(len(x0)), c, w)
            losses[k] = F.mse_loss(v, x0 - fixed)
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
        x0, i, n, lessons, plain = batches.next()
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
        aside = heads.loss(f, n, lessons, want)  # the text encoder goes on with what it was taught first
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

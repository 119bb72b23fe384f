"""Measure a checkpoint: evaluate.py MODEL_DIR DATA [--names N] [--sheet OUT.png] [--pipeline].

Prompts use wordings that prompts.py does not have, in four spellings (lower case, First capital, Title Case, CAPITALS).  A picture is
compared, as 16x16 Lab colours and gradient strengths, with every drawing on white; printed is how often the right one is nearest and
among the five nearest.  Fixed seeds.  --pipeline also makes two pictures by diffusers' ZImagePipeline and compares.
"""
import argparse
import json
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from tokenizers import Tokenizer
from transformers import Qwen3Model

import data
import prompts
from denoiser import draw
from model import Fast

ENGLISH = ["could you sketch {a} for me", "my favourite {n}", "a lovely {n} all alone", "we need {a} here", "look, {a}", "a nice big {n}", "just {a}", "a portrait of {a}"]
CHINESE = ["给我看看{n}", "帮我画个{n}吧", "我喜欢{n}", "一幅漂亮的{n}", "大大的{n}", "请给我{n}", "想要{n}的图", "看，{n}"]
GROUNDS = {"en": ["{a} placed on a {c} background", "{n} standing before a {c} background", "a background in {c} and {a}"],
           "zh": ["{c}背景前面的{n}", "{n}放在{c}背景上", "背景用{c}，画{n}"]}
ODD = ["", " ", "asdf qwer zxcv", "12345", "the meaning of life", "一", "？？？", "🙂", "a cat and a dog and a bird", "BLUE", "x" * 100, "很" * 60,
       "Draw nothing at all, please", "un éléphant dans un jardin", "SELECT * FROM pictures;", "a red heart " * 12]


def lab(rgb):
    c = rgb / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = c @ np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def gray(rgb):
    return rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def gradient(rgb):
    y, x = np.gradient(gray(rgb))
    return np.hypot(y, x)


def feature(rgb):
    """16x16 mean Lab colours and mean gradient strengths of a picture (uint8 H x W x 3)."""
    k = rgb.shape[0] // 16
    small = rgb.reshape(16, k, 16, k, 3).astype(np.float64).mean((1, 3))
    return np.concatenate([lab(small).ravel(), 4 * gradient(rgb).reshape(16, k, 16, k).mean((1, 3)).ravel()])


def spell(text, n):
    return [text, text[:1].upper() + text[1:], text.title(), text.upper()][n % 4]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=pathlib.Path), ap.add_argument("data")
    ap.add_argument("--names", type=int, default=300), ap.add_argument("--sheet", type=pathlib.Path), ap.add_argument("--pipeline", action="store_true")
    ap.add_argument("--guidance", type=float, default=0.0), ap.add_argument("--steps", type=int, default=8)
    a = ap.parse_args()
    emoji = data.load_emoji(a.data)
    tok = Tokenizer.from_file(str(a.model / "tokenizer/tokenizer.json"))
    part = lambda c, name: c.from_pretrained(a.model / name).float().eval()
    encoder, fast, vae = part(Qwen3Model, "text_encoder"), Fast(part(ZImageTransformer2DModel, "transformer")), part(AutoencoderKL, "vae")
    make = lambda words, seed: draw(fast, encoder, tok, vae, words, seed, a.steps, a.guidance)
    truth = [data.compose(data.load_drawing(a.data, e.code), 255).round().astype(np.uint8) for e in emoji]
    wanted = np.stack([feature(t) for t in truth])
    rng = np.random.default_rng(11)
    result, sheet, energy = {"steps": a.steps, "guidance": a.guidance, "drawings": len(emoji)}, [], []

    def recall(pictures, which):
        ranks = []
        for p, i in zip(pictures, which):
            d = ((wanted - feature(p)) ** 2).sum(1)
            ranks.append(int((d < d[i]).sum()))
        ranks = np.array(ranks)
        return {"first": round(float((ranks == 0).mean()), 3), "within five": round(float((ranks < 5).mean()), 3)}

    which = rng.choice(len(emoji), min(a.names, 100), replace=False)
    with torch.no_grad():
        again = []
        for i in range(0, len(which), 16):
            x = data.to_model(np.stack([truth[j] for j in which[i:i + 16]]))
            again += list(data.to_rgb(vae.decode(vae.encode(x).latent_dist.mode()).sample))
    result["autoencoder"] = {**recall(again, which), "PSNR": round(float(np.mean([10 * np.log10(255 ** 2 / ((p.astype(float) - truth[i]) ** 2).mean()) for p, i in zip(again, which)])), 2),
                             "gradient energy": round(float(np.mean([gradient(p).mean() for p in again]) / np.mean([gradient(truth[i]).mean() for i in which])), 3)}
    for language, forms in ("en", ENGLISH), ("zh", CHINESE):
        which = rng.choice(len(emoji), min(a.names, len(emoji)), replace=False)
        words = [forms[n % len(forms)].format(n=emoji[i].names[language], a=prompts.article(emoji[i].names[language])) for n, i in enumerate(which)]
        words = [spell(w, n // len(forms)) for n, w in enumerate(words)]
        pictures = make(words, 1)
        result[language] = recall(pictures, which)
        for n in range(4 if language == "en" else 1):
            at = [k for k in range(len(which)) if (k // len(forms)) % 4 == n]
            if language == "en":
                result["en " + ("lower", "First", "Title", "CAPITALS")[n]] = recall([pictures[k] for k in at], which[at])
        plain = make([emoji[i].names[language] for i in which[:100]], 2)
        result[language + " bare names"] = recall(plain, which[:100])
        energy.append((np.mean([gradient(p).mean() for p in pictures]), np.mean([gradient(truth[i]).mean() for i in which])))
        sheet += pictures[:24]
    result["gradient energy"] = round(float(np.mean([g for g, _ in energy]) / np.mean([t for _, t in energy])), 3)
    right, n = 0, 0
    for language in "en", "zh":
        which, colours = rng.choice(len(emoji), 65, replace=False), np.arange(65) % len(data.COLOUR_NAMES)
        words = [GROUNDS[language][k % 3].format(n=emoji[i].names[language], a=prompts.article(emoji[i].names[language]),
                                                 c=data.COLOURS[data.COLOUR_NAMES[c]][1 if language == "en" else 2][0]) for k, (i, c) in enumerate(zip(which, colours))]
        pictures = make(words, 3)
        for p, c in zip(pictures, colours):
            border = np.concatenate([p[:8].reshape(-1, 3), p[-8:].reshape(-1, 3)]).astype(float)
            right += int(((data.PALETTE - np.median(border, 0)) ** 2).sum(1).argmin() == c)
            n += 1
        sheet += pictures[:12]
    result["ground colour"] = round(right / n, 3)
    odd = [w for w in ODD]
    for i in rng.choice(len(emoji), 84, replace=False):
        odd.append(" ".join(emoji[j].names["en" if rng.random() < 0.5 else "zh"] for j in rng.choice(len(emoji), int(rng.integers(2, 5)), replace=False)))
    odd = [w for w in odd if len(tok.encode(prompts.CHAT.format(w)).ids) <= 96]
    pictures = make(odd, 4)
    bad = [w for w, p in zip(odd, pictures) if gray(p).std() < 2 or ((p == 0) | (p == 255)).all(-1).mean() > 0.98 or gradient(p).mean() > 12]
    result["degenerate"] = f"{len(bad)} of {len(odd)} odd prompts" + (": " + " | ".join(bad[:8]) if bad else "")
    sheet += pictures[:16]
    two = make(["a red apple"] * 4 + ["一只熊猫"] * 4, 5)
    sheet += two
    result["seeds differ by"] = round(float(np.mean([np.abs(x.astype(float) - y).mean() for x, y in ((two[0], two[1]), (two[2], two[3]), (two[4], two[5]), (two[6], two[7]))])), 2)
    if a.pipeline:
        from diffusers import ZImagePipeline
        for dtype in torch.float32, torch.bfloat16:
            pipe = ZImagePipeline.from_pretrained(a.model, torch_dtype=dtype)
            pipe.set_progress_bar_config(disable=True)
            for w in "a red apple on a yellow background", "请画一只熊猫":
                got = pipe(w, height=data.SIZE, width=data.SIZE, num_inference_steps=8, guidance_scale=0.0, generator=torch.Generator().manual_seed(3)).images[0]
                fast32 = Fast(fast.model, torch.float32)
                own = draw(fast32, encoder, tok, vae, [w], 3)[0]
                d = np.abs(np.asarray(got).astype(int) - own)
                result[f"pipeline {str(dtype)[6:]} | {w}"] = f"mean difference {d.mean():.2f}, largest {d.max()} of 255"
    print(json.dumps(result, ensure_ascii=False, indent=1))
    if a.sheet:
        data.grid([p[::2, ::2] for p in sheet], 12).save(a.sheet)


if __name__ == "__main__":
    main()

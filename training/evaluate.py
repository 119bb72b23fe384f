"""Measure a checkpoint: evaluate.py MODEL_DIR DATA [--sheet OUT.png] [--json OUT.json] [--only PARTS] [--names N] [--random N].

The wordings of `names` are made of words that prompts.py does not have, which is checked; those of `familiar` are whole forms that it does
not have, of words that it strews about.  English comes in four spellings (lower case, First capital, Title Case, CAPITALS); seeds are
fixed, one pass a step.  A picture is compared, as 16x16 Lab colours and gradient strengths, with the drawings themselves on
white; printed is how often the right one is nearest and among the five nearest.  PARTS, all by default:
    ceiling    the drawings through the autoencoder alone
    names      300 English and 300 Chinese names in unknown words; the sharpness of their pictures
    familiar   the same names in familiar words
    bare       100 names a language and nothing else
    grounds    the colour of the ground, twelve names
    colours    the colour of the object, pairs of drawing and colour never trained
    pairs      two objects, pairs never trained: both there, and where they were asked for
    three      three objects: all there, each where it was asked for
    many       four of the same, all there
    big_small  the drawing as large as was asked for, nearest among all of that size
    depth      one object in front of another: both there, the nearer one before the farther
    gradients  the two colours of the ground
    words      written words, plainly and on a sign: correlation with the rendered glyphs (needs fonts-dejavu-core and fonts-noto-cjk)
    sizes      60 names at 384x256 and 256x384
    random     1,000 prompts, empty, very long and nonsense ones among them: nothing constant, saturated, noisy or NaN
    seeds      how far apart two seeds are
    diffusers  two pictures by diffusers' ZImagePipeline, compared with ours
"""
import argparse
import json
import pathlib
import re
import sys

try:
    import numpy as np
    import torch
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from tokenizers import Tokenizer
    from transformers import Qwen3Model
except ImportError as missing:
    sys.exit(f"evaluate.py: {missing}. It needs PyTorch, diffusers, transformers and Pillow: pip install -r training/requirements.txt")

import data
import prompts
import wordings
from denoiser import draw
from model import Fast

SPELLINGS = ("lower case", "First capital", "Title Case", "CAPITALS")


# ---- measures ---------------------------------------------------------------------------------------------------------

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
    """16x16 mean Lab colours and mean gradient strengths of a square picture (uint8)."""
    k = rgb.shape[0] // 16
    small = rgb.reshape(16, k, 16, k, 3).astype(np.float64).mean((1, 3))
    return np.concatenate([lab(small).ravel(), 4 * gradient(rgb).reshape(16, k, 16, k).mean((1, 3)).ravel()])


def rank(wanted, picture, right):
    """How many drawings are nearer to the picture than the right one."""
    d = ((wanted - feature(picture)) ** 2).sum(1)
    return int((d < d[right]).sum())


def shares(ranks):
    ranks = np.array(ranks)
    return {"first": round(float((ranks == 0).mean()), 3), "within five": round(float((ranks < 5).mean()), 3), "of": len(ranks)}


def degenerate(p):
    return not np.isfinite(p).all() or gray(p).std() < 2 or ((p == 0) | (p == 255)).all(-1).mean() > 0.98 or gradient(p).mean() > 12


def spell(text, n):
    return [text, text[:1].upper() + text[1:], text.title(), text.upper()][n % 4]


def known_words():
    """Words of UNKNOWN that training has after all."""
    source = pathlib.Path(prompts.__file__).read_text().lower()
    known = set(re.findall("[a-z]+", source))
    english = {w for form in wordings.UNKNOWN["en"] for w in re.findall("[a-z]+", re.sub("{.}", " ", form)) if w in known}
    return english | {part for form in wordings.UNKNOWN["zh"] for part in form.split("{n}") if part and part in source}


def solid(drawing, size=data.SIZE):
    return data.compose(drawing, 255, size, size).round().astype(np.uint8)


# ---- the parts --------------------------------------------------------------------------------------------------------

class Measure:
    def __init__(self, model, data_dir, names, random):
        self.model, self.data, self.n_names, self.n_random = model, data_dir, names, random
        self.emoji = data.load_emoji(data_dir)
        self.tok = Tokenizer.from_file(str(model / "tokenizer/tokenizer.json"))
        part = lambda c, name: c.from_pretrained(model / name).float().eval()
        self.encoder, self.vae = part(Qwen3Model, "text_encoder"), part(AutoencoderKL, "vae")
        self.fast = Fast(part(ZImageTransformer2DModel, "transformer"))
        self.truth = [solid(data.load_drawing(data_dir, e.code)) for e in self.emoji]
        self.wanted = np.stack([feature(t) for t in self.truth])
        self.sheet, self._all, self._small = [], None, None
        rng = np.random.default_rng(11)
        pick = lambda n: rng.choice(len(self.emoji), min(n, len(self.emoji)), replace=False)
        self.sample, self.which = pick(min(names, 100)), {l: pick(names) for l in ("en", "zh")}

    def make(self, words, seed, width=data.SIZE, height=data.SIZE):
        return draw(self.fast, self.encoder, self.tok, self.vae, words, seed, width=width, height=height)

    def words(self, form, i, language, **more):
        name = self.emoji[i].names[language]
        return form.format(n=name, a=prompts.article(name) if language == "en" else name, **more)

    @staticmethod
    def colour(name, language):
        return data.COLOURS[name][1 if language == "en" else 2][0]

    def everything(self):
        """Features of every drawing there is, the trained ones first in their order."""
        if self._all is None:
            codes = {e.code for e in self.emoji}
            others = [p.stem for p in sorted(pathlib.Path(self.data, "fluent-3d").glob("*.webp")) if p.stem not in codes]
            self._all = np.concatenate([self.wanted, np.stack([feature(solid(data.load_drawing(self.data, c))) for c in others])])
        return self._all

    def ceiling(self):
        which, again = self.sample, []
        with torch.no_grad():
            for i in range(0, len(which), 16):
                x = data.to_model(np.stack([self.truth[j] for j in which[i:i + 16]]))
                again += list(data.to_rgb(self.vae.decode(self.vae.encode(x).latent_dist.mode()).sample))
        return {**shares([rank(self.wanted, p, i) for p, i in zip(again, which)]), "among all": shares([rank(self.everything(), p, i) for p, i in zip(again, which)]),
                "PSNR": round(float(np.mean([10 * np.log10(255 ** 2 / ((p.astype(float) - self.truth[i]) ** 2).mean()) for p, i in zip(again, which)])), 2),
                "gradient energy": self.energy(again, which)}

    def energy(self, pictures, which):
        return round(float(np.mean([gradient(p).mean() for p in pictures]) / np.mean([gradient(self.truth[i]).mean() for i in which])), 3)

    def names(self, asked=wordings.UNKNOWN):
        out, drawn, whichs = {"drawings": len(self.emoji), "all": len(self.everything())}, [], []
        for language, forms in asked.items():
            which = self.which[language]
            words = [spell(self.words(forms[n % len(forms)], i, language), n // len(forms)) for n, i in enumerate(which)]
            pictures = self.make(words, 1)
            ranks = [rank(self.wanted, p, i) for p, i in zip(pictures, which)]
            out[language] = {**shares(ranks), "among all": shares([rank(self.everything(), p, i) for p, i in zip(pictures, which)])}
            if language == "en":
                for n, name in enumerate(SPELLINGS):
                    out["en " + name] = shares([r for k, r in enumerate(ranks) if k // len(forms) % 4 == n])
            for n, form in enumerate(forms):
                out[form] = shares(ranks[n::len(forms)])
            drawn, whichs, self.sheet = drawn + pictures, whichs + list(which), self.sheet + pictures[:24]
        out["gradient energy"] = self.energy(drawn, whichs)
        return out

    def familiar(self):
        return self.names(wordings.FAMILIAR)

    def bare(self):
        return {l: shares([rank(self.wanted, p, i) for p, i in zip(self.make([self.emoji[i].names[l] for i in self.which[l][:100]], 2), self.which[l][:100])])
                for l in ("en", "zh")}

    def grounds(self):
        right, n, rng = 0, 0, np.random.default_rng(12)
        for language in "en", "zh":
            which, colours = rng.choice(len(self.emoji), 96, replace=False), 1 + np.arange(96) % 12
            words = [self.words(wordings.GROUNDS[language][k % 3], i, language, c=self.colour(data.COLOUR_NAMES[c], language)) for k, (i, c) in enumerate(zip(which, colours))]
            pictures = self.make(words, 3)
            for p, c in zip(pictures, colours):
                border = np.concatenate([p[:8].reshape(-1, 3), p[-8:].reshape(-1, 3)]).astype(float)
                right += int(((data.PALETTE - np.median(border, 0)) ** 2).sum(1).argmin() == c)
                n += 1
            self.sheet += pictures[:12]
        return {"right": round(right / n, 3), "of": n}

    def colours(self):
        """Right: of the drawing in every colour and as it is, that in the colour asked for is nearest."""
        tests, rng = [], np.random.default_rng(13)
        for i in rng.permutation(len(self.emoji)):
            e = self.emoji[i]
            drawing = data.load_drawing(self.data, e.code)
            hue = data.main_hue(drawing)
            held = [c for c in data.HUES if data.held_out(e.code, c)]
            if hue is not None and held and len(tests) < 80:
                tests.append((i, list(data.HUES).index(held[0]), np.stack([feature(solid(d)) for d in [data.recolour(drawing, c, hue) for c in data.HUES] + [drawing]])))
        languages = ["en" if k % 2 else "zh" for k in range(len(tests))]
        words = [self.words(wordings.COLOURED[l][k // 2 % 3], i, l, c=self.colour(list(data.HUES)[c], l)) for k, (l, (i, c, _)) in enumerate(zip(languages, tests))]
        pictures = self.make(words, 6)
        self.sheet += pictures[:12]
        return {"right": round(float(np.mean([rank(w, p, c) == 0 for p, (_, c, w) in zip(pictures, tests)])), 3), "of": len(tests)}

    def name(self, i, language):
        name = self.emoji[i].names[language]
        return prompts.article(name) if language == "en" else name

    def small(self):
        """Features of the drawings as large as those of pairs are."""
        if self._small is None:
            self._small = np.stack([feature(solid(data.load_drawing(self.data, e.code, data.PAIR), 128)) for e in self.emoji])
        return self._small

    def there(self, picture, spot, i, at_most=10):
        """Whether a small drawing is at a spot: among the nearest ten, as what it is on is not compared."""
        x, y = (max(0, min(128, v - 64)) for v in spot)
        return rank(self.small(), np.ascontiguousarray(picture[y:y + 128, x:x + 128]), i) < at_most

    def some(self, n, several, rng):
        """n times so many drawings, each two of which were never trained together in this order; languages in turn."""
        out = []
        while len(out) < n:
            which = [int(i) for i in rng.choice(len(self.emoji), several, replace=False)]
            if several < 2 or data.held_out(*(self.emoji[i].code for i in which[:2])):
                out.append((which, "en" if len(out) % 2 else "zh"))
        return out

    def pairs(self):
        tests = [(*which, l, "beside" if k // 2 % 2 else "over") for k, (which, l) in enumerate(self.some(80, 2, np.random.default_rng(14)))]
        words = [wordings.PAIRS[l, place][k // 4 % 2].format(a=self.name(i, l), b=self.name(j, l)) for k, (i, j, l, place) in enumerate(tests)]
        pictures, both, placed = self.make(words, 7), 0, 0
        for p, (i, j, l, place) in zip(pictures, tests):
            near = [[self.there(p, spot, k) for spot in data.PLACES[place]] for k in (i, j)]
            there, turned = near[0][0] and near[1][1], near[0][1] and near[1][0]
            both, placed = both + (there or turned), placed + there
        self.sheet += pictures[:12]
        return {"both there": round(both / len(tests), 3), "of them as asked": round(placed / both, 3) if both else None, "of": len(tests)}

    def three(self):
        tests = self.some(60, 3, np.random.default_rng(16))
        pictures = self.make([wordings.THREE[l][k // 2 % 3].format(**{a: self.name(i, l) for a, i in zip("abc", which)}) for k, (which, l) in enumerate(tests)], 10)
        self.sheet += pictures[:12]
        found = np.array([[self.there(p, spot, i) for spot, i in zip((data.PLACES["over"][0], *data.QUARTERS[2:]), which)] for p, (which, _) in zip(pictures, tests)])
        return {"all there": round(float(found.all(1).mean()), 3), "of the objects": round(float(found.mean()), 3), "of": len(tests)}

    def many(self):
        tests = self.some(60, 1, np.random.default_rng(17))
        words = [wordings.MANY[l][k // 2 % 3].format(n=self.emoji[i].names[l], p=prompts.plural(self.emoji[i].names[l])) for k, ((i,), l) in enumerate(tests)]
        pictures = self.make(words, 11)
        self.sheet += pictures[:12]
        found = np.array([[self.there(p, spot, i) for spot in data.QUARTERS] for p, ((i,), _) in zip(pictures, tests)])
        return {"all four there": round(float(found.all(1).mean()), 3), "of": len(tests)}

    def big_small(self):
        """The nearest of all drawings in all three sizes is the right one in the right size; the right size alone."""
        wanted = np.concatenate([np.stack([feature(solid(data.load_drawing(self.data, e.code, size))) for e in self.emoji]) for size in (data.PAIR, data.BIG)] + [self.wanted])
        out, n = {}, len(self.emoji)
        for k, size in enumerate(("small", "big")):
            tests = self.some(60, 1, np.random.default_rng(18 + k))
            words = [self.words(wordings.SIZES[size][l][m // 2 % 3], i, l) for m, ((i,), l) in enumerate(tests)]
            pictures = self.make(words, 12 + k)
            self.sheet += pictures[:12]
            nearest = [int(((wanted - feature(p)) ** 2).sum(1).argmin()) for p in pictures]
            out[size] = {"right": round(float(np.mean([at == k * n + i for at, ((i,), _) in zip(nearest, tests)])), 3),
                         "right size": round(float(np.mean([at // n == k for at in nearest])), 3), "of": len(tests)}
        return out

    def depth(self):
        """The farther one: by what is above the nearer one.  The nearer one: among all in its place, before the right farther one."""
        tests = self.some(40, 2, np.random.default_rng(20))
        pictures = self.make([wordings.DEPTH[l][k // 2 % 2].format(a=self.name(i, l), b=self.name(j, l)) for k, ((i, j), l) in enumerate(tests)], 14)
        self.sheet += pictures[:12]
        near, found = [data.load_drawing(self.data, e.code, data.NEAR) for e in self.emoji], []
        # of feature(): 16x16 Lab colours, then gradient strengths
        upper = np.concatenate([np.arange(16 * 16 * 3).reshape(16, -1)[:7].ravel(), 768 + np.arange(256).reshape(16, -1)[:7].ravel()])
        x, y = (min(v - 64, 128) for v in data.NEAR_AT)
        for p, ((i, j), _) in zip(pictures, tests):
            behind = int((((self.wanted - feature(p))[:, upper]) ** 2).sum(1).argsort().tolist().index(j)) < 10
            far = data.load_drawing(self.data, self.emoji[j].code)
            scenes = np.stack([feature(data.scene([(far, 128, 128), (one, *data.NEAR_AT)], 255.0)[y:y + 128, x:x + 128].round().astype(np.uint8)) for one in near])
            found.append((rank(scenes, np.ascontiguousarray(p[y:y + 128, x:x + 128]), i) < 10, behind))
        found = np.array(found)
        return {"both there": round(float(found.all(1).mean()), 3), "nearer": round(float(found[:, 0].mean()), 3), "farther": round(float(found[:, 1].mean()), 3), "of": len(tests)}

    def gradients(self):
        rng = np.random.default_rng(21)
        tests = [(which[0], l, rng.choice(len(data.COLOUR_NAMES), 2, replace=False)) for which, l in self.some(60, 1, rng)]
        words = [self.words(wordings.GRADIENTS[l][k // 2 % 2], i, l, **{a: self.colour(data.COLOUR_NAMES[c], l) for a, c in zip("cd", colours)}) for k, (i, l, colours) in enumerate(tests)]
        pictures, right = self.make(words, 15), []
        self.sheet += pictures[:12]
        for p, (_, _, colours) in zip(pictures, tests):
            ends = [np.median(rows.reshape(-1, 3).astype(float), 0) for rows in (p[:6], p[-6:])]
            right.append([((data.PALETTE - e) ** 2).sum(1).argmin() == c for e, c in zip(ends, colours)])
        return {"both colours": round(float(np.mean(np.all(right, 1))), 3), "of": len(tests)}

    def written(self):
        """Where the letters should be: correlation of the brightness with theirs."""
        tests = [(w, k % 2) for k, w in enumerate(data.WRITTEN[:10] + [w for w in data.WRITTEN if not w.isascii()][:10])]
        words = [wordings.WRITTEN["en" if w.isascii() else "zh"][sign].format(w=w) for w, sign in tests]
        pictures, found = self.make(words, 8), []
        for p, (w, sign) in zip(pictures, tests):
            truth, (x0, y0, x1, y1) = data.written(w, sign, data.PALETTE[0])
            found.append(np.corrcoef(gray(p)[int(y0):int(y1), int(x0):int(x1)].ravel(), gray(truth)[int(y0):int(y1), int(x0):int(x1)].ravel())[0, 1])
        self.sheet += pictures
        return {"correlation": round(float(np.nanmean(found)), 3), "of": len(tests), "Chinese": round(float(np.nanmean(found[10:])), 3)}

    def sizes(self):
        """Recall at 3:2 and 2:3: the square in the middle is compared."""
        out, which = {}, self.sample[:60]
        for name, width, height in ("384x256", 384, 256), ("256x384", 256, 384):
            words = [self.words(wordings.FAMILIAR[l][n % 8], i, l) for n, i in enumerate(which) for l in [("en", "zh")[n % 2]]]
            pictures = [p[(height - 256) // 2:][:256, (width - 256) // 2:][:, :256] for p in self.make(words, 9, width, height)]
            out[name] = shares([rank(self.wanted, np.ascontiguousarray(p), i) for p, i in zip(pictures, which)])
        return out

    def random(self):
        rng, odd = np.random.default_rng(15), list(wordings.ODD)
        while len(odd) < self.n_random:
            language = "en" if rng.random() < 0.5 else "zh"
            some = [self.emoji[j].names[language] for j in rng.choice(len(self.emoji), int(rng.integers(1, 5)), replace=False)]
            kinds = [" ".join(some), prompts.prompt(rng, self.emoji[rng.integers(len(self.emoji))], data.COLOUR_NAMES[rng.integers(13)], more=int(rng.integers(4))),
                     "".join(chr(c) for c in rng.integers(33, 0x2ff, int(rng.integers(1, 30)))), " ".join(rng.choice(prompts.WORDS, int(rng.integers(1, 40))))]
            odd.append(kinds[rng.integers(4)])
        odd = [w for w in odd if len(self.tok.encode(prompts.CHAT.format(w)).ids) <= 96]
        pictures, bad = [], []
        for i in range(0, len(odd), 100):
            some = self.make(odd[i:i + 100], 4 + i)
            bad += [w for w, p in zip(odd[i:], some) if degenerate(p)]
            pictures = pictures or some
        self.sheet += pictures[:24]
        return {"degenerate": len(bad), "of": len(odd), "prompts": bad[:8]}

    def seeds(self):
        two = self.make(["a red apple"] * 6 + ["一只熊猫"] * 6, 5)
        self.sheet += two
        return {"mean difference of 255": round(float(np.mean([np.abs(two[k].astype(float) - two[k + 1]).mean() for k in range(0, 12, 2)])), 2)}

    def diffusers(self):
        from diffusers import ZImagePipeline
        out = {}
        for dtype in torch.float32, torch.bfloat16:
            pipe = ZImagePipeline.from_pretrained(self.model, torch_dtype=dtype)
            pipe.set_progress_bar_config(disable=True)
            for w in "A RED Apple on a yellow background", "请画一只熊猫":
                got = pipe(w, height=data.SIZE, width=data.SIZE, num_inference_steps=8, guidance_scale=0.0, generator=torch.Generator().manual_seed(3)).images[0]
                own = draw(Fast(self.fast.model, torch.float32), self.encoder, self.tok, self.vae, [w], 3)[0]
                d = np.abs(np.asarray(got).astype(int) - own)
                out[f"{str(dtype)[6:]} | {w}"] = f"mean difference {d.mean():.2f}, largest {d.max()} of 255"
        return out


PARTS = {"ceiling": Measure.ceiling, "names": Measure.names, "familiar": Measure.familiar, "bare": Measure.bare, "grounds": Measure.grounds, "colours": Measure.colours, "pairs": Measure.pairs,
         "three": Measure.three, "many": Measure.many, "big_small": Measure.big_small, "depth": Measure.depth, "gradients": Measure.gradients,
         "words": Measure.written, "sizes": Measure.sizes, "random": Measure.random, "seeds": Measure.seeds, "diffusers": Measure.diffusers}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=pathlib.Path), ap.add_argument("data")
    ap.add_argument("--sheet", type=pathlib.Path), ap.add_argument("--json", type=pathlib.Path)
    ap.add_argument("--only", default=",".join(PARTS)), ap.add_argument("--names", type=int, default=300), ap.add_argument("--random", type=int, default=1000)
    a = ap.parse_args()
    if not list(pathlib.Path(a.data, "fluent-3d").glob("*.webp")):
        sys.exit(f"evaluate.py: {a.data}/fluent-3d has no drawings; training/README.md says where they come from")
    if known_words():
        sys.exit(f"evaluate.py: prompts.py has {', '.join(sorted(known_words()))}: take other words for wordings.UNKNOWN")
    measure, result = Measure(a.model, a.data, a.names, a.random), {}
    for part in a.only.split(","):
        result[part] = PARTS[part](measure)
        print(json.dumps({part: result[part]}, ensure_ascii=False), flush=True)
        if a.json:
            a.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    if a.sheet:
        data.grid([p[::2, ::2] for p in measure.sheet], 12).save(a.sheet)


if __name__ == "__main__":
    main()

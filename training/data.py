"""The drawings, their names in English and Chinese, the colours, and how a picture is composed of them.

A data directory holds
    fluent-3d/                 WebP drawings with alpha, named by code points in hex joined with '-'
    annotations/{en,zh}.json   CLDR annotations
README.md says where both come from.
"""
import hashlib
import json
import pathlib
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

SIZE = 256       # width and height of a picture
OBJECT = 224     # width and height of the drawing in it

# name: (RGB, English words, Chinese words)
COLOURS = {
    "white": ((255, 255, 255), ["white"], ["白色", "白"]),
    "black": ((24, 24, 26), ["black"], ["黑色", "黑"]),
    "gray": ((140, 142, 146), ["gray", "grey"], ["灰色"]),
    "red": ((214, 28, 36), ["red"], ["红色", "红"]),
    "orange": ((250, 140, 22), ["orange"], ["橙色", "橘色"]),
    "yellow": ((253, 218, 24), ["yellow"], ["黄色", "黄"]),
    "green": ((44, 146, 66), ["green"], ["绿色", "绿"]),
    "teal": ((20, 156, 156), ["teal", "turquoise"], ["青色"]),
    "blue": ((32, 78, 204), ["blue"], ["蓝色", "蓝"]),
    "light blue": ((132, 196, 240), ["light blue", "sky blue"], ["浅蓝色", "天蓝色"]),
    "purple": ((124, 48, 178), ["purple", "violet"], ["紫色", "紫"]),
    "pink": ((252, 152, 196), ["pink"], ["粉色", "粉红色"]),
    "brown": ((120, 70, 32), ["brown"], ["棕色", "褐色"]),
}
COLOUR_NAMES = list(COLOURS)
PALETTE = np.array([COLOURS[c][0] for c in COLOUR_NAMES], np.float32)


@dataclass
class Emoji:
    code: str                       # file name without its ending
    names: dict                     # language -> name
    keywords: dict = field(default_factory=dict)  # language -> [(word, how many emoji share it)]


def _annotations(path):
    notes = json.loads(path.read_text(encoding="utf-8"))
    notes = notes.get("annotations", notes.get("annotationsDerived"))["annotations"]
    return {k.replace("\ufe0f", ""): v for k, v in notes.items()}


def load_emoji(data_dir):
    """The core set: one code point, named in both languages, without buttons, clock faces, arrows and small squares."""
    data_dir = pathlib.Path(data_dir)
    notes = {l: _annotations(data_dir / f"annotations/{l}.json") for l in ("en", "zh")}
    out, seen = [], set()
    for path in sorted((data_dir / "fluent-3d").glob("*.webp")):
        points = [p for p in path.stem.split("-") if p != "fe0f"]
        char = chr(int(points[0], 16)) if len(points) == 1 and len(points[0]) < 6 else ""
        if not char or char in seen or any("tts" not in notes[l].get(char, {}) for l in notes):
            continue
        seen.add(char)
        names = {l: notes[l][char]["tts"][0] for l in notes}
        en = names["en"]
        if any(w in en for w in ("button", "arrow", "o’clock", "-thirty", "small square")):
            continue
        out.append(Emoji(path.stem, names, {l: notes[l][char].get("default", []) for l in notes}))
    for l in "en", "zh":
        shared = {}
        for e in out:
            for w in e.keywords[l]:
                shared[w] = shared.get(w, 0) + 1
        for e in out:
            e.keywords[l] = [(w, shared[w]) for w in e.keywords[l] if w != e.names[l]]
    return out


def load_drawing(data_dir, code, size=OBJECT):
    """Premultiplied RGBA as an array of size x size x 4, uint8."""
    image = Image.open(pathlib.Path(data_dir) / f"fluent-3d/{code}.webp").convert("RGBA").convert("RGBa")
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS) if image.size != (size, size) else image)


def compose(drawing, ground, width=SIZE, height=SIZE):
    """A premultiplied drawing in the middle of a ground (a colour or a picture): float RGB 0..255, height x width x 3."""
    return scene([(drawing, width // 2, height // 2)], ground, width, height)


def scene(parts, ground, width=SIZE, height=SIZE):
    """Premultiplied drawings, each with the place of its middle (x, y), one over the other on a ground."""
    out = np.empty((height, width, 3), np.float32)
    out[:] = ground
    for drawing, x, y in parts:
        h, w = drawing.shape[:2]
        x, y = x - w // 2, y - h // 2
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        piece, part = drawing[y0 - y:y1 - y, x0 - x:x1 - x], out[y0:y1, x0:x1]
        part *= 1 - piece[..., 3:].astype(np.float32) / 255
        part += piece[..., :3]
    return out.clip(0, 255)


# Where two objects are, and how wide.
PAIR = 112
PLACES = {"beside": ((68, 128), (188, 128)), "over": ((128, 68), (128, 188))}
# Where one of four is, as wide as those of a pair; of three, the first is as the first of "over", the others as the lower two of four.
QUARTERS = (68, 68), (188, 68), (68, 188), (188, 188)
BIG = 256
# Of two in depth, the farther one is as a single one is, and where and how wide the nearer one.
NEAR, NEAR_AT = 128, (128, 180)
# Colours that a drawing can be given: hue in turns, and factors of saturation and brightness.
HUES = {"red": (0.99, 1, 1), "orange": (0.085, 1, 1), "yellow": (0.145, 1, 1.05), "green": (0.36, 0.9, 0.9), "teal": (0.5, 0.95, 0.95), "blue": (0.62, 1, 0.95),
        "purple": (0.765, 0.9, 0.95), "pink": (0.92, 0.6, 1.1)}


def gradient(above, below, width=SIZE, height=SIZE):
    """A ground that goes from one colour at the top to another at the bottom."""
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.broadcast_to((1 - t) * above + t * below, (height, width, 3))


def main_hue(drawing):
    """The hue (in turns) that most of a drawing's colour has; None where there is none: gray or many-coloured drawings."""
    hsv = np.asarray(Image.fromarray(np.ascontiguousarray(drawing[..., :3])).convert("HSV")).astype(np.float32) / 255
    weight = hsv[..., 1] * hsv[..., 2] * drawing[..., 3].astype(np.float32) / 255
    total, full = weight.sum(), drawing[..., 3].sum() / 255
    mean = (weight * np.exp(2j * np.pi * hsv[..., 0])).sum() / max(total, 1e-6)
    return float(np.angle(mean) / (2 * np.pi) % 1) if total > 0.35 * full and abs(mean) > 0.9 else None


def recolour(drawing, colour, hue):
    """The drawing with its main hue turned into a colour's; the other hues turn with it."""
    to, saturation, brightness = HUES[colour]
    hsv = np.asarray(Image.fromarray(np.ascontiguousarray(drawing[..., :3])).convert("HSV")).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + 255 * (to - hue)) % 255
    hsv[..., 1] *= saturation
    hsv[..., 2] *= brightness
    rgb = np.asarray(Image.fromarray(hsv.clip(0, 255).astype(np.uint8), "HSV").convert("RGB"))
    return np.concatenate([np.minimum(rgb, drawing[..., 3:]), drawing[..., 3:]], -1)


# What can be written, and on what: nothing, or a sign.
WRITTEN = ["hello", "love", "happy", "cat", "yes", "no", "good", "sun", "tea", "zoo", "hi", "ok", "stop", "go", "open", "bye", "wow", "cool", "joy", "fun", "peace", "home", "thanks", "welcome",
           "福", "春", "你好", "新春快乐", "爱", "猫", "平安", "大吉", "喜", "茶", "谢谢", "早安", "晚安", "生日快乐", "恭喜发财", "欢迎", "加油", "中国", "财", "寿"]
INK, PAPER, FRAME = (24, 24, 26), (252, 236, 200), (120, 70, 32)


def written_font(word, width, height):
    """The largest font in which the word is at most so wide, and its size at most the height."""
    fonts = sorted(pathlib.Path("/usr/share/fonts").rglob("DejaVuSans-Bold.ttf" if word.isascii() else "NotoSansCJK-Bold.ttc"))
    if not fonts:
        raise FileNotFoundError("no font for written words: install fonts-dejavu-core and fonts-noto-cjk")
    one = ImageFont.truetype(str(fonts[0]), 100)
    x0, _, x1, _ = one.getbbox(word)
    return one.font_variant(size=int(min(height, 100 * width / (x1 - x0))))


def written(word, sign, ground):
    """A word in the middle of a ground, or of a sign on it: float RGB 0..255; and where its letters are (x0, y0, x1, y1)."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(int(c) for c in ground))
    drawing, font, middle = ImageDraw.Draw(image), written_font(word, *((180, 96) if sign else (220, 140))), (SIZE // 2, SIZE // 2)
    if sign:
        drawing.rounded_rectangle((16, 48, SIZE - 17, SIZE - 49), 20, PAPER, FRAME, 10)
    ink = INK if sign or sum(ground) > 380 else (255, 255, 255)
    drawing.text(middle, word, font=font, fill=ink, anchor="mm")
    return np.asarray(image).astype(np.float32), drawing.textbbox(middle, word, font=font, anchor="mm")


def held_out(*what):
    """One of ten pairs of drawings, and of drawings and colours, is never trained."""
    return hashlib.sha256(" ".join(what).encode()).digest()[0] < 26


def held_out_pair(one, other):
    """In either order."""
    return held_out(one, other) or held_out(other, one)


def to_model(rgb):
    """Float RGB 0..255 [..., H, W, 3] to a tensor in -1..1 [..., 3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rgb, -1, -3))).float() / 127.5 - 1


def to_rgb(x):
    """The inverse of to_model, rounded to uint8."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).numpy()


def grid(pictures, columns):
    """uint8 pictures of one size, side by side."""
    rows = [np.concatenate(list(pictures[i:i + columns]) + [np.full_like(pictures[0], 255)] * (columns - len(pictures[i:i + columns])), 1)
            for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows))

"""Wordings: a drawing's name and a ground's colour become a prompt, in English or Chinese, in many ways."""
import numpy as np

import data

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"  # what Qwen3's chat template makes of one user message
CHAT_TOKENS, TAIL = 8, 5                                          # tokens of it, and those of them after the prompt

# {a}: the name with an article, {n}: without.
ENGLISH = ["{a}", "{n}", "the {n}", "one {n}", "{a}, please", "a picture of {a}", "a drawing of {a}", "an image of {a}", "an illustration of {a}",
           "a painting of {a}", "a cartoon of {a}", "a photo of {a}", "a 3d render of {a}", "an icon of {a}", "a sticker of {a}", "{n} emoji",
           "emoji of {a}", "a cute {n}", "a simple {n}", "a small picture of {a}", "picture of {n}", "drawing: {n}", "draw {a}", "paint {a}",
           "draw me {a}", "please draw {a}", "please paint {a}", "paint me a picture of {a}", "show me {a}", "make a picture of {a}",
           "i want {a}", "i would like to see {a}", "i want a picture of {a}", "can you draw {a}?", "could you paint {a}?", "create an image of {a}",
           "generate {a}", "this is {a}", "there is {a}", "{n} in the middle of the picture"]
ENGLISH_GROUND = ["{x} on a {c} background"] * 4 + ["{x} on {c}", "{x} against a {c} background", "{x} with a {c} background", "{x}, {c} background",
                  "{x} in front of a {c} background", "{x} over a {c} backdrop", "{x} on a plain {c} background", "{x} with {c} behind it",
                  "{x}; the background is {c}", "{x}. the background is {c}", "on a {c} background, {x}", "{c} background, {x}", "on {c}: {x}",
                  "a {c} background with {x}", "{x} on a {c} wall"]
ENGLISH_MORE = ["the picture should be simple and clean", "soft light and smooth round shapes", "it should be in the middle of the picture",
                "use bright colours and make it look friendly", "no text and no frame, only the object", "high quality, 3d style, studio lighting",
                "just one object and nothing else around it", "i need it for the cover of my notebook", "thank you very much for your help",
                "make it look nice, with many details", "it is for a small website about my family"]
MEASURE = ["个"] * 6 + ["只"] * 3 + ["条", "朵", "辆", "本", "张", "把", "位", "块", "颗", "件", "座"]
CHINESE = ["{n}"] * 3 + ["一{m}{n}"] * 3 + ["画一{m}{n}"] * 2 + ["请画一{m}{n}", "请画{n}", "画{n}", "画个{n}", "给我画一{m}{n}", "帮我画{n}", "帮我画一{m}{n}",
           "我想要一{m}{n}", "我想看{n}", "来一{m}{n}", "一张{n}的图片", "一张{n}的照片", "一幅{n}的画", "一幅画，画的是{n}", "{n}的图片", "{n}的插画", "{n}图标",
           "{n}表情", "卡通{n}", "可爱的{n}", "一{m}可爱的{n}", "一{m}简单的{n}", "生成一张{n}的图片", "生成{n}", "绘制一{m}{n}", "这是{n}", "图片中间是{n}"]
CHINESE_GROUND = ["{c}背景上的{x}"] * 2 + ["{x}在{c}背景上"] * 2 + ["{x}，{c}背景"] * 2 + ["{c}背景，{x}", "背景是{c}的{x}", "{x}，背景是{c}", "{x}，背景为{c}",
                  "在{c}背景上的{x}", "{c}的背景上有{x}", "{x}，底色是{c}", "{c}底，{x}", "以{c}为背景，{x}", "{x}，{c}的底"]
CHINESE_MORE = ["画面要简单干净", "光线柔和，形状圆润", "放在图片的正中间", "颜色要鲜艳，看起来友好", "不要文字，也不要边框，只要物体", "高质量，三维风格，细节丰富",
                "只画一个物体，周围什么都没有", "这是给我的笔记本封面用的", "非常感谢你的帮助", "要好看一些，细节多一点"]
ENDS = {"en": [".", ".", "!", "?", " please", "..."], "zh": ["。", "。", "！", "!", ".", "~"]}


def article(name):
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


def random_case(rng, text):
    u = rng.random()
    if u < 0.58:
        return text
    if u < 0.80:
        return text[:1].upper() + text[1:]
    return text.title() if u < 0.92 else text.upper()


def pick(rng, items):
    return items[rng.integers(len(items))]


def word_for(rng, emoji, language, keywords=0.12):
    """The name, or now and then a keyword, one shared by few emoji before one shared by many."""
    if rng.random() < keywords and emoji.keywords[language]:
        weight = np.array([1 / n for _, n in emoji.keywords[language]])
        return emoji.keywords[language][rng.choice(len(weight), p=weight / weight.sum())][0]
    return emoji.names[language]


def prompt(rng, emoji, colour, language=None, more=0):
    """A prompt for one drawing on a ground; `more` phrases are added that say nothing about what is drawn."""
    language = language or ("en" if rng.random() < 0.55 else "zh")
    name = word_for(rng, emoji, language)
    if language == "en":
        x = pick(rng, ENGLISH[:2] if rng.random() < 0.3 else ENGLISH).format(a=article(name), n=name)
        comma, fillers, grounds = ", ", ENGLISH_MORE, ENGLISH_GROUND
    else:
        x = pick(rng, CHINESE).format(n=name, m=pick(rng, MEASURE))
        comma, fillers, grounds = "，", CHINESE_MORE, CHINESE_GROUND
    if colour != "white" or rng.random() < 0.25:
        c = pick(rng, data.COLOURS[colour][1 if language == "en" else 2])
        if language == "en":
            x = x.rstrip("?")
        form = pick(rng, grounds)
        x = (form.replace("a {c}", "an {c}") if c[0] == "o" else form).format(x=x, c=c)
    for f in rng.permutation(len(fillers))[:more]:
        stop = pick(rng, [comma, "。" if language == "zh" else ". "])
        x = x + stop + fillers[f] if rng.random() < 0.75 else fillers[f] + stop + x
    if language == "zh" and rng.random() < 0.25:
        x = x.replace("，", pick(rng, [",", ", ", " "]))
    if rng.random() < 0.2:
        x = x.rstrip("?") + pick(rng, ENDS[language])
    return random_case(rng, x)

"""Wordings: a drawing's name and a ground's colour become a prompt, in English or Chinese, in many ways."""
import re

import numpy as np

import data

STRANGE = 0.45  # share of the prompts with words that training may never show twice

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"  # what Qwen3's chat template makes of one user message
CHAT_TOKENS, TAIL = 8, 5                                          # tokens of it, and those of them after the prompt

# {a}: the name with an article, {n}: without.
ENGLISH = ["{a}", "{n}", "the {n}", "one {n}", "{a}, please", "a picture of {a}", "a drawing of {a}", "an image of {a}", "an illustration of {a}",
           "a painting of {a}", "a cartoon of {a}", "a photo of {a}", "a 3d render of {a}", "an icon of {a}", "a sticker of {a}", "{n} emoji",
           "emoji of {a}", "a cute {n}", "a simple {n}", "picture of {n}", "drawing: {n}", "draw {a}", "paint {a}",
           "draw me {a}", "please draw {a}", "please paint {a}", "paint me a picture of {a}", "show me {a}", "make a picture of {a}",
           "i want {a}", "i would like to see {a}", "i want a picture of {a}", "can you draw {a}?", "could you paint {a}?", "create an image of {a}",
           "generate {a}", "this is {a}", "there is {a}", "{n} in the middle of the picture"]
# Parts from which more wordings are put together.
BEFORE = ["draw", "paint", "render", "make", "create", "generate", "show me", "give me", "draw me", "paint me", "imagine", "design", "please draw", "please show", "please make",
          "can you draw", "can you show me", "could you paint", "could you make", "would you draw", "i want to see", "i want", "i would like", "i'd like", "i need", "let me see",
          "let's have", "let us see", "how about", "what about", "here is", "here comes", "there is", "there stands", "it is", "this is", "that is", "i see", "i saw", "i have",
          "she has", "he has", "they have", "my friend wants", "my daughter loves", "my son wants", "everybody likes", "think of", "once upon a time there was", "today:", "now", "next:",
          "the picture shows", "a picture with", "an image with", "picture:", "image:", "illustration:", "subject:", "an icon showing", "a drawing showing", "a render of",
          "a close-up of", "a model of", "a toy version of", "a clay model of", "a logo with", "clip art of", "a glossy icon of", "a detailed image of", "a digital painting of"]
DETERMINER = ["a"] * 6 + ["the"] * 3 + ["one", "this", "that", "my", "your", "our", "some", "another", "any", "a single", ""]
ADJECTIVES = ["cute", "simple", "beautiful", "pretty", "cool", "funny", "friendly", "happy", "good", "great", "fine", "perfect", "classic", "typical", "shiny", "glossy", "smooth",
              "detailed", "realistic", "colourful", "colorful", "bright", "new", "old-fashioned", "modern", "ordinary", "famous", "amazing", "wonderful", "charming", "3d", "cartoon", "clean", "real"]
AFTER = ["please", "for me", "for us", "for my friend", "thanks", "now", "today", "again", "by itself", "on its own", "alone", "in the middle", "in the centre", "in 3d", "in 3d style",
         "as an icon", "as an emoji", "as a sticker", "emoji", "icon", "picture", "image", "illustration", "drawing", "render", "cartoon", "clip art", "isolated", "centered",
         "and nothing else", "with soft light", "in bright colours", "in high quality", "if you can", "as you like it", "that looks good", "that i can print", "for a birthday card",
         "to look at", "from the front", "very detailed", "4k", "highly detailed", "digital art", "trending", "smooth shading", "like a toy", "made of plastic"]
# Words that say nothing about what is drawn: strewn about, they teach the text encoder to look for the name.
WORDS = """about after again all almost also always am and any are around as at away be because been before being better both bring but by came can come could day did do does doing done down
each even ever every everyone few find first for from full gave get give go going good got great had half has have her here him his how i if in into is it its just keep kind know
last let like long look looks made make maybe me mine more most much must my near need never next no not now of off often on once only or other our out own part
people perhaps place please put quite rather really said same say see seem set she should show since so some something soon still such sure take than thank that the their them then
there these they thing things think this those though thought through time to today together too took tried try until up us use used very wait want was way we well went were what when
where which while who why will wish with without would yes yet you your beautiful nice lovely pretty
corner centre center middle favourite favorite sketch portrait photo scene art style picture image drawing painting render icon single alone
standing sitting lying placed put hanging floating holding looking plain solid empty background backdrop ground wall colour color coloured colored dark light """.split()
ENGLISH_GROUND = ["{x} on a {c} background"] * 4 + ["{x} on {c}", "{x} against a {c} background", "{x} with a {c} background", "{x}, {c} background",
                  "{x} in front of a {c} background", "{x} over a {c} backdrop", "{x} on a plain {c} background", "{x} with {c} behind it",
                  "{x}; the background is {c}", "{x}. the background is {c}", "on a {c} background, {x}", "{c} background, {x}", "on {c}: {x}",
                  "a {c} background with {x}", "{x} on a {c} wall", "a {c} background and {x}", "{c} background and {x}", "{x} and a {c} background",
                  "{x} and the background in {c}", "background in {c}, {x}", "background: {c}, {x}", "{x}, with the background in {c}"]
ENGLISH_MORE = ["the picture should be simple and clean", "soft light and smooth round shapes", "it should be in the middle of the picture",
                "use bright colours and make it look friendly", "no text and no frame, only the object", "high quality, 3d style, studio lighting",
                "just one object and nothing else around it", "i need it for the cover of my notebook", "thank you very much for your help",
                "make it look nice, with many details", "it is for a small website about my family"]
MEASURE = ["个"] * 6 + ["只"] * 3 + ["条", "朵", "辆", "本", "张", "把", "位", "块", "颗", "件", "座"]
CHINESE = ["{n}"] * 3 + ["一{m}{n}"] * 3 + ["画一{m}{n}"] * 2 + ["请画一{m}{n}", "请画{n}", "画{n}", "画个{n}", "给我画一{m}{n}", "帮我画{n}", "帮我画一{m}{n}",
           "我想要一{m}{n}", "我想看{n}", "来一{m}{n}", "一张{n}的图片", "一张{n}的照片", "一幅{n}的画", "一幅画，画的是{n}", "{n}的图片", "{n}的插画", "{n}图标",
           "{n}表情", "卡通{n}", "可爱的{n}", "一{m}可爱的{n}", "一{m}简单的{n}", "生成一张{n}的图片", "生成{n}", "绘制一{m}{n}", "这是{n}", "图片中间是{n}"]
CHINESE_GROUND = ["{c}背景上的{x}"] * 2 + ["{x}在{c}背景上"] * 2 + ["{x}，{c}背景"] * 2 + ["{c}背景，{x}", "背景是{c}的{x}", "{x}，背景是{c}", "{x}，背景为{c}",
                  "在{c}背景上的{x}", "{c}的背景上有{x}", "{x}，底色是{c}", "{c}底，{x}", "以{c}为背景，{x}", "{x}，{c}的底", "用{c}做背景，{x}", "{x}，用{c}做背景", "背景是{c}，{x}",
                  "背景选{c}，{x}", "背景：{c}，{x}", "{x}和{c}的背景"]
CHINESE_MORE = ["画面要简单干净", "光线柔和，形状圆润", "放在图片的正中间", "颜色要鲜艳，看起来友好", "不要文字，也不要边框，只要物体", "高质量，三维风格，细节丰富",
                "只画一个物体，周围什么都没有", "这是给我的笔记本封面用的", "非常感谢你的帮助", "要好看一些，细节多一点"]
CHINESE_BEFORE = ["画", "请画", "帮我画", "给我画", "我想画", "我要", "我想要", "我想看", "我想看看", "来", "再来", "生成", "请生成", "绘制", "创作", "设计", "做", "展示", "请展示", "这是", "那是", "这里有", "有",
                  "看见", "看到了", "我有", "他有", "她喜欢", "大家都喜欢", "孩子想要", "想象", "从前有", "图中是", "图片里有", "画面里有", "画面上是", "主题：", "图片：", "今天画", "现在画", "能不能画", "可以画", "麻烦画"]
CHINESE_ADJECTIVES = ["可爱的", "简单的", "好看的", "美丽的", "精致的", "卡通", "立体的", "有趣的", "普通的", "新的", "真实的", "闪亮的", "光滑的", "经典的", "精美的", "完整的", "单独的"]
CHINESE_AFTER = ["吗", "好吗", "谢谢", "的图片", "的图像", "的照片", "的画", "的插画", "的图标", "的表情", "的贴纸", "的模型", "图标", "表情", "插画", "卡通画", "在中间", "，谢谢", "，三维风格", "，高清", "，细节丰富",
                 "，简洁", "，放在中间", "，写实风格", "，光线柔和", "和别的什么都没有", "给我的朋友", "，可以吗", "就好"]
CHINESE_WORDS = list("我你他她的了是在有这那也都就很还要把给让和与吧呢啊吗请想来去做能可会好看") + ["一下", "今天", "现在", "我们", "你们", "大家", "这里", "那里", "什么", "非常", "一起", "已经", "可以", "应该", "喜欢", "觉得", "知道",
                 "时候", "东西", "地方", "样子", "漂亮", "真好看", "特别", "随便", "或者", "因为", "所以", "如果", "最好", "一点", "图", "画面", "风格"]
# Where two drawings are: {x} is left of or above {y}.
RELATIONS = {
    "en": {"beside": ["{x} left of {y}", "{x} to the left of {y}", "{x} on the left of {y}", "{x} on the left side of {y}", "{y} right of {x}", "{y} to the right of {x}",
                      "{y} on the right of {x}", "{x} on the left and {y} on the right", "{x} on the left, {y} on the right", "on the left {x}, on the right {y}", "left: {x}, right: {y}",
                      "{x} with {y} on its right", "{y} with {x} on its left", "{x} and {y}", "{x} and {y} side by side", "{x} next to {y}", "{x} beside {y}"],
           "over": ["{x} above {y}", "{x} over {y}", "{y} below {x}", "{y} under {x}", "{y} beneath {x}", "{y} underneath {x}", "{x} on top of {y}", "{x} on top and {y} below",
                    "{x} at the top, {y} at the bottom", "above {x}, below {y}", "top: {x}, bottom: {y}", "{y} with {x} above it", "{x} with {y} below it"]},
    "zh": {"beside": ["{x}在{y}左边", "{x}在{y}的左侧", "{x}在{y}左面", "{y}在{x}右边", "{y}在{x}的右侧", "{y}在{x}的右面", "左边是{x}，右边是{y}", "左边{x}，右边{y}", "左{x}右{y}", "{x}右边有{y}",
                      "{y}左边有{x}", "{x}和{y}", "{x}与{y}并排", "{x}旁边是{y}"],
           "over": ["{x}在{y}上面", "{x}在{y}上方", "{x}在{y}的上方", "{y}在{x}下面", "{y}在{x}的下方", "上面是{x}，下面是{y}", "上面{x}，下面{y}", "上{x}下{y}", "{x}下面有{y}", "{y}上面有{x}"]}}
# Three drawings: {x} above {y} on the left and {z} on the right.
THREE = {"en": ["{x}, {y} and {z}"] * 3 + ["{x} and {y} and {z}", "{x}, {y}, {z}", "{x} above {y} and {z}", "{x} over {y} and {z}", "{y} and {z} below {x}", "{y} and {z} under {x}", "{x} on top, {y} and {z} below",
                "{x} with {y} and {z} below it", "{x} at the top, {y} at the bottom left and {z} at the bottom right", "{x} together with {y} and {z}"],
         "zh": ["{x}、{y}和{z}"] * 3 + ["{x}和{y}和{z}", "{x}、{y}、{z}", "{x}，{y}，{z}", "{x}、{y}与{z}", "上面是{x}，下面是{y}和{z}", "{x}下面有{y}和{z}", "{x}在{y}和{z}上面", "上面{x}，左下{y}，右下{z}"]}
# One in front of another: {x} is the nearer one.
DEPTH = {"en": ["{x} in front of {y}"] * 4 + ["{y} behind {x}", "{x} standing in front of {y}", "{y} with {x} in front", "{y} with {x} in front of it", "{x} with {y} behind", "in front {x}, behind {y}", "{x} before {y}"],
         "zh": ["{x}在{y}前面"] * 2 + ["{x}在{y}的前面", "{y}前面有{x}", "{y}前面的{x}", "{y}在{x}后面", "{y}在{x}的后面", "{x}后面是{y}", "前面是{x}，后面是{y}", "{x}后面有{y}"]}
# Four of the same.  {p}: plural.
MANY = {"en": ["many {p}"] * 4 + ["lots of {p}", "a lot of {p}", "several {p}", "four {p}", "a group of {p}", "plenty of {p}", "so many {p}", "many, many {p}", "a few {p}", "a bunch of {p}", "a pattern of {p}"],
        "zh": ["很多{n}"] * 3 + ["许多{n}", "好多{n}", "好几{m}{n}", "几{m}{n}", "四{m}{n}", "一群{n}", "一堆{n}", "不少{n}", "很多很多{n}", "许许多多的{n}", "很多{m}{n}"]}
SIZES = {"en": {"small": ["small"] * 3 + ["tiny", "little", "very small", "tiny little", "miniature"], "big": ["big"] * 3 + ["large", "huge", "very big", "giant", "enormous"]},
         "zh": {"small": ["小小的"] * 2 + ["很小的", "小的", "小号的", "非常小的", "微小的", "迷你的"], "big": ["很大的"] * 2 + ["大的", "巨大的", "大号的", "非常大的", "超大的", "特大的"]}}
GRADIENTS = {"en": ["{x} on a {c} to {d} gradient background", "{x} on a background from {c} to {d}", "{x} on a gradient from {c} to {d}", "{x} with a gradient background, {c} to {d}", "{x}, the background fades from {c} to {d}",
                    "{x}, gradient from {c} to {d}"],
             "zh": ["{x}，{c}到{d}的渐变背景", "{c}到{d}渐变背景上的{x}", "背景从{c}渐变到{d}的{x}", "{x}，背景从{c}渐变为{d}", "{x}，从{c}到{d}的渐变", "{c}渐变{d}背景，{x}"]}
ENGLISH_WRITTEN = ["{w}", "the text {w}", "write {w}", "{w} in big letters", "the letters {w}", "write the word {w}", "{w} as text", "lettering: {w}"]
ENGLISH_SIGN = ["a sign with {w}", "a sign that says {w}", "{w} on a sign", "a board with the word {w}", "a sign: {w}", "write {w} on a sign"]
CHINESE_WRITTEN = ["{w}", "写{w}", "写“{w}”", "文字{w}", "{w}字", "写一个{w}字", "{w}两个大字", "文字：{w}"]
CHINESE_SIGN = ["牌子上写着{w}", "一个写着{w}的木牌", "{w}的牌子", "写有{w}的牌子", "牌子：{w}"]
ENDS = {"en": [".", ".", "!", "?", " please", "..."], "zh": ["。", "。", "！", "!", ".", "~"]}


def article(name):
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


def plural(name):
    """Of an English name, by the usual rules: of its last word, or of the one before "of", "with" and the like."""
    head, *tail = re.split("(?=:| (?:of|with|in|on|for|at|without) )", name, maxsplit=1)
    if re.search("[^aeiou]y$", head):
        head = head[:-1] + "ies"
    elif head.endswith(("man", "Man")) and not head.endswith("uman"):
        head = head[:-2] + "en"
    elif re.search("(s|x|z|ch|sh)$", head):
        head += "" if head.endswith("s") and not head.endswith("ss") else "es"
    else:
        head += "s"
    return head + "".join(tail)


def pick(rng, items):
    return items[rng.integers(len(items))]


def word_for(rng, emoji, language, keywords=0.12):
    """The name, or now and then a keyword, one shared by few emoji before one shared by many."""
    if rng.random() < keywords and emoji.keywords[language]:
        weight = np.array([1 / n for _, n in emoji.keywords[language]])
        return emoji.keywords[language][rng.choice(len(weight), p=weight / weight.sum())][0]
    return emoji.names[language]


def strew(rng, text, words, join):
    """Words that mean nothing before and after the text, one to three in all or, seldom, many."""
    n = int(rng.integers(1, 4)) if rng.random() < 0.85 else int(rng.integers(4, 9))
    k = int(rng.integers(0, n + 1))
    return join.join([pick(rng, words) for _ in range(k)] + [text] + [pick(rng, words) for _ in range(n - k)])


def noun(rng, name, language):
    """The name with an article or a measure word, now and then with an adjective that says nothing."""
    x = pick(rng, ADJECTIVES if language == "en" else CHINESE_ADJECTIVES) if rng.random() < 0.25 else ""
    if language == "zh":
        return ("一" + pick(rng, MEASURE) if rng.random() < 0.35 else "") + x + name
    x, det = (x + " " + name).strip(), pick(rng, DETERMINER)
    return article(x) if det == "a" else (det + " " + x).strip()


def around(rng, x, language):
    """Words about what is to be drawn."""
    before, after, words = (BEFORE, AFTER, WORDS) if language == "en" else (CHINESE_BEFORE, CHINESE_AFTER, CHINESE_WORDS)
    space = " " if language == "en" else ""
    if rng.random() < 0.4:
        return strew(rng, x, words, space)
    x = pick(rng, before) + space + x if rng.random() < 0.7 else x
    return x + pick(rng, [space, space, ", " if language == "en" else ""]) + pick(rng, after) if rng.random() < 0.5 else x


def of_one(rng, name, language):
    """A sentence about one drawing."""
    u, forms = rng.random(), ENGLISH if language == "en" else CHINESE
    if u < 0.2:
        return name
    if u < 0.28 and language == "en":
        return article(name)
    if u < 0.50:
        return pick(rng, forms).format(n=name, a=article(name), m=pick(rng, MEASURE))
    return around(rng, noun(rng, name, language), language)


def on_ground(rng, x, colour, language):
    """The sentence x with words for the ground's colour."""
    c = pick(rng, data.COLOURS[colour][1 if language == "en" else 2])
    form = pick(rng, ENGLISH_GROUND if language == "en" else CHINESE_GROUND)
    if language == "en":
        x = x.rstrip("?")
        form = form.replace("a {c}", "an {c}") if c[0] == "o" else form
    return form.format(x=x, c=c)


def finish(rng, x, language, more=0):
    """Phrases that say nothing of the drawing, and punctuation."""
    comma, fillers = (", ", ENGLISH_MORE) if language == "en" else ("，", CHINESE_MORE)
    for f in rng.permutation(len(fillers))[:more]:
        stop = pick(rng, [comma, "。" if language == "zh" else ". "])
        x = x + stop + fillers[f] if rng.random() < 0.75 else fillers[f] + stop + x
    if language == "zh" and rng.random() < 0.25:
        x = x.replace("，", pick(rng, [",", ", ", " "]))
    if rng.random() < 0.2:
        x = x.rstrip("?") + pick(rng, ENDS[language])
    return x


def coloured(rng, name, colour, language):
    """The name with a colour of its own."""
    c = pick(rng, data.COLOURS[colour][1 if language == "en" else 2])
    if language == "en":
        return f"{name} in {c}" if rng.random() < 0.15 else f"{c} {name}"
    return c + name if rng.random() < 0.3 else f"{c}的{name}"


def plain(rng, emoji, colour, own=None, language=None):
    """The plainest prompt for one drawing on a ground."""
    language = language or ("en" if rng.random() < 0.4 else "zh")
    name = emoji.names[language] if own is None else coloured(rng, emoji.names[language], own, language)
    return plain_ground(article(name) if language == "en" else name, colour, language)


def plain_ground(x, colour, language):
    if colour == "white":
        return x
    return ENGLISH_GROUND[0].format(x=x, c=colour) if language == "en" else CHINESE_GROUND[0].format(x=x, c=data.COLOURS[colour][2][0])


def complete(rng, x, colour, language, more, words, ground_said=False):
    """The sentence x with its ground (unless x tells it), strange words and phrases.  words: language -> words that mean nothing (words.py)."""
    if not ground_said and (colour != "white" or rng.random() < 0.25):
        x = on_ground(rng, x, colour, language)
    if words and not more and rng.random() < STRANGE:
        x = strew(rng, x, words[language], " " if language == "en" else "")
    return finish(rng, x, language, more)


def prompt(rng, emoji, colour, language=None, more=0, own=None, words=None):
    """A prompt for one drawing on a ground; `more` phrases are added that say nothing about what is drawn.  own: another colour for the drawing."""
    language = language or ("en" if rng.random() < 0.55 else "zh")
    name = word_for(rng, emoji, language, 0.12 if own is None else 0)
    if own is not None:
        name = coloured(rng, name, own, language)
    return complete(rng, of_one(rng, name, language), colour, language, more, words)


def name_in(rng, emoji, language, simply):
    if not simply and rng.random() < 0.6:
        return noun(rng, emoji.names[language], language)
    return article(emoji.names["en"]) if language == "en" else emoji.names["zh"]


def arranged(rng, forms, several, colour, language=None, more=0, words=None, simply=False):
    """A prompt for drawings of which a wording tells where they are.  forms: language -> wordings of {x}, {y} and {z}, the plainest one first."""
    language = language or ("en" if rng.random() < 0.55 else "zh")
    names = {at: name_in(rng, e, language, simply) for at, e in zip("xyz", several)}
    x = (forms[language][0] if simply else pick(rng, forms[language])).format(**names)
    if simply:
        return plain_ground(x, colour, language)
    return complete(rng, around(rng, x, language) if rng.random() < 0.5 else x, colour, language, more, words)


def pair(rng, first, second, place, colour, language=None, **more):
    """A prompt for two drawings, the first left of ("beside") or above ("over") the second."""
    return arranged(rng, {l: RELATIONS[l][place] for l in RELATIONS}, (first, second), colour, language, **more)


def many(rng, emoji, colour, more=0, words=None, simply=False):
    """A prompt for several of the same."""
    language = "en" if rng.random() < 0.55 else "zh"
    name = emoji.names[language] if simply else word_for(rng, emoji, language, 0.06)
    x = (MANY[language][0] if simply else pick(rng, MANY[language])).format(n=name, p=plural(name), m=pick(rng, MEASURE))
    if simply:
        return plain_ground(x, colour, language)
    return complete(rng, around(rng, x, language) if rng.random() < 0.5 else x, colour, language, more, words)


def sized(rng, emoji, size, colour, more=0, words=None, simply=False):
    """A prompt for a "small" or a "big" drawing."""
    language = "en" if rng.random() < 0.55 else "zh"
    name = emoji.names[language] if simply else word_for(rng, emoji, language, 0.06)
    how = SIZES[language][size][0] if simply else pick(rng, SIZES[language][size])
    if language == "zh":
        x = ("" if simply or rng.random() < 0.6 else "一" + pick(rng, MEASURE)) + how + name
    else:
        x = article(f"{how} {name}") if simply or rng.random() < 0.7 else f"{pick(rng, DETERMINER[6:])} {how} {name}".strip() if rng.random() < 0.7 else f"{article(name)}, {how}"
    if simply:
        return plain_ground(x, colour, language)
    return complete(rng, around(rng, x, language) if rng.random() < 0.5 else x, colour, language, more, words)


def on_gradient(rng, emoji, above, below, more=0, words=None, simply=False):
    """A prompt for a drawing on a ground that goes from one colour at the top to another at the bottom."""
    language = "en" if rng.random() < 0.55 else "zh"
    c, d = (pick(rng, data.COLOURS[c][1 if language == "en" else 2]) for c in (above, below))
    x = plain(rng, emoji, "white", language=language) if simply else of_one(rng, word_for(rng, emoji, language, 0.06), language).rstrip("?")
    x = (GRADIENTS[language][0] if simply else pick(rng, GRADIENTS[language])).format(x=x, c=c, d=d)
    if simply:
        return x
    return complete(rng, x, "white", language, more, words, ground_said=True)


def written(rng, word, sign, colour, more=0, words=None, simply=False):
    """A prompt for a written word, plainly or on a sign."""
    english = word.isascii() if rng.random() < 0.9 else not word.isascii()
    language = "en" if english else "zh"
    forms = (ENGLISH_SIGN if sign else ENGLISH_WRITTEN) if english else CHINESE_SIGN if sign else CHINESE_WRITTEN
    x = (forms[1] if simply else pick(rng, forms)).format(w=word)
    return plain_ground(x, colour, language) if simply else complete(rng, x, colour, language, more, words if rng.random() < 0.5 else None)

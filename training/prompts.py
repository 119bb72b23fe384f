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
# Parts from which more wordings are put together.
BEFORE = ["draw", "paint", "render", "make", "create", "generate", "show me", "give me", "draw me", "paint me", "imagine", "design", "please draw", "please show", "please make",
          "can you draw", "can you show me", "could you paint", "could you make", "would you draw", "i want to see", "i want", "i would like", "i'd like", "i need", "let me see",
          "let's have", "let us see", "how about", "what about", "here is", "here comes", "there is", "there stands", "it is", "this is", "that is", "i see", "i saw", "i have",
          "she has", "he has", "they have", "my friend wants", "my daughter loves", "my son wants", "everybody likes", "think of", "once upon a time there was", "today:", "now", "next:",
          "the picture shows", "a picture with", "an image with", "picture:", "image:", "illustration:", "subject:", "an icon showing", "a drawing showing", "a render of",
          "a close-up of", "a model of", "a toy version of", "a clay model of", "a logo with", "clip art of", "a glossy icon of", "a detailed image of", "a digital painting of"]
DETERMINER = ["a"] * 6 + ["the"] * 3 + ["one", "this", "that", "my", "your", "our", "some", "another", "any", "a single", ""]
ADJECTIVES = ["cute", "simple", "beautiful", "pretty", "cool", "funny", "friendly", "happy", "tiny little", "good", "great", "fine", "perfect", "classic", "typical", "shiny", "glossy", "smooth",
              "detailed", "realistic", "colourful", "colorful", "bright", "new", "old-fashioned", "modern", "ordinary", "famous", "amazing", "wonderful", "charming", "3d", "cartoon", "clean", "real"]
AFTER = ["please", "for me", "for us", "for my friend", "thanks", "now", "today", "again", "by itself", "on its own", "alone", "in the middle", "in the centre", "in 3d", "in 3d style",
         "as an icon", "as an emoji", "as a sticker", "emoji", "icon", "picture", "image", "illustration", "drawing", "render", "cartoon", "clip art", "isolated", "centered",
         "and nothing else", "with soft light", "in bright colours", "in high quality", "if you can", "as you like it", "that looks good", "that i can print", "for a birthday card",
         "to look at", "from the front", "very detailed", "4k", "highly detailed", "digital art", "trending", "smooth shading", "like a toy", "made of plastic"]
# Words that say nothing about what is drawn: strewn about, they teach the text encoder to look for the name.
WORDS = """about after again all almost also always am and any are around as at away be because been before being better both bring but by came can come could day did do does doing done down
each even ever every everyone few find first for from full gave get give go going good got great had half has have her here him his how i if in into is it its just keep kind know
last let like little long look looks lots made make many maybe me mine more most much must my near need never next no not now of off often on once only or other our out over own part
people perhaps place please put quite rather really right said same say see seem set she should show since so some something soon still such sure take than thank that the their them then
there these they thing things think this those though thought through time to today together too took tried try under until up us use used very wait want was way we well went were what when
where which while who why will wish with without would yes yet you your beautiful nice lovely pretty big small tiny large huge left right above below beside between behind front two three
four several pair row group top bottom corner centre center middle side favourite favorite sketch portrait photo scene art style picture image drawing painting render icon lots single alone
standing sitting lying placed put hanging floating holding looking plain solid empty background backdrop ground wall colour color coloured colored dark light gradient written word text sign""".split()
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
CHINESE_BEFORE = ["画", "请画", "帮我画", "给我画", "我想画", "我要", "我想要", "我想看", "我想看看", "来", "再来", "生成", "请生成", "绘制", "创作", "设计", "做", "展示", "请展示", "这是", "那是", "这里有", "有",
                  "看见", "看到了", "我有", "他有", "她喜欢", "大家都喜欢", "孩子想要", "想象", "从前有", "图中是", "图片里有", "画面里有", "画面上是", "主题：", "图片：", "今天画", "现在画", "能不能画", "可以画", "麻烦画"]
CHINESE_ADJECTIVES = ["可爱的", "简单的", "好看的", "美丽的", "精致的", "卡通", "立体的", "有趣的", "普通的", "新的", "真实的", "闪亮的", "光滑的", "经典的", "小小的", "精美的", "完整的", "单独的"]
CHINESE_AFTER = ["吗", "好吗", "谢谢", "的图片", "的图像", "的照片", "的画", "的插画", "的图标", "的表情", "的贴纸", "的模型", "图标", "表情", "插画", "卡通画", "在中间", "，谢谢", "，三维风格", "，高清", "，细节丰富",
                 "，简洁", "，放在中间", "，写实风格", "，光线柔和", "和别的什么都没有", "给我的朋友", "，可以吗", "就好"]
CHINESE_WORDS = list("我你他她的了是在有这那也都就很还要把给让和与吧呢啊吗请想来去做能可会好看") + ["一下", "今天", "现在", "我们", "你们", "大家", "这里", "那里", "什么", "非常", "一起", "已经", "可以", "应该", "喜欢", "觉得", "知道",
                 "时候", "东西", "地方", "样子", "漂亮", "真好看", "特别", "随便", "或者", "因为", "所以", "如果", "最好", "一点", "图", "画面", "风格"]
ENDS = {"en": [".", ".", "!", "?", " please", "..."], "zh": ["。", "。", "！", "!", ".", "~"]}


def article(name):
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


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


def english(rng, name):
    u = rng.random()
    if u < 0.22:
        return pick(rng, ENGLISH[:2]).format(a=article(name), n=name)
    if u < 0.50:
        return pick(rng, ENGLISH).format(a=article(name), n=name)
    noun = pick(rng, ADJECTIVES) + " " + name if rng.random() < 0.3 else name
    det = pick(rng, DETERMINER)
    x = article(noun) if det == "a" else (det + " " + noun).strip()
    if u < 0.80:
        x = pick(rng, BEFORE) + " " + x if rng.random() < 0.7 else x
        return x + pick(rng, [" ", " ", ", "]) + pick(rng, AFTER) if rng.random() < 0.5 else x
    return strew(rng, x, WORDS, " ")


def chinese(rng, name):
    u = rng.random()
    if u < 0.15:
        return name
    if u < 0.50:
        return pick(rng, CHINESE).format(n=name, m=pick(rng, MEASURE))
    x = pick(rng, CHINESE_ADJECTIVES) + name if rng.random() < 0.3 else name
    x = "一" + pick(rng, MEASURE) + x if rng.random() < 0.35 else x
    if u < 0.82:
        x = pick(rng, CHINESE_BEFORE) + x if rng.random() < 0.7 else x
        return x + pick(rng, CHINESE_AFTER) if rng.random() < 0.5 else x
    return strew(rng, x, CHINESE_WORDS, "")


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


def plain(rng, emoji, colour):
    """The plainest prompt for one drawing on a ground."""
    language = "en" if rng.random() < 0.4 else "zh"
    x = article(emoji.names["en"]) if language == "en" else emoji.names["zh"]
    return x if colour == "white" else ENGLISH_GROUND[0].format(x=x, c=colour) if language == "en" else CHINESE_GROUND[0].format(x=x, c=data.COLOURS[colour][2][0])


def prompt(rng, emoji, colour, language=None, more=0, own=None):
    """A prompt for one drawing on a ground; `more` phrases are added that say nothing about what is drawn.  own: another colour for the drawing."""
    language = language or ("en" if rng.random() < 0.55 else "zh")
    name = word_for(rng, emoji, language, 0.12 if own is None else 0)
    if own is not None:
        name = coloured(rng, name, own, language)
    x = english(rng, name) if language == "en" else chinese(rng, name)
    if colour != "white" or rng.random() < 0.25:
        x = on_ground(rng, x, colour, language)
    return finish(rng, x, language, more)

"""Wordings that only evaluate.py uses: training must not have them (prompts.py keeps the words of UNKNOWN out of what it strews)."""
UNKNOWN = {"en": ["kindly depict {a}", "visualise {a}", "behold {a}", "grandma bought {a} yesterday", "whatever happens, remember {a}",
                  "hopefully somebody discovers {a}", "doodle {a} quickly", "{n}, photographed outdoors"],
           "zh": ["描绘{n}", "速写{n}", "昨晚梦见{n}", "奶奶买{n}", "送爸爸一份{n}", "窗边摆着{n}", "拍摄到{n}", "赶紧弄{n}"]}
FAMILIAR = {"en": ["could you sketch {a} for me", "my favourite {n}", "a lovely {n} all alone", "we need {a} here", "look, {a}", "a nice big {n}", "just {a}",
                   "a portrait of {a}"],
            "zh": ["给我看看{n}", "帮我画个{n}吧", "我喜欢{n}", "一幅漂亮的{n}", "大大的{n}", "请给我{n}", "想要{n}的图", "看，{n}"]}
GROUNDS = {"en": ["{a} placed on a {c} background", "{n} standing before a {c} background", "a background in {c} and {a}"],
           "zh": ["{c}背景前面的{n}", "{n}放在{c}背景上", "背景用{c}，画{n}"]}
COLOURED = {"en": ["look, a {c} {n}", "we need a {n} that is {c}", "my {c} {n}"], "zh": ["看，{c}的{n}", "我喜欢{c}的{n}", "请给我{c}{n}"]}
PAIRS = {("en", "beside"): ["look, {a} to the left of {b}", "we need {b} on the right side of {a}"],
         ("en", "over"): ["look, {a} above {b}", "we need {b} underneath {a}"],
         ("zh", "beside"): ["看，{a}在{b}的左边", "请给我{a}，右边是{b}"], ("zh", "over"): ["看，{a}在{b}的上面", "请给我{a}，下面是{b}"]}
THREE = {"en": ["look, {a}, {b} and {c}", "we need {a} above {b} and {c}", "{a} with {b} and with {c}"], "zh": ["看，{a}、{b}和{c}", "请给我{a}，下面是{b}和{c}", "想要{a}、{b}、{c}"]}
MANY = {"en": ["look, many {p}", "we need lots of {p}", "there are many {p} here"], "zh": ["看，很多{n}", "请给我许多{n}", "这里有好多{n}"]}
SIZES = {"small": {"en": ["look, a small {n}", "we need a tiny {n}", "my little {n}"], "zh": ["看，小小的{n}", "请给我很小的{n}", "我喜欢小的{n}"]},
         "big": {"en": ["look, a big {n}", "we need a huge {n}", "my large {n}"], "zh": ["看，巨大的{n}", "请给我很大的{n}", "我喜欢大的{n}"]}}
DEPTH = {"en": ["look, {a} in front of {b}", "we need {b} behind {a}"], "zh": ["看，{a}在{b}的前面", "请给我{a}，后面是{b}"]}
GRADIENTS = {"en": ["look, {a} on a {c} to {d} gradient", "we need {a} on a background from {c} to {d}"], "zh": ["看，{n}，背景从{c}渐变到{d}", "请给我{n}，{c}到{d}的渐变"]}
WRITTEN = {"en": ["the word {w}", "a sign saying {w}"], "zh": ["“{w}”字", "写着{w}的牌子"]}
ODD = ["", " ", "asdf qwer zxcv", "12345", "the meaning of life", "一", "？？？", "🙂", "a cat and a dog and a bird", "BLUE", "x" * 100, "很" * 60,
       "Draw nothing at all, please", "un éléphant dans un jardin", "SELECT * FROM pictures;", "a red heart " * 12]

"""Words that say nothing about what is drawn: words.py DATA QWEN3_TOKENIZER OUT.json.

They are the whole words among Qwen3's tokens, common ones first, without those that a name, a keyword, a colour, a place or
a wording of the evaluation has.  Strewn about a prompt they teach the text encoder to find the name among words it never saw.
Made-up ones, another beginning or end to a word of a name, or characters of two Chinese names, teach that a part of a word ("doodle" ends as "poodle"
does) is not the word.
"""
import argparse
import json
import pathlib
import re

import numpy as np
from tokenizers import Tokenizer

import data
import prompts
import wordings

ENGLISH, CHINESE, MADE_UP = 20000, 12000, {"en": 12000, "zh": 6000}


def meaningful(emoji):
    """English words, and Chinese names, colours and places, that mean something in a prompt."""
    english, chinese = set(data.WRITTEN), set(data.WRITTEN)
    said = [w for e in emoji for w in [e.names["en"]] + [k for k, _ in e.keywords["en"]]] + [w for c in data.COLOURS.values() for w in c[1]]
    arranged = [prompts.THREE, prompts.DEPTH, prompts.MANY, prompts.GRADIENTS] + [{l: forms[k] for l, forms in table.items()} for table in (prompts.RELATIONS, prompts.SIZES) for k in table["en"]]
    said += [form for table in arranged for form in table["en"]] + prompts.ENGLISH_GROUND + prompts.ENGLISH_WRITTEN + prompts.ENGLISH_SIGN
    for text in said + wordings.UNKNOWN["en"]:
        english |= set(re.findall("[a-z]+", text.lower()))
    for e in emoji:
        chinese |= {e.names["zh"]} | {k for k, n in e.keywords["zh"] if n < 6}
    chinese |= {w for c in data.COLOURS.values() for w in c[2]} | set("左右上下旁字写牌底背景前后大小多几四群堆渐变")
    for form in wordings.UNKNOWN["zh"]:
        for part in form.split("{n}"):
            chinese |= {part[i:i + 2] for i in range(len(part) - 1)} | ({part} if len(part) == 1 else set())
    return english, chinese


def made_up(emoji, known):
    """English words that begin or end as a word of a name does."""
    rng, out = np.random.default_rng(31), set()
    words = sorted({w for e in emoji for w in re.findall("[a-z]{4,}", e.names["en"].lower())})
    while len(out) < MADE_UP["en"]:
        one, other = (words[i] for i in rng.integers(len(words), size=2))
        at = int(rng.integers(1, len(one) - 1))
        word = other[:int(rng.integers(1, 3))] + one[at:] if rng.random() < 0.6 else one[:at + 1] + other[-int(rng.integers(1, 4)):]
        if word not in known:
            out.add(word)
    return sorted(out)


def made_up_chinese(emoji, known):
    """Two characters, one of them from a name, that together are in no name."""
    rng, out = np.random.default_rng(32), set()
    parts = sorted({c for e in emoji for c in e.names["zh"] if len(e.names["zh"]) > 1 and "\u4e00" <= c <= "\u9fff"} - known)
    names = "，".join(w for e in emoji for w in [e.names["zh"]] + [k for k, _ in e.keywords["zh"]])
    while len(out) < MADE_UP["zh"]:
        word = "".join(parts[i] for i in rng.integers(len(parts), size=2))
        if word not in known and word not in names:
            out.add(word)
    return sorted(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("real", type=pathlib.Path), ap.add_argument("out", type=pathlib.Path)
    a = ap.parse_args()
    tok = Tokenizer.from_file(str(a.real / "tokenizer.json"))
    emoji = data.load_emoji(a.data)
    english, chinese = meaningful(emoji)
    out = {"en": [], "zh": []}
    for i in range(tok.get_vocab_size(with_added_tokens=False)):
        word = tok.decode([i])
        if re.fullmatch(" [a-z]{3,14}", word) and word[1:] not in english:
            out["en"].append(word[1:])
        elif re.fullmatch("[\u4e00-\u9fff]{1,4}", word) and not any(word[x:y] in chinese for x in range(len(word)) for y in range(x + 1, len(word) + 1)):
            out["zh"].append(word)
    out = {"en": out["en"][:ENGLISH] + made_up(emoji, english), "zh": out["zh"][:CHINESE] + made_up_chinese(emoji, chinese)}
    a.out.write_text(json.dumps(out, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(out['en'])} English and {len(out['zh'])} Chinese words")


if __name__ == "__main__":
    main()

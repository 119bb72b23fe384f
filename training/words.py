"""Words that say nothing about what is drawn: words.py DATA QWEN3_TOKENIZER OUT.json.

They are the whole words among Qwen3's tokens, common ones first, without those that a name, a keyword, a colour, a place or
a wording of the evaluation has.  Strewn about a prompt they teach the text encoder to find the name among words it never saw.
"""
import argparse
import json
import pathlib
import re

from tokenizers import Tokenizer

import data
import prompts
import wordings

ENGLISH, CHINESE = 20000, 12000


def meaningful(emoji):
    """English words, and Chinese names, colours and places, that mean something in a prompt."""
    english, chinese = set(data.WRITTEN), set(data.WRITTEN)
    said = [w for e in emoji for w in [e.names["en"]] + [k for k, _ in e.keywords["en"]]] + [w for c in data.COLOURS.values() for w in c[1]]
    said += [form for forms in prompts.RELATIONS["en"].values() for form in forms] + prompts.ENGLISH_GROUND + prompts.ENGLISH_WRITTEN + prompts.ENGLISH_SIGN
    for text in said + wordings.UNKNOWN["en"]:
        english |= set(re.findall("[a-z]+", text.lower()))
    for e in emoji:
        chinese |= {e.names["zh"]} | {k for k, n in e.keywords["zh"] if n < 6}
    chinese |= {w for c in data.COLOURS.values() for w in c[2]} | set("左右上下旁字写牌底背景")
    for form in wordings.UNKNOWN["zh"]:
        for part in form.split("{n}"):
            chinese |= {part[i:i + 2] for i in range(len(part) - 1)} | ({part} if len(part) == 1 else set())
    return english, chinese


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("real", type=pathlib.Path), ap.add_argument("out", type=pathlib.Path)
    a = ap.parse_args()
    tok = Tokenizer.from_file(str(a.real / "tokenizer.json"))
    english, chinese = meaningful(data.load_emoji(a.data))
    out = {"en": [], "zh": []}
    for i in range(tok.get_vocab_size(with_added_tokens=False)):
        word = tok.decode([i])
        if re.fullmatch(" [a-z]{3,14}", word) and word[1:] not in english:
            out["en"].append(word[1:])
        elif re.fullmatch("[\u4e00-\u9fff]{1,4}", word) and not any(word[x:y] in chinese for x in range(len(word)) for y in range(x + 1, len(word) + 1)):
            out["zh"].append(word)
    out = {"en": out["en"][:ENGLISH], "zh": out["zh"][:CHINESE]}
    a.out.write_text(json.dumps(out, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(out['en'])} English and {len(out['zh'])} Chinese words")


if __name__ == "__main__":
    main()

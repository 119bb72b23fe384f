"""Cut the Qwen3 tokenizer down to the tokens that the prompts need: tokenizer.py DATA QWEN3_TOKENIZER OUT.

Kept as they are: normalizer, splitting pattern, byte level, the 256 bytes, the added tokens, the chat template.  Of the merges
the first BASE stay (common pieces of any text), then whatever a large sample of prompts uses, most used first, until VOCAB.
A token is kept only with every token that it is merged from, so what was one token stays one.

The capitals A to Z have the ids of a to z, and no longer token holds one: merges go by ids, so "A RED HEART" becomes the very ids
of "a red heart".  (A normalizer that lower-cases would not do: transformers' Qwen2Tokenizer sets its own.)
"""
import argparse
import collections
import json
import pathlib
import string

import numpy as np
from tokenizers import Tokenizer

import data
import prompts

VOCAB, BASE = 8224, 1000


def corpus(emoji):
    """(text, weight): every name and keyword, with and without a space before it, and sampled prompts."""
    rng = np.random.default_rng(5)
    for e in emoji:
        for language in "en", "zh":
            for w, weight in [(e.names[language], 40)] + [(w, 4) for w, _ in e.keywords[language]]:
                yield w, weight
                if language == "en":
                    yield " " + w, weight
    for _ in range(60000):
        yield prompts.prompt(rng, emoji[rng.integers(len(emoji))], data.COLOUR_NAMES[rng.integers(13)], more=int(rng.integers(3))), 2
    for w in prompts.WORDS:
        yield " " + w, 40
    yield prompts.CHAT.format("") + "system\n<think>\n\n</think>\n\n", 10 ** 6
    for c in data.COLOURS.values():
        for w in c[1] + c[2]:
            for form in w, " " + w:
                yield form, 1000


def has_capital(text):
    return any(c in string.ascii_uppercase for c in text)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("real", type=pathlib.Path), ap.add_argument("out", type=pathlib.Path)
    a = ap.parse_args()
    full = json.loads((a.real / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges, added = full["model"]["vocab"], full["model"]["merges"], full["added_tokens"]
    pairs = [m.split(" ") if isinstance(m, str) else m for m in merges]
    made_by = {vocab[x + y]: n for n, (x, y) in reversed(list(enumerate(pairs)))}  # token -> its merge
    tok = Tokenizer.from_file(str(a.real / "tokenizer.json"))
    count = collections.Counter()
    for text, weight in corpus(data.load_emoji(a.data)):
        for i in tok.encode(text.lower(), add_special_tokens=False).ids:
            count[i] += weight

    def family(i):
        todo, seen = [i], set()
        while todo:
            i = todo.pop()
            if i not in seen:
                seen.add(i)
                if i in made_by:
                    todo += [vocab[p] for p in pairs[made_by[i]]]
        return seen

    room = VOCAB - len(added) - len(string.ascii_uppercase)
    keep = {i for t, i in vocab.items() if i not in made_by and not has_capital(t)}
    for n in range(BASE):
        if not has_capital("".join(pairs[n])):
            keep.add(vocab["".join(pairs[n])])
    special = {t["id"] for t in added}
    left_out = 0
    for i, c in sorted(count.items(), key=lambda e: (-e[1], e[0])):
        if i in special:
            continue
        new = keep | family(i)
        if len(new) <= room:
            keep = new
        else:
            left_out += c
    for n in range(BASE, len(pairs)):
        if len(keep) >= room:
            break
        if all(vocab[p] in keep for p in pairs[n]) and not has_capital("".join(pairs[n])):
            keep.add(vocab["".join(pairs[n])])
    order = {i: n for n, i in enumerate(sorted(keep))}
    small = {t: order[i] for t, i in sorted(vocab.items(), key=lambda e: e[1]) if i in keep}
    small |= {c: small[c.lower()] for c in string.ascii_uppercase}
    # the added tokens follow the number of entries, as transformers counts; so 26 ids are nobody's
    moved = {t["id"]: len(small) + n for n, t in enumerate(added)}
    model = dict(full["model"], vocab=small, merges=[m for m, p in zip(merges, pairs) if vocab["".join(p)] in keep and all(vocab[x] in keep for x in p)])
    small = dict(full, model=model, added_tokens=[dict(t, id=moved[t["id"]]) for t in added])
    config = json.loads((a.real / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["added_tokens_decoder"] = {str(moved[int(k)]): v for k, v in config["added_tokens_decoder"].items()}
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "tokenizer.json").write_text(json.dumps(small, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    (a.out / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(f"{len(order)} + {len(added)} tokens; {left_out / sum(count.values()):.2%} of the sample's tokens are split further")


if __name__ == "__main__":
    main()

"""A word at the start of a prompt gets the ids that it has after a space: first_words.py DATA TOKENIZER_DIR (changed in place).

Byte-level BPE has other tokens for "fox" than for " fox", often several for the one and one for the other, so every name would have to be learnt
twice.  Here entries of the vocabulary without a space take the id of those with one, as the capitals have the ids of small letters, and where the
word with a space is one token, merges are added that make the word without one a token as well.  As many entries that no prompt uses go.
"""
import argparse
import collections
import json
import pathlib
import re
import string

import numpy as np
from tokenizers import Tokenizer

import data
import prompts

SPACE, SHORTEST = "Ġ", 3
SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # other letters stand for bytes


class Joiner:
    def __init__(self, path):
        self.path, self.full = path, json.loads(path.read_text(encoding="utf-8"))
        self.tok, self.vocab = Tokenizer.from_file(str(path)), self.full["model"]["vocab"]
        self.merges = [m.split(" ") if isinstance(m, str) else m for m in self.full["model"]["merges"]]
        self.joined = 0
        self.wanted = []  # words that need an entry: (word, its tokens, id)

    def pieces(self, text):
        """Tokens as strings, small letters."""
        return [t.translate(SMALL) for t in self.tok.encode(text.lower(), add_special_tokens=False).tokens]

    def ids(self, text):
        return self.tok.encode(text.lower(), add_special_tokens=False).ids

    def alias(self, plain, spaced):
        """The entry `plain` takes the id of `spaced`, and so does everything that merges make of both with the same piece."""
        if plain not in self.vocab or spaced not in self.vocab or self.vocab[plain] == self.vocab[spaced]:
            return
        self.vocab[plain] = self.vocab[spaced]
        self.joined += 1
        after = lambda t: {b for a, b in self.merges if a == t}
        for piece in after(plain) & after(spaced):
            self.alias(plain + piece, spaced + piece)

    def share(self, w):
        """First way: the pieces are the same but for the space."""
        spaced, plain = self.pieces(" " + w), self.pieces(w)
        if len(plain[0]) >= SHORTEST and spaced == [SPACE + plain[0]] + plain[1:]:
            self.alias(plain[0], spaced[0])

    def want(self, w):
        """Second way: the word with a space is one token."""
        spaced, plain = self.tok.encode(" " + w, add_special_tokens=False), self.tok.encode(w, add_special_tokens=False)
        if len(spaced) == 1 and len(plain) > 1:
            self.wanted.append((w, [w[x:y] for x, y in plain.offsets], spaced.ids[0]))

    def spare(self, used):
        """Entries that no prompt uses (used: their ids) and nothing is made of, the last merges first."""
        parts = collections.Counter([p for m in self.merges for p in m] + [p for _, pieces, _ in self.wanted for p in pieces])
        for a, b in reversed(self.merges):
            if self.vocab[a + b] not in used and not parts[a + b]:
                parts[a] -= 1
                parts[b] -= 1
                yield [a, b]

    def grow(self, used):
        """Entries for the words that need one, while there are spare ones.  What lies between takes the id of a spare entry."""
        spare, gone, made = self.spare(used), [], {(self.vocab[a], self.vocab[b]) for a, b in self.merges}
        for w, plain, number in self.wanted:
            steps = [("".join(plain[:n]), plain[n]) for n in range(1, len(plain))]
            if any(a + b in self.vocab or (self.vocab.get(a), self.vocab[b]) in made for a, b in steps):
                continue
            free = [m for _, m in zip(steps, spare)]
            if len(free) < len(steps):
                break
            for (a, b), old in zip(steps, free):
                gone.append(old)
                self.vocab[a + b] = number if a + b == w else self.vocab["".join(old)]
                self.merges.append([a, b])
                made.add((self.vocab[a], self.vocab[b]))
            self.joined += 1
        for a, b in gone:
            del self.vocab[a + b]
            self.merges.remove([a, b])

    def save(self):
        """Merges go by ids: of two that are the same by now the first stays."""
        made, kept = {}, []
        for a, b in self.merges:
            pair, result = (self.vocab[a], self.vocab[b]), self.vocab[a + b]
            if pair not in made:
                kept.append([a, b])
            if made.setdefault(pair, result) != result:
                raise SystemExit(f"first_words.py: '{a}' and '{b}' would make two tokens")
        self.full["model"]["merges"] = [" ".join(m) for m in kept] if isinstance(self.full["model"]["merges"][0], str) else kept
        self.path.write_text(json.dumps(self.full, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("tokenizer", type=pathlib.Path)
    a = ap.parse_args()
    path, emoji, words = a.tokenizer / "tokenizer.json", data.load_emoji(a.data), collections.Counter({w: 100 for w in prompts.WORDS})
    for e in emoji:
        for text, weight in [(e.names["en"], 10)] + [(k, 1) for k, _ in e.keywords["en"]]:
            for w in re.findall("^[a-z]+", text.lower()):
                words[w] += weight
    words = [w for w, _ in words.most_common()]
    joiner = Joiner(path)
    for w in words:
        joiner.share(w)
    joiner.save()
    joined, joiner, used, rng = joiner.joined, Joiner(path), set(), np.random.default_rng(6)
    for e in emoji:
        for text in [e.names["zh"], e.names["en"], " " + e.names["en"]] + [x for k, _ in e.keywords["en"] for x in (k, " " + k)] + [k for k, _ in e.keywords["zh"]]:
            used |= set(joiner.ids(text))
    for _ in range(20000):
        used |= set(joiner.ids(prompts.prompt(rng, emoji[rng.integers(len(emoji))], data.COLOUR_NAMES[rng.integers(13)], more=int(rng.integers(3)))))
    used |= set(joiner.ids(prompts.CHAT.format("") + "system\n<think>\n\n</think>\n\n"))
    for w in words:
        joiner.want(w)
    joiner.grow(used)
    joiner.save()
    after = Tokenizer.from_file(str(joiner.path))
    same = [after.encode(w).ids == after.encode(" " + w).ids for w in words]
    print(f"{joined + joiner.joined} entries joined; {sum(same)} of {len(words)} first words have the ids that they have after a space")


if __name__ == "__main__":
    main()

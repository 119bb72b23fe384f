"""Teach the text encoder which picture the words mean, before any diffusion: text.py DATA WORK [--seconds CPU].

From the hidden states of the last five template tokens (they have seen the whole prompt) linear heads predict the picture's
principal components: one token for each quarter of the latent, one for the whole and for the ground's colour; of two or three drawings, one token
for each.  The heads are thrown away afterwards.
"""
import argparse
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3Model

import data
import examples
import prompts
import wordings
from optim import Muon, decay, save

PARTS, COMPONENTS = 5, 80
HEADS_ALONE = 200  # steps
BATCH, LR_MUON, LR_ADAM, LR_EMBED = 256, 0.02, 2e-3, 5e-3


def config(tok):
    return Qwen3Config(vocab_size=tok.get_vocab_size(), hidden_size=256, intermediate_size=512, num_hidden_layers=3, max_window_layers=3,
                       num_attention_heads=4, num_key_value_heads=2, head_dim=64, rms_norm_eps=1e-6, rope_theta=1000000.0,
                       max_position_embeddings=40960, tie_word_embeddings=True, attention_bias=False, use_sliding_window=False,
                       bos_token_id=tok.token_to_id("<|endoftext|>"), eos_token_id=tok.token_to_id("<|im_end|>"))


def trained(encoder):
    """The parameters that matter: the last layer is never used."""
    return [p for layer in encoder.layers[:-1] for p in layer.parameters()] + [encoder.embed_tokens.weight]


def load_averages(state, encoder, transformer=None):
    """From a checkpoint of denoiser.py."""
    for p, v in zip(trained(encoder) + list(transformer.parameters() if transformer else []), state["ema"]["shadow"]):
        p.data.copy_(v)


def load_model(path, encoder, transformer=None):
    """From a checkpoint of denoiser.py, or from a directory in diffusers' layout as export.py writes it."""
    if not path.is_dir():
        load_averages(torch.load(path), encoder, transformer)
        return
    encoder.load_state_dict({k.removeprefix("model."): v for k, v in load_file(path / "text_encoder/model.safetensors").items()})
    if transformer:
        transformer.load_state_dict(load_file(path / "transformer/diffusion_pytorch_model.safetensors"))


def new_encoder(tok):
    torch.manual_seed(3)
    model = Qwen3Model(config(tok))
    model.embed_tokens.weight.data.normal_(0, 1)
    for layer in model.layers:
        for n, p in layer.named_parameters():
            if p.ndim == 2:
                p.data.normal_(0, p.shape[1] ** -0.5)
                if "o_proj" in n or "down_proj" in n:
                    p.data *= 0.5
    last = model.layers[-1]  # its output is never used
    last.self_attn.o_proj.weight.data.zero_(), last.mlp.down_proj.weight.data.zero_()
    return model


def tokenize(tok, texts, rows=None):
    """ids, lengths: padded on the right to `rows` or to the longest."""
    ids = [e.ids for e in tok.encode_batch([prompts.CHAT.format(t) for t in texts], add_special_tokens=False)]
    lengths = torch.tensor([len(i) for i in ids])
    pad = tok.token_to_id("<|endoftext|>")
    rows = rows or int(lengths.max())
    return torch.tensor([i + [pad] * (rows - len(i)) for i in ids]), lengths


def encode(model, ids):
    """hidden_states[-2]: the output of the last layer but one."""
    h = model.embed_tokens(ids)
    pos = torch.arange(ids.shape[1])[None]
    rope = model.rotary_emb(h, pos)
    for layer in model.layers[:-1]:
        h = layer(h, attention_mask=None, position_ids=pos, position_embeddings=rope)
        h = h if torch.is_tensor(h) else h[0]
    return h


class Heads(torch.nn.Module):
    """What the last five template tokens' states say about the picture; only for training."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList([torch.nn.Linear(256, COMPONENTS) for _ in range(PARTS)])
        self.several = torch.nn.ModuleList([torch.nn.Linear(256, COMPONENTS) for _ in range(3)])
        self.ground, self.kind = torch.nn.Linear(256, len(data.COLOUR_NAMES)), torch.nn.Linear(256, examples.THREE)

    def tail(self, h, lengths):
        at = lengths[:, None] - PARTS + torch.arange(PARTS)
        return F.rms_norm(h.float()[torch.arange(len(h))[:, None], at], (256,))

    def one(self, tail):
        """Components of the one drawing: four quarters, and the whole."""
        return torch.stack([head(tail[:, i]) for i, head in enumerate(self.parts)], 1)

    def each(self, tail):
        """Components of the first, the second and the third drawing, each as a whole."""
        return torch.stack([head(tail[:, i]) for i, head in enumerate(self.several)], 1)

    def loss(self, h, lengths, lessons, want):
        """lessons: rows of (kind, first, second, third, ground) as examples.py has them; want: targets()."""
        tail, kind = self.tail(h, lengths), lessons[:, 0]
        some, several = kind > examples.NOTHING, kind >= examples.BESIDE
        one = some & ~several
        loss = 0.1 * F.cross_entropy(self.ground(tail[some, -1]), lessons[some, 4]) + 0.1 * F.cross_entropy(self.kind(tail[some, -1]), kind[some] - 1)
        share = one.sum() / some.sum()
        if one.any():
            loss = loss + share * F.mse_loss(self.one(tail[one]), want[lessons[one, 1]])
        if several.any():
            there = torch.stack([torch.ones_like(kind[several]).bool()] * 2 + [kind[several] == examples.THREE], 1)
            loss = loss + (1 - share) * F.mse_loss(self.each(tail[several])[there], want[lessons[several, 1:4], -1][there])
        return loss


def targets(latents, count):
    """N x PARTS x COMPONENTS: principal components, those of the first `count`, of the four quarters and of the whole; share of variance in the quarters."""
    z = latents.float()
    h = z.shape[-1] // 2
    parts = [z[..., :h, :h], z[..., :h, h:], z[..., h:, :h], z[..., h:, h:], z]
    out, kept, total = [], 0.0, 0.0
    for n, p in enumerate(parts):
        p = p.flatten(1)
        p = p - p[:count].mean(0)
        c = p @ torch.linalg.svd(p[:count], full_matrices=False)[2][:COMPONENTS].T
        if n < 4:
            kept, total = kept + float(c[:count].square().sum()), total + float(p[:count].square().sum())
        out.append(c / c[:count].square().mean().sqrt())
    return torch.stack(out, 1), kept / total


def sample_batches(source, count=8):
    """(lessons, prompts) `count` times, prompts of like length together: padding costs time."""
    some = [source.next(more=int(source.rng.integers(1, 4)) if source.rng.random() < 0.12 else 0) for _ in range(count * BATCH)]
    some = sorted((e for e in some if e.lesson[0] != examples.NOTHING), key=lambda e: len(e.words.encode()))
    size = len(some) // count
    return [(torch.tensor([e.lesson for e in some[k * size:][:size]]), [e.words for e in some[k * size:][:size]]) for k in source.rng.permutation(count)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--after", type=pathlib.Path, help="an earlier checkpoint of denoiser.py, or a model: its text encoder goes on, after the heads alone have learnt to read it")
    ap.add_argument("--seconds", type=float, default=900), ap.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    a = ap.parse_args()
    ckpt = a.work / "text.pt"
    tok = Tokenizer.from_file(str(a.work / "tokenizer/tokenizer.json"))
    emoji = data.load_emoji(a.data)
    source = examples.Examples(emoji, a.work, 100)
    want, kept = targets(source.pictures, len(emoji))
    print(f"{COMPONENTS} components a part hold {kept:.1%} of the quarters' variance", flush=True)
    model = new_encoder(tok)
    heads = Heads()
    matrices = [p for l in model.layers[:-1] for p in l.parameters() if p.ndim == 2]
    small = [p for l in model.layers[:-1] for p in l.parameters() if p.ndim == 1] + list(heads.parameters())
    muon = Muon(matrices, LR_MUON)
    adam = torch.optim.Adam([dict(params=small, lr=LR_ADAM, base=LR_ADAM), dict(params=[model.embed_tokens.weight], lr=LR_EMBED, base=LR_EMBED)], betas=(0.9, 0.98))
    step, used = 0, 0.0
    if ckpt.exists():
        s = torch.load(ckpt)
        step, used = s["step"], s["cpu"]
        for o, k in (model, "model"), (heads, "heads"), (muon, "muon"), (adam, "adam"):
            o.load_state_dict(s[k])
        source.rng = np.random.default_rng(100 + step)
    elif a.after:
        load_model(a.after, model)

    def states(texts):
        ids, lengths = tokenize(tok, texts)
        with torch.autocast("cpu", torch.bfloat16):
            return encode(model, ids), lengths

    @torch.no_grad()
    def check():
        """How often the right drawing is nearest, in prompts like those of training, in unknown words, and in pairs."""
        r, words = np.random.default_rng(7), []
        for l in "en", "zh":
            which = r.choice(len(emoji), 256, replace=False)
            name = lambda i: emoji[i].names[l]
            forms = wordings.UNKNOWN[l]
            tests = {"": [prompts.prompt(r, data.Emoji(emoji[i].code, emoji[i].names, {"en": [], "zh": []}), data.COLOUR_NAMES[r.integers(13)], l) for i in which],
                     " bare": [name(i) for i in which],
                     " unknown": [forms[n % len(forms)].format(n=name(i), a=prompts.article(name(i))) for n, i in enumerate(which)]}
            for kind, texts in tests.items():
                got = heads.one(heads.tail(*states(texts)))
                near = torch.cdist(got.flatten(1), want[:len(emoji)].flatten(1)).argmin(1)
                words.append(f"{l}{kind} {float((near == torch.from_numpy(which)).float().mean()):.1%}")
            got = heads.each(heads.tail(*states([prompts.pair(r, emoji[i], emoji[j], list(data.PLACES)[k % 2], "white", l) for k, (i, j) in enumerate(zip(which, which[::-1]))])))[:, :2]
            near = torch.cdist(got.transpose(0, 1), want[:len(emoji), -1][None].expand(2, -1, -1)).argmin(2)
            right = (near == torch.from_numpy(np.stack([which, which[::-1]])))
            words.append(f"{l} pairs {float(right.float().mean()):.1%}")
        return ", ".join(words)

    start, saved, ready = time.process_time() - used, time.time(), []
    while used < a.seconds:
        used = time.process_time() - start
        rate = min(1, (step + 1) / 20) * decay(min(1, used / a.seconds), 0.4) * a.rate
        muon.param_groups[0]["lr"] = LR_MUON * rate
        for g in adam.param_groups:
            g["lr"] = g["base"] * rate
        if not ready:
            ready = sample_batches(source)
        lessons, texts = ready.pop()
        with torch.set_grad_enabled(not a.after or step >= HEADS_ALONE):
            h, lengths = states(texts)
        loss = heads.loss(h, lengths, lessons, want)
        loss.backward()
        muon.step(), adam.step(), model.zero_grad(), heads.zero_grad()
        step += 1
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} cpu {used:.0f}s" + (f" right drawing: {check()}" if step % 150 == 0 else ""), flush=True)
        if time.time() - saved > 60 or used >= a.seconds:
            save(ckpt, step=step, cpu=used, model=model.state_dict(), heads=heads.state_dict(), muon=muon.state_dict(), adam=adam.state_dict())
            saved = time.time()
    print("end:", check())


if __name__ == "__main__":
    main()

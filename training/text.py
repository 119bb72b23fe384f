"""Teach the text encoder which picture the words mean, before any diffusion: text.py DATA WORK [--seconds CPU].

From the hidden states of the last five template tokens (they have seen the whole prompt) linear heads predict the picture's
principal components: one token for each quarter of the latent, one for the whole and for the ground's colour.  The heads are
thrown away afterwards.
"""
import argparse
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3Model

import data
import prompts
from optim import Muon, decay, save

PARTS, COMPONENTS = 5, 80
BATCH, LR_MUON, LR_ADAM, LR_EMBED = 256, 0.02, 2e-3, 5e-3


def config(tok):
    return Qwen3Config(vocab_size=tok.get_vocab_size(), hidden_size=256, intermediate_size=512, num_hidden_layers=3, max_window_layers=3,
                       num_attention_heads=4, num_key_value_heads=2, head_dim=64, rms_norm_eps=1e-6, rope_theta=1000000.0,
                       max_position_embeddings=40960, tie_word_embeddings=True, attention_bias=False, use_sliding_window=False,
                       bos_token_id=tok.token_to_id("<|endoftext|>"), eos_token_id=tok.token_to_id("<|im_end|>"))


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


def new_heads():
    return torch.nn.ModuleList([torch.nn.Linear(256, COMPONENTS) for _ in range(PARTS)] + [torch.nn.Linear(256, len(data.COLOUR_NAMES))])


def read(heads, h, lengths):
    """What the last five template tokens' states say: components, colour."""
    at = lengths[:, None] - PARTS + torch.arange(PARTS)
    tail = F.rms_norm(h.float()[torch.arange(len(h))[:, None], at], (256,))
    return torch.stack([heads[i](tail[:, i]) for i in range(PARTS)], 1), heads[PARTS](tail[:, -1])


def targets(latents):
    """N x PARTS x COMPONENTS: principal components of the four quarters and of the whole; share of variance in the quarters."""
    z = latents.float()
    h = z.shape[-1] // 2
    parts = [z[..., :h, :h], z[..., :h, h:], z[..., h:, :h], z[..., h:, h:], z]
    out, kept, total = [], 0.0, 0.0
    for n, p in enumerate(parts):
        p = p.flatten(1)
        p = p - p.mean(0)
        u, s, _ = torch.linalg.svd(p, full_matrices=False)
        c = (u * s)[:, :COMPONENTS]
        if n < 4:
            kept, total = kept + float(c.square().sum()), total + float(p.square().sum())
        out.append(c / c.square().mean().sqrt())
    return torch.stack(out, 1), kept / total


def sample_batches(rng, emoji, count=8):
    """(drawings, grounds, prompts) `count` times, prompts of like length together: padding costs time."""
    which, ground = rng.integers(len(emoji), size=count * BATCH), rng.integers(len(data.COLOUR_NAMES), size=count * BATCH)
    ground[rng.random(count * BATCH) < 0.3] = 0
    texts = [prompts.prompt(rng, emoji[i], data.COLOUR_NAMES[g], more=int(rng.integers(1, 4)) if rng.random() < 0.12 else 0) for i, g in zip(which, ground)]
    order = np.argsort([len(t.encode()) for t in texts], kind="stable").reshape(count, BATCH)
    return [(which[o], ground[o], [texts[i] for i in o]) for o in rng.permutation(order)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--seconds", type=float, default=560), ap.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    a = ap.parse_args()
    ckpt = a.work / "text.pt"
    tok = Tokenizer.from_file(str(a.work / "tokenizer/tokenizer.json"))
    emoji = data.load_emoji(a.data)
    want, kept = targets(torch.load(a.work / "latents.pt")["latents"][:, 0])
    print(f"{COMPONENTS} components a part hold {kept:.1%} of the quarters' variance", flush=True)
    model = new_encoder(tok)
    heads = new_heads()
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
    rng = np.random.default_rng(100 + step)

    def predict(texts):
        ids, lengths = tokenize(tok, texts)
        with torch.autocast("cpu", torch.bfloat16):
            h = encode(model, ids)
        return read(heads, h, lengths)

    def check():
        r = np.random.default_rng(7)
        words = []
        with torch.no_grad():
            for l in "en", "zh":
                which = r.choice(len(emoji), 256, replace=False)
                got, _ = predict([prompts.prompt(r, data_without_keywords(emoji[i]), data.COLOUR_NAMES[r.integers(13)], l) for i in which])
                near = torch.cdist(got.flatten(1), want.flatten(1)).argmin(1)
                r2 = 1 - (got - want[which]).square().sum() / (want[which] - want.mean(0)).square().sum()
                words.append(f"{l} {float((near == torch.from_numpy(which)).float().mean()):.1%} R2 {float(r2):.2f}")
        return ", ".join(words)

    def data_without_keywords(e):
        return data.Emoji(e.code, e.names, {"en": [], "zh": []})

    start, saved, ready = time.process_time() - used, time.time(), []
    while used < a.seconds:
        used = time.process_time() - start
        rate = min(1, (step + 1) / 20) * decay(min(1, used / a.seconds), 0.4) * a.rate
        muon.param_groups[0]["lr"] = LR_MUON * rate
        for g in adam.param_groups:
            g["lr"] = g["base"] * rate
        if not ready:
            ready = sample_batches(rng, emoji)
        which, ground, texts = ready.pop()
        got, colour = predict(texts)
        loss = F.mse_loss(got, want[which]) + 0.1 * F.cross_entropy(colour, torch.from_numpy(ground))
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

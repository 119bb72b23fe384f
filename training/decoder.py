"""Go on with the decoder alone, on whole pictures: decoder.py DATA WORK [--seconds CPU].

The latents are fixed by now, so this changes nothing for the transformer.  Crops and whole pictures differ in what GroupNorm sees;
a little noise on the latents stands for the transformer's errors.  Where an edge lies exactly the latents often do not say, and the mean of
all places is soft: so the strength of the edges of a neighbourhood is compared too.  Writes WORK/vae-final/.
"""
import argparse
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import data
from optim import Ema, Muon, save
from vae import loss_of, psnr

BATCH, LR_MUON, LR_ADAM, NOISE, SHARP = 2, 0.004, 4e-4, 0.06, 15.0


def edges(x):
    """Mean strength of the edges about every eighth pixel."""
    y = x.mean(1, keepdim=True)
    dx, dy = y[..., :-1, 1:] - y[..., :-1, :-1], y[..., 1:, :-1] - y[..., :-1, :-1]
    return F.avg_pool2d((dx * dx + dy * dy + 1e-6).sqrt(), 16, 8)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--seconds", type=float, default=320)
    a = ap.parse_args()
    torch.manual_seed(6)
    ckpt, stored, emoji = a.work / "decoder.pt", torch.load(a.work / "latents.pt"), data.load_emoji(a.data)
    vae = AutoencoderKL.from_pretrained(a.work / "vae").to(memory_format=torch.channels_last)
    c, dec = vae.config, vae.decoder
    latents, grounds = stored["latents"], stored["grounds"].numpy()
    # the trunk stays as it is (see vae.py)
    matrices = [p for n, p in dec.named_parameters() if p.ndim == 4 and not any(w in n for w in ("conv_in", "conv_out", "samplers", "conv_shortcut"))]
    small = [p for n, p in dec.named_parameters() if p.ndim == 1 or "conv_in" in n or "conv_out" in n or "to_" in n]
    muon, adam = Muon(matrices, LR_MUON), torch.optim.Adam(small, LR_ADAM)
    ema, step, used = Ema(matrices + small, 0.98), 0, 0.0
    if ckpt.exists():
        s = torch.load(ckpt)
        step, used = s["step"], s["cpu"]
        for o, k in (dec, "decoder"), (muon, "muon"), (adam, "adam"), (ema, "ema"):
            o.load_state_dict(s[k])
    rng = np.random.default_rng(60 + step)

    def pictures(which):
        x = data.to_model(np.stack([data.compose(data.load_drawing(a.data, emoji[i].code), data.PALETTE[grounds[i, k]]) for i, k in which]))
        z = torch.stack([latents[i, k] for i, k in which]).float()
        return x, z

    check = [(int(i), n % 2) for n, i in enumerate(np.random.default_rng(0).choice(len(emoji), 16, replace=False))]

    @torch.no_grad()
    def measure():
        ema.swap()
        x, z = pictures(check)
        with torch.autocast("cpu", torch.bfloat16):
            y = dec(z / c.scaling_factor + c.shift_factor).float()
        ema.swap()
        data.grid(list(data.to_rgb(torch.cat([x[:8], y[:8]]))), 8).save(a.work / "decoder.png")
        return f"PSNR {psnr(x, y):.2f} dB, edges {float(edges(y.clamp(-1, 1)).mean() / edges(x).mean()):.1%} of the drawings'"

    print("before:", measure(), flush=True)
    start, saved, mean_loss, zero = time.process_time() - used, time.time(), None, torch.zeros(1)
    while used < a.seconds:
        used = time.process_time() - start
        rate = min(1, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * min(1, used / a.seconds)))
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = LR_MUON * rate, LR_ADAM * rate
        x, z = pictures([(int(rng.integers(len(emoji))), int(rng.integers(latents.shape[1]))) for _ in range(BATCH)])
        z = z + NOISE * rng.random() * torch.randn_like(z)
        with torch.autocast("cpu", torch.bfloat16):
            y = dec((z / c.scaling_factor + c.shift_factor).contiguous(memory_format=torch.channels_last)).float()
        loss = loss_of(x, y, zero, zero) + SHARP * F.l1_loss(edges(y), edges(x))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(matrices + small, 1.0)
        muon.step(), adam.step(), dec.zero_grad(), ema.update()
        step += 1
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {mean_loss:.4f} cpu {used:.0f}s" + (" " + measure() if step % 200 == 0 else ""), flush=True)
        if time.time() - saved > 60 or used >= a.seconds:
            save(ckpt, step=step, cpu=used, decoder=dec.state_dict(), muon=muon.state_dict(), adam=adam.state_dict(), ema=ema.state_dict())
            saved = time.time()
    print("end:", measure())
    ema.swap()
    vae.save_pretrained(a.work / "vae-final")


if __name__ == "__main__":
    main()

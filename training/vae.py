"""Train the autoencoder: vae.py DATA WORK [--steps N].  Five levels: 256x256 pictures become 16x16 latents of 16 channels."""
import argparse
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

import data
from optim import Ema, Muon, save

CONFIG = dict(in_channels=3, out_channels=3, latent_channels=16, block_out_channels=(16, 32, 64, 96, 112),
              down_block_types=("DownEncoderBlock2D",) * 5, up_block_types=("UpDecoderBlock2D",) * 5,
              layers_per_block=1, norm_num_groups=8, mid_block_add_attention=True, sample_size=data.SIZE,
              use_quant_conv=False, use_post_quant_conv=False, force_upcast=False)
CROP, BATCH, LR_MUON, LR_TRUNK, LR_ADAM = 128, 4, 0.02, 0.004, 1.5e-3


@torch.no_grad()
def pass_through(vae):
    """Start near an average pooling going down and a nearest-neighbour upsampling going up, so that GroupNorm never hides flat colours."""
    def identity(conv, taps, noise):
        w = conv.weight
        w.normal_(0, noise)
        for i in range(w.shape[0]):
            for y, x in taps:
                w[i, i, y, x] += 1 / len(taps)
        conv.bias.zero_()
    for name, m in vae.named_modules():
        if name.endswith("conv_shortcut"):
            torch.nn.init.orthogonal_(m.weight)
        elif name.endswith(".conv2") or name.endswith("to_out.0"):
            m.weight *= 0.1
        elif name.endswith("downsamplers.0.conv"):  # the picture is padded at the right and below: taps 0, 1 of three
            identity(m, [(0, 0), (0, 1), (1, 0), (1, 1)], 0.3 / math.sqrt(4 * m.weight.shape[0]))
        elif name.endswith("upsamplers.0.conv"):
            identity(m, [(1, 1)], 0.2 / math.sqrt(9 * m.weight.shape[0]))
    e, d = vae.encoder, vae.decoder
    e.conv_in.weight[:, :, 1, 1].normal_(0, 0.7)
    for conv in e.conv_in, d.conv_in:
        conv.bias.normal_(0, 0.5)
    e.conv_out.bias[vae.config.latent_channels:] = -4


def random_ground(rng, size):
    """A solid colour (often white or of the palette) or a gradient between two."""
    def colour():
        return data.PALETTE[rng.integers(len(data.PALETTE))] + rng.normal(0, 6, 3) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    kind = rng.random()
    if kind < 0.35:
        return np.full((size, size, 3), 255, np.float32)
    if kind < 0.75:
        return np.broadcast_to(colour().clip(0, 255).astype(np.float32), (size, size, 3)).copy()
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    t = (np.cos(angle) * x + np.sin(angle) * y + 0.7)[..., None] / 1.4
    return ((1 - t) * colour() + t * colour()).clip(0, 255).astype(np.float32)


class Crops:
    """CROP x CROP pieces of pictures, the drawing at 0.4 to 1 of the full picture (half of the time at the size that ships)."""

    def __init__(self, data_dir, codes, seed):
        self.images = [Image.open(pathlib.Path(data_dir) / f"fluent-3d/{c}.webp").convert("RGBA").convert("RGBa") for c in codes]
        self.rng = np.random.default_rng(seed)

    def one(self):
        rng, c = self.rng, CROP
        image = self.images[rng.integers(len(self.images))]
        size = data.OBJECT if rng.random() < 0.5 else int(rng.integers(96, 257))
        x, y = (int(rng.integers(-16, max(1, size - c + 17))) for _ in range(2))  # corner of the crop in the drawing
        out = random_ground(rng, c)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + c, size), min(y + c, size)
        k = image.width / size
        piece = np.asarray(image.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=(x0 * k, y0 * k, x1 * k, y1 * k)), np.float32)
        if rng.random() < 0.5:
            piece, out = piece[:, ::-1], out[:, ::-1]
            x0, x1, x = -x1, -x0, -x - c
        part = out[y0 - y:y1 - y, x0 - x:x1 - x]
        part *= 1 - piece[..., 3:] / 255
        part += piece[..., :3]
        return out.clip(0, 255)

    def batch(self):
        return data.to_model(np.stack([self.one() for _ in range(BATCH)]))


def loss_of(x, y, mean, logvar):
    loss = F.l1_loss(y, x)
    for k in 2, 4:
        loss = loss + 0.5 * F.l1_loss(F.avg_pool2d(y, k), F.avg_pool2d(x, k))
    d = y - x
    for k in 4, 16:  # colour differences (red - green, blue - green), which the sums above hold cheaply
        c = F.avg_pool2d(d, k)
        loss = loss + (c[:, ::2] - c[:, 1:2]).abs().mean()
    loss = loss + 0.5 * (d[..., 1:] - d[..., :-1]).abs().mean() + 0.5 * (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    kl = 0.5 * (mean ** 2 + logvar.exp() - 1 - logvar).mean()
    return loss + 5e-4 * kl


def validation(data_dir, emoji):
    rng = np.random.default_rng(0)
    return data.to_model(np.stack([data.compose(data.load_drawing(data_dir, emoji[i].code), data.PALETTE[rng.integers(13)] if n % 2 else 255)
                                   for n, i in enumerate(rng.choice(len(emoji), 16, replace=False))]))


def psnr(x, y):
    return float((10 * torch.log10(4 / ((x - y.clamp(-1, 1)) ** 2).mean((1, 2, 3)))).mean())


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("data"), ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--steps", type=int, default=1180)
    a = ap.parse_args()
    torch.manual_seed(1)
    a.work.mkdir(parents=True, exist_ok=True)
    ckpt = a.work / "vae.pt"
    vae = AutoencoderKL(**CONFIG)
    pass_through(vae)
    vae.to(memory_format=torch.channels_last)
    matrices = [p for n, p in vae.named_parameters() if p.ndim == 4 and "conv_in" not in n and ".conv_out" not in n]
    # The trunk: no norm bounds what it carries from level to level, and steps of fixed size would let it grow tenfold a level
    # until the residual branches no longer count.  So it learns slower and keeps its norm.
    trunk = [p for n, p in vae.named_parameters() if p.ndim == 4 and ("samplers" in n or "conv_shortcut" in n)]
    norms = [p.detach().norm() for p in trunk]
    ids = {id(p) for p in trunk}
    branches = [p for p in matrices if id(p) not in ids]
    ids |= {id(p) for p in branches}
    others = [p for p in vae.parameters() if id(p) not in ids]
    muon = Muon([dict(params=branches, base=LR_MUON), dict(params=trunk, base=LR_TRUNK)], LR_MUON)
    adam = torch.optim.AdamW(others, LR_ADAM, weight_decay=0.01)
    ema, step, used = Ema(vae.parameters(), 0.998), 0, 0.0
    if ckpt.exists():
        s = torch.load(ckpt)
        step, used = s["step"], s["cpu"]
        for o, k in (vae, "vae"), (muon, "muon"), (adam, "adam"), (ema, "ema"):
            o.load_state_dict(s[k])
    if step >= a.steps:
        return
    emoji = data.load_emoji(a.data)
    val = validation(a.data, emoji)
    crops = Crops(a.data, [e.code for e in emoji], step)
    print(f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters, decoder {sum(p.numel() for p in vae.decoder.parameters()) / 1e6:.2f} M, "
          f"{len(emoji)} drawings", flush=True)
    start, saved, mean_loss = time.process_time() - used, time.time(), None
    wall = time.time()
    while step < a.steps:
        rate = min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / a.steps))
        for g in muon.param_groups:
            g["lr"] = g["base"] * rate
        adam.param_groups[0]["lr"] = LR_ADAM * rate
        x = crops.batch().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            mean, logvar = vae.encoder(x).chunk(2, 1)
            mean, logvar = mean.float(), logvar.float().clamp(-20, 10)
            y = vae.decoder(mean + torch.randn_like(mean) * (0.5 * logvar).exp()).float()
        loss = loss_of(x, y, mean, logvar)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        muon.step(), adam.step(), vae.zero_grad()
        with torch.no_grad():
            for p, n in zip(trunk, norms):
                p *= n / p.norm()
        ema.update()
        step += 1
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {mean_loss:.4f} PSNR {psnr(x, y.detach()):.2f} cpu {time.process_time() - start:.0f}s wall {time.time() - wall:.0f}s", flush=True)
        if step % 200 == 0 or step == a.steps:
            ema.swap()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                z = vae.encoder(val).chunk(2, 1)[0]
                y = vae.decoder(z).float()
            ema.swap()
            z = z.float()
            print(f"step {step} PSNR at {data.SIZE} {psnr(val, y):.2f} dB, latents mean {z.mean():.3f} std {z.std():.3f}, channels "
                  f"{z.std((0, 2, 3)).min():.2f} to {z.std((0, 2, 3)).max():.2f}", flush=True)
            data.grid(list(data.to_rgb(torch.cat([val[:8], y[:8]]))), 8).save(a.work / "vae.png")
        if time.time() - saved > 120 or step == a.steps:
            save(ckpt, step=step, cpu=time.process_time() - start, vae=vae.state_dict(), muon=muon.state_dict(), adam=adam.state_dict(), ema=ema.state_dict())
            saved = time.time()


if __name__ == "__main__":
    main()

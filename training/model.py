"""The Z-Image transformer as a batched function over the weights of diffusers' module, for training and fast sampling.

diffusers takes lists and pads; here every caption of a batch has the same number of rows (32 or 64), rows past the prompt hold
the pad token, nothing is masked, and the result is the same.
"""
import functools

import torch
import torch.nn.functional as F
from diffusers import ZImageTransformer2DModel

STEPS, SHIFT = 8, 3.0
AXES = (16, 24, 24)
CONFIG = dict(all_patch_size=(2,), all_f_patch_size=(1,), in_channels=16, dim=256, n_layers=6, n_refiner_layers=1, n_heads=4, n_kv_heads=4,
              norm_eps=1e-5, qk_norm=True, cap_feat_dim=256, rope_theta=256.0, t_scale=1000.0, axes_dims=AXES, axes_lens=(1536, 512, 512))


def new_transformer(seed=4):
    torch.manual_seed(seed)
    model = ZImageTransformer2DModel(**CONFIG)
    for n, p in model.named_parameters():
        if "adaLN" in n or "all_final_layer" in n:
            p.data.zero_()
        elif n.endswith("pad_token"):
            p.data.normal_(0, 0.5)
        elif p.ndim == 2:
            p.data.normal_(0, p.shape[1] ** -0.5)
        elif "bias" in n:
            p.data.zero_()
    for block in list(model.noise_refiner) + list(model.layers):
        scale, gate, scale2, gate2 = block.adaLN_modulation[0].bias.data.chunk(4)
        gate.fill_(0.2), gate2.fill_(0.2)
    return model


@functools.lru_cache
def rope(rows, height, width):
    """cos, sin of the caption's positions (1+i, 0, 0) followed by the picture's (rows+1, y, x)."""
    cap = torch.stack([torch.arange(1, rows + 1), torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)], -1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pic = torch.stack([torch.full_like(y, rows + 1), y, x], -1).flatten(0, 1)
    pos = torch.cat([cap, pic]).double()
    angle = torch.cat([pos[:, i:i + 1] / 256.0 ** (torch.arange(0, d, 2, dtype=torch.float64) / d) for i, d in enumerate(AXES)], 1).float()
    return angle.cos()[None, :, None], angle.sin()[None, :, None]


def rotate(x, cos, sin):
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, 1e-5)


def block_math(x, scale1, gate1, scale2, gate2, cos, sin, wq, wk, wv, wo, nq, nk, w1, w2, w3, n1, n2, f1, f2):
    """One block; the scales and gates are None in the context refiner."""
    b, n, d = x.shape
    h = norm(x, n1)
    if scale1 is not None:
        h = h * scale1
    q, k, v = (F.linear(h, w).view(b, n, -1, 64) for w in (wq, wk, wv))
    q = rotate(norm(q, nq), cos, sin).transpose(1, 2)
    k = rotate(norm(k, nk), cos, sin).transpose(1, 2)
    p = ((q * 0.125) @ k.transpose(2, 3)).softmax(-1)
    h = norm(F.linear((p.to(v.dtype) @ v.transpose(1, 2)).transpose(1, 2).reshape(b, n, d), wo), n2)
    x = x + (h if gate1 is None else gate1 * h)
    h = norm(x, f1)
    if scale2 is not None:
        h = h * scale2
    h = norm(F.linear(F.silu(F.linear(h, w1)) * F.linear(h, w3), w2), f2)
    return x + (h if gate2 is None else gate2 * h)


class Fast:
    """forward(latents, t, features, lengths) over a ZImageTransformer2DModel, computing in `dtype`."""

    def __init__(self, model, dtype=torch.bfloat16, compiled=False):
        self.model, self.dtype = model, dtype
        torch._dynamo.config.recompile_limit = 32
        self.block_math = torch.compile(block_math, dynamic=False) if compiled else block_math

    def weights(self):
        """Casts of all weights, once a step (gradients flow through them)."""
        return {n: p.to(self.dtype) for n, p in self.model.named_parameters()}

    def block(self, w, name, x, cos, sin, adaln=None):
        mod = [None] * 4
        if adaln is not None:
            mod = list(F.linear(adaln, w[name + ".adaLN_modulation.0.weight"], w[name + ".adaLN_modulation.0.bias"])[:, None].chunk(4, -1))
            mod = [1 + mod[0], mod[1].tanh(), 1 + mod[2], mod[3].tanh()]
        g = [w[f"{name}.{s}.weight"] for s in ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "attention.norm_q",
             "attention.norm_k", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")]
        return self.block_math(x, *mod, cos, sin, *g)

    def caption(self, w, features, lengths):
        """Features [B, rows, 256] to the refined caption; rows past a prompt's length become the pad token."""
        rows = features.shape[1]
        c = F.linear(norm(features.to(self.dtype), w["cap_embedder.0.weight"]), w["cap_embedder.1.weight"], w["cap_embedder.1.bias"])
        c = torch.where((torch.arange(rows)[None] < lengths[:, None])[..., None], c, w["cap_pad_token"][None])
        cos, sin = (r[:, :rows].to(self.dtype) for r in rope(rows, 0, 0))
        for i in range(len(self.model.context_refiner)):
            c = self.block(w, f"context_refiner.{i}", c, cos, sin)
        return c

    def forward(self, latents, t, caption, w):
        """latents [B, C, H, W], t = 1 - sigma [B], caption from caption(): x0 - noise, float32."""
        m, (b, ch, h, wd), rows = self.model, latents.shape, caption.shape[1]
        emb = m.t_embedder.timestep_embedding(t * m.t_scale, 256).to(self.dtype)
        emb = F.linear(F.silu(F.linear(emb, w["t_embedder.mlp.0.weight"], w["t_embedder.mlp.0.bias"])), w["t_embedder.mlp.2.weight"], w["t_embedder.mlp.2.bias"])
        x = latents.view(b, ch, h // 2, 2, wd // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, h * wd // 4, 4 * ch).to(self.dtype)
        x = F.linear(x, w["all_x_embedder.2-1.weight"], w["all_x_embedder.2-1.bias"])
        cos, sin = (r.to(self.dtype) for r in rope(rows, h // 2, wd // 2))
        for i in range(len(m.noise_refiner)):
            x = self.block(w, f"noise_refiner.{i}", x, cos[:, rows:], sin[:, rows:], emb)
        x = torch.cat([x, caption], 1)
        cos, sin = torch.cat([cos[:, rows:], cos[:, :rows]], 1), torch.cat([sin[:, rows:], sin[:, :rows]], 1)
        for i in range(len(m.layers)):
            x = self.block(w, f"layers.{i}", x, cos, sin, emb)
        x = x[:, :h * wd // 4]
        f = "all_final_layer.2-1."
        scale = 1 + F.linear(F.silu(emb), w[f + "adaLN_modulation.1.weight"], w[f + "adaLN_modulation.1.bias"])[:, None]
        x = F.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale, w[f + "linear.weight"], w[f + "linear.bias"]).float()
        return x.view(b, h // 2, wd // 2, 2, 2, ch).permute(0, 5, 1, 3, 2, 4).reshape(b, ch, h, wd)


def sigmas(steps=STEPS, shift=SHIFT):
    s = torch.linspace(1, 1 / steps, steps)
    return torch.cat([shift * s / (1 + (shift - 1) * s), torch.zeros(1)])


@torch.no_grad()
def sample(fast, features, lengths, noise, steps=STEPS, guidance=0.0, empty=None):
    """Euler steps from noise to latents.  Guidance (with `empty` = features, lengths of empty prompts) is for measuring only."""
    w = fast.weights()
    caption = fast.caption(w, features, lengths)
    other = fast.caption(w, *empty) if guidance else None
    x, s = noise, sigmas(steps)
    for i in range(steps):
        t = (1 - s[i]).expand(len(x))
        v = fast.forward(x, t, caption, w)
        if guidance:
            v = v + guidance * (v - fast.forward(x, t, other, w))
        x = x - (s[i + 1] - s[i]) * v
    return x

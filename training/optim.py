"""Muon for matrices beside Adam for everything else, and an exponential moving average."""
import torch


def orthogonalize(g, steps=5):
    """Newton-Schulz iteration (the quintic of the Muon optimizer) on the last two dimensions."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        m = x @ x.mT
        x = a * x + (b * m + c * m @ m) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised.  Matrices of one shape are stepped together."""

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].mul_(group["momentum"]).add_(p.grad)
                step = p.grad.add(m, alpha=group["momentum"]).flatten(1)
                shapes.setdefault(step.shape, []).append((p, step))
            for (rows, cols), items in shapes.items():
                o = orthogonalize(torch.stack([s for _, s in items]))
                for (p, _), s in zip(items, o):
                    p.add_(s.view_as(p), alpha=-group["lr"] * max(1, rows / cols) ** 0.5)


class Ema:
    def __init__(self, params, decay):
        self.params, self.decay, self.steps = list(params), decay, 0
        self.shadow = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        d = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.params], 1 - d)

    @torch.no_grad()
    def swap(self):
        """Exchange the averages and the parameters (call again to go back)."""
        for s, p in zip(self.shadow, self.params):
            t = p.detach().clone()
            p.copy_(s)
            s.copy_(t)

    def state_dict(self):
        return {"steps": self.steps, "shadow": self.shadow}

    def load_state_dict(self, d):
        self.steps = d["steps"]
        for s, v in zip(self.shadow, d["shadow"]):
            s.copy_(v)


def decay(progress, start, floor=0.0):
    """1 until `start` of the run, then linearly down to `floor`."""
    return 1.0 if progress < start else max(floor, 1 - (1 - floor) * (progress - start) / (1 - start))


def save(path, **state):
    tmp = path.with_suffix(".tmp")
    torch.save(state, tmp)
    tmp.rename(path)

"""An independent reference: dense distributions over the whole vocabulary, float64, autograd's own gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def dense_target(logits: Tensor, top_p: float, top_k: int, temperature: float) -> Tensor:
    """F(z) of Eq. 4, float64 [N, V], by sorting each row in plain Python."""
    out = torch.zeros(logits.shape, dtype=torch.float64)
    for row, z in enumerate(logits.double()):
        p = torch.softmax(z, 0)
        order = sorted(range(len(z)), key=lambda i: (-float(z[i]), i))
        kept, mass = [], 0.0
        for i in order:
            if mass >= top_p or len(kept) == top_k:
                break
            kept.append(i)
            mass += float(p[i])
        out[row, kept] = torch.softmax(z[kept] / temperature, 0)
    return out


def dense_mixture(z: Tensor, labels: Tensor, target: Tensor, alpha: float, *, kld: bool) -> Tensor:
    """(1-α)·Σ CE + α·Σ KLD (or NLL); rows of zeros in `target` have no teacher, labels of -100 nothing at all."""
    log_q = torch.log_softmax(z, -1)
    labelled = labels != -100
    lm = -log_q.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    kd = -(target * log_q).sum(-1)
    if kld:
        kd = kd + torch.special.xlogy(target, target).sum(-1)
    taught = labelled & (target.sum(-1) > 0)
    return ((1 - alpha) * lm)[labelled].sum() + (alpha * kd)[taught].sum()

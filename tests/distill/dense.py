"""An independent reference: dense distributions over the whole vocabulary, float64, autograd's own gradients.

Written from the equations, one position at a time, and sharing no code with `pdforge.distill`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Case:
    """What is minimised; `temperature` is a number or the name of an adaptive one with the arguments below."""

    loss: str
    tail: str = "renormalise"
    temperature: float | str = 1.0
    beta: float = 0.3
    norm: float = 0.7
    gamma: float = 0.4
    low: float = 0.5
    high: float = 2.0
    reference: float = 4.0


def dense_mixture(
    z: Tensor, labels: list[int], kept: list[dict[int, float]], spreads: list[float], alpha: float, case: Case
) -> Tensor:
    """(1-α)·Σ L_lm + α·Σ L_kd.

    Args:
        z: [N, V] float64, the student's logits.
        labels: -100 for a position that carries nothing.
        kept: of each position, log-probabilities by id; empty: no teacher.
        spreads: of each position, standard deviation of the teacher's logits.
        alpha: α.
        case: what is minimised.
    """
    total = torch.zeros((), dtype=torch.float64)
    for row, (label, teacher, spread) in enumerate(zip(labels, kept, spreads, strict=True)):
        if label == -100:
            continue
        total = total - (1 - alpha) * torch.log_softmax(z[row], 0)[label]
        if teacher:
            total = total + alpha * _distillation(z[row], label, teacher, spread, case)
    return total


def _distillation(z: Tensor, label: int, teacher: dict[int, float], spread: float, case: Case) -> Tensor:
    tau, scale = _softness(teacher, spread, case)
    ids = list(teacher)
    p = torch.tensor([math.exp(v) for v in teacher.values()], dtype=torch.float64)
    rest = 1 - float(p.sum())
    if case.tail == "renormalise" or rest < 1e-6:
        rest = 0.0
    powers = p ** (1 / tau)
    bucket = rest ** (1 / tau) if rest else 0.0
    norm = float(powers.sum()) + bucket
    w = torch.zeros_like(z)
    w[ids] = powers / norm
    rest = bucket / norm
    inside = torch.zeros(len(z), dtype=torch.bool)
    inside[ids] = True
    if case.tail == "label" and rest:
        w[label] += rest
        inside[label] = True
        rest = 0.0
    if case.temperature == "normkd":
        deviation = float(((z.detach() - z.detach().mean()) ** 2).mean().sqrt())
        z = z / (deviation * case.norm)
    return scale * _divergence(torch.softmax(z, 0), z, w, rest, inside, ids, tau, p, case)


def _softness(teacher: dict[int, float], spread: float, case: Case) -> tuple[float, float]:
    if isinstance(case.temperature, float):
        return case.temperature, 1.0
    p = [math.exp(v) for v in teacher.values()]
    match case.temperature:
        case "normkd":
            return spread * case.norm, (spread * case.norm) ** 2
        case "wttm":
            return 1 / case.gamma, sum(v**case.gamma for v in p)
        case "adakd_sd":
            return case.low + (case.high - case.low) * min(1.0, spread / case.reference), 1.0
        case "adakd_h":
            own = [v / sum(p) for v in p]
            entropy = -sum(v * math.log(v) for v in own)
            return case.low + (case.high - case.low) * (entropy / math.log(len(p)) if len(p) > 1 else 0.0), 1.0
    raise AssertionError(case.temperature)


def _divergence(
    q: Tensor, z: Tensor, w: Tensor, rest: float, inside: Tensor, ids: list[int], tau: float, p: Tensor, case: Case
) -> Tensor:
    if case.loss == "mse" and case.tail == "ghost":
        return ((q - w)[inside] ** 2).sum() + (q[~inside].sum() - rest) ** 2
    if case.loss == "mse":
        return ((q - w) ** 2).sum()
    if case.loss == "mse_logits":
        ours, theirs = z[ids], p.log() / tau
        return ((ours - ours.mean() - theirs + theirs.mean()) ** 2).mean()
    # outcomes: the ids inside, and all others as one
    a = torch.cat([w[inside], torch.tensor([rest], dtype=torch.float64)])
    b = torch.cat([q[inside], q[~inside].sum()[None]])
    match case.loss:
        case "nll":
            return -torch.special.xlogy(a, torch.where(a > 0, b, 1.0)).sum()
        case "kld":
            return (torch.special.xlogy(a, a) - torch.special.xlogy(a, torch.where(a > 0, b, 1.0))).sum()
        case "reverse_kld":
            return (b * (b.log() - a.clamp_min(1e-6 if rest == 0 else 0).log())).sum()
        case "jsd":
            # over the whole vocabulary where the target has no bucket of its own
            a, b = (a, b) if rest else (w, q)
            m = case.beta * a + (1 - case.beta) * b
            return (
                case.beta * (torch.special.xlogy(a, a) - torch.special.xlogy(a, m)).sum()
                + (1 - case.beta) * (b * (b.log() - m.log())).sum()
            )
    raise AssertionError(case.loss)

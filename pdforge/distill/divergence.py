"""Distillation losses of one position: a sparse target w against the student's full softmax q (float32, nats).

Sums over "outcomes" run over the target's support and, where that is stated, one bucket of all other ids, whose
probabilities are `target.rest` and 1 - Σ q.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pdforge.distill.student import Student
from pdforge.distill.target import SMALLEST_REST, Tail, Target


@dataclass(frozen=True)
class Divergence:
    """A loss and what it needs of the student.

    Attributes:
        value: the loss, [N], finite where there is no teacher.
        rest: whether it needs the student's mass outside the support.
        square: whether it needs Σ q² over the vocabulary.
    """

    value: Callable[[Target, Student], Tensor]
    rest: bool = False
    square: bool = False


def divergence(kind: str, tail: Tail, *, beta: float = 0.5, on: str = "probabilities") -> Divergence:
    """The loss of a recipe.

    Args:
        kind: `nll`, `kld`, `reverse_kld`, `jsd` or `mse`.
        tail: what becomes of the teacher's tail.
        beta: of `jsd`, weight of the target.
        on: of `mse`, `probabilities` or `logits`.

    Raises:
        ValueError: a combination without meaning; a recipe's rules refuse them.
    """
    ghost = tail == "ghost"
    match kind:
        case "nll":
            return Divergence(nll, rest=ghost)
        case "kld":
            return Divergence(kld, rest=ghost)
        case "reverse_kld" if ghost:
            return Divergence(reverse_kld, rest=True)
        case "jsd":
            return Divergence(partial(jsd, beta=beta), rest=True)
        case "mse" if on == "probabilities":
            return Divergence(squared_buckets, rest=True) if ghost else Divergence(squared_error, square=True)
        case "mse" if tail == "renormalise":
            return Divergence(squared_logits)
    raise ValueError(f"no such objective: {kind} with tail {tail}")


def nll(target: Target, student: Student) -> Tensor:
    """-Σ w log q over all outcomes (Eq. 3, NLL)."""
    kept = -(target.weights * student.logprobs).sum(1)
    return kept if student.outside is None else kept - target.rest * log_rest(target, student)


def kld(target: Target, student: Student) -> Tensor:
    """Σ w log(w/q) over all outcomes (Eq. 3, KLD): NLL minus the target's entropy, so the same gradient."""
    of_rest: Tensor = torch.special.xlogy(target.rest, target.rest)
    return (target.weights * target.log_weights).sum(1) + of_rest + nll(target, student)


def reverse_kld(target: Target, student: Student) -> Tensor:
    """Σ q log(q/w) over all outcomes.

    Infinite wherever the student can produce what the target cannot, so only with a bucket for the rest; its weight
    is at least `SMALLEST_REST`.
    """
    kept = torch.where(target.support, student.logprobs.exp() * (student.logprobs - target.log_weights), 0.0).sum(1)
    rest = log_rest(target, student)
    return kept + rest.exp() * (rest - target.rest.clamp_min(SMALLEST_REST).log())


def jsd(target: Target, student: Student, *, beta: float) -> Tensor:
    """β KL(w‖m) + (1-β) KL(q‖m), m = β w + (1-β) q, over all outcomes (generalised Jensen-Shannon, arXiv 2306.13649).

    Finite without a bucket in the target too: outside its support m = (1-β) q, so every id there adds (1-β) q
    log(1/(1-β)), and only their sum matters.
    """
    log_w = torch.cat([target.log_weights, target.rest[:, None].log()], dim=1)
    log_q = torch.cat([student.logprobs, log_rest(target, student)[:, None]], dim=1)
    outcomes = torch.cat([target.support, torch.ones_like(target.support[:, :1])], dim=1)
    floor = torch.finfo(log_w.dtype).tiny
    w = torch.where(outcomes, log_w.exp(), 0.0)
    q = torch.where(outcomes, log_q.exp(), 0.0)
    log_m = (beta * w + (1 - beta) * q).clamp_min(floor).log()
    of_target = w * (torch.where(w > 0, log_w, 0.0) - log_m)
    of_student = torch.where(outcomes, q * (log_q - log_m), 0.0)
    return (beta * of_target + (1 - beta) * of_student).sum(1)


def squared_error(target: Target, student: Student) -> Tensor:
    """Σ (q - w)² over the vocabulary, w being 0 outside the support (our reading: a sum, not a mean)."""
    assert student.square is not None
    return student.square - 2 * (target.weights * student.logprobs.exp()).sum(1) + target.weights.square().sum(1)


def squared_buckets(target: Target, student: Student) -> Tensor:
    """Σ (q - w)² over all outcomes, the ids of the rest as one."""
    kept = torch.where(target.support, (student.logprobs.exp() - target.weights).square(), 0.0).sum(1)
    return kept + (log_rest(target, student).exp() - target.rest).square()


def squared_logits(target: Target, student: Student) -> Tensor:
    """Mean over the kept tokens of the squared difference of logits, each side's mean over them taken off.

    Logits have no zero of their own, and stored log-probabilities are logits less a constant (our reading).
    """
    count = target.support.sum(1, keepdim=True).clamp_min(1)
    difference = torch.where(target.support, student.logprobs - target.log_weights, 0.0)
    centred = torch.where(target.support, difference - difference.sum(1, keepdim=True) / count, 0.0)
    return centred.square().sum(1) / count[:, 0]


def log_rest(target: Target, student: Student) -> Tensor:
    """[N], log of the student's mass outside the target's support; the label's column may be part of that."""
    assert student.outside is not None
    with_label = torch.logaddexp(student.outside, student.logprobs[:, 0])
    return torch.where(target.label_supported, student.outside, with_label)

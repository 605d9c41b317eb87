"""The mixed objective L = (1-α)·L_lm + α·L_kd (arXiv 2410.16215, Eq. 1-3): one softmax for both terms.

The teacher is sparse from end to end: no [N, V] tensor of its probabilities ever exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdforge.distill.divergence import Divergence
from pdforge.distill.student import Student, VocabularyShard, look_up, spread
from pdforge.distill.target import Tail, make_target
from pdforge.distill.teacher import Teacher
from pdforge.distill.temperature import Temperature

IGNORE_INDEX = -100
"""Label of a position that carries no loss at all (torch's convention)."""

PARTS = ("lm_loss", "kd_loss", "temperature", "kept_mass", "agreement", "kl")
"""What `MixedLoss.sums` holds, before the number of taught positions.

`lm_loss` and `kd_loss` are sums over all labelled positions; the others over those that are taught: τ, the teacher's
kept mass, whether the student's likeliest token is the teacher's (0 or 1), and KL(teacher ‖ student) at τ=1 with both
renormalised over the kept tokens.
"""

_TAUGHT = len(PARTS)


@dataclass(frozen=True)
class Objective:
    """What is minimised, at a given α.

    Attributes:
        divergence: L_kd of one position.
        tail: what becomes of the mass that truncation cut off.
        temperature: τ of each position.
    """

    divergence: Divergence
    tail: Tail
    temperature: Temperature


@dataclass(frozen=True)
class MixedLoss:
    """Sums over positions; divide by the number of labels for means.

    Attributes:
        total: scalar, differentiable: Σ (1-α)·L_lm + α·L_kd.
        sums: [len(PARTS) + 1], detached: the sums of `PARTS`, then the number of taught positions.
    """

    total: Tensor
    sums: Tensor


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    teacher: Teacher,
    alpha: Tensor,
    objective: Objective,
    *,
    shard: VocabularyShard | None = None,
) -> MixedLoss:
    """The mixed objective, summed over N positions.

    Args:
        logits: [N, V] (or this rank's part of V), float32 or bfloat16; computed in float32.
        labels: int64 [N]; `IGNORE_INDEX` makes a position weigh exactly nothing in both terms.
        teacher: a position without one weighs nothing in L_kd.
        alpha: 0-dim float tensor on the logits' device. A tensor, so that it may change without recompilation.
        objective: what is minimised.
        shard: given under tensor parallelism.
    """
    labelled = labels != IGNORE_INDEX
    taught = labelled & teacher.present
    softening = objective.temperature(teacher)
    target = make_target(teacher, torch.where(labelled, labels, 0), softening.temperature, objective.tail)
    wanted = {"outside": objective.divergence.rest, "square": objective.divergence.square}
    if softening.student_norm is None:
        student = softened = look_up(logits, target.columns, shard=shard, **wanted)
    else:
        # used twice: the two gradients add up in float32
        logits = logits.float()
        own = spread(logits, shard).mul(softening.student_norm).clamp_min(torch.finfo(torch.float32).tiny)
        student = look_up(logits, target.columns, shard=shard)
        softened = look_up(logits / own[:, None], target.columns, shard=shard, **wanted)

    # the label's column as a vocabulary of one: torch sums as in its own cross-entropy
    lm = torch.nn.functional.nll_loss(
        student.logprobs, torch.where(labelled, 0, IGNORE_INDEX), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    kd = torch.where(taught, softening.scale * objective.divergence.value(target, softened), 0.0).sum()
    with torch.no_grad():
        watched = torch.stack(
            [softening.temperature, teacher.mass, *_comparison(teacher, student), torch.ones_like(teacher.mass)]
        )
        sums = torch.cat([torch.stack([lm, kd]).detach(), torch.where(taught, watched, 0.0).sum(1)])
    return MixedLoss(total=(1 - alpha) * lm + alpha * kd, sums=sums)


def means(sums: Tensor) -> dict[str, float]:
    """`PARTS` from the sums of all ranks, the losses already divided by the number of labels."""
    *parts, taught = sums.tolist()
    return {
        name: part if name.endswith("_loss") else part / taught if taught else 0.0
        for name, part in zip(PARTS, parts, strict=True)
    }


def _comparison(teacher: Teacher, student: Student) -> tuple[Tensor, Tensor]:
    """(agreement, KL) of each position; finite everywhere."""
    own = student.logprobs.detach()[:, 1:]
    likeliest = own.gather(1, teacher.logprobs.argmax(1, keepdim=True))[:, 0]
    p = _renormalised(teacher.logprobs, teacher)
    q = _renormalised(torch.where(teacher.kept, own, -torch.inf), teacher)
    kl = torch.where(teacher.kept, p.exp() * (p - q), 0.0).sum(1)
    return (likeliest >= student.largest).to(kl.dtype), kl


def _renormalised(logprobs: Tensor, teacher: Teacher) -> Tensor:
    safe = torch.where(teacher.present[:, None], logprobs, 0.0)
    return torch.where(teacher.kept, safe - safe.logsumexp(1, keepdim=True), 0.0)

"""The mixed objective L = (1-α)·L_lm + α·L_kd (arXiv 2410.16215, Eq. 1-3): one softmax for both terms.

Of several teachers L_kd is Σ wᵢ·L_kd,i, each at its own truncation: exact, where a mixture of what they kept would
count as 0 what one of them cut off. For KLD and NLL without truncation it has the gradient of a mixture's.

The teacher is sparse from end to end: no [N, V] tensor of its probabilities ever exists.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        sums: [sums_of(teachers)], detached: the sums of `PARTS`, then the number of taught positions; of several
            teachers each position's figures are means by weight, and the sum of each one's own L_kd follows.
    """

    total: Tensor
    sums: Tensor


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    teachers: Sequence[tuple[Teacher, float]],
    alpha: Tensor,
    objective: Objective,
    *,
    shard: VocabularyShard | None = None,
) -> MixedLoss:
    """The mixed objective, summed over N positions.

    Args:
        logits: [N, V] (or this rank's part of V), float32 or bfloat16; computed in float32.
        labels: int64 [N]; `IGNORE_INDEX` makes a position weigh exactly nothing in both terms.
        teachers: each with the weight wᵢ of its own L_kd,i; a position without one weighs nothing there.
        alpha: 0-dim float tensor on the logits' device. A tensor, so that it may change without recompilation.
        objective: what is minimised.
        shard: given under tensor parallelism.
    """
    labelled = labels != IGNORE_INDEX
    inside = torch.where(labelled, labels, 0)
    softenings = [objective.temperature(teacher) for teacher, _ in teachers]
    targets = [
        make_target(teacher, inside, softening.temperature, objective.tail)
        for (teacher, _), softening in zip(teachers, softenings, strict=True)
    ]
    columns, norm = [target.columns for target in targets], softenings[0].student_norm
    wanted = {"outside": objective.divergence.rest, "square": objective.divergence.square}
    if norm is None:
        students = softened = look_up(logits, columns, shard=shard, **wanted)
    else:
        # used twice: the two gradients add up in float32
        logits = logits.float()
        own = spread(logits, shard).mul(norm).clamp_min(torch.finfo(torch.float32).tiny)
        students = look_up(logits, columns, shard=shard)
        softened = look_up(logits / own[:, None], columns, shard=shard, **wanted)

    # the label's column as a vocabulary of one: torch sums as in its own cross-entropy
    lm = torch.nn.functional.nll_loss(
        students[0].logprobs, torch.where(labelled, 0, IGNORE_INDEX), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    parts, watched = [], []
    for (teacher, weight), softening, target, student, soft in zip(
        teachers, softenings, targets, students, softened, strict=True
    ):
        taught = labelled & teacher.present
        parts.append(torch.where(taught, softening.scale * objective.divergence.value(target, soft), 0.0).sum())
        with torch.no_grad():
            figures = [softening.temperature, teacher.mass, *_comparison(teacher, student)]
            seen = torch.stack([*figures, torch.ones_like(teacher.mass)])
            watched.append(weight * torch.where(taught, seen, 0.0).sum(1))
    kd = torch.stack([weight * part for (_, weight), part in zip(teachers, parts, strict=True)]).sum()
    with torch.no_grad():
        each = [torch.stack(parts)] if len(parts) > 1 else []
        sums = torch.cat([torch.stack([lm, kd]), torch.stack(watched).sum(0), *each]).detach()
    return MixedLoss(total=(1 - alpha) * lm + alpha * kd, sums=sums)


def means(sums: Tensor) -> dict[str, float]:
    """`PARTS` from the sums of all ranks, the losses already divided by the number of labels; of several teachers also
    the loss of each, `kd_loss_1` and so on.
    """
    numbers = sums.tolist()
    parts, taught, each = numbers[:_TAUGHT], numbers[_TAUGHT], numbers[_TAUGHT + 1 :]
    found = {
        name: part if name.endswith("_loss") else part / taught if taught else 0.0
        for name, part in zip(PARTS, parts, strict=True)
    }
    return found | {f"kd_loss_{number}": part for number, part in enumerate(each, start=1)}


def sums_of(teachers: int) -> int:
    """How many numbers `MixedLoss.sums` holds."""
    return _TAUGHT + 1 + (teachers if teachers > 1 else 0)


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

"""From a teacher to the distribution that the student learns (arXiv 2410.16215, Eq. 4), with a policy for the tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pdforge.distill.teacher import Teacher

Tail = Literal["renormalise", "ghost", "label"]

SMALLEST_REST = 1e-6
"""A cut-off mass below this is the rounding of the kept ones' float32 sum: nothing was cut off."""


@dataclass(frozen=True)
class Target:
    """A sparse target for each of N positions, over C = 1+K columns: the label, then the teacher's ids.

    Attributes:
        columns: int64 [N, C], ids; unused columns repeat the label.
        support: bool [N, C], the columns that are part of the target, each id once.
        log_weights: float32 [N, C], 0 outside the support.
        weights: float32 [N, C], probabilities; 0 outside the support.
        rest: float32 [N], probability of one bucket of all other ids; Σ weights + rest is 1, or 0 without a teacher.
        label_supported: bool [N], whether the label's id is in the support.
    """

    columns: Tensor
    support: Tensor
    log_weights: Tensor
    weights: Tensor
    rest: Tensor
    label_supported: Tensor


@torch.no_grad()
def make_target(teacher: Teacher, labels: Tensor, temperature: Tensor, tail: Tail) -> Target:
    """F(z) = softmax(Truncate(z)/τ): the teacher at temperature τ with its tail.

    `renormalise` spreads the mass that was cut off over the kept tokens (the paper). The others keep it as one more
    outcome, softened like every other (our reading): `ghost` as a bucket of all ids that are not kept, `label` on the
    true next token.

    Args:
        teacher: of N positions.
        labels: int64 [N], ids within the vocabulary.
        temperature: [N], τ > 0.
        tail: the policy.
    """
    scaled = teacher.logprobs / temperature[:, None]
    cut_off = 1 - teacher.mass
    bucket = torch.where(cut_off > SMALLEST_REST, cut_off, 0.0).log() / temperature
    if tail == "renormalise":
        bucket = torch.full_like(bucket, -torch.inf)
    outcomes = torch.where(teacher.present[:, None], torch.cat([bucket[:, None], scaled], dim=1), 0.0)
    normalised = outcomes - outcomes.logsumexp(1, keepdim=True)
    normalised = torch.where(teacher.present[:, None], normalised, -torch.inf)
    log_rest, log_kept = normalised[:, :1], normalised[:, 1:]

    is_label = teacher.kept & (teacher.ids == labels[:, None])
    label_supported = is_label.any(1)
    log_label = torch.full_like(log_rest, -torch.inf)
    if tail == "label":
        log_kept = torch.where(is_label, torch.logaddexp(log_kept, log_rest), log_kept)
        log_label = torch.where(label_supported[:, None], log_label, log_rest)
        log_rest = torch.full_like(log_rest, -torch.inf)
    log_weights = torch.cat([log_label, log_kept], dim=1)
    support = log_weights > -torch.inf
    return Target(
        columns=torch.cat([labels[:, None], torch.where(teacher.kept, teacher.ids, labels[:, None])], dim=1),
        support=support,
        log_weights=torch.where(support, log_weights, 0.0),
        weights=log_weights.exp(),
        rest=log_rest[:, 0].exp(),
        label_supported=label_supported | support[:, 0],
    )

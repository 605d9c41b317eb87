"""The mixed objective L = (1-α)·L_lm + α·L_kd (arXiv 2410.16215, Eq. 1-3) with one logsumexp for both terms.

With student logits z, label y and a target w over few ids,

    L_lm = lse(z) - z_y                      L_kd = Σ w log w - Σ w z + (Σ w) lse(z)     (KLD; without the first term:
    NLL)

so the gradient of the mixture is softmax(z) scaled by a number per position, minus a few scattered weights: no [N, V]
tensor of teacher probabilities and no second softmax ever exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor
from torch.distributed import ProcessGroup

from pdforge.distill.target import Target

IGNORE_INDEX = -100
"""Label of a position that carries no loss at all (torch's convention)."""


@dataclass(frozen=True)
class VocabularyShard:
    """This rank's contiguous part of a vocabulary split over a tensor-parallel group.

    Attributes:
        group: the process group whose ranks together hold the vocabulary.
        start: first id of this rank.
    """

    group: ProcessGroup
    start: int


@dataclass(frozen=True)
class MixedLoss:
    """Sums over positions; divide by the number of labels for means.

    Attributes:
        total: scalar, differentiable: Σ (1-α)·L_lm + α·L_kd.
        lm: scalar, detached: Σ L_lm over labelled positions.
        kd: scalar, detached: Σ L_kd over labelled positions with a teacher.
    """

    total: Tensor
    lm: Tensor
    kd: Tensor


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    target: Target,
    alpha: Tensor,
    *,
    subtract_entropy: bool,
    shard: VocabularyShard | None = None,
) -> MixedLoss:
    """The mixed objective, summed over N positions.

    Args:
        logits: [N, V] (or this rank's part of V), float32 or bfloat16; computed in float32.
        labels: int64 [N]; `IGNORE_INDEX` makes a position weigh exactly nothing in both terms.
        target: the teacher's; a position without one weighs nothing in L_kd.
        alpha: 0-dim float tensor on the logits' device. A tensor, so that it may change without recompilation.
        subtract_entropy: True for KLD (Eq. 3), False for NLL; the gradients are equal.
        shard: given under tensor parallelism.
    """
    labelled = labels != IGNORE_INDEX
    lm_weight = torch.where(labelled, 1 - alpha, 0.0)
    kd_weight = torch.where(labelled & target.present, alpha, 0.0)
    total, lm, kd = _MixedLoss.apply(
        logits,
        torch.where(labelled, labels, 0),
        target.ids,
        target.weights,
        lm_weight,
        kd_weight,
        labelled,
        labelled & target.present,
        target.negentropy if subtract_entropy else torch.zeros_like(target.negentropy),
        shard,
    )
    return MixedLoss(total=total, lm=lm, kd=kd)


class _MixedLoss(torch.autograd.Function):
    """Forward and hand-written backward of the mixture; no collectives in backward."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        ids: Tensor,
        weights: Tensor,
        lm_weight: Tensor,
        kd_weight: Tensor,
        labelled: Tensor,
        taught: Tensor,
        negentropy: Tensor,
        shard: VocabularyShard | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = logits.float()
        columns = torch.cat([labels[:, None], ids], dim=1)
        if shard is None:
            picked = z.gather(1, columns)
            label_logit, expected_logit = picked[:, 0], (weights * picked[:, 1:]).sum(1)
            lse = z.logsumexp(1)
        else:
            columns, label_logit, expected_logit, lse = _sharded_parts(z, columns, weights, shard)
        lm = lse - label_logit
        kd = negentropy - expected_logit + weights.sum(1) * lse
        # where, not a product: a weight of 0 must silence even an infinite loss
        total = (
            torch.where(lm_weight > 0, lm_weight * lm, 0.0).sum()
            + torch.where(kd_weight > 0, kd_weight * kd, 0.0).sum()
        )
        ctx.save_for_backward(logits, columns, weights, lse, lm_weight, kd_weight)
        ctx.sharded = shard is not None
        lm_sum, kd_sum = torch.where(labelled, lm, 0.0).sum(), torch.where(taught, kd, 0.0).sum()
        ctx.mark_non_differentiable(lm_sum, kd_sum)
        return total, lm_sum, kd_sum

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        logits, columns, weights, lse, lm_weight, kd_weight = ctx.saved_tensors
        result = torch.exp(logits.float() - lse[:, None])
        result.mul_((lm_weight + kd_weight * weights.sum(1))[:, None])
        pulls = -torch.cat([lm_weight[:, None], kd_weight[:, None] * weights], dim=1)
        if ctx.sharded:
            held = (columns >= 0) & (columns < logits.shape[1])
            pulls, columns = torch.where(held, pulls, 0.0), torch.where(held, columns, 0)
        result.scatter_add_(1, columns, pulls)
        return (result.mul_(grad).to(logits.dtype), *[None] * 9)


def _sharded_parts(
    z: Tensor, columns: Tensor, weights: Tensor, shard: VocabularyShard
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(local columns, z_y, Σ w z, lse) over the whole vocabulary: one MAX and one packed SUM all-reduce."""
    columns = columns - shard.start
    held = (columns >= 0) & (columns < z.shape[1])
    picked = torch.where(held, z.gather(1, torch.where(held, columns, 0)), 0.0)
    largest = collectives.all_reduce(z.amax(1), "max", shard.group)
    packed = torch.stack([torch.exp(z - largest[:, None]).sum(1), picked[:, 0], (weights * picked[:, 1:]).sum(1)])
    packed = collectives.all_reduce(packed, "sum", shard.group)
    return columns, packed[1], packed[2], largest + packed[0].log()

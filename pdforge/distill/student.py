"""What the objective needs of the student's distribution: a few log-probabilities of the full softmax, made once.

Plain differentiable code. Under tensor parallelism every rank computes the same loss from sums over the group, so the
backward pass of such a sum is the identity and no collective runs backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor
from torch.distributed import ProcessGroup

_BLOCKS = 8
"""Parts of the rows in a backward pass."""


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
class Student:
    """The student at the C columns of each of N positions; natural logarithms, float32.

    Attributes:
        logprobs: [N, C], of the full softmax.
        outside: [N], log of the mass outside the columns; None unless asked for.
        square: [N], Σ q² over the vocabulary; None unless asked for.
        largest: [N], the largest log-probability of each position, detached.
    """

    logprobs: Tensor
    outside: Tensor | None
    square: Tensor | None
    largest: Tensor


def look_up(
    logits: Tensor,
    columns: Sequence[Tensor],
    *,
    outside: bool = False,
    square: bool = False,
    shard: VocabularyShard | None = None,
) -> list[Student]:
    """The student's log-probabilities at some columns, and what else is asked for; one softmax for all that ask.

    Args:
        logits: [N, V] (or this rank's part of V), any floating dtype; computed in float32 at least.
        columns: of each that asks int64 [N, C], ids of the whole vocabulary; repeats are allowed.
        outside: whether the mass outside the columns is needed.
        square: whether the sum of squared probabilities is needed.
        shard: given under tensor parallelism.
    """
    widths = [part.shape[1] for part in columns]
    asked = columns[0] if len(columns) == 1 else torch.cat(list(columns), dim=1)
    held = None
    if shard is None:
        local, logprobs = _LogSoftmaxAt.apply(logits, asked)
        zero = torch.zeros_like(logprobs[:, 0])
    else:
        local, zero = _log_softmax(logits, shard)
        asked = asked - shard.start
        held = (asked >= 0) & (asked < local.shape[1])
        asked = torch.where(held, asked, 0)
        logprobs = torch.where(held, local.gather(1, asked), 0.0)
    squares = _sum((2 * local).exp().sum(1), shard) * (2 * zero).exp() if square else None
    largest = _largest(local.detach(), shard)
    of_all = _sum(logprobs, shard) + zero[:, None]
    theirs = [None] * len(widths) if held is None else torch.split(held, widths, dim=1)
    parts = zip(torch.split(of_all, widths, dim=1), torch.split(asked, widths, dim=1), theirs, strict=True)
    return [
        Student(
            logprobs=own,
            outside=_log_outside(local, ids, there, shard) + zero if outside else None,
            square=squares,
            largest=largest,
        )
        for own, ids, there in parts
    ]


def spread(logits: Tensor, shard: VocabularyShard | None = None) -> Tensor:
    """Standard deviation of each row of [N, V] over the whole vocabulary (of the population), detached."""
    z = logits.detach().to(_precision(logits))
    size = _sum(torch.full_like(z[:, 0], z.shape[1]), shard)
    centred = z - (_sum(z.sum(1), shard) / size)[:, None]
    return (_sum(centred.square().sum(1), shard) / size).sqrt()


def _log_softmax(logits: Tensor, shard: VocabularyShard) -> tuple[Tensor, Tensor]:
    """This rank's log-probabilities [N, V], and a zero [N] that is to be added to whatever is summed over ranks.

    The normaliser belongs to the columns of all ranks, and a rank's backward pass only knows its own: the zero carries
    the normaliser's gradient to where every rank has the whole sum.
    """
    z = logits.to(_precision(logits))
    largest = _largest(z.detach(), shard)
    normaliser = largest + _sum((z - largest[:, None]).exp().sum(1), shard).log()
    return z - normaliser.detach()[:, None], normaliser.detach() - normaliser


def _log_outside(local: Tensor, columns: Tensor, held: Tensor | None, shard: VocabularyShard | None) -> Tensor:
    # from the others' own sum: one minus the columns' mass would lose all digits of a small rest
    if held is None:
        others = local.scatter(1, columns, -torch.inf)
    else:
        # a column of another rank points at this rank's first id, which it must leave alone
        away = torch.zeros_like(local, dtype=torch.bool)
        away = away.int().scatter_add_(1, columns, held.int()).bool()
        others = local.masked_fill(away, -torch.inf)
    return _sum(others.exp().sum(1), shard).clamp_min(torch.finfo(local.dtype).tiny).log()


def _largest(local: Tensor, shard: VocabularyShard | None) -> Tensor:
    largest = local.amax(1)
    if shard is not None:
        largest = collectives.all_reduce(largest, "max", shard.group)
    return largest


def _sum(part: Tensor, shard: VocabularyShard | None) -> Tensor:
    if shard is None:
        return part
    total: Tensor = _GroupSum.apply(part, shard.group)
    return total


def _precision(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


class _GroupSum(torch.autograd.Function):
    """Sum over a group whose ranks go on to compute the same number: each takes that number's gradient as it is."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: ProcessGroup) -> Tensor:
        del ctx
        total: Tensor = collectives.all_reduce(part, "sum", group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None


class _LogSoftmaxAt(torch.autograd.Function):
    """(log-softmax [N, V], its values at columns [N, C]), with torch's own kernels in both directions, so that without
    a teacher the bits are those of its cross-entropy.

    Autograd would spread the columns' gradient over a whole [N, V] of zeros; this does it for a block of rows at a
    time, and has the gradient in the logits' own precision.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = torch.log_softmax(logits, 1, dtype=_precision(logits))
        ctx.save_for_backward(logprobs, columns)
        ctx.dtype = logits.dtype
        ctx.set_materialize_grads(False)
        return logprobs, logprobs.gather(1, columns)

    @staticmethod
    def backward(ctx: Any, of_all: Tensor | None, at_columns: Tensor | None) -> tuple[Tensor, None]:
        logprobs, columns = ctx.saved_tensors
        result = torch.empty_like(logprobs, dtype=ctx.dtype)
        step = -(-len(result) // _BLOCKS)
        for first in range(0, len(result), step):
            block = slice(first, first + step)
            pulls = torch.zeros_like(logprobs[block]) if of_all is None else of_all[block].clone()
            if at_columns is not None:
                pulls.scatter_add_(1, columns[block], at_columns[block])
            result[block] = torch._log_softmax_backward_data(pulls, logprobs[block], 1, logprobs.dtype)
        return result, None

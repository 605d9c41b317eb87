"""The teacher packed into the labels: the one way through torchtitan that survives FSDP, TP, CP, PP, chunking and
CUDA graphs alike.

Of what a loader yields, only labels reach the loss under every parallelism, and a tensor of any trailing shape passes
through unharmed. So each position's label, teacher ids and log-probabilities travel as one row of int32;
log-probabilities keep their bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def pack(labels: Tensor, ids: Tensor, logprobs: Tensor, spread: Tensor | None = None) -> Tensor:
    """int32 [B, L, 1+2K(+1)] from labels [B, L], ids [B, L, K], log-probabilities [B, L, K] and, where the objective
    needs it, the standard deviation of the teacher's logits [B, L].

    T teachers' entries lie one behind the other: ids and log-probabilities are [B, L, T·K], deviations [B, L, T].
    """
    parts = [labels[..., None].int(), ids.int(), _bits(logprobs)]
    if spread is not None:
        parts.append(_bits(spread.reshape(*labels.shape, -1)))
    return torch.cat(parts, dim=-1)


class Entries(NamedTuple):
    """What rows of `pack`, of any leading shape […], hold of one teacher."""

    ids: Tensor
    """int64 […, K]."""
    logprobs: Tensor
    """float32 […, K]."""
    spread: Tensor | None
    """float32 […]; None where the rows have none."""


def unpack(packed: Tensor, teachers: int = 1, *, spread: bool = False) -> tuple[Tensor, list[Entries]]:
    """Labels int64 […] and the entries of each teacher, of rows of `pack`."""
    deviations = teachers if spread else 0
    entries = (packed.shape[-1] - 1 - deviations) // 2
    labels, ids, logprobs, behind = torch.split(packed, [1, entries, entries, deviations], dim=-1)
    values, more = logprobs.contiguous().view(torch.float32), behind.contiguous().view(torch.float32)
    found = [
        Entries(own.long(), scores, more[..., number] if spread else None)
        for number, (own, scores) in enumerate(
            zip(ids.chunk(teachers, dim=-1), values.chunk(teachers, dim=-1), strict=True)
        )
    ]
    return labels[..., 0].long(), found


def _bits(values: Tensor) -> Tensor:
    return values.float().contiguous().view(torch.int32)

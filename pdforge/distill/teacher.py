"""What is known of a teacher's distribution at each position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Teacher:
    """A truncated or sampled distribution for each of N positions, as it was stored.

    Attributes:
        ids: int64 [N, K]; 0 where nothing is kept.
        logprobs: float32 [N, K], log-probabilities at τ=1, -inf where nothing is kept; the logarithm of the share of
            draws where the distribution was sampled.
        kept: bool [N, K].
        present: bool [N], whether the position has a teacher at all.
        mass: float32 [N], probability kept.
        spread: float32 [N], standard deviation of the teacher's logits over its vocabulary, if it was captured.
    """

    ids: Tensor
    logprobs: Tensor
    kept: Tensor
    present: Tensor
    mass: Tensor
    spread: Tensor | None = None


@torch.no_grad()
def read_teacher(ids: Tensor, logprobs: Tensor, vocabulary: int, spread: Tensor | None = None) -> Teacher:
    """A teacher from stored entries.

    Args:
        ids: integer [N, K], in any order.
        logprobs: [N, K], natural logarithms, -inf for padding; all -inf means no teacher at that position.
        vocabulary: the student's. What a larger teacher gives to ids beyond it is cut off like any other tail: such an
            id has probability 0 (logarithm -inf), not logit 0.
        spread: [N], standard deviation of the teacher's logits.
    """
    kept = (logprobs > -torch.inf) & (ids < vocabulary)
    cut = torch.where(kept, logprobs.float(), -torch.inf)
    return Teacher(
        ids=torch.where(kept, ids, 0).long(),
        logprobs=cut,
        kept=kept,
        present=kept.any(1),
        mass=cut.exp().sum(1),
        spread=spread,
    )

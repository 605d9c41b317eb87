"""From stored log-probabilities to the distribution that the student learns (arXiv 2410.16215, Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """A sparse target distribution for each of N positions.

    Attributes:
        ids: int64 [N, K].
        weights: float32 [N, K], probabilities that sum to 1; a row of zeros where there is no teacher.
        negentropy: float32 [N], Σ w log w of each row: what turns cross-entropy into KL divergence.
        present: bool [N], whether the position has a teacher.
    """

    ids: Tensor
    weights: Tensor
    negentropy: Tensor
    present: Tensor


@torch.no_grad()
def soften(ids: Tensor, logprobs: Tensor, temperature: float) -> Target:
    """F(z) = softmax(Truncate(z)/τ): the kept entries at temperature τ, renormalised over them.

    Args:
        ids: integer [N, K].
        logprobs: [N, K], log-probabilities at τ=1 with -inf for padding; all -inf means no teacher at that position.
        temperature: τ > 0. The teacher's only: the student stays at 1, and there is no τ² factor.
    """
    scaled = logprobs.float() / temperature
    present = (scaled > -torch.inf).any(-1)
    safe = torch.where(present[:, None], scaled, 0.0)
    log_weights = safe - safe.logsumexp(-1, keepdim=True)
    weights = torch.where(present[:, None], log_weights.exp(), 0.0)
    # padding is 0 · -inf, which is no entropy
    negentropy = torch.where(weights > 0, weights * log_weights, 0.0).sum(-1)
    return Target(ids=ids.long(), weights=weights, negentropy=negentropy, present=present)

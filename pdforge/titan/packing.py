"""The teacher packed into the labels: the one way through torchtitan that survives FSDP, TP, CP, PP, chunking and
CUDA graphs alike.

Of what a loader yields, only labels reach the loss under every parallelism, and a tensor of any trailing shape passes
through unharmed. So each position's label, teacher ids and log-probabilities travel as one row of int32;
log-probabilities keep their bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack(labels: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """int32 [B, L, 1+2K] from labels [B, L], ids [B, L, K] and log-probabilities [B, L, K]."""
    return torch.cat([labels[..., None].int(), ids.int(), logprobs.float().view(torch.int32)], dim=-1)


def unpack(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(labels int64 [B, L], ids int64 [B, L, K], log-probabilities float32 [B, L, K])."""
    entries = (packed.shape[-1] - 1) // 2
    ids, logprobs = packed[..., 1 : 1 + entries], packed[..., 1 + entries :]
    return packed[..., 0].long(), ids.long(), logprobs.contiguous().view(torch.float32)

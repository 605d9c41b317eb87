"""The teacher packed into the labels: the one way through torchtitan that survives FSDP, TP, CP, PP, chunking and
CUDA graphs alike.

Of what a loader yields, only labels reach the loss under every parallelism, and a tensor of any trailing shape passes
through unharmed. So each position's label, teacher ids and log-probabilities travel as one row of int32;
log-probabilities keep their bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack(labels: Tensor, ids: Tensor, logprobs: Tensor, spread: Tensor | None = None) -> Tensor:
    """int32 [B, L, 1+2K(+1)] from labels [B, L], ids [B, L, K], log-probabilities [B, L, K] and, where the objective
    needs it, the standard deviation of the teacher's logits [B, L].
    """
    parts = [labels[..., None].int(), ids.int(), _bits(logprobs)]
    return torch.cat(parts if spread is None else [*parts, _bits(spread[..., None])], dim=-1)


def unpack(packed: Tensor, *, spread: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Rows of `pack`, of any leading shape […]: labels int64 […], ids int64 […, K], log-probabilities float32 […, K],
    and the standard deviation float32 […] where the rows have one.
    """
    if spread:
        *rest, _ = unpack(packed[..., :-1])
        return rest[0], rest[1], rest[2], packed[..., -1].contiguous().view(torch.float32)
    entries = (packed.shape[-1] - 1) // 2
    ids, logprobs = packed[..., 1 : 1 + entries], packed[..., 1 + entries :]
    return packed[..., 0].long(), ids.long(), logprobs.contiguous().view(torch.float32), None


def _bits(values: Tensor) -> Tensor:
    return values.float().contiguous().view(torch.int32)

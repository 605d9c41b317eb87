"""Truncation of a teacher's distribution (arXiv 2410.16215, Eq. 4): top-p at τ=1, then top-k, on the logits' device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Truncated:
    """The kept part of N distributions, padded to K entries.

    Attributes:
        ids: int64 [N, K], by falling probability, ties by id; padding is 0.
        logprobs: float32 [N, K], natural-log probabilities of the *full* softmax at τ=1; padding is -inf.
        count: int64 [N], entries kept.
        mass: float32 [N], probability kept.
    """

    ids: Tensor
    logprobs: Tensor
    count: Tensor
    mass: Tensor


@torch.no_grad()
def truncate(logits: Tensor, top_p: float, top_k: int) -> Truncated:
    """Keep the smallest set of tokens whose mass at τ=1 is at least `top_p`, then the `top_k` most probable of them.

    The token that crosses `top_p` is kept. Everything is exact: the logsumexp runs over the whole vocabulary.

    Args:
        logits: [N, V], any floating dtype; -inf is a token that cannot occur.
        top_p: in (0, 1].
        top_k: at least 1; K of the result is min(top_k, V).
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    kept, ids = _most_probable(logprobs, min(top_k, logits.shape[-1]))
    share = kept.exp()
    before = share.cumsum(-1) - share
    keep = (before < top_p) & (share > 0)
    keep[:, 0] = True
    return Truncated(
        ids=torch.where(keep, ids, 0),
        logprobs=torch.where(keep, kept, -torch.inf),
        count=keep.sum(-1),
        mass=torch.where(keep, share, 0.0).sum(-1),
    )


def _most_probable(logprobs: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most probable of each row of float32 log-probabilities, by falling probability and, among equals, by
    rising id.

    Low-precision logits tie all the time and topk picks among equals as it likes, so value and id are compared as one
    integer: the bits of a non-negative float order like the float itself.
    """
    cost = logprobs.abs().view(torch.int32).long()
    keys = (cost << 32).bitwise_or_(torch.arange(logprobs.shape[-1], device=logprobs.device))
    ids = keys.topk(k, dim=-1, largest=False).values & 0xFFFFFFFF
    return logprobs.gather(-1, ids), ids

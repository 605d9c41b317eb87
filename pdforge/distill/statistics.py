"""What a teacher says of a position besides its truncated distribution: figures of the full one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def statistics(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Figures of N distributions by name, float32 [N].

    `entropy` in nats; `standard_deviation` of the logits over the vocabulary (population's; tokens that cannot occur do
    not count); `logsumexp` of the logits; `label_logprob`, the natural-log probability of the label at τ=1.

    Args:
        logits: [N, V], any floating dtype; -inf is a token that cannot occur.
        labels: int64 [N].
        names: which of them.
    """
    logits = logits.float()
    return {name: _FIGURES[name](logits, labels) for name in names}


def _entropy(logits: Tensor, _labels: Tensor) -> Tensor:
    logprobs = torch.log_softmax(logits, -1)
    return -torch.where(logprobs > -torch.inf, logprobs.exp() * logprobs, 0.0).sum(-1)


def _standard_deviation(logits: Tensor, _labels: Tensor) -> Tensor:
    possible = logits > -torch.inf
    number = possible.sum(-1, keepdim=True)
    mean = torch.where(possible, logits, 0.0).sum(-1, keepdim=True) / number
    return torch.where(possible, (logits - mean).square(), 0.0).sum(-1).div(number[:, 0]).sqrt()


def _logsumexp(logits: Tensor, _labels: Tensor) -> Tensor:
    return logits.logsumexp(-1)


def _label_logprob(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(-1, labels[:, None])[:, 0] - logits.logsumexp(-1)


_FIGURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": _entropy,
    "standard_deviation": _standard_deviation,
    "logsumexp": _logsumexp,
    "label_logprob": _label_logprob,
}

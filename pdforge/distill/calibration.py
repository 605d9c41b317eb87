"""Held-out loss, accuracy and calibration of next-token predictions, summed up over chunks of positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

BINS = 15
"""Of equal width over [0, 1], as in Guo et al. 2017 (arXiv 1706.04599)."""


@dataclass
class Calibration:
    """Sums over positions, in float64."""

    positions: int = 0
    loss: float = 0.0
    """Negative log-likelihood of the labels, nats."""
    _sums: Tensor = field(default_factory=lambda: torch.zeros(3, BINS, dtype=torch.float64))
    """By bin of the highest probability: positions, their highest probabilities, and how many of these are right."""

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits [N, V] and the labels [N] that they predict."""
        logprobs = torch.log_softmax(logits.float(), -1)
        confidence = logprobs.amax(-1).double().exp()
        bins = (confidence * BINS).long().clamp_(max=BINS - 1)
        rows = torch.stack([torch.ones_like(confidence), confidence, (logits.argmax(-1) == labels).double()])
        self._sums += (
            torch.zeros(3, BINS, dtype=rows.dtype, device=rows.device).scatter_add_(1, bins.expand(3, -1), rows).cpu()
        )
        self.positions += len(labels)
        self.loss -= float(logprobs.gather(-1, labels[:, None]).double().sum())

    @property
    def mean_loss(self) -> float:
        """Nats a token."""
        return self.loss / self.positions

    @property
    def accuracy(self) -> float:
        """Part of the labels that are the likeliest token."""
        return float(self._sums[2].sum()) / self.positions

    @property
    def error(self) -> float:
        """Expected calibration error: the mean, over positions, of |accuracy - confidence| of their bin."""
        _, confidence, right = self._sums
        return float((right - confidence).abs().sum()) / self.positions

"""The temperature τ of each position: how a teacher's distribution is softened before the student learns it.

Adaptive temperatures are those of arXiv 2410.16215, Table 3, which names them without formulas; the formulas are those
of their authors, or our reading where it says so. The student stays at temperature 1, except under NormKD.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdforge.distill.teacher import Teacher

LOWEST, HIGHEST = 0.01, 100.0
"""Bounds of a position's own temperature: those of a recipe's constant one."""


@dataclass(frozen=True)
class Softening:
    """How each of N positions is softened.

    Attributes:
        temperature: [N], τ of the teacher.
        scale: [N], factor of the position's distillation loss.
        student_norm: τ of the student is its own logits' standard deviation times this; None: the student stays at 1.
    """

    temperature: Tensor
    scale: Tensor
    student_norm: float | None = None


Temperature = Callable[[Teacher], Softening]
"""From what is known of the teacher to the temperature of each position."""


@dataclass(frozen=True)
class Static:
    """One τ for all positions, a 0-dim tensor: it may follow a schedule without recompilation. No τ² factor."""

    value: Tensor

    def __call__(self, teacher: Teacher) -> Softening:
        """τ at every position."""
        return _softening(self.value.expand(teacher.mass.shape))


@dataclass(frozen=True)
class NormKD:
    """τ_t = σ(z_t)·norm, τ_s = σ(z_s)·norm, loss × τ_t² (NormKD, arXiv 2308.00520).

    σ is the standard deviation over the vocabulary, and the student's is a constant to the gradient (our reading).
    """

    norm: float

    def __call__(self, teacher: Teacher) -> Softening:
        """τ from the teacher's column of standard deviations."""
        temperature = (_known(teacher.spread) * self.norm).clamp(LOWEST, HIGHEST)
        return Softening(temperature, temperature.square(), self.norm)


@dataclass(frozen=True)
class WTTM:
    """Target ∝ p^γ, loss × U, U = Σ p^γ (WTTM, arXiv 2402.11148): τ = 1/γ, positions weighed by their softness.

    The sum runs over the kept tokens (our reading: the others are not known).
    """

    gamma: float

    def __call__(self, teacher: Teacher) -> Softening:
        """τ = 1/γ, and each position's weight."""
        scale = torch.where(teacher.kept, (teacher.logprobs * self.gamma).exp(), 0.0).sum(1)
        return Softening(torch.full_like(scale, 1 / self.gamma), scale)


@dataclass(frozen=True)
class BySpread:
    """τ = minimum + (maximum - minimum)·min(1, σ(z_t)/reference) (AdaKD_SD; our reading)."""

    minimum: float
    maximum: float
    reference: float

    def __call__(self, teacher: Teacher) -> Softening:
        """τ from the teacher's column of standard deviations."""
        part = (_known(teacher.spread) / self.reference).clamp(0, 1)
        return _softening(self.minimum + (self.maximum - self.minimum) * part)


@dataclass(frozen=True)
class ByEntropy:
    """τ = minimum + (maximum - minimum)·H/log n (AdaKD_H; our reading).

    H is the entropy of the n kept probabilities, renormalised; one token alone has none.
    """

    minimum: float
    maximum: float

    def __call__(self, teacher: Teacher) -> Softening:
        """τ from the kept tokens."""
        safe = torch.where(teacher.present[:, None], teacher.logprobs, 0.0)
        log_weights = torch.where(teacher.kept, safe - safe.logsumexp(1, keepdim=True), 0.0)
        entropy = -torch.where(teacher.kept, log_weights.exp() * log_weights, 0.0).sum(1)
        most = teacher.kept.sum(1).clamp_min(2).to(entropy.dtype).log()
        return _softening(self.minimum + (self.maximum - self.minimum) * (entropy / most).clamp(0, 1))


def _softening(temperature: Tensor) -> Softening:
    return Softening(temperature, torch.ones_like(temperature))


def _known(column: Tensor | None) -> Tensor:
    if column is None:
        raise ValueError("this temperature needs the standard deviation of the teacher's logits")
    return column

"""The noise of repeated seeds: what a difference between two means must exceed to be more than chance.

One standard deviation s is estimated for a metric from all groups of runs that differ in their seed only, pooled:
s² = Σ (n_g - 1)·s_g² / Σ (n_g - 1), with ν = Σ (n_g - 1) degrees of freedom; it is assumed to be the same for all of
them. Two means over n and m seeds differ by chance by more than t(0.975, ν) · s · √(1/n + 1/m) in one of twenty
comparisons: that is the band.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

CONFIDENCE = 0.95

Z = 1.959963984540054
"""Of the normal distribution, two-sided at `CONFIDENCE`."""


@dataclass(frozen=True)
class Noise:
    """Deviation of one run's result from the mean over seeds."""

    deviation: float
    freedom: int

    def band(self, one: int, other: int) -> float:
        """Half-width for the difference of two means over `one` and `other` runs."""
        return t_quantile(self.freedom) * self.deviation * math.sqrt(1 / one + 1 / other)


def pool(groups: Iterable[Sequence[float]]) -> Noise | None:
    """The noise of groups of repeated results; None where nothing was repeated."""
    squares, freedom = 0.0, 0
    for values in groups:
        if len(values) > 1:
            mean = fmean(values)
            squares += sum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return Noise(math.sqrt(squares / freedom), freedom) if freedom else None


def t_quantile(freedom: int) -> float:
    """Two-sided quantile of Student's t distribution at `CONFIDENCE`, found by bisection."""
    low, high = 0.0, 20.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < CONFIDENCE else (low, middle)
    return high


def _t_inside(t: float, freedom: int) -> float:
    """P(|T| < t), the finite series of Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total

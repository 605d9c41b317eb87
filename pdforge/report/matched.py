"""Comparisons at equal tokens and at equal compute, from the held-out losses along the way.

Two curves are compared where the shorter one ends; the other is interpolated there, linearly in the logarithm of its
tokens. A value from the middle of a run is that of a learning rate which has not decayed yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from pdforge.report.compare import Comparison, Group
from pdforge.report.model import Curve


@dataclass(frozen=True)
class Budget:
    """Held-out losses of a group and of its baseline at one budget."""

    amount: float
    """Tokens, or FLOPs."""
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """Ours minus theirs, nats a token."""
        return self.ours - self.theirs


@dataclass(frozen=True)
class Matched:
    """A group beside its baseline. None: no curve, no baseline, or FLOPs that nobody knows."""

    group: str
    baseline: str
    tokens: Budget | None
    flops: Budget | None
    """Of the student's training."""
    flops_with_teacher: Budget | None
    """The teacher's pass over the same tokens counted as well."""
    tokens_of_baseline: float | None
    """That the baseline takes to reach the group's last loss; None: it does not."""
    at_most: bool = False
    """That baseline was there at its first measured loss already, and these are the tokens of that."""


def matched(comparison: Comparison) -> list[Matched]:
    """Of every group that has a baseline and a curve."""
    rows = []
    for group in comparison.groups:
        baseline = comparison.baseline(group)
        if baseline is None:
            continue
        ours, theirs = mean_curve(group), mean_curve(baseline)
        if not ours.tokens or not theirs.tokens or max(len(ours.tokens), len(theirs.tokens)) < 2:
            continue
        costs = [(_cost(group, teacher=t), _cost(baseline, teacher=t)) for t in (False, True)]
        rows.append(
            Matched(
                group=group.name,
                baseline=baseline.name,
                tokens=_at_equal(ours, theirs, 1.0, 1.0),
                flops=_at_equal(ours, theirs, *costs[0]),
                flops_with_teacher=_at_equal(ours, theirs, *costs[1]),
                tokens_of_baseline=_reached(theirs, ours.values[-1]),
                at_most=theirs.values[0] < ours.values[-1],
            )
        )
    return rows


def mean_curve(group: Group) -> Curve:
    """The held-out losses of a group: means over the runs at the points that all with a curve have, except at 0 tokens,
    which have no logarithm.
    """
    curves = [
        dict(zip(run.heldout.tokens, run.heldout.values, strict=True)) for run in group.runs if run.heldout.tokens
    ]
    common = sorted(set.intersection(*map(set, curves)) - {0}) if curves else []
    return Curve(tokens=common, values=[fmean(curve[tokens] for curve in curves) for tokens in common])


def interpolate(curve: Curve, tokens: float) -> float | None:
    """The loss at a number of tokens; None outside the curve."""
    points = list(zip(curve.tokens, curve.values, strict=True))
    for (before, low), (after, high) in pairwise(points):
        if before <= tokens <= after:
            return low + (high - low) * math.log(tokens / before) / math.log(after / before)
    return next((value for at, value in points if math.isclose(at, tokens)), None)


def _at_equal(ours: Curve, theirs: Curve, our_cost: float | None, their_cost: float | None) -> Budget | None:
    """Both at the smaller of their budgets; costs are a token's."""
    if our_cost is None or their_cost is None:
        return None
    amount = min(ours.tokens[-1] * our_cost, theirs.tokens[-1] * their_cost)
    values = [
        interpolate(curve, min(amount / cost, curve.tokens[-1]))
        for curve, cost in ((ours, our_cost), (theirs, their_cost))
    ]
    return None if values[0] is None or values[1] is None else Budget(amount, values[0], values[1])


def _cost(group: Group, *, teacher: bool) -> float | None:
    """FLOPs of a token that the student is trained on."""
    run = group.first
    if not run.flops_per_token or not teacher:
        return run.flops_per_token or None
    return None if run.teacher_flops is None or not run.tokens else run.flops_per_token + run.teacher_flops / run.tokens


def _reached(curve: Curve, loss: float) -> float | None:
    """Tokens at which a curve first is as low as `loss`; its first where it begins lower."""
    if curve.values[0] < loss:
        return curve.tokens[0]
    points: Sequence[tuple[int, float]] = list(zip(curve.tokens, curve.values, strict=True))
    for (before, high), (after, low) in pairwise(points):
        if high >= loss >= low and high > low:
            part = (high - loss) / (high - low)
            return math.exp(math.log(before) + part * math.log(after / before))
    return None

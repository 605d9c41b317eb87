"""Sets results beside each other: groups of seeds, differences from a baseline, and what a recipe expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from statistics import fmean, stdev
from typing import Literal

from pdforge.errors import UsageError
from pdforge.recipe.models import Expectation
from pdforge.report.model import HELDOUT, Metric, Results, RunResult
from pdforge.report.noise import Noise, Z, pool
from pdforge.text import closest


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    name: str
    runs: tuple[RunResult, ...]

    @property
    def first(self) -> RunResult:
        """Stands for all in what they have in common."""
        return self.runs[0]

    @property
    def finished(self) -> list[RunResult]:
        """Those with a result."""
        return [run for run in self.runs if HELDOUT in run.metrics]

    def values(self, metric: str, step: int | None = None) -> list[Metric]:
        """Of all its runs that have the metric: at the end, or at a step of their training."""
        at_end = step is None or step == self.first.steps
        found = [run.metrics if at_end else run.at_steps.get(step or 0, {}) for run in self.runs]
        return [metrics[metric] for metrics in found if metric in metrics]

    def mean(self, metric: str, step: int | None = None) -> float | None:
        """Over its runs; None where none has it."""
        values = self.values(metric, step)
        return fmean(one.value for one in values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Standard deviation over its runs; None for less than two."""
        values = [one.value for one in self.values(metric)]
        return stdev(values) if len(values) > 1 else None

    def error(self, metric: str, step: int | None = None) -> float | None:
        """Standard error of the measurement itself; every seed answers the same questions, so that it stays."""
        errors = [one.error for one in self.values(metric, step) if one.error is not None]
        return fmean(errors) if errors else None

    @property
    def tasks_before(self) -> list[str]:
        """Tasks that were asked of a student before its end."""
        found = (name for run in self.runs for step in run.at_steps.values() for name in step)
        return [name for name in dict.fromkeys(found) if name not in (HELDOUT, "ece")]

    @property
    def steps_before(self) -> list[int]:
        """Steps at which they were, rising."""
        tasks = {*self.tasks_before}
        return sorted({step for run in self.runs for step, metrics in run.at_steps.items() if tasks & {*metrics}})


@dataclass(frozen=True)
class Difference:
    """The mean of a group minus that of its baseline."""

    value: float
    band: float | None
    """What chance alone stays within in nineteen of twenty comparisons; None: nothing was repeated."""
    source: Literal["seeds", "questions", ""]
    """Of the band: repeated seeds, or the standard errors of the task."""

    @property
    def is_noise(self) -> bool:
        """Whether it lies inside the band."""
        return self.band is not None and abs(self.value) <= self.band


@dataclass(frozen=True)
class Expected:
    """One value that a recipe expects, beside ours."""

    group: str
    metric: str
    source: str
    step: int | None
    theirs: float
    ours: float | None
    """None: not measured (yet)."""
    our_delta: float | None
    """To the baseline, as `their_delta` where the same source has a value of the baseline's."""
    their_delta: float | None
    tolerance: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether ours is as near as the recipe asks; None where it does not ask, or nothing was measured."""
        if self.ours is None or self.tolerance is None:
            return None
        return abs(self.ours - self.theirs) <= self.tolerance


@dataclass(frozen=True)
class Comparison:
    """Results with a choice of baseline; everything is computed on demand."""

    results: Results
    chosen: str | None = None
    """Name of the group or run that all are compared with; None: see `baseline`."""

    def __post_init__(self) -> None:
        known = [name for group in self.groups for name in (group.name, *(run.name for run in group.runs))]
        if self.chosen is not None and self.chosen not in known:
            close = closest(self.chosen, known)
            raise UsageError(
                f"no run {self.chosen!r} to compare with",
                remedy=f"did you mean {close}?" if close else f"there are {', '.join(dict.fromkeys(known))}",
            )

    @cached_property
    def groups(self) -> list[Group]:
        """In the order of their first runs."""
        runs: dict[str, list[RunResult]] = {}
        for run in self.results.runs:
            runs.setdefault(run.group, []).append(run)
        return [Group(name, tuple(members)) for name, members in runs.items()]

    @property
    def has_seeds(self) -> bool:
        """Whether a group has more than one run."""
        return len(self.groups) < len(self.results.runs)

    @cached_property
    def metrics(self) -> list[str]:
        """That any run has, held-out loss first."""
        found = dict.fromkeys(name for run in self.results.runs for name in run.metrics)
        return sorted(found, key=lambda name: (name != HELDOUT, name != "ece"))

    def baseline(self, group: Group) -> Group | None:
        """What a group is compared with; None: nothing, or it is the baseline itself.

        Unless one is chosen: the first with α = 0 of its recipe, size and data, of as many tokens if there is one.
        Where its recipe has none, of its size, data and number of tokens, since a study may have several recipes.
        """
        if self.chosen is not None:
            found = [g for g in self.groups if self.chosen in (g.name, *(run.name for run in g.runs))]
        else:
            one, kind = group.first, attrgetter("is_baseline", "parameters", "data")
            alike = [g for g in self.groups if kind(g.first) == (True, one.parameters, one.data)]
            as_many = [g for g in alike if g.first.tokens == one.tokens]
            mine = [[g for g in some if g.first.recipe == one.recipe] for some in (as_many, alike)]
            found = mine[0] or mine[1] or (as_many if one.data is not None else [])
        return found[0] if found and found[0].name != group.name else None

    def noise(self, group: Group, metric: str) -> Noise | None:
        """Pooled over the groups whose students have the size of this one's and read as many tokens."""
        size = (group.first.parameters, group.first.tokens)
        alike = [other for other in self.groups if (other.first.parameters, other.first.tokens) == size]
        return pool([one.value for one in other.values(metric)] for other in alike)

    def difference(self, group: Group, metric: str) -> Difference | None:
        """From the baseline; None where one of the two has no value."""
        baseline = self.baseline(group)
        ours, theirs = group.mean(metric), baseline.mean(metric) if baseline else None
        if baseline is None or ours is None or theirs is None:
            return None
        if noise := self.noise(group, metric):
            band = noise.band(len(group.values(metric)), len(baseline.values(metric)))
            return Difference(ours - theirs, band, "seeds")
        errors = group.error(metric), baseline.error(metric)
        if errors[0] is None or errors[1] is None:
            return Difference(ours - theirs, None, "")
        return Difference(ours - theirs, Z * (errors[0] ** 2 + errors[1] ** 2) ** 0.5, "questions")

    def expected(self) -> list[Expected]:
        """Every value that a recipe expects, in the order of the groups."""
        return [
            self._expected(group, row, metric, value)
            for group in self.groups
            for row in group.first.expect
            for metric, value in row.values.items()
        ]

    def _expected(self, group: Group, row: Expectation, metric: str, theirs: float) -> Expected:
        baseline = self.baseline(group)
        ours = _measured(group, row, metric)
        before, their_delta = None, None
        if baseline is not None:
            before = _measured(baseline, row, metric)
            same = [other for other in baseline.first.expect if (other.source, other.step) == (row.source, row.step)]
            their_delta = next((theirs - other.values[metric] for other in same if metric in other.values), None)
        return Expected(
            group=group.name,
            metric=metric,
            source=row.source,
            step=row.step,
            theirs=theirs,
            ours=ours,
            our_delta=None if ours is None or before is None else ours - before,
            their_delta=their_delta,
            tolerance=row.tolerance,
        )


def _measured(group: Group, row: Expectation, metric: str) -> float | None:
    """A metric as the row means it; an `average` is that of the row's other metrics."""
    if (found := group.mean(metric, row.step)) is not None or metric != "average":
        return found
    parts = [_measured(group, row, name) for name in row.values if name != "average"]
    whole: Sequence[float] = [part for part in parts if part is not None]
    return fmean(whole) if whole and len(whole) == len(parts) else None

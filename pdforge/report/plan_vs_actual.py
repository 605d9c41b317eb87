"""What a run's plan expected, beside what happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdforge.errors import UsageError
from pdforge.layout import RunDirectory, StageDirectory, read_json
from pdforge.plan.measured import measure
from pdforge.plan.measurement import Measured
from pdforge.plan.model import Plan
from pdforge.text import UNKNOWN, count, duration, size


@dataclass(frozen=True)
class Beside:
    """One estimate and what was measured. None: unknown then, or not measured."""

    stage: str
    figure: str
    estimated: float | None
    source: str
    """Of the estimate."""
    actual: float | None

    @property
    def ratio(self) -> float | None:
        """Actual over estimated."""
        return self.actual / self.estimated if self.estimated and self.actual is not None else None


def plan_vs_actual(plan: Plan, root: Path) -> list[Beside]:
    """Every estimate of a run's finished stages.

    Raises:
        UsageError: the run was never started, or by a version that kept no estimates.
    """
    page = _page(RunDirectory(root / plan.directory))
    rows: list[Beside] = []
    for stage in page["stages"]:
        found = measure(StageDirectory(root / stage["directory"]), plan.profile)
        if found is not None and not stage["done"]:
            rows += _of_stage(stage, found)
    return rows


def _page(run: RunDirectory) -> dict[str, Any]:
    try:
        page = read_json(run.page)
    except ValueError as error:
        raise UsageError(
            f"{run.page} is damaged: {error}", remedy="the run's plan can be made again, not its past"
        ) from error
    if not isinstance(page, dict):
        raise UsageError(
            f"{run.path.name} has no {run.page.name}: nothing says what was expected of it",
            remedy="`pdforge run` and `pdforge submit` write it when a run is first started",
        )
    return page


def _of_stage(stage: dict[str, Any], found: Measured) -> Iterator[Beside]:
    took, store, made = stage["duration"] or {}, stage["store"] or {}, stage["checkpoints"] or {}
    title, source = stage["title"], took.get("source", UNKNOWN)
    yield Beside(title, "wall-clock", took.get("seconds"), source, found.seconds)
    rate = found.tokens / (took["seconds"] - took["start"]) if took and found.tokens else None
    yield Beside(title, "tokens a second", rate, source, found.tokens_per_second)
    if store:
        entries = store["entries"]
        yield Beside(title, "entries a token", entries["mean"], entries["source"], found.entries)
        yield Beside(title, "logit store", store["bytes"], store["source"], found.bytes)
    if made:
        yield Beside(title, "a checkpoint", made["each"], "arithmetic", found.bytes)
    if stage["kind"] == "tokenize":
        yield Beside(title, "token store", stage["bytes"], "arithmetic", found.bytes)
    if stage["memory"] and found.peak_memory:
        yield Beside(title, "peak memory", stage["memory"]["total"], "arithmetic", found.peak_memory)


_SAID: dict[str, Callable[[float | None], str]] = {
    "wall-clock": duration,
    "tokens a second": count,
    "entries a token": lambda number: UNKNOWN if number is None else f"{number:.1f}",
}


def to_json(found: Mapping[str, Sequence[Beside]]) -> str:
    """Rows by run."""
    return json.dumps(
        {run: [{**asdict(row), "ratio": row.ratio} for row in rows] for run, rows in found.items()}, indent=1
    )


def table_of(rows: Sequence[Beside]) -> str:
    """As lines of text, aligned."""
    cells = [("stage", "figure", "planned", "actual", "ratio", "from")]
    for row in rows:
        say = _SAID.get(row.figure, size)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        cells.append((row.stage, row.figure, say(row.estimated), say(row.actual), ratio, row.source))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = (False, False, True, True, True, False)
    return "".join(
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in cells
    )

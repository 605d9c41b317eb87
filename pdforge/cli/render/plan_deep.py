"""What the deep check found, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdforge.cli.render.sections import Column, Row, Section, Table
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import training_memory

if TYPE_CHECKING:
    from pdforge.launch.deep import Looked

_GIB = float(1 << 30)


def deep_check(looked: Sequence[Looked]) -> list[Section]:
    """A column for each training that could be built, beside its arithmetic; those that could not be are warnings."""
    built = [each for each in looked if not each.error]
    names = list(dict.fromkeys(name for each in built for name in each.peak))
    rows = [Row((name, *(_gib(each.peak.get(name)) for each in built))) for name in names]
    rows.append(Row(("peak", *(_gib(each.total if each.peak else None) for each in built)), strong=True))
    rows.append(Row(("by arithmetic", *(_gib(_counted(each)) for each in built))))
    rows.append(Row(("static part", *(_gib(each.static) for each in built))))
    columns = (Column("built, GiB a GPU", key=True), *(Column(each.stage.title, right=True) for each in built))
    notes = ["static part: parameters, gradients and optimizer state"]
    if any(not each.peak for each in built):
        notes.append("of a pipeline the peak is not traced")
    if not looked:
        return []
    return [
        Section(
            "deep check",
            table=Table(columns, tuple(rows)) if built else None,
            notes=tuple(notes) if built else (),
            warnings=tuple(
                f"{each.stage.title} cannot be built on {each.stage.processes} processes: {each.error}"
                for each in looked
                if each.error
            ),
        )
    ]


def _counted(looked: Looked) -> int:
    assert isinstance(looked.stage.job, TrainJob)
    return training_memory(looked.stage.job).total


def _gib(number: int | None) -> str:
    return "–" if number is None else f"{number / _GIB:.2f}"

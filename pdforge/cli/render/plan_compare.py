"""Runs side by side: a column a run and a row a figure, or where they are too many a row a run and a column for each
figure in which they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pdforge.cli.render.plan_costs import disk
from pdforge.cli.render.plan_groups import training_of
from pdforge.cli.render.sections import Column, Row, Section, Table
from pdforge.plan.page import Model, PlanPage, Run, Step
from pdforge.text import UNKNOWN, count, duration, size

Figure = Callable[[PlanPage, Run], str]

_WIDEST = 100
"""Characters of a table with a column a run."""
_NONE = "–"


def compare(pages: Sequence[PlanPage]) -> Section:
    """All runs of all pages."""
    labels = _labels(pages)
    figures = _figures([(page, run) for page in pages for run in page.runs], _PLACE, _SCIENCE, _COSTS)
    rows = (Row(("≠" if len(set(said)) > 1 else "", name, *said)) for name, said in figures.items())
    columns = (Column("", key=True), Column("figure", key=True), *(Column(label, right=True) for label in labels))
    table = Table(columns, tuple(rows))
    if table.width <= _WIDEST:
        return Section("side by side", table=table, notes=("≠ marks what differs",))
    return Section("side by side", lines=_same(figures), table=_rows(labels, figures))


def runs_table(page: PlanPage) -> Section:
    """The runs of a plan that has many, each with the number of its training and what sets it apart."""
    figures = _figures([(page, run) for run in page.runs], _SCIENCE)
    table = _rows([run.label for run in page.runs], figures)
    numbers = [str(training_of(page, run).number) for run in page.runs]
    rows = (Row((number, *row.cells)) for number, row in zip(numbers, table.rows, strict=True))
    return Section("runs", lines=_same(figures), table=Table((Column("", key=True), *table.columns), tuple(rows)))


def _rows(labels: Sequence[str], figures: dict[str, list[str]]) -> Table:
    """A row a run, a column for each figure that has several values."""
    differ = {name: said for name, said in figures.items() if len({*said} - {_NONE}) > 1}
    rows = (Row((label, *cells)) for label, *cells in zip(labels, *differ.values(), strict=True))
    return Table((Column("run", wide=True, key=True), *(Column(name, right=True) for name in differ)), tuple(rows))


def _same(figures: dict[str, list[str]]) -> tuple[str, ...]:
    """Figures that have one value, in all runs or in those that have them at all."""
    lines = []
    for words, several in (("the same in all", 1), ("the same where there is one", 2)):
        same = [
            f"{name} {value}" for name, said in figures.items() if len({*said}) == several and (value := _only(said))
        ]
        lines += [f"{words}: {', '.join(same)}"] if same else []
    return tuple(lines)


def _only(said: Sequence[str]) -> str:
    """The one value beside nothing; empty: there are several."""
    values = {*said} - {_NONE}
    return values.pop() if len(values) == 1 else ""


def _figures(runs: Sequence[tuple[PlanPage, Run]], *of: dict[str, Figure]) -> dict[str, list[str]]:
    """What is said of each run, by figure; without those that say nothing of any."""
    found = {name: [say(page, run) for page, run in runs] for figures in of for name, say in figures.items()}
    return {name: [each or _NONE for each in said] for name, said in found.items() if any(said)}


def _labels(pages: Sequence[PlanPage]) -> list[str]:
    """Of every run, told apart by the recipe's name, or by its place where recipes share one."""
    names = [page.name for page in pages]
    if len(set(names)) < len(names):
        return [f"{number}: {run.label}" for number, page in enumerate(pages, start=1) for run in page.runs]
    alone = len(names) == 1
    return [
        run.label if alone or run.label == page.name else f"{page.name} {run.label}"
        for page in pages
        for run in page.runs
    ]


def _capture(page: PlanPage, run: Run) -> Step | None:
    needs = training_of(page, run).needs
    return next((step for step in page.stages if step.number in needs and step.kind == "capture"), None)


def _student(page: PlanPage, run: Run) -> Model:
    return next(model for model in page.models if model.role == "student" and model.name == run.label)


def _curve(name: str) -> Figure:
    def said(page: PlanPage, run: Run) -> str:
        curve = next((curve for curve in training_of(page, run).curves if curve.name == name), None)
        if curve is None:
            return ""
        if not curve.values:
            return curve.schedule
        top = max(curve.values)
        return f"{top:g}" if len(set(curve.values)) == 1 else f"{curve.schedule} to {top:g}"

    return said


def _store(page: PlanPage, run: Run) -> str:
    capture = _capture(page, run)
    return disk(capture) if capture else ""


def _entries(page: PlanPage, run: Run) -> str:
    capture = _capture(page, run)
    if capture is None or capture.store is None:
        return ""
    entries = capture.store.entries
    return f"≤ {entries.most}" if entries.mean is None else f"{entries.mean:.1f}"


def _peak(page: PlanPage, run: Run) -> str:
    memory = training_of(page, run).memory
    return f"{memory.total / (1 << 30):.1f} GiB" if memory else ""


def _hours(page: PlanPage, run: Run) -> str:
    hours = training_of(page, run).process_hours
    return UNKNOWN if hours is None else f"{hours:,.1f}"


def _time(page: PlanPage, run: Run) -> str:
    took = training_of(page, run).duration
    return duration(took.seconds if took else None)


def _batch(page: PlanPage, run: Run) -> str:
    batch = training_of(page, run).batch
    assert batch is not None, "a training has one"
    return f"{batch.sequences} = {batch.data_parallel} × {batch.micro} × {batch.accumulation}"


_SCIENCE: dict[str, Figure] = {
    "hash": lambda _, run: run.hash,
    "parameters": lambda page, run: count(_student(page, run).parameters),
    "FLOPs a token": lambda page, run: f"{_student(page, run).training_flops:.2e}",
    "steps": lambda page, run: f"{training_of(page, run).steps:,}",
    "tokens": lambda page, run: count(training_of(page, run).tokens),
    "batch": _batch,
    "teacher": lambda _, run: run.teacher,
    "truncation": lambda _, run: run.truncation,
    "loss": lambda _, run: run.loss,
    "α": _curve("α"),
    "τ": _curve("τ"),
    "learning rate": _curve("learning rate"),
    "seed": lambda _, run: run.seed,
}
_COSTS: dict[str, Figure] = {
    "entries a token": _entries,
    "logit store": _store,
    "checkpoints": lambda page, run: size(training_of(page, run).bytes),
    "peak memory": _peak,
    "wall-clock": _time,
    "process-hours": _hours,
}
_PLACE: dict[str, Figure] = {
    "profile": lambda page, _: page.place.profile,
    "processes": lambda page, _: str(page.place.processes),
}

"""Plans side by side: a column a run, a row a figure, and which rows differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pdforge.cli.render.plan_words import disk
from pdforge.cli.render.sections import Column, Row, Section, Table
from pdforge.plan.page import Model, PlanPage, Run, Step
from pdforge.text import UNKNOWN, count, duration, size

Figure = Callable[[PlanPage, Run], str]


def compare(pages: Sequence[PlanPage]) -> Section:
    """All runs of all pages."""
    runs = [(page, run) for page in pages for run in page.runs]
    rows = []
    for name, figure in _FIGURES.items():
        cells = [figure(page, run) for page, run in runs]
        if any(cells):
            rows.append(Row(("≠" if len(set(cells)) > 1 else "", name, *(cell or "–" for cell in cells))))
    columns = (Column(""), Column("figure"), *(Column(_label(page, run, pages), right=True) for page, run in runs))
    return Section("side by side", table=Table(columns, tuple(rows)), notes=("≠ marks what differs",))


def _label(page: PlanPage, run: Run, pages: Sequence[PlanPage]) -> str:
    return (
        run.label if run.label == page.name or len({each.name for each in pages}) == 1 else f"{page.name} {run.label}"
    )


def _train(page: PlanPage, run: Run) -> Step:
    return next(step for step in page.stages if step.directory == f"{run.directory}/train")


def _capture(page: PlanPage, run: Run) -> Step | None:
    needs = _train(page, run).needs
    return next((step for step in page.stages if step.number in needs and step.kind == "capture"), None)


def _student(page: PlanPage, run: Run) -> Model:
    return next(model for model in page.models if model.role == "student" and model.name == run.label)


def _curve(name: str) -> Figure:
    def said(page: PlanPage, run: Run) -> str:
        curve = next((curve for curve in _train(page, run).curves if curve.name == name), None)
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
    memory = _train(page, run).memory
    return f"{memory.total / (1 << 30):.1f} GiB" if memory else ""


def _hours(page: PlanPage, run: Run) -> str:
    hours = _train(page, run).process_hours
    return UNKNOWN if hours is None else f"{hours:,.1f}"


def _time(page: PlanPage, run: Run) -> str:
    took = _train(page, run).duration
    return duration(took.seconds if took else None)


def _batch(page: PlanPage, run: Run) -> str:
    batch = _train(page, run).batch
    assert batch is not None, "a training has one"
    return f"{batch.sequences} = {batch.data_parallel} × {batch.micro} × {batch.accumulation}"


_FIGURES: dict[str, Figure] = {
    "profile": lambda page, _: page.place.profile,
    "processes": lambda page, _: str(page.place.processes),
    "hash": lambda _, run: run.hash,
    "parameters": lambda page, run: count(_student(page, run).parameters),
    "FLOPs a token": lambda page, run: f"{_student(page, run).training_flops:.2e}",
    "steps": lambda page, run: f"{_train(page, run).steps:,}",
    "tokens": lambda page, run: count(_train(page, run).tokens),
    "batch": _batch,
    "α": _curve("α"),
    "τ": _curve("τ"),
    "learning rate": _curve("learning rate"),
    "entries a token": _entries,
    "logit store": _store,
    "checkpoints": lambda page, run: size(_train(page, run).bytes),
    "peak memory": _peak,
    "wall-clock": _time,
    "process-hours": _hours,
}

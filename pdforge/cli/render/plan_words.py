"""The page of a plan in words: which figures stand where, and how they are said. All forms are made of this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pdforge.cli.render.plan_costs import bandwidth, costs, memory
from pdforge.cli.render.sections import Column, Drawn, Row, Section, Table
from pdforge.plan.curves import Curve
from pdforge.plan.page import UNTIMED, Batch, Model, PlanPage, Step
from pdforge.text import UNKNOWN, count, size


def heading(page: PlanPage) -> tuple[str, ...]:
    """What stands above everything: description, profile, root."""
    place = page.place
    nodes = f" on {place.nodes} nodes" if place.nodes > 1 else ""
    processes = f"{place.processes} {place.device.upper()} process{'es' if place.processes > 1 else ''}{nodes}"
    gpu = f" of {place.gpu}" if place.gpu else ""
    head = (page.description,) if page.description else ()
    return (*head, f"profile {place.profile}: {processes}{gpu}   root {page.root}")


def sections(page: PlanPage) -> list[Section]:
    """The whole page but its findings."""
    return [
        _stages(page),
        _models(page),
        *_trainings(page),
        *_stores(page),
        *_checkpoints(page),
        *memory(page),
        costs(page),
        *bandwidth(page),
    ]


def summary(page: PlanPage) -> str:
    """`pd_star  3 runs`."""
    runs = len(page.runs)
    return f"{page.name}  {runs} run{'s' if runs > 1 else ''}"


def _stages(page: PlanPage) -> Section:
    columns = (
        Column(""),
        Column("stage"),
        Column("needs"),
        Column("steps", right=True),
        Column("tokens", right=True),
        Column("epochs", right=True),
        Column("FLOPs", right=True),
        Column("on disk", right=True),
        Column("directory", wide=True),
    )
    done = sum(step.done for step in page.stages)
    lines = [f"✓ {done} of {len(page.stages)} stages are done and will be skipped"] if done else []
    said: dict[str, list[str]] = {}
    for run in page.runs:
        if run.logits:
            said.setdefault(run.logits, []).append(run.label)
    lines += [f"logits of {', '.join(labels)}: {line}" for line, labels in said.items()]
    lines += [f"{run.label} {run.extends}" for run in page.runs if run.extends]
    warnings = [f"identities are provisional, and nothing can run here: {reason}" for reason in page.unread]
    return Section(
        "stages", table=Table(columns, tuple(map(_stage, page.stages))), notes=tuple(lines), warnings=tuple(warnings)
    )


def _stage(step: Step) -> Row:
    flops = "–" if step.kind in UNTIMED else UNKNOWN if step.flops is None else f"{step.flops:.1e}"
    return Row(
        (
            f"{step.number} ✓" if step.done else str(step.number),
            step.title,
            ", ".join(map(str, step.needs)) or "–",
            "" if step.steps is None else f"{step.steps:,}",
            "–" if step.kind in ("export", "evaluate") else count(step.tokens),
            "" if step.epochs is None else f"{step.epochs:.2f}",
            flops,
            disk(step),
            step.directory,
        ),
        dim=step.done,
    )


def disk(step: Step) -> str:
    """Bytes on disk, or the bound on them."""
    if step.bytes is None and step.bytes_at_most is not None:
        return f"≤ {size(step.bytes_at_most)}"
    return size(step.bytes)


def _models(page: PlanPage) -> Section:
    names = ("parameters", "embedding", "active", "FLOPs/token", "forward")
    columns = (Column("model"), *(Column(name, right=True) for name in names), Column("shape from", wide=True))
    students = sum(model.role == "student" for model in page.models)
    return Section("models", table=Table(columns, tuple(_model(model, students > 1) for model in page.models)))


def _model(model: Model, several: bool) -> Row:
    label = model.role if (model.role == "student" and not several) or model.name == model.role else ""
    return Row(
        (
            label or f"{model.role} {model.name}",
            count(model.parameters),
            count(model.embedding),
            count(model.active),
            _flops(model.training_flops),
            _flops(model.forward_flops),
            model.source,
        )
    )


def _flops(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:.2e}"


def _trainings(page: PlanPage) -> list[Section]:
    """Batch arithmetic and schedules; trainings that agree are said once."""
    batches: dict[tuple[Batch, int], list[str]] = {}
    schedules: dict[tuple[Curve, ...], list[str]] = {}
    for step in page.stages:
        if step.batch is not None and step.steps is not None:
            batches.setdefault((step.batch, step.steps), []).append(step.title)
            schedules.setdefault(step.curves, []).append(step.title)
    return [
        *(Section(f"batch of {joined(titles)}", lines=_batch(*alike)) for alike, titles in batches.items()),
        *(
            Section(f"schedules of {joined(titles)}", drawn=tuple(map(_drawn, alike)))
            for alike, titles in schedules.items()
        ),
    ]


def joined(titles: Sequence[str]) -> str:
    """`train 1.9b, 3.8b` of stages that differ in the last word."""
    first = titles[0].partition(" ")[0]
    if all(title.startswith(f"{first} ") for title in titles):
        return f"{first} {', '.join(title.partition(' ')[2] for title in titles)}"
    return ", ".join(titles)


def _batch(batch: Batch, steps: int) -> tuple[str, ...]:
    return (
        f"{batch.sequences:,} sequences × {batch.length:,} = {batch.tokens:,} tokens a step; "
        f"{steps:,} steps = {steps * batch.tokens:,} tokens",
        f"= {batch.data_parallel} data-parallel × micro batch {batch.micro} × {batch.accumulation} accumulated",
    )


def _drawn(curve: Curve) -> Drawn:
    if not curve.steps:
        return Drawn(curve.name, f"{curve.schedule}: {curve.note}", curve)
    if curve.schedule == "constant" and len(curve.keys) == 1:
        note = f": {curve.note}" if curve.note else ""
        return Drawn(curve.name, f"{curve.keys[0][1]:g} at every step{note}", curve)
    words = ", ".join(f"{_short(value)} at step {step:,}" for step, value in curve.keys)
    return Drawn(curve.name, f"{curve.schedule}: {words}", curve)


def _short(value: float) -> str:
    return f"{value:.3g}" if value == 0 or value >= 1e-3 else f"{value:.2g}"


def _stores(page: PlanPage) -> list[Section]:
    columns = (
        Column("what is stored"),
        Column("entries a token", right=True),
        Column("bytes a token", right=True),
        Column("in all", right=True),
        Column("from", wide=True),
    )
    return [
        Section(
            "logit store" if sum(step.store is not None for step in page.stages) == 1 else f"logit store {step.number}",
            table=Table(columns, tuple(_store_rows(step))),
        )
        for step in page.stages
        if step.store is not None
    ]


def _store_rows(step: Step) -> Iterable[Row]:
    store = step.store
    assert store is not None
    entries = store.entries
    kept = f"≤ {entries.most}" if entries.mean is None else f"{entries.mean:.1f}"
    at_most = store.bytes_at_most / store.positions
    yield Row(
        (
            "this plan: ids and values",
            kept,
            f"≤ {at_most:.0f}" if store.bytes is None else f"{store.bytes / store.positions:.1f}",
            disk(step),
            store.source,
        ),
        strong=True,
    )
    if entries.mean is not None:
        plain = 8 * entries.mean * store.positions
        yield Row(
            ("int32 ids, float32 values", f"{entries.mean:.1f}", f"{8 * entries.mean:.0f}", size(plain), "arithmetic")
        )
    vocabulary = store.full // store.positions // 4
    yield Row(("all logits, float32", f"{vocabulary:,}", f"{4 * vocabulary:,}", size(store.full), "arithmetic"))
    if store.paper_full_pb is not None and store.paper_values is not None:
        yield Row(
            ("the paper: all logits", "about 150,000", "600,000", f"{store.paper_full_pb:.1f} PB", "its PB is 1,024 TB")
        )
        yield Row(("the paper: values, no ids", "37.0", "148", size(store.paper_values), "top-0.95-100"))


def _checkpoints(page: PlanPage) -> list[Section]:
    names = ("each", "kept", "on disk", "saves", "written in all")
    rows = [
        Row(
            (
                step.title,
                size(made.each),
                str(made.kept),
                size(made.kept_bytes),
                f"{made.saves:,}",
                size(made.written_bytes),
            )
        )
        for step in page.stages
        if (made := step.checkpoints)
    ]
    columns = (Column("checkpoints"), *(Column(name, right=True) for name in names))
    return [Section("checkpoints", table=Table(columns, tuple(rows)))] if rows else []

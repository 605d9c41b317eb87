"""The page of a plan in words: which figures stand where, and how they are said. All forms are made of this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pdforge.cli.render.plan_compare import runs_table
from pdforge.cli.render.plan_costs import bandwidth, costs, disk, memory
from pdforge.cli.render.plan_groups import MANY, ONE_OF_SEVERAL, Group, alike, rows, spans, training_of
from pdforge.cli.render.sections import Column, Drawn, Row, Section, Table
from pdforge.plan.curves import Curve
from pdforge.plan.page import Batch, Model, PlanPage, Run, Step
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
        *([runs_table(page)] if len(page.runs) > MANY else []),
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
        Column("", key=True),
        Column("stage", wide=True, key=True),
        Column("needs"),
        Column("steps", right=True),
        Column("tokens", right=True),
        Column("epochs", right=True),
        Column("FLOPs", right=True),
        Column("on disk", right=True),
        Column("directory", path=True),
    )
    groups = rows(page, page.stages, _stage)
    table = Table(columns, tuple(_row(cells, group) for cells, group in groups))
    done = sum(step.done for step in page.stages)
    notes = [ONE_OF_SEVERAL] if len(groups) < len(page.stages) else []
    notes += [f"✓ {done} of {len(page.stages)} stages are done and will be skipped"] if done else []
    notes += [f"logits of {_runs(page, runs)}: {line}" for (line, _), runs in _learnt(page).items()]
    notes += [f"{run.label} {run.extends}" for run in page.runs if run.extends]
    warnings = [f"identities are provisional, and nothing can run here: {reason}" for reason in page.unread]
    return Section("stages", table=table, notes=tuple(notes), warnings=tuple(warnings))


def _stage(step: Step) -> tuple[str, ...]:
    """What is said of a stage between its name and its directory."""
    flops = "–" if not step.runs_a_model else UNKNOWN if step.flops is None else f"{step.flops:.1e}"
    return (
        "✓" if step.done else "",
        ", ".join(map(str, step.needs)) or "–",
        "" if step.steps is None else f"{step.steps:,}",
        "–" if step.kind in ("export", "evaluate") else count(step.tokens),
        "" if step.epochs is None else f"{step.epochs:.2f}",
        flops,
        disk(step),
    )


def _row(said: tuple[str, ...], group: Group) -> Row:
    done, *cells = said
    return Row((f"{group.numbers} {done}".rstrip(), group.kind, *cells, group.directory), dim=bool(done))


def _learnt(page: PlanPage) -> dict[tuple[str, tuple[int, ...]], list[Run]]:
    """The runs that learn a teacher's distributions, by where those come from."""
    said: dict[tuple[str, tuple[int, ...]], list[Run]] = {}
    for run in page.runs:
        if run.logits:
            said.setdefault((run.logits, training_of(page, run).needs), []).append(run)
    return said


def _runs(page: PlanPage, runs: Sequence[Run]) -> str:
    if len(runs) <= MANY:
        return ", ".join(run.label for run in runs)
    return f"{len(runs)} runs ({spans(training_of(page, run).number for run in runs)})"


def _models(page: PlanPage) -> Section:
    names = ("params", "embedding", "active", "FLOPs/token", "forward")
    columns = (
        Column("model", wide=True, key=True),
        *(Column(name, right=True) for name in names),
        Column("shape from", wide=True),
    )
    teachers = [Row((_teacher(model), *_model(model))) for model in page.models if model.role != "student"]
    models = {model.name: model for model in page.models if model.role == "student"}
    trained = {training_of(page, run).number: models[run.label] for run in page.runs}
    alike: dict[tuple[str, ...], list[int]] = {}
    for number, model in trained.items():
        alike.setdefault(_model(model), []).append(number)
    students = [
        Row((_students([trained[number].name for number in numbers], numbers, alone=len(alike) == 1), *cells))
        for cells, numbers in alike.items()
    ]
    return Section("models", table=Table(columns, (*teachers, *students)))


def _teacher(model: Model) -> str:
    return model.role if model.name == model.role else f"{model.role} {model.name}"


def _students(names: Sequence[str], numbers: Sequence[int], *, alone: bool) -> str:
    """Those of one size, by name or by their trainings' numbers."""
    if alone:
        return "student"
    return f"student {names[0]}" if len(names) == 1 else f"student × {len(names)} ({spans(numbers)})"


def _model(model: Model) -> tuple[str, ...]:
    return (
        count(model.parameters),
        count(model.embedding),
        count(model.active),
        _flops(model.training_flops),
        _flops(model.forward_flops),
        model.source,
    )


def _flops(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:.2e}"


def _trainings(page: PlanPage) -> list[Section]:
    """Batch arithmetic and schedules; trainings that agree are said once."""
    trainings = [step for step in page.stages if step.batch is not None and step.steps is not None]
    return [
        *(
            Section(f"batch of {group.named}", lines=_batch(*batch))
            for batch, group in alike(trainings, lambda step: (step.batch, step.steps))
        ),
        *_schedules(page, trainings),
    ]


def _schedules(page: PlanPage, trainings: Sequence[Step]) -> list[Section]:
    """A section for trainings that have the same; of many runs each curve once, with the numbers of those it is of."""
    if len(page.runs) <= MANY:
        groups = alike(trainings, lambda step: step.curves)
        return [Section(f"schedules of {group.named}", drawn=tuple(map(_drawn, curves))) for curves, group in groups]
    followed: dict[Curve, list[int]] = {}
    for step in trainings:
        for curve in step.curves:
            followed.setdefault(curve, []).append(step.number)
    curves = sorted(followed, key=lambda curve: _ORDER.index(curve.name))
    return [Section("schedules", drawn=tuple(_drawn(curve, f"{spans(followed[curve])}: ") for curve in curves))]


_ORDER = ("α", "τ", "learning rate")


def _batch(batch: Batch | None, steps: int | None) -> tuple[str, ...]:
    assert batch is not None, "a training has one"
    assert steps is not None, "a training has some"
    return (
        f"{batch.sequences:,} sequences × {batch.length:,} = {batch.tokens:,} tokens a step; "
        f"{steps:,} steps = {steps * batch.tokens:,} tokens",
        f"= {batch.data_parallel} data-parallel × micro batch {batch.micro} × {batch.accumulation} accumulated",
    )


def _drawn(curve: Curve, whose: str = "") -> Drawn:
    if not curve.steps:
        words = f"{curve.schedule}: {curve.note}"
    elif curve.schedule == "constant" and len(curve.keys) == 1:
        note = f": {curve.note}" if curve.note else ""
        words = f"{curve.keys[0][1]:g} at every step{note}"
    else:
        turns = ", ".join(f"{_short(value)} at step {step:,}" for step, value in curve.keys)
        words = f"{curve.schedule}: {turns}"
    return Drawn(curve.name, whose + words, curve)


def _short(value: float) -> str:
    return f"{value:.3g}" if value == 0 or value >= 1e-3 else f"{value:.2g}"


def _stores(page: PlanPage) -> list[Section]:
    stores = [step for step in page.stages if step.store is not None]
    groups = alike(stores, lambda step: tuple(_store_rows(step)))
    return [
        Section(
            "logit store",
            table=Table(
                (
                    Column("what is stored" if len(groups) == 1 else f"what {group.numbers} stores", key=True),
                    Column("entries a token", right=True),
                    Column("bytes a token", right=True),
                    Column("in all", right=True),
                    Column("from", wide=True),
                ),
                said,
            ),
            notes=(f"so for each of {group.numbers}",) if len(group.steps) > 1 else (),
        )
        for said, group in groups
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
    groups = rows(page, (step for step in page.stages if step.checkpoints), _saved)
    columns = (Column("checkpoints", wide=True, key=True), *(Column(name, right=True) for name in names))
    table = Table(columns, tuple(Row((group.title, *cells)) for cells, group in groups))
    return [Section("checkpoints", table=table)] if groups else []


def _saved(step: Step) -> tuple[str, ...]:
    made = step.checkpoints
    assert made is not None, "a training has some"
    return size(made.each), str(made.kept), size(made.kept_bytes), f"{made.saves:,}", size(made.written_bytes)

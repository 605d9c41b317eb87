"""What a plan takes, in words: memory of a GPU, time, money, disk and bandwidth."""

from __future__ import annotations

from pdforge.cli.render.plan_groups import ONE_OF_SEVERAL, alike, rows
from pdforge.cli.render.sections import Column, Row, Section, Table
from pdforge.plan.duration import Duration
from pdforge.plan.memory import ORDER
from pdforge.plan.page import Place, PlanPage, Step
from pdforge.text import UNKNOWN, duration, size

_GIB = float(1 << 30)


def disk(step: Step) -> str:
    """Bytes on disk, or the bound on them."""
    if step.bytes is None and step.bytes_at_most is not None:
        return f"≤ {size(step.bytes_at_most)}"
    return size(step.bytes)


def memory(page: PlanPage) -> list[Section]:
    """Peak memory of a GPU, a column for each kind of stage that needs another amount."""
    kinds = alike((step for step in page.stages if step.memory), _parts)
    if not kinds:
        return []
    parts = [dict(each) for each, _ in kinds]
    names = sorted({name for each in parts for name in each}, key=ORDER.index)
    lines = [Row((name, *(_gib(each.get(name)) for each in parts))) for name in names]
    totals = [sum(each.values()) for each in parts]
    lines.append(Row(("peak", *map(_gib, totals)), strong=True))
    offered = page.place.gpu_memory
    if offered is not None:
        lines.append(Row(("of a GPU", *([_gib(offered)] * len(kinds)))))
        lines.append(
            Row(("headroom", *(f"{100 * (offered - total) / offered:.0f} %" for total in totals)), strong=True)
        )
    columns = (Column("GiB a GPU", key=True), *(Column(group.title, right=True) for _, group in kinds))
    notes = ["arithmetic; not counted: CUDA context, communication buffers and gaps, 1 to 3 GiB"]
    if offered is None:
        notes.append("memory of a GPU: unknown; say `gpu` or `gpu_memory` in the profile")
    return [Section("peak memory", table=Table(columns, tuple(lines)), notes=tuple(notes))]


def _parts(step: Step) -> tuple[tuple[str, int], ...]:
    assert step.memory is not None, "only of stages that have one"
    return tuple(step.memory.parts)


def _gib(number: int | None) -> str:
    if number is None:
        return "–"
    return f"{number / _GIB:.1f}" if number >= 0.1 * _GIB else f"{number / _GIB:.2g}"


def costs(page: PlanPage) -> Section:
    """Time and money of every stage that is not done."""
    place, total = page.place, page.total
    hours = "GPU-hours" if place.device == "cuda" else "process-hours"
    money = place.price is not None
    columns = (
        Column("stage", wide=True, key=True),
        Column("wall-clock", right=True),
        Column("from – to", right=True),
        Column(hours, right=True),
        *([Column(place.currency, right=True)] if money else []),
        *([Column("requeues", right=True)] if place.walltime else []),
        Column("throughput", wide=True),
    )
    groups = rows(page, (step for step in page.stages if not step.done), lambda step: _cost(step, page))
    lines = [Row((group.title, *cells)) for cells, group in groups]
    both = total.low is not None and total.high is not None
    lines.append(
        Row(
            (
                "all",
                duration(total.seconds),
                _span(total.low, total.high) if both else "",
                UNKNOWN if total.process_hours is None else f"{total.process_hours:,.1f}",
                *([UNKNOWN if total.cost is None else f"{total.cost:,.0f}"] if money else []),
                *([""] if place.walltime else []),
                _together(place),
            ),
            strong=True,
        )
    )
    notes = [ONE_OF_SEVERAL] if any(len(group.steps) > 1 for _, group in groups) else []
    notes += [f"a job ends after {duration(place.walltime)}"] if place.walltime else []
    if any(step.duration is None for step in page.stages if not step.done):
        if total.seconds is not None:
            notes.append("what is unknown is not in the sums")
        notes.append(f"unknown {_until_known(page)}")
    return Section("time", table=Table(columns, tuple(lines)), notes=tuple(notes))


def _until_known(page: PlanPage) -> str:
    """What would tell the time of stages that nobody knows."""
    models = [step for step in page.stages if step.duration is None and not step.done and step.runs_a_model]
    ways = ["until a run was measured on this profile"]
    if any(step.flops is None for step in models):
        ways.append("without the shape of a teacher (`architecture` of its `model`)")
    if page.place.device == "cuda" and page.place.peak_flops is None and models:
        ways.append("as long as the profile says neither `gpu` nor `peak_flops`")
    return ", and ".join(ways)


def _together(place: Place) -> str:
    """What the wall-clock of all stages is."""
    if place.executor != "local":
        return "longest chain"
    return f"{place.runs_at_once} at a time" if place.runs_at_once and place.runs_at_once > 1 else "one after another"


def _cost(step: Step, page: PlanPage) -> tuple[str, ...]:
    took: Duration | None = step.duration
    return (
        duration(took.seconds if took else None),
        _span(took.low, took.high) if took else "",
        UNKNOWN if step.process_hours is None else f"{step.process_hours:,.1f}",
        *([UNKNOWN if step.cost is None else f"{step.cost:,.0f}"] if page.place.price is not None else []),
        *(["" if step.requeues is None else str(step.requeues)] if page.place.walltime else []),
        took.source if took else UNKNOWN,
    )


def _span(low: float | None, high: float | None) -> str:
    """`16 – 41 h`, in the unit that suits the longer one."""
    if low is None or high is None:
        return UNKNOWN
    unit, factor = next((unit, factor) for unit, factor in _UNITS if high >= 2 * factor or factor == 1)
    return f"{low / factor:.3g} – {high / factor:.3g} {unit}"


_UNITS = (("h", 3600), ("min", 60), ("s", 1))


def bandwidth(page: PlanPage) -> list[Section]:
    """Disk and bandwidth, against what the profile offers."""
    place = page.place
    lines = [Row(("disk, when all is done", size(page.total.bytes), _offered(place.disk), _fits(page)), strong=True)]
    open_steps = [step for step in page.stages if not step.done]
    for (read, written), group in rows(page, open_steps, _rates):
        if read is not None:
            lines.append(Row((f"read by {group.title}", *_rate(read, place.disk_read))))
        if written is not None:
            lines.append(Row((f"written by {group.title}", *_rate(written, place.disk_write))))
    columns = (
        Column("storage", wide=True, key=True),
        Column("needed", right=True),
        Column("offered", right=True),
        Column(""),
    )
    return [Section("storage", table=Table(columns, tuple(lines)))]


def _rates(step: Step) -> tuple[float | None, float | None]:
    """Bytes a second that it reads and writes, of those that do so for long."""
    writes = step.kind in ("capture", "train", "pretrain-teacher", "finetune")
    return step.read_rate if step.kind == "train" else None, step.write_rate if writes else None


def _fits(page: PlanPage) -> str:
    needed, offered = page.total.bytes, page.place.disk
    if needed is None or offered is None:
        return ""
    return "fits" if needed <= offered else "does not fit"


def _rate(needed: float, offered: int | None) -> tuple[str, str, str]:
    part = "" if offered is None else f"{100 * needed / offered:.1f} %"
    return f"{size(needed)}/s", UNKNOWN if offered is None else f"{size(offered)}/s", part


def _offered(number: int | None) -> str:
    return UNKNOWN if number is None else size(number)

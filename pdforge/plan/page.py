"""The page that `pdforge plan` prints: what would run, in which order, in which steps, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pdforge.layout import StageDirectory
from pdforge.plan.batch import split_batch
from pdforge.plan.jobs import TrainJob
from pdforge.plan.model import Plan, Stage, StageFigures, merged_stages
from pdforge.plan.reuse import logit_store_line
from pdforge.plan.runnable import unsupported
from pdforge.recipe.models import Constant, WarmupStableDecay, WarmupStableDecayOfRest
from pdforge.schedules import alpha_at, is_zero, learning_rate_phases
from pdforge.text import count, size

if TYPE_CHECKING:
    from rich.console import Console


def print_plans(plans: Sequence[Plan], root: Path, console: Console) -> None:
    """Print the plans of one recipe as one page; shared stages appear once."""
    first = plans[0]
    profile = first.profile
    where = f"{profile.processes} {profile.device.upper()} process{'es' if profile.processes > 1 else ''}"
    console.print(Text.assemble((first.name, "bold"), f"  {len(plans)} run{'s' if len(plans) > 1 else ''}"))
    if first.recipe.description:
        console.print(Text(first.recipe.description, "dim"))
    console.print(Text(f"profile {profile.name}: {where}   root {root}\n"))
    stages = merged_stages(plans)
    console.print(_stage_table(stages, plans, root))
    if done := done_keys(plans, root):
        console.print(Text(f"✓ {len(done)} of {len(stages)} stages are done and will be skipped", "green"))
    for line in logit_store_lines(plans, root):
        console.print(Text(line))
    for reason in dict.fromkeys(filter(None, map(unsupported, plans))):
        console.print(Text(f"can be planned, not run: {reason}", "yellow"))
    console.print()
    console.print(_models(plans))
    for stage in stages:
        if isinstance(stage.job, TrainJob):
            console.print()
            console.print(_training(stage, stage.job))


def done_keys(plans: Sequence[Plan], root: Path) -> list[str]:
    """Keys of the stages that are done."""
    return [stage.key for stage in merged_stages(plans) if _is_done(stage, root)]


def logit_store_lines(plans: Sequence[Plan], root: Path) -> list[str]:
    """Where the runs' distributions come from, one line a source, with the runs that it holds for."""
    runs: dict[str, list[str]] = {}
    for plan in plans:
        if line := logit_store_line(plan, root):
            runs.setdefault(line, []).append(plan.label)
    return [f"logits of {', '.join(labels)}: {line}" for line, labels in runs.items()]


def _is_done(stage: Stage, root: Path) -> bool:
    return StageDirectory(root / stage.directory).done.exists()


def _stage_table(stages: Sequence[Stage], plans: Sequence[Plan], root: Path) -> Table:
    figures = {key: value for plan in plans for key, value in plan.figures.stages.items()}
    numbers = {stage.key: number for number, stage in enumerate(stages, start=1)}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("stage", no_wrap=True)
    table.add_column("needs")
    for column in ("steps", "tokens", "FLOPs", "on disk"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("directory", overflow="fold")
    for stage in stages:
        figure = figures[stage.key]
        done = _is_done(stage, root)
        table.add_row(
            f"{numbers[stage.key]} ✓" if done else str(numbers[stage.key]),
            Text(stage.title),
            ", ".join(str(numbers[key]) for key in stage.needs) or "–",
            "" if figure.steps is None else f"{figure.steps:,}",
            count(figure.tokens),
            _flops(stage, figure),
            _disk(figure),
            Text(stage.directory),
            style="dim" if done else "",
        )
    return table


def _flops(stage: Stage, figure: StageFigures) -> str:
    if stage.kind == "tokenize":
        return "–"
    return "unknown" if figure.flops is None else f"{figure.flops:.1e}"


def _disk(figure: StageFigures) -> str:
    if figure.bytes is None and figure.bytes_at_most is not None:
        return f"≤ {size(figure.bytes_at_most)}"
    return size(figure.bytes)


def _models(plans: Sequence[Plan]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("model", "parameters", "FLOPs a token"):
        table.add_column(column, justify="left" if column == "model" else "right")
    rows = {("teacher", plan.figures.teacher) for plan in plans if plan.figures.teacher}
    several = len({plan.figures.student for plan in plans}) > 1
    students = {(f"student {plan.label}" if several else "student", plan.figures.student): None for plan in plans}
    for name, figures in [*sorted(rows, key=str), *students]:
        flops = figures.flops_per_token
        table.add_row(Text(name), count(figures.parameters), "unknown" if flops is None else f"{flops:.2e}")
    return table


def _training(stage: Stage, job: TrainJob) -> Text:
    """Batch arithmetic and schedules of a training stage."""
    training = job.training
    batch = training.batch
    place = "teacher.model.training" if job.kind == "pretrain-teacher" else "training"
    split = split_batch(training, job.processes, place=place)
    tokens = batch.global_ * job.sequence_length
    lines = [
        f"batch   {batch.global_} sequences × {job.sequence_length} = {tokens:,} tokens a step; "
        f"{job.steps:,} steps = {job.steps * tokens:,} tokens",
        f"        = {split.data_parallel} data-parallel × micro batch {batch.micro} × {split.accumulation} accumulated",
        f"lr      {_learning_rate(job)}",
    ]
    if job.objective is not None:
        lines.append(f"α       {_alpha(job)}")
    return Text.assemble((stage.title, "bold"), "\n  " + "\n  ".join(lines))


def _learning_rate(job: TrainJob) -> str:
    schedule, peak = job.training.learning_rate_schedule, job.training.optimizer.learning_rate
    warmup, decay, floor = learning_rate_phases(schedule, job.steps)
    parts = [f"{schedule.schedule}:"]
    if warmup:
        parts.append(f"0 → {peak:g} to step {warmup:,},")
    parts.append(f"{peak:g} to step {job.steps - decay:,}" if decay < job.steps - warmup else f"from {peak:g}")
    if decay:
        parts.append(f"→ {peak * floor:.3g} at step {job.steps:,}")
    return " ".join(parts)


def _alpha(job: TrainJob) -> str:
    assert job.objective is not None
    schedule, total = job.objective.alpha, job.steps
    if is_zero(schedule):
        return "0 at every step: language modelling only, nothing is captured"
    if isinstance(schedule, Constant):
        return f"{schedule.value:g} at every step"
    if isinstance(schedule, WarmupStableDecay | WarmupStableDecayOfRest):
        steps = [1, round(schedule.warmup * total), total - round(schedule.decay * total), total]
    else:
        steps = [1, *(round(part * total) for part in (0.25, 0.5, 0.75)), total]
    shown = sorted({min(max(step, 1), total) for step in steps})
    values = ", ".join(f"{alpha_at(schedule, step, total):.3g} at step {step:,}" for step in shown)
    return f"{schedule.schedule}: {values}"

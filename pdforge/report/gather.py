"""Collects what runs have left behind. A run that is not finished, or has not begun, is a row like any other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pdforge.identity import identity
from pdforge.launch.hang import read_sign
from pdforge.launch.records import read_attempt, read_ranks
from pdforge.launch.status import StageStatus, stage_statuses
from pdforge.layout import AttemptDirectory, StageDirectory
from pdforge.plan.curves import curves
from pdforge.plan.estimate import flops_per_token
from pdforge.plan.identities import resulting
from pdforge.plan.jobs import CaptureJob, EvaluateJob, TrainJob
from pdforge.plan.model import Plan, Stage, merged_stages
from pdforge.plan.shapes import parameters_of
from pdforge.recipe.models import Architecture
from pdforge.recipe.pupils import finetuned
from pdforge.recipe.sizes import parameter_count
from pdforge.report.model import HELDOUT, Curve, Metric, Results, RunResult, Schedule, StoreResult, TeacherResult
from pdforge.report.results import metric_rows, stage_results
from pdforge.schedules import is_zero

_POINTS = 200
"""Of a curve of losses, at most about as many."""

_SEED = re.compile(r"(^|-)seed-\d+$")
_NO_RESULT = {"identity", "kin", "title", "output", "processes", "device", "evaluated", "extends", "training"}
"""Fields of a student's job that its result does not depend on; of `training` a part counts."""


def gather(plans: Sequence[Plan], root: Path) -> Results:
    """The results of the plans' runs below a storage root.

    Raises:
        UsageError: a result or metrics file is damaged.
    """
    statuses = stage_statuses(merged_stages(plans), root)
    configurations = [_configuration(plan) for plan in plans]
    named = zip(plans, _names(plans), _groups(plans, configurations), configurations, strict=True)
    runs = [
        _run(plan, root, statuses[plan.training.key], name=name, group=group, configuration=configuration)
        for plan, name, group, configuration in named
    ]
    return Results(runs=runs, teachers=_teachers(plans, root), stores=_stores(plans, root))


def _names(plans: Sequence[Plan]) -> list[str]:
    """What tables call the runs: the variant; with the recipe's name where two recipes have that variant; the run's
    directory where that is not enough.
    """
    labels = [plan.label for plan in plans]
    named = [
        label if labels.count(label) == 1 else f"{plan.name}-{label}" for plan, label in zip(plans, labels, strict=True)
    ]
    return [name if named.count(name) == 1 else plan.directory for plan, name in zip(plans, named, strict=True)]


def _groups(plans: Sequence[Plan], configurations: Sequence[str]) -> list[str]:
    """The name of every run's group: that of its first run, without the seed where it has several."""
    names = _names(plans)
    first = {key: names[configurations.index(key)] for key in configurations}
    shared = {key: _SEED.sub("", name) or plans[configurations.index(key)].name for key, name in first.items()}
    return [
        shared[key] if configurations.count(key) > 1 and list(shared.values()).count(shared[key]) == 1 else first[key]
        for key in configurations
    ]


def _configuration(plan: Plan) -> str:
    """Names all that decides a run's results except the seed of its student."""
    job, recipe = plan.training.job, plan.recipe
    assert isinstance(job, TrainJob)
    training = resulting(job.training)
    del training["seed"]
    # a teacher that only fine-tuning learns from is not in the job
    parts = {"evaluate", *({"teacher"} if finetuned(recipe) else set())}
    after = recipe.model_dump(mode="json", include=parts, exclude_none=True)
    if recipe.finetune is not None:
        after["finetune"] = recipe.finetune.model_dump(mode="json", exclude={"training"}, exclude_none=True)
        after["finetune"]["training"] = resulting(recipe.finetune.training)
    return identity({"job": job.model_dump(mode="json", exclude=_NO_RESULT), "training": training, **after})


def _run(plan: Plan, root: Path, status: StageStatus, **named: str) -> RunResult:
    stage, directory = plan.training, root / plan.training.directory
    assert isinstance(stage.job, TrainJob)
    result, rows = stage_results(directory) or {}, metric_rows(directory)
    figures, captures = plan.figures.stages.get(stage.key), plan.captures
    teachers, tokens_stage = plan.teachers or captures, plan.stage("tokenize")
    metrics, before = _metrics(result, rows)
    finished, evaluated = _evaluated(plan, root)
    tokens = result.get("tokens", figures.tokens if figures else None)
    return RunResult(
        **named,
        recipe=plan.name,
        seed=plan.recipe.training.seed,
        directory=plan.directory,
        state=status.state,
        is_baseline=is_zero(plan.recipe.objective.alpha),
        parameters=plan.figures.student.parameters,
        steps=result.get("steps", figures.steps if figures else None),
        tokens=tokens,
        flops_per_token=plan.figures.student.flops_per_token,
        teacher_flops=_teacher_flops(plan, tokens),
        teacher=teachers[0].key if teachers else None,
        data=tokens_stage.identity if tokens_stage else None,
        store=captures[0].identity if captures else None,
        further_stores=[capture.identity for capture in captures[1:]],
        metrics={**metrics, **finished},
        at_steps={step: {**before.get(step, {}), **evaluated.get(step, {})} for step in sorted({*before, *evaluated})},
        **_effort(directory, rows, stage),
        expect=plan.recipe.expect,
        loss=_thin(_curve(rows, "lm_loss")),
        heldout=_curve(rows, HELDOUT),
        schedules=_schedules(stage.job),
    )


def _evaluated(plan: Plan, root: Path) -> tuple[dict[str, Metric], dict[int, dict[str, Metric]]]:
    """Calibration and tasks, shares in percent: of the finished student, and of it at earlier steps; none where it is
    not evaluated (yet).
    """
    stages = [(stage, stage.job) for stage in plan.stages if isinstance(stage.job, EvaluateJob)]
    found = {job.at: _scores(stage_results(root / stage.directory) or {}) for stage, job in stages}
    return found.get(None, {}), {at: scores for at, scores in found.items() if at and scores}


def _scores(result: dict[str, Any]) -> dict[str, Metric]:
    ece = {"ece": Metric(value=result["ece"])} if result.get("ece") is not None else {}
    tasks = result.get("tasks", {}).items()
    return {**ece, **{name: _score(row) for name, row in tasks if row["value"] is not None}}


def _score(row: dict[str, Any]) -> Metric:
    unit = 100 if row["is_share"] else 1
    return Metric(value=unit * row["value"], error=None if row["stderr"] is None else unit * row["stderr"])


def _metrics(
    result: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, Metric], dict[int, dict[str, Metric]]]:
    """What was measured at the end, and what before it by step."""
    found = {name: Metric(value=result[name]) for name in (HELDOUT, "ece") if result.get(name) is not None}
    before = {row["step"]: {HELDOUT: Metric(value=row[HELDOUT])} for row in rows if row.get(HELDOUT) is not None}
    return found, before


def _teacher_flops(plan: Plan, tokens: int | None) -> float | None:
    """Of one pass of each teacher over what the student reads of it; what a store holds is computed once, and online it
    is a part of the teacher's own training.
    """
    if is_zero(plan.recipe.objective.alpha):
        return 0.0
    length, job = plan.recipe.data.sequence_length, plan.training.job
    assert isinstance(job, TrainJob)
    if tokens is None:
        return None
    passes = [
        (capture.job.teacher, min(tokens, capture.job.sequences * length))
        for capture in plan.captures
        if isinstance(capture.job, CaptureJob) and capture.job.runs_teacher
    ]
    if job.teacher is not None:
        passes.append((job.teacher, tokens))
    costs = [_forward(source.architecture, source.vocabulary, length, seen) for source, seen in passes]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _forward(shape: Architecture | None, vocabulary: int, length: int, tokens: int) -> float | None:
    return flops_per_token(shape, vocabulary, length) / 3 * tokens if shape else None


def _teachers(plans: Sequence[Plan], root: Path) -> list[TeacherResult]:
    """The teachers, each once: those that are trained here, and those from outside that were captured from."""
    found: dict[str, TeacherResult] = {}
    names: list[str] = []
    for plan in plans:
        here = {stage.key for stage in plan.stages if stage.kind == "pretrain-teacher"}
        for stage in plan.stages:
            outside = stage.kind == "capture" and not here & set(stage.needs)
            if stage.key in found or not (outside or stage.key in here):
                continue
            name = "teacher" if outside else stage.title.partition(" ")[2]
            names.append(name)
            numbered = name if names.count(name) == 1 else f"{name} {names.count(name)}"
            found[stage.key] = _teacher(plan, stage, numbered, root)
    return list(found.values())


def _teacher(plan: Plan, stage: Stage, name: str, root: Path) -> TeacherResult:
    """Of the stage that trains a teacher, or of the capture of one from outside."""
    directory, figures = root / stage.directory, plan.figures.stages.get(stage.key)
    result, job = stage_results(directory) or {}, stage.job
    if isinstance(job, CaptureJob):
        return TeacherResult(
            key=stage.key,
            name=name,
            parameters=parameters_of(job.teacher),
            steps=None,
            tokens=None,
            heldout_loss=result.get("teacher_heldout_loss"),
            heldout=Curve(),
        )
    assert isinstance(job, TrainJob)
    rows = metric_rows(directory)
    loss = result.get(HELDOUT)
    captures = (one for one in plan.stages if one.kind == "capture" and stage.key in one.needs)
    for capture in captures if loss is None else ():  # its own result is gone: the store still says it
        loss = (stage_results(root / capture.directory) or {}).get("teacher_heldout_loss")
    return TeacherResult(
        key=stage.key,
        name=name,
        parameters=parameter_count(job.architecture, job.vocabulary).total,
        steps=result.get("steps", figures.steps if figures else None),
        tokens=result.get("tokens", figures.tokens if figures else None),
        heldout_loss=loss,
        heldout=_curve(rows, HELDOUT),
        **_effort(directory, rows, stage),
    )


def _stores(plans: Sequence[Plan], root: Path) -> list[StoreResult]:
    """The finished logit stores of the plans, each once."""
    stages = {stage.key: stage for plan in plans for stage in plan.stages if stage.kind == "capture"}
    found = [(stage, stage_results(root / stage.directory)) for stage in stages.values()]
    return [
        StoreResult(
            identity=stage.identity,
            **{key: results.get(key) for key in ("kept_count", "kept_mass", "positions", "bytes")},
        )
        for stage, results in found
        if results is not None
    ]


def _effort(directory: Path, rows: Sequence[dict[str, Any]], stage: Stage) -> dict[str, Any]:
    """Throughput and hours of a training stage."""
    rates = [row["tokens_per_second"] for row in rows if row.get("tokens_per_second")]
    attempts = StageDirectory(directory).all_attempts()
    lived = [_lifetime(attempt) * _processes(attempt, stage) for attempt in attempts]
    job = stage.job
    return {
        "tokens_per_second": rates[-1] if rates else None,
        "device": job.device if isinstance(job, TrainJob) else "cpu",
        "device_hours": sum(lived) / 3600 if lived else None,
    }


def _processes(attempt: AttemptDirectory, stage: Stage) -> int:
    record = read_attempt(attempt)
    return record.processes if record else stage.processes


def _lifetime(attempt: AttemptDirectory) -> float:
    """Seconds from the start of an attempt to its end; to its last sign of life where nobody saw it end."""
    record, ranks = read_attempt(attempt), read_ranks(attempt)
    if record is None or not ranks:
        return 0.0
    ends = [rank.ended for rank in ranks if rank.ended is not None]
    signs = [sign.time for rank in ranks if (sign := read_sign(attempt, rank.rank))]
    return max([0.0, *(end - record.started for end in ([record.ended] if record.ended else ends or signs))])


def _curve(rows: Sequence[dict[str, Any]], column: str) -> Curve:
    """Of the rows that have the column."""
    having = [row for row in rows if row.get(column) is not None and "tokens" in row]
    return Curve(tokens=[row["tokens"] for row in having], values=[row[column] for row in having])


def _schedules(job: TrainJob) -> list[Schedule]:
    """As the plan has them; none of a τ that each position has for itself."""
    return [
        Schedule(name=curve.name, steps=list(curve.steps), values=[round(value, 8) for value in curve.values])
        for curve in curves(job)
        if curve.steps
    ]


def _thin(curve: Curve) -> Curve:
    """Means over neighbours, where there are too many points to draw or to keep."""
    width = -(-len(curve.tokens) // _POINTS)
    if width <= 1:
        return curve
    parts = [slice(first, first + width) for first in range(0, len(curve.tokens), width)]
    return Curve(
        tokens=[round(fmean(curve.tokens[part])) for part in parts],
        values=[round(fmean(curve.values[part]), 6) for part in parts],
    )

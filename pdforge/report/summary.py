"""The table of results: held-out loss of the teacher and of every student, beside what each took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdforge.layout import StageDirectory
from pdforge.plan.model import Plan
from pdforge.report.results import stage_results
from pdforge.schedules import is_zero
from pdforge.text import count, duration

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Row:
    """One model. None: not known (yet)."""

    model: str
    role: str
    """`teacher` or `student`."""
    parameters: int | None
    steps: int | None
    tokens: int | None
    """Trained on."""
    heldout_loss: float | None
    """Mean negative log-likelihood of the validation split, nats a token."""
    delta: float | None
    """Held-out loss minus that of the same recipe's student with α = 0 throughout."""
    seconds: float | None
    """Of the stage; None where it took more than one attempt, of which only the last is known."""


@dataclass(frozen=True)
class Capture:
    """What a logit store holds of its teacher."""

    identity: str
    kept_count: float | None
    """Mean entries of a position."""
    kept_mass: float | None
    """Mean probability that they hold."""


def summarise(plans: Sequence[Plan], root: Path) -> list[Row]:
    """One row per teacher (teachers that several plans share once), then one per student."""
    teachers = {stage.key: _teacher(plan, root) for plan in plans if (stage := plan.stage("capture"))}
    results = [stage_results(root / plan.training.directory) or {} for plan in plans]
    baselines: dict[str, float | None] = {}
    for plan, result in zip(plans, results, strict=True):
        if is_zero(plan.recipe.objective.alpha):
            baselines.setdefault(plan.name, result.get("heldout_loss"))
    students = [_student(plan, root, result, baselines) for plan, result in zip(plans, results, strict=True)]
    return [*dict.fromkeys(teachers.values()), *students]


def captures(plans: Sequence[Plan], root: Path) -> list[Capture]:
    """The finished logit stores of the plans, each once."""
    stages = {stage.key: stage for plan in plans if (stage := plan.stage("capture"))}
    found = [(stage, stage_results(root / stage.directory)) for stage in stages.values()]
    return [
        Capture(stage.identity, results.get("kept_count"), results.get("kept_mass"))
        for stage, results in found
        if results is not None
    ]


def print_summary(plans: Sequence[Plan], root: Path, console: Console) -> None:
    """Print the table of results, and a line about every finished logit store.

    Raises:
        UsageError: a result file is damaged.
    """
    from rich.table import Table  # noqa: PLC0415 - a `--json` report needs no rich
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    for column in ("parameters", "tokens", "steps", "held-out loss", "Δ to α=0", "time"):
        table.add_column(column, justify="right")
    for row in summarise(plans, root):
        table.add_row(
            Text(row.model),
            count(row.parameters),
            count(row.tokens),
            "unknown" if row.steps is None else f"{row.steps:,}",
            "not yet" if row.heldout_loss is None else f"{row.heldout_loss:.4f}",
            "" if row.delta is None else f"{row.delta:+.4f}",
            "" if row.seconds is None else duration(row.seconds),
        )
    console.print(table)
    for capture in captures(plans, root):
        if capture.kept_count is not None and capture.kept_mass is not None:
            console.print(
                f"logit store {capture.identity}: {capture.kept_count:.1f} entries a position, "
                f"{100 * capture.kept_mass:.1f} % of the teacher's probability",
                highlight=False,
                soft_wrap=True,
            )
    console.print("held-out loss: nats a token, on documents that no model was trained on", style="dim")


def _student(plan: Plan, root: Path, result: dict[str, Any], baselines: dict[str, float | None]) -> Row:
    figures = plan.figures.stages[plan.training.key]
    loss, baseline = result.get("heldout_loss"), baselines.get(plan.name)
    is_baseline = is_zero(plan.recipe.objective.alpha)
    return Row(
        model=plan.label,
        role="student",
        parameters=plan.figures.student.parameters,
        steps=result.get("steps", figures.steps),
        tokens=result.get("tokens", figures.tokens),
        heldout_loss=loss,
        delta=None if loss is None or baseline is None or is_baseline else loss - baseline,
        seconds=_seconds(root / plan.training.directory, result),
    )


def _seconds(directory: Path, result: dict[str, Any]) -> float | None:
    return result.get("seconds") if len(StageDirectory(directory).all_attempts()) <= 1 else None


def _teacher(plan: Plan, root: Path) -> Row:
    pretrained, capture = plan.stage("pretrain-teacher"), plan.stage("capture")
    result = (stage_results(root / pretrained.directory) if pretrained else None) or {}
    loss = result.get("heldout_loss")
    if loss is None and capture:
        loss = (stage_results(root / capture.directory) or {}).get("teacher_heldout_loss")
    figures = plan.figures.stages[pretrained.key] if pretrained else None
    return Row(
        model="teacher",
        role="teacher",
        parameters=plan.figures.teacher.parameters if plan.figures.teacher else None,
        steps=result.get("steps", figures.steps if figures else None),
        tokens=result.get("tokens", figures.tokens if figures else None),
        heldout_loss=loss,
        delta=None,
        seconds=_seconds(root / pretrained.directory, result) if pretrained else None,
    )

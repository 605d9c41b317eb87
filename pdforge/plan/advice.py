"""What to know of a plan before it runs that its recipe alone does not tell: its profile and earlier runs do."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.layout import StageDirectory
from pdforge.plan.extension import Extension, find_extension
from pdforge.plan.fitting import Fit, fit, fit_of_capture, way_to_capture, ways_to_fit
from pdforge.plan.jobs import CaptureJob, EvaluateJob, TrainJob
from pdforge.plan.model import Plan, Stage
from pdforge.plan.profile import Profile
from pdforge.recipe.load import LoadedRecipe
from pdforge.recipe.rules.planning import GONE, LONGER, PLANNING, TIGHT, TOO_LARGE, WALLTIME
from pdforge.text import duration


class Advice(NamedTuple):
    """One finding on a plan, at a field of its recipe."""

    code: str
    field: str
    message: str
    help: str

    @property
    def severity(self) -> Severity:
        """An error keeps the plan from being submitted."""
        return PLANNING[self.code].severity

    def at(self, place: Place) -> Diagnostic:
        """The finding, where its field was written."""
        return Diagnostic(self.code, self.severity, self.message, place, self.help, self.field)


def advice(plan: Plan, root: Path) -> list[Advice]:
    """Findings on a plan, beside those of its recipe."""
    return [*_walltime(plan, root), *_longer(plan, root), *_memory(plan, root), *_gone(plan, root)]


def place_advice(plans: Iterable[Plan], loaded: Iterable[LoadedRecipe], root: Path) -> list[Diagnostic]:
    """Findings on the plans of these recipes that no comment in them ignores, each once, in their order."""
    found: dict[Diagnostic, None] = {}
    for plan, one in zip(plans, loaded, strict=True):
        placed = [each.at(one.place(each.field)) for each in advice(plan, root)]
        found |= dict.fromkeys(one.suppressions.apply(placed))
    return list(found)


def _walltime(plan: Plan, root: Path) -> Iterator[Advice]:
    limit = _limit(plan.profile)
    if limit is None:
        return
    for stage in plan.stages:
        if not isinstance(stage.job, TrainJob) or StageDirectory(root / stage.directory).done.is_file():
            continue
        part = stage.job.place
        checkpoint = stage.job.training.checkpoint
        if checkpoint.interval is not None:
            due, field, reason = float(checkpoint.interval), f"{part}.checkpoint.interval", ""
        elif (measured := seconds_of_a_step(stage, root)) is not None:
            due, field = checkpoint.every * measured, f"{part}.checkpoint.every"
            reason = f" ({checkpoint.every} steps of the {measured:.3g} s that were measured)"
        else:
            continue
        if due > limit:
            yield Advice(
                WALLTIME,
                field,
                f"the first checkpoint of {stage.title} is due after {duration(due)}{reason}, and a job of profile "
                f"{plan.profile.name} ends after {duration(limit)}",
                "save more often, or raise the profile's walltime",
            )


def _limit(profile: Profile) -> int | None:
    """Seconds after which a scheduler ends a job; None where nothing does."""
    return profile.walltime if profile.executor == "slurm" else None


def seconds_of_a_step(stage: Stage, root: Path) -> float | None:
    """As the last attempt of a training stage measured it; None: there is none, or it got to no step."""
    assert isinstance(stage.job, TrainJob)
    file = StageDirectory(root / stage.directory).progress
    try:
        rate = json.loads(file.read_text(encoding="utf-8"))["tokens_per_second"]
        tokens = stage.job.training.batch.global_ * stage.job.sequence_length
        return tokens / float(rate) if rate else None
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or by another version
        return None


def _longer(plan: Plan, root: Path) -> Iterator[Advice]:
    extension, training = find_extension(plan, root), plan.recipe.training
    if extension is None or (plan.recipe.student.extend and not extension.obstacle):
        return
    field = "training.steps" if training.steps else "training.tokens" if training.tokens else "data.train_tokens"
    first = "it is trained from its first step, as another run"
    offer = f"{first}; `student: {{extend: true}}` goes on from step {extension.checkpoint:,}"
    if plan.recipe.student.extend:
        offer = f"it goes on from step {extension.checkpoint:,}"
    yield Advice(LONGER, field, _said(extension), offer if extension.checkpoint else first)


def _memory(plan: Plan, root: Path) -> Iterator[Advice]:
    offered = plan.profile.memory_of_a_gpu
    if offered is None or plan.profile.device != "cuda":
        return
    for stage in plan.stages:
        if StageDirectory(root / stage.directory).done.is_file():
            continue
        job = stage.job
        if isinstance(job, TrainJob) and (found := fit(job, offered)).tight:
            part = job.place
            ways = " or ".join(f"{part}.{way}" for way in ways_to_fit(job, plan.recipe, offered))
            said = f"{_lacking(plan, stage, found)}, micro batch {job.training.batch.micro}"
            yield _of_memory(found, f"{part}.batch.micro", said, ways)
        elif isinstance(job, CaptureJob) and (needed := fit_of_capture(job, offered)) and needed.tight:
            said = f"{_lacking(plan, stage, needed)}, {job.micro} sequences at once"
            yield _of_memory(needed, job.place, said, way_to_capture(job, offered))


def _lacking(plan: Plan, stage: Stage, found: Fit) -> str:
    gib = float(1 << 30)
    return (
        f"{stage.title} needs about {found.memory.total / gib:.1f} GiB of a GPU's {found.offered / gib:.1f} GiB "
        f"(profile {plan.profile.name})"
    )


def _of_memory(found: Fit, field: str, said: str, ways: str) -> Advice:
    code = TOO_LARGE if found.never else TIGHT
    return Advice(
        code, field, said, f"fits with {ways}" if ways else "spread the model over more GPUs, or take larger ones"
    )


def _gone(plan: Plan, root: Path) -> Iterator[Advice]:
    job, directory = plan.training.job, StageDirectory(root / plan.training.directory)
    assert isinstance(job, TrainJob)
    trained = directory.done.is_file()
    before = directory.whole_checkpoints if trained else []
    for number, step in enumerate(plan.recipe.evaluate.at if plan.recipe.evaluate else ()):
        measured = [each for each in plan.stages if isinstance(each.job, EvaluateJob) and each.job.at == step]
        if all(StageDirectory(root / stage.directory).done.is_file() for stage in measured):
            continue
        field = f"evaluate.at.{number}"
        if trained and step not in before:
            there = f"it has {', '.join(f'{each:,}' for each in before)}" if before else "it has none"
            yield Advice(
                GONE, field, f"{plan.directory} is trained, and the checkpoint of step {step:,} is gone", there
            )
        elif not trained and job.extends and step <= job.extends.step:
            came = f"the student goes on from step {job.extends.step:,} of {job.extends.run}"
            yield Advice(GONE, field, f"{came}, and step {step:,} is before", "evaluate that step there")


def _said(extension: Extension) -> str:
    done = f"{extension.finished.directory} has trained {extension.steps:,} of these {extension.wanted:,} steps"
    if extension.checkpoint == 0:
        return f"{done} and cannot be extended: {extension.obstacle}"
    if extension.obstacle:
        return f"{done}, and {extension.obstacle}"
    return f"{done}, with the same numbers"

"""Longer than a finished run: may its student be trained on, or is all of its schedule laid out for its end?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdforge.errors import UsageError
from pdforge.identity import identity
from pdforge.layout import StageDirectory
from pdforge.plan.find import read_plan
from pdforge.plan.identities import train_identity
from pdforge.plan.jobs import TrainJob
from pdforge.plan.model import Plan, Stage
from pdforge.recipe.models import (
    AlphaSchedule,
    Constant,
    Recipe,
    ScheduledTemperature,
    WarmupStableDecay,
    WarmupStableDecayOfRest,
)
from pdforge.schedules import is_zero, learning_rate_phases


@dataclass(frozen=True)
class Extension:
    """A finished run that differs from a plan in the length of the student's training only, and is shorter."""

    finished: Plan
    steps: int
    """Steps of the finished run's student."""
    wanted: int
    """Steps of the plan's."""
    go_on_from: int
    """Last step at which every schedule would be the same however long the run; 0: it cannot be extended."""
    obstacle: str
    """Why it cannot be extended, or not from its last step; empty where nothing is in the way."""


def find_extension(plan: Plan, root: Path) -> Extension | None:
    """The longest finished run below `root`, of the plan's name, that the plan would lengthen; None: there is none."""
    wanted = _train(plan)
    named = plan.directory.rpartition("-")[0]
    found = [
        extension
        for folder in sorted(root.glob(f"{named}-*/"))
        if (finished := _finished(folder, root)) and (extension := _extension(finished, plan, wanted))
    ]
    return max(found, key=lambda each: each.steps, default=None)


def _finished(folder: Path, root: Path) -> Plan | None:
    """The plan of a run whose student is trained; None: it is another folder, or not finished."""
    try:
        plan = read_plan(folder)
    except UsageError:  # damaged, or of another version: no run to go on from
        return None
    return plan if StageDirectory(root / _stage(plan).directory).done.is_file() else None


def _extension(finished: Plan, plan: Plan, wanted: TrainJob) -> Extension | None:
    steps = _train(finished).steps
    if steps >= wanted.steps or _but_length(finished) != _but_length(plan):
        return None
    ends = _ends(plan.recipe, steps)
    if _tokens(finished) != _tokens(plan):
        ends["a store of another data.train_tokens is in another order"] = 0
    go_on_from = min(ends.values())
    obstacle = "" if go_on_from == steps else min(ends, key=lambda name: ends[name])
    return Extension(finished, steps, wanted.steps, go_on_from, obstacle)


def _ends(recipe: Recipe, steps: int) -> dict[str, int]:
    """What runs towards the last of `steps`, and the last step before it does."""
    rate = recipe.training.learning_rate_schedule
    warmup, decay, _ = learning_rate_phases(rate, steps)
    before_decay = 0 if rate.schedule == "cosine" else max(steps - decay, 0)
    ends = {f"the learning rate follows {rate.schedule}": before_decay if before_decay >= warmup else 0}
    objective = recipe.objective
    if not is_zero(objective.alpha):
        ends[f"α follows {objective.alpha.schedule}"] = _before_end(objective.alpha, steps)
        if isinstance(objective.temperature, ScheduledTemperature):
            along = objective.temperature.along
            ends[f"τ follows {along.schedule}"] = _before_end(along, steps)
    return ends


def _before_end(schedule: AlphaSchedule, steps: int) -> int:
    """The last step at which the schedule does not yet run towards its end; 0: it does from the first on."""
    match schedule:
        case Constant():
            return steps
        case WarmupStableDecay() | WarmupStableDecayOfRest():
            return max(steps - round(schedule.decay * steps), 0)
    return 0


def _but_length(plan: Plan) -> str:
    """The student's identity, whatever the length of its training and the size of its token store."""
    recipe = plan.recipe
    tokens: dict[str, Any] = recipe.data.model_dump(mode="json", exclude={"train_tokens"})
    learns_from = None if is_zero(recipe.objective.alpha) else recipe.teacher
    return train_identity(
        recipe.student.architecture,
        recipe.training,
        recipe.objective,
        steps=0,
        tokens=identity(tokens),
        logits=identity(learns_from.model_dump(mode="json", by_alias=True)) if learns_from else None,
        initial=identity(recipe.student.initialise.model_dump(mode="json")) if recipe.student.initialise else None,
    )


def _stage(plan: Plan) -> Stage:
    stage = plan.stage("train")
    assert stage is not None, "every plan trains a student"
    return stage


def _train(plan: Plan) -> TrainJob:
    job = _stage(plan).job
    assert isinstance(job, TrainJob)
    return job


def _tokens(plan: Plan) -> str | None:
    stage = plan.stage("tokenize")
    return stage.identity if stage else None

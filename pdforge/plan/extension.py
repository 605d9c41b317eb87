"""Longer than a finished run: may its student be trained on, and from which step?

Two students that are alike but for their length and their schedules have the same numbers up to the last step at which
every schedule has had the same values in both. So going on from there gives the longer run bit by bit what it would
have got by itself: its identity does not know of it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from pdforge.identity import identity
from pdforge.layout import RunDirectory, StageDirectory
from pdforge.plan.identities import kin_identity
from pdforge.plan.jobs import Extended, TrainJob
from pdforge.plan.model import Plan, StageKind
from pdforge.recipe.models import Constant, Recipe, TeacherConvergence, WarmupStableDecay, WarmupStableDecayOfRest
from pdforge.schedules import alpha_at, is_zero, learning_rate_factor, learning_rate_phases, temperature_at


class Extension(NamedTuple):
    """A finished run that differs from a plan in the student's length and schedules only, and is shorter."""

    finished: Plan
    steps: int
    """Steps of the finished run's student."""
    wanted: int
    """Steps of the plan's."""
    same_until: int
    """Last step up to which both have the same numbers; 0: there is none."""
    checkpoint: int
    """The finished run's last whole checkpoint up to there; 0: there is none."""
    obstacle: str
    """Why the plan cannot go on from the last step of the finished run; empty where it can."""


def extend_runs(plans: Sequence[Plan], root: Path) -> list[Plan]:
    """The plans, where `student.extend` asks for it with a student that goes on from a finished run's, if it can."""
    return [_extended(plan, root) if plan.recipe.student.extend else plan for plan in plans]


def _extended(plan: Plan, root: Path) -> Plan:
    extension = find_extension(plan, root)
    if extension is None or not extension.checkpoint:
        return plan
    directory = (root / extension.finished.training.directory).absolute()
    came = Extended.model_construct(run=extension.finished.directory, stage=str(directory), step=extension.checkpoint)
    train = plan.training.model_copy(update={"job": _train(plan).model_copy(update={"extends": came})})
    return plan.model_copy(update={"stages": [train if each.key == train.key else each for each in plan.stages]})


def extension_line(plan: Plan) -> str:
    """Where the student goes on from, for people; empty where it begins at its first step."""
    jobs = (stage.job for stage in plan.stages)
    came = next((job.extends for job in jobs if isinstance(job, TrainJob) and job.extends), None)
    return f"goes on from step {came.step:,} of {came.run}, with the same numbers up to there" if came else ""


def find_extension(plan: Plan, root: Path) -> Extension | None:
    """The finished run below `root`, of the plan's name, that the plan would lengthen and that takes it furthest; None:
    there is none, or the plan's student is trained already.
    """
    if _is_done(plan, root):
        return None
    named = plan.directory.rpartition("-")[0]
    folders = [path for path in root.iterdir() if path.name.startswith(f"{named}-")] if root.is_dir() else []
    found = [
        extension
        for folder in sorted(folders)
        if (finished := _finished(folder, root)) and (extension := _extension(finished, plan, root))
    ]
    return max(found, key=lambda each: (each.checkpoint, each.steps), default=None)


def held_step(job: TrainJob) -> int:
    """The step whose checkpoint a student keeps for longer ones: the last before some schedule runs towards its end.

    0 where that is the last of all, which is kept anyway, or where some schedule does from the first step on.
    """
    if job.kind != "train":
        return 0
    steps, rate = job.steps, job.training.learning_rate_schedule
    _, decay, _ = learning_rate_phases(rate, steps)
    # a decay's first value is still that of the plateau
    ends = [0 if rate.schedule == "cosine" else min(steps, steps + 1 - decay)]
    if job.objective is not None and not is_zero(job.objective.alpha):
        along = getattr(job.objective.temperature, "along", None)
        ends += [_plateau_end(schedule, steps) for schedule in (job.objective.alpha, along) if schedule is not None]
    return min(ends) % steps


def held_steps(job: TrainJob) -> tuple[int, ...]:
    """The steps whose checkpoints stay, whatever the number of newer ones, rising."""
    return tuple(sorted({held_step(job), *job.evaluated} - {0}))


def saved_steps(job: TrainJob) -> list[int]:
    """The steps whose checkpoints it saves whatever the time, rising."""
    every, came = job.training.checkpoint.every, job.extends.step if job.extends else 0
    return sorted(step for step in {*range(every, job.steps, every), *held_steps(job), job.steps} if step > came)


def kept_steps(job: TrainJob) -> list[int]:
    """Those of them whose checkpoints are there when it is done, rising: held ones count among the newest, too."""
    saved = saved_steps(job)
    return sorted({*saved[-job.training.checkpoint.keep :], *held_steps(job)} & {*saved})


def _plateau_end(schedule: Any, steps: int) -> int:
    match schedule:
        case Constant():
            return steps
        case WarmupStableDecay() | WarmupStableDecayOfRest():
            return max(0, steps - round(schedule.decay * steps))
    return 0


def _finished(folder: Path, root: Path) -> Plan | None:
    """The plan of a run whose student is trained; None: it is another folder, or not finished."""
    try:
        plan = Plan.model_validate_json(RunDirectory(folder).plan.read_bytes())
    except (OSError, ValidationError):  # damaged, or of another version: no run to go on from
        return None
    return plan if _is_done(plan, root) else None


def _extension(finished: Plan, plan: Plan, root: Path) -> Extension | None:
    steps, wanted = _train(finished).steps, _train(plan).steps
    if steps >= wanted or _but_length(finished.recipe) != _but_length(plan.recipe):
        return None
    same_until, obstacle = _same_until(finished, plan)
    kept = StageDirectory(root / finished.training.directory).whole_checkpoints
    checkpoint = max((step for step in kept if step <= same_until), default=0)
    if not obstacle and checkpoint < same_until:
        obstacle = f"the checkpoint of step {same_until:,} is gone"
    return Extension(finished, steps, wanted, same_until, checkpoint, obstacle)


def _same_until(finished: Plan, plan: Plan) -> tuple[int, str]:
    """The last step up to which both have the same numbers, and what differs at the next one."""
    old, new = _train(finished), _train(plan)
    if _identity(finished, "tokenize") != _identity(plan, "tokenize"):
        return 0, "a store of another data.train_tokens, another corpus, or another version's is in another order"
    if not old.kin or old.kin != new.kin:
        return 0, "its teacher, its first weights, or what they are read with is another since"
    found = {
        name: step
        for (name, before), (_, after) in zip(_schedules(old), _schedules(new), strict=True)
        if (step := _first_difference(before, after, old.steps))
    }
    if not found:
        return old.steps, ""
    first = min(found.values())
    names = [name for name, step in found.items() if step == first]
    differ = "differ" if len(names) > 1 else "differs"
    return first - 1, f"{' and '.join(names)} {differ} from step {first:,} on{_warmups(old, new)}"


def _schedules(job: TrainJob) -> Iterator[tuple[str, Callable[[int], float | None]]]:
    rate, objective, total = job.training.learning_rate_schedule, job.objective, job.steps
    yield f"the learning rate ({rate.schedule})", lambda step: learning_rate_factor(rate, step, total)
    if objective is not None and not is_zero(objective.alpha):
        alpha = objective.alpha
        # what a store of another length says of its teacher is not compared: such an α is equal to none
        unknown = isinstance(alpha, TeacherConvergence)
        yield f"α ({alpha.schedule})", lambda step: math.nan if unknown else alpha_at(alpha, step, total)
        yield "τ", lambda step: temperature_at(objective.temperature, step, total)


def _first_difference(
    before: Callable[[int], float | None], after: Callable[[int], float | None], steps: int
) -> int | None:
    return next((step for step in range(1, steps + 1) if before(step) != after(step)), None)


def _warmups(old: TrainJob, new: TrainJob) -> str:
    """What would make the warm-up of the learning rate as many steps as before, where it is not."""
    before, after = (learning_rate_phases(job.training.learning_rate_schedule, job.steps)[0] for job in (old, new))
    if before == after:
        return ""
    return f" (warm-up: {before:,} steps there, {after:,} here; `warmup: {100 * before / new.steps:.6g}%` is as many)"


def _but_length(recipe: Recipe) -> str:
    """What a recipe asks for, whatever the length of the student's training, its schedules and the size of its data."""
    data = recipe.data.model_dump(mode="json", exclude={"train_tokens"})
    initialise, distils = recipe.student.initialise, not is_zero(recipe.objective.alpha)
    return kin_identity(
        recipe.student.architecture,
        recipe.training,
        recipe.objective,
        tokens=identity(data),
        logits=_teachers(recipe) if distils else None,
        initial=identity(initialise.model_dump(mode="json")) if initialise else None,
    )


def _teachers(recipe: Recipe) -> str | None:
    """What the recipe says of its teachers."""
    if recipe.teachers:
        return identity([teacher.model_dump(mode="json", by_alias=True) for teacher in recipe.teachers])
    return identity(recipe.teacher.model_dump(mode="json", by_alias=True)) if recipe.teacher else None


def _train(plan: Plan) -> TrainJob:
    job = plan.training.job
    assert isinstance(job, TrainJob)
    return job


def _is_done(plan: Plan, root: Path) -> bool:
    return StageDirectory(root / plan.training.directory).done.is_file()


def _identity(plan: Plan, kind: StageKind) -> str | None:
    stage = plan.stage(kind)
    return stage.identity if stage else None

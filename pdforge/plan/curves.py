"""The schedules of a training as curves, and the steps at which they change."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pdforge.plan.jobs import TrainJob
from pdforge.recipe.models import (
    AlphaSchedule,
    Constant,
    ScheduledTemperature,
    TeacherConvergence,
    WarmupStableDecay,
    WarmupStableDecayOfRest,
)
from pdforge.schedules import alpha_at, is_zero, learning_rate_factor, learning_rate_phases, temperature_at

POINTS = 96
"""Steps at which a curve is sampled, the first and the last included."""


class Curve(NamedTuple):
    """One schedule over the steps of a training."""

    name: str
    """`α`, `τ`, `learning rate`."""
    schedule: str
    """Its kind, as a recipe names it; `constant` for a number."""
    steps: tuple[int, ...]
    values: tuple[float, ...]
    """At `steps`."""
    keys: tuple[tuple[int, float], ...]
    """Step and value where the schedule turns, first and last step included."""
    note: str = ""
    """What a curve cannot say."""


def curves(job: TrainJob) -> tuple[Curve, ...]:
    """Those of a training stage: α and τ where it distils, the learning rate always."""
    total, found = job.steps, []
    objective = job.objective
    if objective is not None and is_zero(objective.alpha):
        found.append(_flat("α", 0.0, total, "language modelling only, nothing is captured"))
    elif objective is not None:
        found.append(_alpha(job, objective.alpha))
        temperature = objective.temperature
        if isinstance(temperature, float):
            found.append(_flat("τ", temperature, total))
        elif isinstance(temperature, ScheduledTemperature):
            turns = _turns(temperature.along, total)

            def tau(step: int) -> float:
                value = temperature_at(temperature, step, total)
                assert value is not None, "a scheduled τ has a value at every step"
                return value

            found.append(_curve("τ", temperature.along.schedule, tau, total, turns))
        else:
            found.append(Curve("τ", temperature.kind, (), (), (), "each position has its own"))
    schedule, peak = job.training.learning_rate_schedule, job.training.optimizer.learning_rate
    warmup, decay, _ = learning_rate_phases(schedule, total)
    found.append(
        _curve(
            "learning rate",
            schedule.schedule,
            lambda step: peak * learning_rate_factor(schedule, step, total),
            total,
            [warmup, total - decay],
        )
    )
    return tuple(found)


def _alpha(job: TrainJob, alpha: AlphaSchedule) -> Curve:
    """α; where it follows a teacher that has yet to be trained, no value is known."""
    total, turns = job.steps, _turns(alpha, job.steps)
    if not isinstance(alpha, TeacherConvergence):
        return _curve("α", alpha.schedule, lambda step: alpha_at(alpha, step, total), total, turns)
    excess = _excess(job)
    if excess is None:
        return Curve("α", alpha.schedule, (), (), (), f"at most {alpha.peak:g}; known when its teacher is trained")
    return _curve("α", alpha.schedule, lambda step: alpha_at(alpha, step, total, excess(step)), total, turns)


def _excess(job: TrainJob) -> Callable[[int], float] | None:
    """What the student's logit store says of its teacher at a step; None: it is not there yet."""
    from pdforge.store.convergence import Convergence  # noqa: PLC0415 - brings numpy along: only where α needs it

    known = Convergence.known(job.logits) if job.logits else None
    return partial(known.excess, batch=job.training.batch.global_) if known else None


def _turns(schedule: AlphaSchedule, total: int) -> list[int]:
    if isinstance(schedule, Constant):
        return []
    if isinstance(schedule, WarmupStableDecay | WarmupStableDecayOfRest):
        return [round(schedule.warmup * total), total - round(schedule.decay * total)]
    return [round(part * total) for part in (0.25, 0.5, 0.75)]


def _flat(name: str, value: float, total: int, note: str = "") -> Curve:
    return Curve(name, "constant", (1, total), (value, value), ((1, value),), note)


def _curve(name: str, schedule: str, value: Callable[[int], float], total: int, turns: list[int]) -> Curve:
    if schedule == "constant" and not turns:
        return _flat(name, value(1), total)
    keys = sorted({min(max(step, 1), total) for step in (1, *turns, total)})
    spread = {1 + round(part * (total - 1) / (POINTS - 1)) for part in range(POINTS)}
    steps = tuple(sorted(spread.union(keys)))
    return Curve(name, schedule, steps, tuple(map(value, steps)), tuple((step, value(step)) for step in keys))

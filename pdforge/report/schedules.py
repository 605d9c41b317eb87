"""The schedules of a run as curves."""

from __future__ import annotations

from collections.abc import Callable

from pdforge.plan.jobs import TrainJob
from pdforge.report.model import Schedule
from pdforge.schedules import alpha_at, learning_rate_factor, temperature_at

_POINTS = 120


def schedules_of(job: TrainJob) -> list[Schedule]:
    """α and τ where the job distils (no τ where each position has its own), and the learning rate."""
    total, rate, objective = job.steps, job.training.learning_rate_schedule, job.objective
    peak = job.training.optimizer.learning_rate
    found = [_sample("learning rate", lambda step: peak * learning_rate_factor(rate, step, total), total)]
    if objective is None:
        return found
    found.insert(0, _sample("α", lambda step: alpha_at(objective.alpha, step, total), total))
    if temperature_at(objective.temperature, 1, total) is not None:
        found.insert(1, _sample("τ", lambda step: temperature_at(objective.temperature, step, total) or 0.0, total))
    return found


def _sample(name: str, value: Callable[[int], float], total: int) -> Schedule:
    steps = sorted({1 + round(i * (total - 1) / (_POINTS - 1)) for i in range(_POINTS)})
    return Schedule(name=name, steps=steps, values=[round(value(step), 8) for step in steps])

"""Schedules of α, τ and the learning rate as pure functions of the step: one implementation for plan and trainer.

Steps count from 1 to `total`, as the trainer counts them; a schedule never depends on where a run was resumed. One of α
may depend on how far its teacher was, besides, which the teacher's logit store says of every step.
Shapes: arXiv 2410.16215, Table 5; WSD is a linear warm-up, a plateau and a cosine decay.
"""

from __future__ import annotations

import math

from pdforge.recipe.models import (
    AlphaSchedule,
    Constant,
    Cosine,
    LearningRateConstant,
    LearningRateCosine,
    LearningRateSchedule,
    LearningRateWSD,
    LinearDecrease,
    LinearIncrease,
    Period,
    ScheduledTemperature,
    TeacherConvergence,
    Temperature,
    WarmupStableDecay,
)


def alpha_at(  # noqa: PLR0911 - one return a schedule
    schedule: AlphaSchedule, step: int, total: int, excess: float | None = None
) -> float:
    """α at a step: a number in [0, 1].

    `excess`: nats a token, at least 0, by which the teacher's loss at the step's samples was above its last one; None:
    unknown.

    Raises:
        ValueError: the step is not in 1 … total, or α follows an excess that is unknown.
    """
    if not 1 <= step <= total:
        raise ValueError(f"step {step} is not in 1 … {total}")
    progress = (step - 1) / max(1, total - 1)
    match schedule:
        case Constant():
            return schedule.value
        case LinearIncrease():
            return schedule.peak * progress
        case LinearDecrease():
            return schedule.peak * (1 - progress)
        case Period():
            phase = ((step - 1) * schedule.cycles / total) % 1.0
            return schedule.peak if phase < schedule.duty else 0.0
        case Cosine():
            return schedule.peak * 0.5 * (1 + math.cos(math.pi * progress))
        case WarmupStableDecay():
            return schedule.peak * _trapezoid(step, total, schedule.warmup, schedule.decay)
        case TeacherConvergence():
            if excess is None:
                raise ValueError("α follows its teacher's convergence, which is unknown")
            return schedule.peak * math.exp2(-excess / schedule.half_at)
    return 1 - schedule.peak * _trapezoid(step, total, schedule.warmup, schedule.decay)


def temperature_at(temperature: Temperature, step: int, total: int) -> float | None:
    """τ at a step: the constant, or the schedule's; None where each position has its own.

    Raises:
        ValueError: the step is not in 1 … total.
    """
    match temperature:
        case float():
            return temperature
        case ScheduledTemperature(low=low, high=high):
            return low + (high - low) * alpha_at(temperature.along, step, total)
    return None


def is_zero(schedule: AlphaSchedule) -> bool:
    """Whether α is 0 at every step: language modelling only, no teacher needed."""
    if isinstance(schedule, Constant):
        return schedule.value == 0
    return getattr(schedule, "peak", None) == 0 and schedule.schedule != "wsd_beta"


def learning_rate_factor(schedule: LearningRateSchedule, step: int, total: int) -> float:
    """The learning rate at a step as a part of its peak; the curve of torchtitan's own scheduler (a test compares
    them).

    Raises:
        ValueError: the step is not in 1 … total.
    """
    if not 1 <= step <= total:
        raise ValueError(f"step {step} is not in 1 … {total}")
    warmup, decay, floor = learning_rate_phases(schedule, total)
    index = step - 1
    if index < warmup:
        return (index + 1) / warmup
    stable_until = total + 1 - decay
    if index < stable_until:
        return 1.0
    progress = (index + 1 - stable_until) / decay
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate_phases(schedule: LearningRateSchedule, total: int) -> tuple[int, int, float]:
    """(warm-up steps, decay steps, floor) of a learning-rate schedule over `total` steps."""
    warmup = min(total, round(schedule.warmup * total))
    match schedule:
        case LearningRateConstant():
            return warmup, 0, 1.0
        case LearningRateCosine():
            return warmup, total - warmup, schedule.floor
        case LearningRateWSD():
            return warmup, min(total - warmup, round(schedule.decay * total)), schedule.floor
    raise AssertionError(schedule)


def _trapezoid(step: int, total: int, warmup: float, decay: float) -> float:
    """0 → 1 linearly, 1, 1 → 0 along a cosine; in [0, 1]."""
    up = min(total, round(warmup * total))
    down = min(total - up, round(decay * total))
    if step <= up:
        return step / up
    if step <= total - down:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - (total - down)) / down))

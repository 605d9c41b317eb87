"""How long all stages of a plan take together: one after another, several at a time, or as a scheduler lets them."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Literal

from pdforge.plan.page import Step
from pdforge.plan.profile import Profile


def wall_clock(steps: Sequence[Step], profile: Profile, figure: Literal["seconds", "low", "high"]) -> float:
    """Seconds until the last stage that is not done has ended; one whose time is unknown takes none.

    Args:
        steps: in the order in which they are taken up.
        profile: where they run.
        figure: which of their durations counts.
    """
    took = {step.number: 0.0 if step.done or not step.duration else getattr(step.duration, figure) for step in steps}
    if profile.executor == "local":
        return _driven(steps, took, profile.runs_at_once or 1)
    return _scheduled(steps, took, profile.runs_at_once)


def _driven(steps: Sequence[Step], took: Mapping[int, float], places: int) -> float:
    """On this machine: whenever a place is free, the first stage that has all it needs (`launch/drive.py`)."""
    now, ends, waiting = 0.0, dict[int, float](), list(steps)
    while waiting:
        busy = [end for end in ends.values() if end > now]
        ready = (step for step in waiting if all(ends.get(number, inf) <= now for number in step.needs))
        step = next(ready, None) if len(busy) < places else None
        if step is None:
            now = min(busy)
        else:
            ends[step.number] = now + took[step.number]
            waiting.remove(step)
    return max(ends.values())


def _scheduled(steps: Sequence[Step], took: Mapping[int, float], limit: int | None) -> float:
    """By a scheduler: the longest chain of stages that wait for each other, a training also for the last but `limit`
    before it (`launch/graph.py`).
    """
    ends: dict[int, float] = {}
    trainings: list[float] = []
    for step in steps:
        before = [ends[number] for number in step.needs]
        trains = step.kind == "train" and not step.done
        if trains and limit and len(trainings) >= limit:
            before.append(trainings[-limit])
        ends[step.number] = took[step.number] + max(before, default=0.0)
        trainings += [ends[step.number]] if trains else []
    return max(ends.values())

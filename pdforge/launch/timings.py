"""What a start costs: from the request to the first new step of an attempt, split into what it went into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from pdforge.heartbeat import PHASES, Phase
from pdforge.launch.records import AttemptRecord, read_attempt, read_ranks, read_record
from pdforge.launch.submission import submissions
from pdforge.layout import AttemptDirectory, StageDirectory, write_json

SCHEDULER = "scheduler"
PARTS = (SCHEDULER, *PHASES)
"""Scheduler: from the request (requeue, submission, or start on this machine) to the process of rank 0."""


class Timeline(BaseModel):
    """What rank 0 records of its start; unix seconds of its host."""

    model_config = ConfigDict(frozen=True)

    process: float
    """When the process was created."""
    ends: dict[Phase, float] = {}
    """When each phase was over."""


@dataclass(frozen=True)
class Timing:
    """The start of one attempt."""

    attempt: int
    requested: float | None
    """When it was asked for, unix seconds; None: not known, as after the death of a node."""
    seconds: Mapping[str, float]
    """By part, in the order of `PARTS`; parts that the stage did not tell, or has not reached, are absent."""

    @property
    def total(self) -> float | None:
        """Seconds from the request to the first new step; None before that, or where the request is not known."""
        reached = self.requested is not None and "first step" in self.seconds
        return sum(self.seconds.values()) if reached else None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "total": self.total}


def write_timeline(attempt: AttemptDirectory, timeline: Timeline) -> None:
    """Record how far the start of rank 0 is."""
    write_json(attempt.timeline, timeline.model_dump(mode="json"))


def stage_timings(stage: StageDirectory) -> list[Timing]:
    """The starts of a stage, oldest first."""
    timings: list[Timing] = []
    for attempt in stage.all_attempts():
        record, timeline = read_attempt(attempt), read_record(attempt.timeline, Timeline)
        if record and timeline:
            timings.append(_timing(attempt.number, _requested(attempt, record), timeline))
    return timings


def _timing(number: int, requested: float | None, timeline: Timeline) -> Timing:
    seconds: dict[str, float] = {} if requested is None else {SCHEDULER: timeline.process - requested}
    last = timeline.process
    for phase in PHASES:
        if (end := timeline.ends.get(phase)) is not None:
            seconds[phase], last = end - last, end
    return Timing(number, requested, seconds)


def _requested(attempt: AttemptDirectory, record: AttemptRecord) -> float | None:
    """When the attempt was asked for."""
    if record.executor == "local":
        return record.started
    if not record.restart:
        times = [submission.submitted for submission in submissions(attempt.stage)]
        return max((time for time in times if time <= record.started), default=None)
    for earlier in reversed(attempt.stage.all_attempts()):
        before = read_attempt(earlier)
        if earlier.number < attempt.number and before and before.job == record.job:
            return before.ended or max((rank.ended for rank in read_ranks(earlier) if rank.ended), default=None)
    return None

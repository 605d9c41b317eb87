"""Stopping what runs, from any process, on any host that sees the storage root."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pdforge.errors import UsageError
from pdforge.launch import local
from pdforge.launch.attempts import request_stop, running_attempt
from pdforge.launch.cancel_jobs import cancel_jobs
from pdforge.launch.driver import find_driver
from pdforge.launch.records import AttemptRecord, read_attempt
from pdforge.launch.submission import latest_submission
from pdforge.layout import AttemptDirectory, RunDirectory, StageDirectory
from pdforge.plan.model import Plan, merged_stages


@dataclass(frozen=True)
class Cancelled:
    """What was told to end."""

    stages: list[str]
    """Titles."""
    drivers: list[int]
    """Processes of this host."""
    jobs: list[str]
    """Of a scheduler: cancelled, because they had nothing to save."""


def cancel(plans: Sequence[Plan], root: Path, *, kill: bool = False) -> Cancelled:
    """Ask the drivers of the runs, and the attempts that run, to save and end; with `kill` at once.

    Returns without waiting for the end.

    Raises:
        UsageError: `kill` was asked for an attempt of another host.
    """
    found = [find_driver(RunDirectory(root / plan.directory)) for plan in plans]
    drivers = list(dict.fromkeys(driver.pid for driver in found if driver and driver.is_here))
    for pid in drivers:  # first: a driver must not go on to the next stage
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    stages, jobs = cancel_jobs(plans, root, kill=kill)
    for stage in merged_stages(plans):
        if stage.title in stages:
            continue
        attempt = running_attempt(StageDirectory(root / stage.directory))
        record = read_attempt(attempt) if attempt else None
        if attempt is None or (record and _is_of_others(attempt, record, plans, drivers)):
            continue
        request_stop(attempt)
        where = (record.controller or record.driver) if record else None
        if kill and where and not where.is_here:
            raise UsageError(
                f"`{stage.title}` runs on {where.host}: it was asked to save and end",
                remedy=f"to kill it, give the same command on {where.host}",
            )
        if kill:
            local.kill(attempt)
        stages.append(stage.title)
    return Cancelled(stages, drivers, jobs)


def _is_of_others(
    attempt: AttemptDirectory, record: AttemptRecord, plans: Sequence[Plan], drivers: Sequence[int]
) -> bool:
    """Whether it was started for another run that shares the stage."""
    if record.executor == "slurm":
        submission = latest_submission(attempt.stage)
        return submission is not None and submission.run not in {plan.directory for plan in plans}
    return bool(record.driver and record.driver.is_alive and record.driver.pid not in drivers)

"""Carries one stage out again from what is compiled in its directory, without the plan of a run."""

from __future__ import annotations

import time
from collections.abc import Callable

from pdforge.errors import EnvironmentFault, StageFailed, UsageError
from pdforge.launch import local
from pdforge.launch.attempts import high_water, request_stop
from pdforge.launch.lock import try_lock
from pdforge.launch.outcome import judge, stage_failed
from pdforge.launch.records import STALLS_AFTER_S, read_attempt
from pdforge.layout import StageDirectory

PERIOD_S = 0.2


def run_again(stage: StageDirectory, title: str, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """Start the stage on this machine, with as many processes as last time, and wait until it is done.

    Raises:
        EnvironmentFault: nothing is compiled there.
        UsageError: somebody else runs it.
        StageFailed: it failed, or was stopped.
    """
    if not stage.job_json.is_file():
        raise EnvironmentFault(
            f"{stage.path} holds no compiled stage", remedy="`pdforge run` of the recipe writes what is missing"
        )
    previous = stage.all_attempts()
    record = read_attempt(previous[-1]) if previous else None
    lock = try_lock(stage)
    if lock is None:
        raise UsageError(f"{stage.path}: an attempt of this stage runs", remedy="wait for its end, or cancel it")
    with lock:
        processes = record.processes if record else 1
        limit = record.stalls_after if record else STALLS_AFTER_S
        attempt, running = local.start(stage, processes, lock, high_water=high_water(stage), stalls_after=limit)
    while not running.has_ended():
        if stopped():
            request_stop(attempt)
        time.sleep(PERIOD_S)
    outcome = judge(attempt)
    if outcome.state == "failed":
        raise stage_failed(title, attempt, outcome)
    if outcome.state == "stopped":
        raise StageFailed(f"stage `{title}` was stopped on request", remedy="the same command goes on")

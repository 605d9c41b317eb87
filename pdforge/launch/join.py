"""Which attempt a rank belongs to.

On this machine whoever starts an attempt makes its directory. On SLURM an attempt is one start of a job, whoever caused
it (also SLURM itself, after a node failed): global rank 0 makes the directory, the others wait for it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from submitit.slurm.slurm import SlurmJobEnvironment

from pdforge.errors import EnvironmentFault
from pdforge.launch.attempts import high_water, request_stop
from pdforge.launch.budget import fruitless
from pdforge.launch.exclusion import avoided_by_job, describe
from pdforge.launch.records import STALLS_AFTER_S, AttemptRecord, read_attempt, write_attempt
from pdforge.launch.submission import latest_submission
from pdforge.layout import AttemptDirectory, StageDirectory, read_json
from pdforge.stages.entry import ARRAY_VARIABLE

ATTEMPT_VARIABLE = "PDFORGE_ATTEMPT"
"""Local executor: the attempt's number."""

JOIN_TIMEOUT_S = 300.0
"""How long a rank waits for rank 0 to begin: imports from a busy network file system are slow."""
_PERIOD_S = 0.2

_MOVES = 3
"""The scheduler may refuse, or not hear, which nodes a job is to avoid; it must not move for ever."""

_FIRST_PORT, _PORTS = 20_000, 12_000
"""Below what Linux hands out by itself (32768 and up)."""


def join(stage: StageDirectory, rank: int) -> tuple[AttemptDirectory, AttemptRecord]:
    """The attempt that this process is a rank of, and how it was started.

    Raises:
        EnvironmentFault: it has no record, or rank 0 has not begun in time.
    """
    if number := os.environ.get(ATTEMPT_VARIABLE):
        attempt = stage.attempt(int(number))
        record = read_attempt(attempt)
        if record is None:
            raise EnvironmentFault(f"{attempt.record} cannot be read")
        return attempt, record
    if rank == 0:
        return begin(stage)
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while time.monotonic() < deadline:
        if found := current(stage):
            return found
        time.sleep(_PERIOD_S)
    raise EnvironmentFault(
        f"{stage.path}: rank 0 has not begun within {JOIN_TIMEOUT_S:.0f} s",
        remedy="its output lies in the folder `scheduler` of the stage",
    )


def begin(stage: StageDirectory) -> tuple[AttemptDirectory, AttemptRecord]:
    """Make the attempt of this start of the SLURM job that this process is part of."""
    job, restart = this_start()
    environment = SlurmJobEnvironment()
    nodes = environment.hostnames
    moves, reached = _must_move(stage, nodes), high_water(stage)
    record = AttemptRecord(
        executor="slurm",
        processes=environment.num_tasks,
        master_address=nodes[0],
        master_port=_FIRST_PORT + int(job) % _PORTS,
        high_water=reached.step,
        phase=reached.phase,
        started=time.time(),
        job=job,
        restart=restart,
        nodes=nodes,
        refused=moves or fruitless(stage, job),
        moves=bool(moves),
        stalls_after=_limit(stage),
    )
    cancelled = any(
        attempt.stop.exists() and (earlier := read_attempt(attempt)) and earlier.job == job
        for attempt in stage.all_attempts()
    )
    attempt = _new_directory(stage)
    if cancelled:  # and started again by SLURM, which knows nothing of it
        request_stop(attempt)
    write_attempt(attempt, record)
    return attempt, record


def current(stage: StageDirectory) -> tuple[AttemptDirectory, AttemptRecord] | None:
    """The attempt of this start of this SLURM job; None before it has one."""
    for attempt in reversed(stage.all_attempts()):
        record = read_attempt(attempt)
        if record and (record.job, record.restart) == this_start():
            return attempt, record
    return None


def this_start() -> tuple[str, int]:
    """Id of the SLURM job that this process is part of, and how often it was requeued."""
    return os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def this_job() -> str:
    """What scontrol calls the job that this process is part of.

    One task of every array has the array's own id, which to scontrol means all of its tasks.
    """
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return os.environ["SLURM_JOB_ID"] if task is None else f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}"


def _must_move(stage: StageDirectory, nodes: list[str]) -> str:
    """Why the job must not run on the nodes that it was given; empty where it may.

    SLURM starts a job again by itself where a node failed, and knows of no failures but the last. A job moves at most
    `_MOVES` times in a row: where that was of no use, it runs where it is.
    """
    last = [read_attempt(attempt) for attempt in stage.all_attempts()[-_MOVES:]]
    if len(last) == _MOVES and all(record and record.moves for record in last):
        return ""
    found = [exclusion for exclusion in avoided_by_job(stage) if exclusion.node in nodes]
    told = "; ".join(f"node {exclusion.node}: {describe(exclusion)}" for exclusion in found)
    return f"it moves to other nodes: {told}" if found else ""


def array_share(processes: int) -> tuple[int, int]:
    """The first rank of this process's job among all processes that do the stage, and how many these are.

    A task of a job array is a job of its own with `processes` processes.
    """
    if not os.environ.get(ARRAY_VARIABLE):
        return 0, processes
    task, tasks = int(os.environ["SLURM_ARRAY_TASK_ID"]), int(os.environ["SLURM_ARRAY_TASK_COUNT"])
    return task * processes, tasks * processes


def _limit(stage: StageDirectory) -> float:
    """Seconds without progress that the profile allows the stage."""
    submission, job = latest_submission(stage), read_json(stage.job_json)
    return submission.profile.watchdog.of(job["kind"]) if submission and job else STALLS_AFTER_S


def _new_directory(stage: StageDirectory) -> AttemptDirectory:
    """The next number, also when several tasks of an array begin at once."""
    stage.attempts.mkdir(parents=True, exist_ok=True)
    number = stage.all_attempts()[-1].number + 1 if stage.all_attempts() else 1
    while True:
        attempt = stage.attempt(number)
        try:
            Path(attempt.path).mkdir()
        except FileExistsError:
            number += 1
        else:
            return attempt

"""The entry of every rank of every stage: read the job, do it, write `done.json` last."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pdforge import heartbeat
from pdforge.errors import EnvironmentFault, ExitCode
from pdforge.layout import StageDirectory, write_json
from pdforge.plan.jobs import Job

Stopped = Literal["stopped"]
Results = dict[str, Any]
"""What `done.json` says of a stage: numbers for reports."""

Run = Callable[[Any, StageDirectory, int, int], Results | Stopped]
"""`run(job, directory, rank, ranks)` of a stage's module: its results (rank 0's count), or "stopped" when it was
asked to.
"""

ARRAY_VARIABLE = "PDFORGE_ARRAY"
"""Set in the tasks of a job array; RANK and WORLD_SIZE then count the processes of all tasks."""

_MODULES = {
    "tokenize": "tokenize",
    "pretrain-teacher": "train",
    "tokenize-conversations": "tokenize",
    "train": "train",
    "finetune": "train",
    "capture": "capture",
    "export": "export",
    "evaluate": "evaluate",
}


def main(path: Path) -> int:
    """Run the stage in that directory as this rank; RANK and WORLD_SIZE say which of how many (alone: 0 of 1).

    Returns:
        `ExitCode.OK` when the stage is done, `ExitCode.STOPPED` when it was asked to stop and everything is saved.

    Raises:
        PdforgeError: with what is wrong and what to do about it.
    """
    directory = StageDirectory(path)
    if directory.done.exists():
        return ExitCode.OK
    job = read_job(directory)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    run: Run = importlib.import_module(f"pdforge.stages.{_MODULES[job.kind]}").run
    heartbeat.finish("imports")
    started = time.time()
    results = run(job, directory, rank, ranks)
    if results == "stopped":
        return ExitCode.STOPPED
    if rank == 0 and not in_array():
        write_json(
            directory.done,
            {
                "kind": job.kind,
                "identity": job.identity,
                "title": job.title,
                "finished": time.time(),
                "results": {**results, "seconds": time.time() - started},
            },
        )
    return ExitCode.OK


def in_array() -> bool:
    """Whether this is a task of a job array: it does its share of the stage, and a job after all tasks publishes."""
    return bool(os.environ.get(ARRAY_VARIABLE))


def read_job(directory: StageDirectory) -> Job:
    """The typed job of a stage directory.

    Raises:
        EnvironmentFault: there is none, or it is not one.
    """
    try:
        job: Job = TypeAdapter(Job).validate_json(directory.job_json.read_bytes())
    except FileNotFoundError as error:
        raise EnvironmentFault(
            f"{directory.path} is no compiled stage: it has no {directory.job_json.name}",
            remedy="`pdforge compile RECIPE` writes it",
        ) from error
    except ValidationError as error:
        raise EnvironmentFault(
            f"{directory.job_json} was written by another version of pdforge: {error.errors()[0]['msg']}",
            remedy="compile the recipe again",
        ) from error
    return job

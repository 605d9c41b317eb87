"""Which job of a scheduler carries a stage out: numbered files in the stage directory, of which the last one counts.

Whoever creates the next number owns the stage. A link is created by one of several racing processes, on one host or on
several that share a network file system.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pdforge.launch.scheduler import job_states
from pdforge.layout import StageDirectory
from pdforge.plan.profile import Profile


class Submission(BaseModel):
    """The jobs that carry a stage out."""

    model_config = ConfigDict(frozen=True)

    number: int
    """1, 2, …"""
    job: str
    """Id of the job that ends the stage."""
    array: str | None = None
    """Id of the array before it, whose tasks share the work; None: the job does it alone."""
    profile: Profile
    run: str
    """Run directory, relative to the storage root, that it was submitted for."""
    submitted: float
    """Unix seconds."""
    by: str
    """`user@host`."""

    @property
    def jobs(self) -> list[str]:
        """Ids, in the order in which they run."""
        return [*([self.array] if self.array else []), self.job]


def describe_submitter() -> str:
    """`user@host` of this process."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def latest_submission(stage: StageDirectory) -> Submission | None:
    """The submission that counts; None where the stage was never given to a scheduler."""
    return next(submissions(stage), None)


def submissions(stage: StageDirectory) -> Iterator[Submission]:
    """All submissions of the stage, newest first, as far as they can be read."""
    for file in sorted(stage.submissions.glob("[0-9]*.json"), reverse=True):
        with contextlib.suppress(OSError, ValueError, ValidationError):
            yield Submission.model_validate(json.loads(file.read_text(encoding="utf-8")))


class Held(NamedTuple):
    """Why a stage is to be left to SLURM."""

    why: str
    remedy: str


def held_by_slurm(stage: StageDirectory) -> Held | None:
    """Whether a job of SLURM has the stage, or may have it, so that nobody else may work on it; None: none has.

    Its ranks take no lock: they are on other hosts. A job whose state nobody knows may run: two that write one
    checkpoint lose more than one that waits.
    """
    submission = latest_submission(stage)
    if submission is None or stage.done.exists():
        return None
    states = job_states(submission.jobs)
    job = f"job {submission.job} of SLURM, which {submission.by} submitted,"
    if unknown := next((state for state in states.values() if state.phase == "unknown"), None):
        remedy = f"ask on a machine of the cluster; if the job is over, delete {stage.submissions}"
        return Held(f"{job} may carry it out: {unknown.reason}", remedy)
    state = states[submission.job]
    if state.is_active:
        return Held(f"{job} carries it out ({state.word})", "wait for its end, or cancel it")
    return None


def claim(stage: StageDirectory, submission: Submission) -> bool:
    """Make the submission the one that counts; False when another process has taken its number."""
    stage.submissions.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=stage.submissions, prefix=".claim.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(submission.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, stage.submissions / f"{submission.number:04d}.json")
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink()
    folder = os.open(stage.submissions, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True

"""Asking SLURM: `squeue` for what is queued or runs, `sacct` for what has ended. *Unknown* is an answer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pdforge.errors import EnvironmentFault

TIMEOUT_S = 30.0

JobPhase = Literal["queued", "running", "ended", "unknown"]
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}


@dataclass(frozen=True)
class JobState:
    """What the scheduler says of a job; of an array, of all its tasks together."""

    phase: JobPhase
    word: str = ""
    """SLURM's own: `PENDING`, `NODE_FAIL`; empty where it is not known."""
    reason: str = ""
    """Why it waits, or how it ended; for an unknown job, what could not be asked."""
    nodes: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it may still work."""
        return self.phase in ("queued", "running")


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """The state of every job, asked once for all."""
    wanted = list(dict.fromkeys(jobs))
    if not wanted:
        return {}
    queued = _ask(["squeue", "-h", "--array", "-o", "%i|%T|%r|%N", "-j", ",".join(wanted)])
    if isinstance(queued, Failure) and "Invalid job id" not in queued.why:
        return {job: JobState("unknown", reason=queued.why) for job in wanted}
    rows = [] if isinstance(queued, Failure) else [line.split("|") for line in queued.splitlines() if line]
    found = {job: _together([row for row in rows if row[0].partition("_")[0] == job]) for job in wanted}
    gone = [job for job, state in found.items() if state is None or not state.is_active]
    ended = _ended(gone)
    return {job: ended.get(job) or found[job] or JobState("ended") for job in wanted}


def accounting(jobs: Iterable[str]) -> list[dict[str, str]] | Failure:
    """What `sacct` says of every start of the jobs, by its own names of columns, oldest start first; or why nothing."""
    wanted = list(dict.fromkeys(jobs))
    columns = ["JobIDRaw", "JobID", "State", "ExitCode", "NodeList", "Start", "End"]
    answer = _ask(["sacct", "-n", "-P", "-X", "--duplicates", "-o", ",".join(columns), "-j", ",".join(wanted)])
    if isinstance(answer, Failure):
        return answer
    rows = [dict(zip(columns, line.split("|"), strict=True)) for line in answer.splitlines() if line]
    return sorted(rows, key=lambda row: row["Start"])


def held_jobs(folder: Path) -> list[str]:
    """Ids of this user's held jobs whose working directory is `folder`; none where SLURM cannot be asked."""
    answer = _ask(["squeue", "-h", "--me", "-t", "PENDING", "-o", "%F|%r|%Z"])
    if isinstance(answer, Failure):
        return []
    rows = [line.split("|", 2) for line in answer.splitlines() if line]
    return list(dict.fromkeys(job for job, reason, where in rows if reason == "JobHeldUser" and where == str(folder)))


def node_events(nodes: Sequence[str], since: datetime, until: datetime) -> list[str]:
    """Those of the nodes that accounting saw fail between two local times, both included; none where it is silent.

    `sacct` itself does not say which node of a job failed.
    """
    command = ["sacctmgr", "-n", "-P", "list", "event", f"nodes={','.join(nodes)}", f"start={since:%Y-%m-%dT%H:%M:%S}"]
    answer = _ask([*command, "format=NodeName,TimeStart,State"])
    if isinstance(answer, Failure):
        return []
    rows = [line.split("|") for line in answer.splitlines() if line]
    return sorted(
        {
            node
            for node, when, state in rows
            if state.startswith(("DOWN", "FAIL")) and since <= datetime.fromisoformat(when) <= until
        }
    )


def cluster_name() -> str | None:
    """SLURM's own name of the cluster; None where it cannot be asked."""
    if name := os.environ.get("SLURM_CLUSTER_NAME"):  # inside a job
        return name
    answer = _ask(["scontrol", "show", "config"])
    lines = [] if isinstance(answer, Failure) else answer.splitlines()
    return next((line.partition("=")[2].strip() for line in lines if line.startswith("ClusterName")), None)


def is_answering() -> str:
    """Why the scheduler cannot be asked; empty when it can."""
    answer = _ask(["squeue", "-h", "-o", "%i", "-j", "1"])
    return answer.why if isinstance(answer, Failure) and "Invalid job id" not in answer.why else ""


def control(arguments: Sequence[str]) -> None:
    """Call one of SLURM's commands that change something (`scancel 12`, `scontrol release 12`).

    Raises:
        EnvironmentFault: it failed; its own words.
    """
    answer = _ask(arguments)
    if isinstance(answer, Failure):
        raise EnvironmentFault(answer.why, remedy=f"the command was: {' '.join(arguments)}")


@dataclass(frozen=True)
class Failure:
    """A command of SLURM that gave no answer."""

    why: str


def _ask(arguments: Sequence[str]) -> str | Failure:
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return Failure(f"{arguments[0]} is not installed here")
    except subprocess.TimeoutExpired:
        return Failure(f"{arguments[0]} has not answered within {TIMEOUT_S:.0f} s")
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        return Failure(said[-1] if said else f"{arguments[0]} failed with exit code {done.returncode}")
    return done.stdout


def _together(rows: list[list[str]]) -> JobState | None:
    """One state for the rows of a job: running before queued before ended."""
    states = [JobState(_phase(word), word, reason, nodes) for _, word, reason, nodes in rows]
    order: tuple[JobPhase, ...] = ("running", "queued", "ended")
    return next((state for phase in order for state in states if state.phase == phase), None)


def _ended(jobs: Sequence[str]) -> dict[str, JobState]:
    """What accounting says of jobs that the queue no longer holds; nothing of those that it does not know."""
    if not jobs:
        return {}
    answer = _ask(["sacct", "-n", "-P", "-X", "-o", "JobID,State,ExitCode,NodeList", "-j", ",".join(jobs)])
    if isinstance(answer, Failure):
        return {job: JobState("ended", reason=f"how it ended is not known: {answer.why}") for job in jobs}
    found: dict[str, JobState] = {}
    for line in answer.splitlines():
        name, word, code, nodes = line.split("|")[:4]
        job, word = name.partition("_")[0], word.split()[0]
        if job in found and word == "COMPLETED":
            continue  # of an array, the task that failed says how it ended
        found[job] = JobState("ended", word, "" if code in ("0:0", "") else f"exit code {code}", nodes)
    return found


def _phase(word: str) -> JobPhase:
    return "running" if word in _RUNNING else "queued" if word in _QUEUED else "ended"

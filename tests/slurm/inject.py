"""Faults, done to whatever runs at the moment on a test cluster. Each function says what it did."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from pdforge.launch.process import ProcessId
from pdforge.launch.records import read_attempt, read_ranks
from pdforge.launch.submission import latest_submission
from pdforge.layout import StageDirectory
from tests.slurm.harness import WAIT_S, User, wait_for

KINDS = ("tokenize", "pretrain-teacher", "capture", "train")
"""Stages of a run, in order."""


@dataclass(frozen=True)
class Rank:
    """A process of a stage that runs now."""

    stage: StageDirectory
    number: int
    pid: int
    job: str
    """That it belongs to; of an array, its task's own."""


def living_ranks(user: User, kind: str) -> list[Rank]:
    """Ranks of a stage; nodes of a test cluster share one process table."""
    stage = user.stage(kind)
    return [
        Rank(stage, rank.rank, rank.process.pid, how.job)
        for attempt in stage.all_attempts()
        if (how := read_attempt(attempt))
        for rank in read_ranks(attempt)
        if rank.state == "running" and ProcessId.of(rank.process.pid).started == rank.process.started
    ]


def running_jobs(user: User) -> list[str]:
    """Ids of the user's jobs that run; `12_1` of the task of an array."""
    rows = [row.split("|") for row in user.cluster("squeue", "-h", "-o", "%i|%T|%Z").splitlines()]
    return [job for job, state, folder in rows if state == "RUNNING" and folder.startswith(str(user.folder))]


def ask_to_save(user: User, _kind: str, chance: random.Random) -> str:
    """USR2, as before a time limit."""
    return _signal_job(user, "USR2", chance)


def terminate(user: User, _kind: str, chance: random.Random) -> str:
    """TERM to the ranks."""
    return _signal_job(user, "TERM", chance)


def preempt_by_user_signal(user: User, _kind: str, _chance: random.Random) -> str:
    """A job of higher priority takes the nodes; USR2 goes ahead."""
    return preempt(user, "user")


def preempt_by_term(user: User, _kind: str, _chance: random.Random) -> str:
    """A job of higher priority takes the nodes; TERM is all that comes."""
    return preempt(user, "term")


def kill_rank(user: User, kind: str, chance: random.Random) -> str:
    """KILL."""
    return _signal_rank(user, kind, signal.SIGKILL, chance)


def suspend_rank(user: User, kind: str, chance: random.Random) -> str:
    """STOP: it holds its place and does nothing any more."""
    return _signal_rank(user, kind, signal.SIGSTOP, chance)


def exhaust_memory(user: User, kind: str, chance: random.Random) -> str:
    """The rank takes memory until it is killed (see `faults.py`)."""
    return _signal_rank(user, kind, signal.SIGUSR1, chance)


def fail_node(user: User, _kind: str, chance: random.Random) -> str:
    """A node dies with its processes, the scheduler hears of it, and the node comes back."""
    node = chance.choice(("n1", "n2"))
    user.cluster.script("kill-node", node)
    user.cluster("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")
    user.cluster.script("start-node", node)
    return node


def reboot_node(user: User, _kind: str, chance: random.Random) -> str:
    """A node dies and is back before anybody noticed."""
    node = chance.choice(("n1", "n2"))
    user.cluster.script("kill-node", node)
    user.cluster.script("start-node", node)
    return node


def restart_controller(user: User, _kind: str, _chance: random.Random) -> str:
    """The scheduler itself ends and starts."""
    user.cluster.script("restart-controller")
    return "slurmctld"


def cancel_task(user: User, _kind: str, chance: random.Random) -> str:
    """One task of an array is cancelled by hand, and the run with it; somebody resumes it."""
    task = chance.choice([job for job in running_jobs(user) if "_" in job])
    user.cluster("scancel", task)
    if not wait_for(lambda: not user.queue()):
        return f"{task}, and jobs remain: {user.queue()}"
    user.pdforge("resume", user.stage("train").path.parent.name)
    return task


def kill_a_task_twice(user: User, seconds: float = WAIT_S) -> None:
    """KILL a task of the capture's array as soon as it has begun, and again: the one that has the array's own id."""
    stage = user.stage("capture")
    killed: list[int] = []

    def victims() -> list[int]:
        submission = latest_submission(stage)
        assert submission is not None
        ranks = living_ranks(user, "capture")
        return [rank.pid for rank in ranks if rank.job == submission.array and rank.pid not in killed]

    for _ in range(2):
        assert wait_for(victims, seconds), user.describe()
        killed += victims()[:1]
        os.kill(killed[-1], signal.SIGKILL)


def preempt(user: User, mode: str, seconds: float = 2) -> str:
    """A job of the partition `main` takes all nodes from a stage of `low` for a while."""
    user.cluster.script("preempt-by", mode)
    job = user.cluster(
        "sbatch", "--parsable", "--partition=main", "--nodes=2", "--exclusive", "--output=/dev/null",
        f"--chdir={user.folder}", f"--wrap=sleep {seconds}",
    ).strip()  # fmt: skip
    assert wait_for(lambda: job not in user.queue()), user.describe()
    return f"job {job}"


Inject = Callable[[User, str, random.Random], str]
FAULTS: dict[str, Inject] = {
    "USR2": ask_to_save,
    "TERM": terminate,
    "pre-empted, USR2": preempt_by_user_signal,
    "pre-empted, TERM": preempt_by_term,
    "node fails": fail_node,
    "node restarts": reboot_node,
    "controller restarts": restart_controller,
    "rank killed": kill_rank,
    "rank suspended": suspend_rank,
    "out of memory": exhaust_memory,
    "array task cancelled": cancel_task,
}
OF_RANKS = ("rank killed", "rank suspended", "out of memory")
"""They need a rank that has begun."""


def _signal_job(user: User, name: str, chance: random.Random) -> str:
    job = chance.choice(running_jobs(user))
    user.cluster("scancel", f"--signal={name}", job)
    return f"job {job}"


def _signal_rank(user: User, kind: str, number: signal.Signals, chance: random.Random) -> str:
    rank = chance.choice(living_ranks(user, kind))
    os.kill(rank.pid, number)
    return f"rank {rank.number}"

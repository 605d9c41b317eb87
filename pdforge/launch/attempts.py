"""Questions about the attempts of a stage that several commands ask."""

from __future__ import annotations

from pdforge.launch.progress import Mark, Progress, read_progress
from pdforge.launch.records import read_attempt, read_ranks
from pdforge.layout import AttemptDirectory, StageDirectory


def running_attempt(directory: StageDirectory) -> AttemptDirectory | None:
    """The latest attempt, if a process of it runs or may run; None while it is only about to be started."""
    attempts = directory.all_attempts()
    if not attempts:
        return None
    record = read_attempt(attempts[-1])
    processes = [rank.process for rank in read_ranks(attempts[-1]) if rank.state == "running" and not rank.lost]
    if record and record.controller:
        processes.append(record.controller)
    return attempts[-1] if any(process.is_alive is not False for process in processes) else None


def has_living_rank(attempt: AttemptDirectory) -> bool:
    """Whether a rank of this host still exists: a killed one may take a moment, and must not be judged before."""
    return any(rank.process.is_alive for rank in read_ranks(attempt))


def request_stop(attempt: AttemptDirectory) -> None:
    """Ask the ranks of an attempt to save and end. A file: every rank sees it, also one that has not begun."""
    attempt.stop.touch()


def high_water(directory: StageDirectory) -> Mark:
    """The furthest that the stage ever came; after a failure it starts from a checkpoint before that."""
    progress = read_progress(directory) or Progress()
    marks = [record.mark for attempt in directory.all_attempts() if (record := read_attempt(attempt))]
    return max([Mark(progress.phase, progress.step), *marks])

"""Why an attempt failed: a probable cause, with what speaks for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pdforge.launch.outcome import Outcome
from pdforge.launch.records import HANG, RankError, RankRecord

CauseKind = Literal[
    "node", "pre-emption", "time limit", "out of memory", "hang", "bad input", "error in the program", "unknown"
]

_STATES: dict[str, CauseKind] = {
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "pre-emption",
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "OUT_OF_MEMORY": "out of memory",
}
"""What accounting calls the end of a job."""
_NOTICES: dict[str, CauseKind] = {
    "NODE FAILURE": "node",
    "PREEMPTION": "pre-emption",
    "TIME LIMIT": "time limit",
}
"""What SLURM writes into a job's output when it ends it."""
_NOTICE = re.compile(rf"CANCELLED AT (\S+) DUE TO ({'|'.join(_NOTICES)})")
_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|oom.kill", re.IGNORECASE)
_NODE = re.compile(r"srun: error: Node failure on (\S+)")
"""What srun writes into a job's output just before that notice."""
_MEMORY_TYPES = ("OutOfMemoryError", "MemoryError")


@dataclass(frozen=True)
class Cause:
    """A probable cause."""

    kind: CauseKind
    evidence: str
    """What was found, and where."""


@dataclass(frozen=True)
class Notice:
    """SLURM's own word, beside accounting's row of a start, on why it ended it."""

    kind: CauseKind
    time: float
    """Unix seconds."""
    evidence: str
    """What was found, and where."""
    nodes: tuple[str, ...] = ()
    """Those that failed, where it says so."""


def find_notices(files: Iterable[Path]) -> list[Notice]:
    """The notices in the outputs of a stage's jobs, which later starts append to."""
    found = []
    for file in files:
        nodes: list[str] = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _NODE.search(line):
                nodes.append(match[1])
            if match := _NOTICE.search(line):
                when = datetime.fromisoformat(match[1]).timestamp()  # SLURM writes local time
                found.append(Notice(_NOTICES[match[2]], when, f"{file.name}: {line.strip()}", tuple(nodes)))
                nodes = []
    return found


def find_cause(
    outcome: Outcome,
    ranks: list[RankRecord],
    *,
    row: Mapping[str, str] | None = None,
    notices: Iterable[Notice] = (),
    log_tail: str = "",
) -> Cause:
    """The probable cause of a failed attempt.

    What a rank says of itself with certainty comes first; then the scheduler, for the end of a node makes the ranks of
    others raise; then exceptions.

    Args:
        outcome: of the attempt, of its ranks alone.
        ranks: their records.
        row: of the attempt's start in accounting; None where there is none.
        notices: SLURM's, of the attempt's time.
        log_tail: end of the output of the job or the rank that failed.
    """
    if hang := next((rank.error for rank in ranks if rank.error and rank.error.type == HANG), None):
        return Cause("hang", hang.message)
    guilty = next((rank for rank in ranks if rank.rank == outcome.rank), None)
    error = guilty.error if guilty and guilty.error and not guilty.error.consequence else None
    if error and (error.type in _MEMORY_TYPES or _MEMORY.search(error.message)):
        return Cause("out of memory", f"rank {outcome.rank}: {error.type}: {error.message}")
    if error and error.of_node:
        return Cause("node", f"rank {outcome.rank}: {error.type}: {error.message}")
    if error and error.of_input:
        return Cause("bad input", f"rank {outcome.rank}: {error.type}: {error.message}")
    if told := told_by_scheduler(row or {}, notices):
        return told
    return _from_its_end(outcome, error, log_tail)


def told_by_scheduler(row: Mapping[str, str], notices: Iterable[Notice]) -> Cause | None:
    """Why SLURM ended an attempt; None where it says nothing of it."""
    word = next(iter(row.get("State", "").split()), "")
    if word in _STATES:
        return Cause(_STATES[word], f"sacct: {word} on {row.get('NodeList', '')}")
    notice = next(iter(notices), None)
    return Cause(notice.kind, notice.evidence) if notice else None


def _from_its_end(outcome: Outcome, error: RankError | None, log_tail: str) -> Cause:
    if error and error.type:
        return Cause("error in the program", f"rank {outcome.rank}: {error.type}: {error.message}")
    if line := next((line for line in reversed(log_tail.splitlines()) if _MEMORY.search(line)), ""):
        return Cause("out of memory", f"its output: {line.strip()}")
    first = next(iter(outcome.error.splitlines()), "")
    if error or outcome.error.startswith("crashed"):
        return Cause("error in the program", f"rank {outcome.rank}: {first}")
    return Cause("unknown", first if outcome.rank is None else f"rank {outcome.rank}: {first}")

"""How an attempt ended, read from the files that its ranks left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pdforge.errors import StageFailed
from pdforge.launch.records import HANG, RankError, RankRecord, read_attempt, read_ranks
from pdforge.layout import AttemptDirectory

_LAST_LINES = 8
_CRASH = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt."""

    state: Literal["done", "stopped", "failed"]
    error: str = ""
    """What the rank that failed first has to say, in one or a few lines."""
    remedy: str = ""
    rank: int | None = None
    """The rank that failed first."""
    log: Path | None = None
    """Where to read on."""
    interrupted: bool = False
    """Killed as a whole, from outside: says nothing about the stage."""


def judge(attempt: AttemptDirectory) -> Outcome:
    """The outcome of the last attempt of a stage, when it has ended."""
    return Outcome("done") if attempt.stage.done.exists() else judge_earlier(attempt)


def judge_earlier(attempt: AttemptDirectory) -> Outcome:
    """The outcome of an attempt that ended without the stage's result."""
    how = read_attempt(attempt)
    return Outcome("failed", how.refused) if how and how.refused else judge_ranks(attempt)


def judge_ranks(attempt: AttemptDirectory) -> Outcome:
    """As `judge_earlier`, from what its ranks did alone, also where another start was refused after it."""
    ranks = read_ranks(attempt)
    if attempt.stop.exists() and not any(rank.state == "failed" and not _is_consequence(rank) for rank in ranks):
        return Outcome("stopped")
    if hang := next((rank for rank in ranks if rank.error and rank.error.type == HANG), None):
        return _of_hang(attempt, hang)
    guilty = _first_to_fail(ranks)
    if guilty is None:
        if any(rank.state == "stopped" for rank in ranks):
            return Outcome("stopped")
        return _without_failing_rank(attempt, ranks)
    log = attempt.rank_log(guilty.rank)
    if guilty.vanished:
        return _of_vanished_rank(guilty.rank, log, everything=all(rank.vanished for rank in ranks))
    error = guilty.error or RankError(type="", message="")
    return Outcome("failed", _describe(error, log), error.remedy, guilty.rank, log)


def stage_failed(title: str, attempt: AttemptDirectory, outcome: Outcome) -> StageFailed:
    """The exception for an outcome that is a failure."""
    where = f"rank {outcome.rank}: " if outcome.rank is not None and len(read_ranks(attempt)) > 1 else ""
    log = f"\nlog: {outcome.log}" if outcome.log else ""
    return StageFailed(
        f"stage `{title}` failed in attempt {attempt.number}; {where}{outcome.error}{log}", remedy=outcome.remedy
    )


def last_lines(path: Path, count: int = _LAST_LINES) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400 * count))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def _first_to_fail(ranks: list[RankRecord]) -> RankRecord | None:
    """Cause before consequence: killed ranks left no time and cannot have waited for others; then by time."""

    def order(rank: RankRecord) -> tuple[bool, bool, float]:
        return _is_consequence(rank), not rank.vanished, rank.ended or 0.0

    return min((rank for rank in ranks if rank.state == "failed" or rank.vanished), key=order, default=None)


def _is_consequence(rank: RankRecord) -> bool:
    return rank.error is not None and rank.error.consequence


def _of_hang(attempt: AttemptDirectory, witness: RankRecord) -> Outcome:
    """Blames the rank that another one, which ended the attempt, names."""
    assert witness.error is not None
    rank = next(iter(witness.error.suspects), witness.rank)
    log = attempt.rank_log(rank)
    return Outcome("failed", _describe(witness.error, log), rank=rank, log=log)


def _of_vanished_rank(rank: int, log: Path, *, everything: bool) -> Outcome:
    """It left no word itself; Python may have, in its log, when it crashed."""
    crash = _CRASH.search(last_lines(log, 200))
    if crash:
        return Outcome("failed", f"crashed: {crash[1]}", rank=rank, log=log)
    if everything:
        return Outcome("failed", "killed from outside, with all of its processes", log=log, interrupted=True)
    message = f"killed from outside; its last lines:\n{last_lines(log)}".rstrip()
    remedy = "when memory is short, the system kills the largest process: `dmesg` tells"
    return Outcome("failed", message, remedy, rank, log)


def _without_failing_rank(attempt: AttemptDirectory, ranks: list[RankRecord]) -> Outcome:
    """Nobody failed, and yet there is no result."""
    record = read_attempt(attempt)
    missing = (record.processes if record else 0) - len(ranks)
    if missing <= 0 and ranks and all(rank.state != "running" for rank in ranks):
        return Outcome("failed", "every rank ended well, but the stage left no result", log=attempt.rank_log(0))
    if any(rank.state == "running" for rank in ranks):  # of another host, where they cannot be looked for
        return Outcome("failed", "ended without a word, with all of its processes", interrupted=True)
    logs = sorted(attempt.path.glob("*_log.out")) or [attempt.controller_log]
    message = "\n".join(["no rank began" if not ranks else f"{missing} ranks never began", last_lines(logs[0])])
    return Outcome("failed", message.rstrip(), log=logs[0], interrupted=not last_lines(logs[0]))


def _describe(error: RankError, log: Path) -> str:
    """`RuntimeError: …`, with the place where it was raised; the log's end where there was no exception."""
    if not error.type:
        return "\n".join([error.message, last_lines(log)]).rstrip()
    if not error.traceback:
        return error.message
    frames = [line.strip() for line in error.traceback.splitlines() if line.startswith("  File ")]
    place = f"\nat {frames[-1]}" if frames else ""
    return f"{error.type}: {error.message}{place}"

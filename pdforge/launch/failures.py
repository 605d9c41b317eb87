"""The attempts of a stage that failed: who failed first, where it was, the probable cause and the node that failed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path

from pdforge.launch.cause import Cause, Notice, find_cause, find_notices, told_by_scheduler
from pdforge.launch.hang import Sign, read_sign
from pdforge.launch.outcome import Outcome, judge_ranks, last_lines
from pdforge.launch.output import output_of_start
from pdforge.launch.records import AttemptRecord, RankRecord, read_attempt, read_ranks
from pdforge.launch.scheduler import Failure, accounting, node_events
from pdforge.launch.stacks import read_stacks
from pdforge.launch.submission import latest_submission
from pdforge.layout import AttemptDirectory, StageDirectory

_LAST_LINES = 40
"""Of each log that are searched for a cause."""

_ENDED_EARLY = re.compile(r"^srun: error: \S+: task (\d+): .+")
"""What srun writes of a task that ended badly; the first one before it kills the others."""
_WITHOUT_A_NAME = ("unknown", "out of memory")
"""Causes that need not come with a rank."""

_NO_ROW = "accounting does not know this start"
_CLOCKS_S = 3.0
"""By which the clocks of two nodes, and SLURM's whole seconds, may differ; jobs start again later than that."""


@dataclass(frozen=True)
class FailedAttempt:
    """One attempt that failed, or that the scheduler ended, even where its ranks still saved."""

    number: int
    cause: Cause
    error: str
    remedy: str
    """The error's own; may be empty."""
    rank: int | None
    """The first that failed; None: the attempt as a whole."""
    step: int | None
    """The last one in that rank's last sign of life, at most two seconds older than its end."""
    traceback: str
    """Of that rank: of its exception, else where its main thread was at its last sign of life."""
    stacks: dict[int, str]
    """By rank: of all threads, where another rank took them; else of the main one, at its last sign of life."""
    nodes: list[str]
    """Hosts."""
    failed_nodes: list[str]
    """Those of them that are the likely reason."""
    started: float
    """Unix seconds."""
    ended: float
    """Unix seconds; where nobody saw the end: of the last sign of life."""
    sacct: dict[str, str] | str | None
    """Accounting's row of this start; text: why there is none; None: no job of SLURM."""
    log: Path | None


def failed_attempts(directory: StageDirectory, *, running: bool) -> list[FailedAttempt]:
    """The attempts of a stage that failed, oldest first; `running`: the latest one still works."""
    attempts = directory.all_attempts()
    records = {attempt.number: record for attempt in attempts if (record := read_attempt(attempt))}
    rows = _accounting(records.values())
    notices = find_notices(sorted(directory.scheduler.glob("*_log.out")))
    submission = latest_submission(directory)
    shared = submission is not None and submission.array is not None
    found = []
    for attempt, following in zip_longest(attempts, attempts[1:]):
        record, ranks = records.get(attempt.number), read_ranks(attempt)
        if following is None and (running or directory.done.exists()):
            continue
        if shared and ranks and all(rank.state == "done" for rank in ranks):  # its part of an array's work
            continue
        if record and record.refused and not ranks:  # it did nothing
            continue
        after = records.get(following.number) if following else None
        outcome, row, told = judge_ranks(attempt), _row(record, rows), _during(notices, record, after)
        if record and row == _NO_ROW and not told:
            told = _seen_by_nodes(record, after)
        if outcome.state != "failed" and told_by_scheduler(row if isinstance(row, dict) else {}, told) is None:
            continue
        found.append(
            _describe(
                attempt,
                outcome,
                row=row,
                notices=told,
                output=_job_output(directory, record, records.values()),
            )
        )
    return found


def _describe(
    attempt: AttemptDirectory,
    outcome: Outcome,
    *,
    row: dict[str, str] | str | None,
    notices: list[Notice],
    output: list[str],
) -> FailedAttempt:
    record, ranks = read_attempt(attempt), read_ranks(attempt)
    signs = {rank.rank: sign for rank in ranks if (sign := read_sign(attempt, rank.rank))}
    guilty = next((rank for rank in ranks if rank.rank == outcome.rank), None)
    said = next((rank.error.traceback for rank in ranks if rank.error and rank.error.suspects), "")
    if guilty and guilty.error and not guilty.error.consequence:
        said = guilty.error.traceback or said
    stacks = {rank.rank: taken for rank in ranks if (taken := read_stacks(attempt, rank.rank))}
    tail = "\n".join([last_lines(outcome.log, _LAST_LINES) if outcome.log else "", *output])
    hosts = dict.fromkeys(rank.process.host for rank in ranks)
    nodes = record.nodes if record and record.nodes else list(hosts)
    cause = find_cause(outcome, ranks, row=row if isinstance(row, dict) else None, notices=notices, log_tail=tail)
    rank, log = outcome.rank, outcome.log
    if rank is None and cause.kind in _WITHOUT_A_NAME and (first := _first_to_end(output)):
        rank, cause = int(first[1]), replace(cause, evidence=f"{cause.evidence}; {first[0]}")
        log = attempt.rank_log(rank)
    sign = signs.get(rank) if rank is not None else None
    return FailedAttempt(
        number=attempt.number,
        cause=cause,
        error=outcome.error or "its ranks were told to end, and did",
        remedy=outcome.remedy,
        rank=rank,
        step=sign.step if sign else None,
        traceback=stacks.get(-1 if rank is None else rank) or said or (sign.stack if sign else ""),
        stacks={**{rank: sign.stack for rank, sign in signs.items()}, **stacks},
        nodes=nodes,
        failed_nodes=_failed_nodes(cause, outcome, ranks, nodes=nodes, row=row, notices=notices),
        started=record.started if record else 0.0,
        ended=_end(record, ranks, signs),
        sacct=row,
        log=log,
    )


def _first_to_end(output: list[str]) -> re.Match[str] | None:
    """The rank that srun saw end first: all may be killed before they can say anything of each other."""
    return next(filter(None, map(_ENDED_EARLY.match, output)), None)


def _failed_nodes(
    cause: Cause,
    outcome: Outcome,
    ranks: list[RankRecord],
    *,
    nodes: list[str],
    row: dict[str, str] | str | None,
    notices: list[Notice],
) -> list[str]:
    """The nodes of an attempt that failed, where that is what ended it; none where it is not known which."""
    if cause.kind == "hang":
        named = {rank for one in ranks if one.error for rank in one.error.suspects}
        where = {rank.node for rank in ranks if rank.rank in named and rank.node}
        return sorted(where) if len(where) == 1 else []  # ranks of several nodes: the program, or what is between
    if cause.kind != "node":
        return []
    guilty = next((rank for rank in ranks if rank.rank == outcome.rank), None)
    if guilty and guilty.node and guilty.error and guilty.error.of_node:
        return [guilty.node]
    return _events(nodes, row) or sorted({node for notice in notices for node in notice.nodes})


def _events(nodes: list[str], row: dict[str, str] | str | None) -> list[str]:
    """The nodes that accounting saw fail in the time of its row of a start."""
    if not isinstance(row, dict) or (since := _when(row["Start"])) is None or (until := _when(row["End"])) is None:
        return []
    return node_events(nodes, since, until + timedelta(seconds=1))


def _end(record: AttemptRecord | None, ranks: list[RankRecord], signs: Mapping[int, Sign]) -> float:
    if record and record.ended:
        return record.ended
    known = [rank.ended for rank in ranks if rank.ended] + [sign.time for sign in signs.values()]
    return max(known, default=record.started if record else 0.0)


def _accounting(records: Iterable[AttemptRecord]) -> dict[str, list[dict[str, str]]] | Failure:
    """Rows of accounting by job, oldest start first."""
    jobs = [record.job for record in records if record.job]
    if not jobs:
        return {}
    answer = accounting(jobs)
    if isinstance(answer, Failure):
        return answer
    return {job: [row for row in answer if row["JobIDRaw"] == job] for job in jobs}


def _row(record: AttemptRecord | None, rows: dict[str, list[dict[str, str]]] | Failure) -> dict[str, str] | str | None:
    if record is None or not record.job:
        return None
    if isinstance(rows, Failure):
        return f"accounting cannot be asked: {rows.why}"
    return _row_of_start(rows[record.job], record.started) or _NO_ROW


def _row_of_start(rows: list[dict[str, str]], started: float) -> dict[str, str] | None:
    """The row of the start that ranks took part in from `started`; rows are in the order of their starts.

    They cannot be counted: of two starts within seconds accounting may keep one row, and a third that nothing ran in.
    """
    for row in reversed(rows):
        begin, end = _when(row["Start"]), _when(row["End"])
        if begin and begin.timestamp() <= started + _CLOCKS_S:
            return row if end is None or started <= end.timestamp() + _CLOCKS_S else None
    return None


def _when(text: str) -> datetime | None:
    """A local time of accounting; None: `Unknown`."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _seen_by_nodes(record: AttemptRecord, after: AttemptRecord | None) -> list[Notice]:
    """What accounting says of the nodes of a start that it has no row of."""
    until = after.started if after else time.time()
    events = node_events(record.nodes, datetime.fromtimestamp(record.started), datetime.fromtimestamp(until))
    return [Notice("node", until, f"sacctmgr: {', '.join(events)} down", tuple(events))] if events else []


def _during(notices: list[Notice], record: AttemptRecord | None, after: AttemptRecord | None) -> list[Notice]:
    """The notices between the start of an attempt and that of the next; SLURM's times are whole seconds."""
    if record is None:
        return []
    end = after.started if after else float("inf")
    return [notice for notice in notices if record.started - 1 <= notice.time <= end]


def _job_output(stage: StageDirectory, record: AttemptRecord | None, records: Iterable[AttemptRecord]) -> list[str]:
    """The last lines of what the attempt's job put out in this start."""
    if record is None or not record.job:
        return []
    files = sorted(stage.scheduler.glob(f"{record.job}_*log.out"))
    starts = [one.started for one in records if one.job == record.job]
    return output_of_start(files, record.started, starts, lines=_LAST_LINES)

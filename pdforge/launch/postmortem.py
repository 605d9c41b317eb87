"""What went wrong in a run: of each failed attempt the rank that failed first, its stack and the probable cause."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdforge.launch.cause import Cause, Notice, find_cause, find_notices, told_by_scheduler
from pdforge.launch.hang import read_sign
from pdforge.launch.outcome import Outcome, judge_ranks, last_lines
from pdforge.launch.progress import Progress
from pdforge.launch.records import AttemptRecord, read_attempt, read_ranks
from pdforge.launch.scheduler import Failure, accounting
from pdforge.launch.status import StageStatus, stage_statuses
from pdforge.launch.submission import latest_submission
from pdforge.layout import AttemptDirectory, StageDirectory
from pdforge.plan.model import Plan, Stage

_ADVICE = {
    "node": "a node failed; the stage goes on from its last checkpoint",
    "pre-emption": "the scheduler took the nodes back; the stage goes on from its last checkpoint",
    "time limit": "the job had not saved when its time was over: raise `signal_delay` or `walltime` of the profile",
    "out of memory": "lower `training.batch.micro`, or raise `memory` or `processes_per_node` of the profile",
    "hang": "the stack says where the rank was; where the stage is only slow, raise `watchdog` of the profile",
    "bad input": "remove what the error names; started again as it is, it fails again",
    "error in the program": "the traceback says where; started again as it is, it may well fail again",
    "unknown": "read the log; where memory is short the kernel kills the largest process: `dmesg` tells",
}


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
    """By rank: where its main thread was at its last sign of life."""
    nodes: list[str]
    """Hosts."""
    sacct: dict[str, str] | str | None
    """Accounting's row of this start; text: why there is none; None: no job of SLURM."""
    log: Path | None


@dataclass(frozen=True)
class StageReport:
    """A stage of which an attempt failed, or of which nobody knows how it stands."""

    title: str
    key: str
    state: str
    """As `pdforge status` says it now."""
    error: str
    directory: Path
    attempts: int
    """How often it was started."""
    last_step: int
    of: int
    unit: str
    failed: list[FailedAttempt]
    advice: str
    commands: list[str]
    """To give next, in order; the last one goes on."""


@dataclass(frozen=True)
class Postmortem:
    """A run, as far as something failed in it."""

    run: Path
    stages: list[StageReport]

    def to_json(self) -> dict[str, Any]:
        """For `--json` and the bundle."""
        page: dict[str, Any] = _plain(asdict(self))
        return page


def examine(plan: Plan, root: Path) -> Postmortem:
    """Look at every stage of a run."""
    run = root / plan.directory
    statuses = stage_statuses(plan.stages, root)
    reports = [_examine_stage(stage, root, run, statuses[stage.key]) for stage in plan.stages]
    return Postmortem(run, [report for report in reports if report.failed or report.state in ("failed", "unknown")])


def _examine_stage(stage: Stage, root: Path, run: Path, status: StageStatus) -> StageReport:
    directory = StageDirectory(root / stage.directory)
    attempts = directory.all_attempts()
    failed = _failed_attempts(directory, attempts, status)
    progress = status.progress or Progress()
    last = failed[-1] if failed else None
    return StageReport(
        title=stage.title,
        key=stage.key,
        state=status.state,
        error=status.error,
        directory=directory.path,
        attempts=len(attempts),
        last_step=progress.step,
        of=progress.of,
        unit=progress.unit,
        failed=failed,
        advice=(last.remedy or _ADVICE[last.cause.kind]) if last else "",
        commands=_commands(stage, run, status, last),
    )


def _failed_attempts(
    directory: StageDirectory, attempts: Sequence[AttemptDirectory], status: StageStatus
) -> list[FailedAttempt]:
    records = {attempt.number: record for attempt in attempts if (record := read_attempt(attempt))}
    rows = _accounting(records.values())
    notices = find_notices(sorted(directory.scheduler.glob("*_log.out")))
    submission = latest_submission(directory)
    shared = submission is not None and submission.array is not None
    found = []
    for attempt, following in zip(attempts, [*attempts[1:], None], strict=True):
        record, ranks = records.get(attempt.number), read_ranks(attempt)
        if following is None and (status.state == "running" or directory.done.exists()):
            continue
        if shared and ranks and all(rank.state == "done" for rank in ranks):  # its part of an array's work
            continue
        if record and record.refused and not ranks:  # it did nothing
            continue
        after = records.get(following.number) if following else None
        outcome, row, told = judge_ranks(attempt), _row(record, rows), _during(notices, record, after)
        if outcome.state != "failed" and told_by_scheduler(row if isinstance(row, dict) else {}, told) is None:
            continue
        found.append(
            _describe(
                attempt,
                outcome,
                row=row,
                notices=told,
                outputs=_job_outputs(directory, record, after),
            )
        )
    return found


def _describe(
    attempt: AttemptDirectory,
    outcome: Outcome,
    *,
    row: dict[str, str] | str | None,
    notices: list[Notice],
    outputs: list[Path],
) -> FailedAttempt:
    record, ranks = read_attempt(attempt), read_ranks(attempt)
    signs = {rank.rank: sign for rank in ranks if (sign := read_sign(attempt, rank.rank))}
    guilty = next((rank for rank in ranks if rank.rank == outcome.rank), None)
    said = next((rank.error.traceback for rank in ranks if rank.error and rank.error.suspects), "")
    if guilty and guilty.error and not guilty.error.consequence:
        said = guilty.error.traceback or said
    sign = signs.get(outcome.rank) if outcome.rank is not None else None
    tail = "\n".join(last_lines(file, 40) for file in [outcome.log, *outputs] if file)
    hosts = dict.fromkeys(rank.process.host for rank in ranks)
    return FailedAttempt(
        number=attempt.number,
        cause=find_cause(outcome, ranks, row=row if isinstance(row, dict) else None, notices=notices, log_tail=tail),
        error=outcome.error or "its ranks were told to end, and did",
        remedy=outcome.remedy,
        rank=outcome.rank,
        step=sign.step if sign else None,
        traceback=said or (sign.stack if sign else ""),
        stacks={rank: sign.stack for rank, sign in signs.items()},
        nodes=record.nodes if record and record.nodes else list(hosts),
        sacct=row,
        log=outcome.log,
    )


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
    starts = rows[record.job]
    return starts[record.restart] if record.restart < len(starts) else "accounting does not know this start"


def _during(notices: list[Notice], record: AttemptRecord | None, after: AttemptRecord | None) -> list[Notice]:
    """The notices between the start of an attempt and that of the next; SLURM's times are whole seconds."""
    if record is None:
        return []
    end = after.started if after else float("inf")
    return [notice for notice in notices if record.started - 1 <= notice.time <= end]


def _job_outputs(stage: StageDirectory, record: AttemptRecord | None, after: AttemptRecord | None) -> list[Path]:
    """Output of the job's batch step, to which each start appends: its end is that of the last one only."""
    if record is None or not record.job or (after and after.job == record.job):
        return []
    return sorted(stage.scheduler.glob(f"{record.job}_*log.out"))


def _commands(stage: Stage, run: Path, status: StageStatus, last: FailedAttempt | None) -> list[str]:
    name = shlex.quote(str(run))
    if status.state in ("done", "running", "waiting"):
        return [f"pdforge status {name}"]
    commands = []
    if last and last.log and last.cause.kind != "bad input":
        rank = "" if last.rank is None else f" --rank {last.rank}"
        commands.append(f"pdforge logs {name} {shlex.quote(stage.title)} --attempt {last.number}{rank}")
    return [*commands, f"pdforge resume {name}"]


def _plain(value: Any) -> Any:
    """For JSON: paths as text, keys as text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value

"""How the stages of runs stand: from files first, then from the scheduler for what was given to one.

It never matters who started them, or where. What cannot be known is *unknown*, never *failed*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pdforge.launch.driver import find_driver
from pdforge.launch.lock import is_locked
from pdforge.launch.outcome import judge
from pdforge.launch.process import ProcessId
from pdforge.launch.progress import Progress, read_progress
from pdforge.launch.records import read_attempt, read_ranks
from pdforge.launch.scheduler import JobState, job_states
from pdforge.launch.submission import Submission, latest_submission
from pdforge.layout import AttemptDirectory, RunDirectory, StageDirectory
from pdforge.plan.model import Plan, Stage, merged_stages

State = Literal["done", "running", "stopped", "failed", "waiting", "unknown"]


@dataclass(frozen=True)
class StageStatus:
    """How one stage stands."""

    key: str
    title: str
    directory: Path
    state: State
    attempt: int = 0
    """The latest; 0: none yet."""
    progress: Progress | None = None
    error: str = ""
    """Of a failed stage."""
    log: Path | None = None
    jobs: str = ""
    """What the scheduler says of its jobs: `job 12 PENDING (Priority)`."""
    is_active: bool = False
    """Whether its state may change by itself."""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        progress = self.progress or Progress()
        return {
            "key": self.key,
            "title": self.title,
            "state": self.state,
            "attempt": self.attempt,
            **progress.model_dump(),
            "error": self.error,
            "directory": str(self.directory),
            "log": str(self.log) if self.log else None,
            "jobs": self.jobs,
        }


def stage_statuses(stages: Sequence[Stage], root: Path) -> dict[str, StageStatus]:
    """How the stages stand, by key; the scheduler is asked once."""
    directories = {stage.key: StageDirectory(root / stage.directory) for stage in stages}
    submissions = {
        key: submission
        for key, directory in directories.items()
        if not directory.done.exists() and (submission := latest_submission(directory))
    }
    states = job_states(job for submission in submissions.values() for job in submission.jobs)
    return {
        stage.key: _stage_status(stage, directories[stage.key], submissions.get(stage.key), states) for stage in stages
    }


def stage_status(stage: Stage, root: Path) -> StageStatus:
    """How one stage stands."""
    return stage_statuses([stage], root)[stage.key]


def _stage_status(
    stage: Stage, directory: StageDirectory, submission: Submission | None, states: dict[str, JobState]
) -> StageStatus:
    attempts = directory.all_attempts()
    latest = attempts[-1] if attempts else None

    def status(state: State, error: str = "", log: Path | None = None, *, active: bool = False) -> StageStatus:
        return StageStatus(
            key=stage.key,
            title=stage.title,
            directory=directory.path,
            state=state,
            attempt=latest.number if latest else 0,
            progress=read_progress(directory) if latest else None,
            error=error,
            log=log,
            jobs=_say(submission, states),
            is_active=active,
        )

    if directory.done.exists():
        return status("done")
    if is_locked(directory):
        return status("running", log=latest.rank_log(0) if latest else None, active=True)
    if submission is not None and (latest is None or not _is_later(latest, submission)):
        return _scheduled(status, latest, submission, states)
    if latest is None:
        return status("waiting")
    if any(rank.state == "running" and rank.process.is_alive is None for rank in read_ranks(latest)):
        return status("unknown")  # another host's: its lock need not be seen here, and its processes are not
    outcome = judge(latest)
    return status(outcome.state, outcome.error, outcome.log)


def _scheduled(
    status: Callable[..., StageStatus],
    latest: AttemptDirectory | None,
    submission: Submission,
    states: dict[str, JobState],
) -> StageStatus:
    """The status of a stage that SLURM has, or had."""
    found = [states[job] for job in submission.jobs]
    log = latest.rank_log(0) if latest else None
    if unknown := next((state for state in found if state.phase == "unknown"), None):
        return status("unknown", f"SLURM cannot be asked: {unknown.reason}", log)
    if any(state.phase == "running" for state in found):
        return status("running", log=log, active=True)
    if found[-1].phase == "queued":
        return status("waiting", log=log, active=True)
    return _gone(status, latest, submission, found)


def _gone(
    status: Callable[..., StageStatus], latest: AttemptDirectory | None, submission: Submission, found: list[JobState]
) -> StageStatus:
    """The status of a stage whose jobs have ended without its result."""
    record = read_attempt(latest) if latest else None
    outcome = judge(latest) if latest and record and record.started >= submission.submitted else None
    log = outcome.log if outcome and outcome.log else latest.rank_log(0) if latest else None
    if outcome and latest and latest.stop.exists():
        return status("stopped", log=log)
    word = next((state.word for state in found if state.word not in ("", "COMPLETED")), found[-1].word)
    if not word and outcome and record and (record.ended or record.refused):  # no accounting: the records know
        return status(outcome.state, outcome.error, log)
    if not word:
        why = found[-1].reason or "accounting does not know it"
        return status("unknown", f"job {submission.job} is gone; {why}", log)
    if word == "CANCELLED":
        return status("stopped", "its job was cancelled", log)
    detail = next((state.reason for state in found if state.word == word and state.reason), "")
    told = f"; {outcome.error}" if outcome and outcome.state == "failed" else ""
    return status("failed", f"job {submission.job} ended: {word}{f' ({detail})' if detail else ''}{told}", log)


def _is_later(attempt: AttemptDirectory, submission: Submission) -> bool:
    """Whether the attempt was started on this machine after the stage was given to the scheduler."""
    record = read_attempt(attempt)
    return record is not None and record.executor == "local" and record.started > submission.submitted


def _say(submission: Submission | None, states: dict[str, JobState]) -> str:
    if submission is None:
        return ""
    parts = []
    for job in submission.jobs:
        state = states[job]
        why = state.reason if state.phase == "queued" and state.reason not in ("", "None") else state.nodes
        parts.append(f"job {job} {state.word or state.phase}{f' ({why})' if why else ''}")
    return ", ".join(parts)


@dataclass(frozen=True)
class RunStatus:
    """How one run stands."""

    name: str
    variant: str | None
    path: Path
    state: State
    """That of the stage that decides: failed before running before unknown, stopped, waiting; done when all are."""
    driver: ProcessId | None
    """The process that starts its stages."""
    stages: list[StageStatus]
    started: float | None
    """When it was last started, unix seconds; None: never."""

    @property
    def is_active(self) -> bool:
        """Whether its state may change by itself."""
        return self.driver is not None or any(stage.is_active for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "variant": self.variant,
            "directory": str(self.path),
            "state": self.state,
            "driver": self.driver.pid if self.driver else None,
            "started": self.started,
            "stages": [stage.to_json() for stage in self.stages],
        }


def run_statuses(plans: Sequence[Plan], root: Path) -> list[RunStatus]:
    """How the runs of plans stand; a stage that they share is looked at once, and the scheduler asked once."""
    statuses = stage_statuses(merged_stages(plans), root)
    return [_run_status(plan, root, [statuses[stage.key] for stage in plan.stages]) for plan in plans]


def _run_status(plan: Plan, root: Path, stages: list[StageStatus]) -> RunStatus:
    run = RunDirectory(root / plan.directory)
    started = run.plan.stat().st_mtime if run.plan.exists() else None
    return RunStatus(plan.name, plan.variant, run.path, deciding(stages).state, find_driver(run), stages, started)


def deciding(stages: Sequence[StageStatus]) -> StageStatus:
    """The stage that says how a run stands: failed before running before unknown, stopped, waiting; else the last."""
    order: tuple[State, ...] = ("failed", "running", "unknown", "stopped", "waiting")
    return next((stage for state in order for stage in stages if stage.state == state), stages[-1])

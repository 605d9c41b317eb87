"""Cancelling what SLURM has: what computes is asked to save and end, what only waits is taken from the queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdforge.launch.attempts import request_stop
from pdforge.launch.records import read_attempt
from pdforge.launch.scheduler import control, job_states
from pdforge.launch.submission import Submission, latest_submission
from pdforge.layout import AttemptDirectory, StageDirectory
from pdforge.plan.model import Plan, merged_stages


def cancel_jobs(plans: Sequence[Plan], root: Path, *, kill: bool) -> tuple[list[str], list[str]]:
    """Titles of the stages that were asked to save and end (with `kill`: were killed), and jobs that were cancelled.

    A shared stage is left alone that another run submitted.

    Raises:
        EnvironmentFault: SLURM refuses; its own words.
    """
    stages = {stage.key: StageDirectory(root / stage.directory) for stage in merged_stages(plans)}
    titles = {stage.key: stage.title for stage in merged_stages(plans)}
    runs = {plan.directory for plan in plans}
    found = {
        key: submission
        for key, directory in stages.items()
        if not directory.done.exists() and (submission := latest_submission(directory)) and submission.run in runs
    }
    states = job_states(job for submission in found.values() for job in submission.jobs)
    asked, cancelled = [], []
    for key in reversed(found):  # the last first: what waits for a cancelled job would be cancelled by SLURM
        submission = found[key]
        active = [job for job in submission.jobs if states[job].is_active]
        attempts = _computing(stages[key], submission) if any(states[job].phase == "running" for job in active) else []
        for attempt in attempts:
            request_stop(attempt)
        if attempts:
            asked.append(titles[key])
        # a task of an array that has not begun, a job that waits, or one whose ranks have nothing yet
        waiting = [job for job in active if kill or not attempts or states[job].phase == "queued"]
        if waiting:
            control(["scancel", *waiting])
            cancelled += waiting
        if submission.array in active and not waiting:
            control(["scancel", "--state=PENDING", str(submission.array)])
    return asked[::-1], cancelled[::-1]


def _computing(stage: StageDirectory, submission: Submission) -> list[AttemptDirectory]:
    """The attempts of the submission that have ranks: those that nobody has seen end."""
    return [
        attempt
        for attempt in stage.all_attempts()
        if (record := read_attempt(attempt))
        and record.executor == "slurm"
        and record.ended is None
        and record.started >= submission.submitted
    ]

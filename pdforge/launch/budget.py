"""Restarts are counted in progress: what starts again and again without a new step is not started again by itself."""

from __future__ import annotations

from pdforge.launch.attempts import high_water
from pdforge.launch.outcome import judge
from pdforge.launch.records import read_attempt
from pdforge.launch.submission import latest_submission
from pdforge.layout import AttemptDirectory, StageDirectory

MAX_FRUITLESS = 3
"""Of a profile that says nothing else."""


def fruitless(stage: StageDirectory, job: str = "") -> str:
    """Why the stage is not to be started again by itself; empty when it may be.

    Args:
        stage: its directory.
        job: the SLURM job that would start; only its own starts count, for a new job is somebody's wish to try again.
    """
    submission = latest_submission(stage) if job else None
    most = submission.profile.restarts_without_progress if submission else MAX_FRUITLESS
    reached, found = high_water(stage), list[AttemptDirectory]()
    for attempt in reversed(stage.all_attempts()):
        record = read_attempt(attempt)
        if job and (record is None or record.job != job or record.moves):
            continue
        if record is None or record.mark < reached or not _counts(attempt, scheduled=bool(job)):
            break
        found.append(attempt)
    if len(found) < most:
        return ""
    last = judge(found[0])
    why = last.error or f"the last one was {last.state}"
    return (
        f"its last {len(found)} starts ended without gaining a step (step {reached.step}); {why}\n"
        f"log: {last.log or found[0].path}"
    )


def _counts(attempt: AttemptDirectory, *, scheduled: bool) -> bool:
    """Under a scheduler every end counts that no person asked for; here, where a person starts, failures do."""
    outcome = judge(attempt)
    if scheduled:
        return outcome.state != "done" and not attempt.stop.exists()
    return outcome.state == "failed" and not outcome.interrupted

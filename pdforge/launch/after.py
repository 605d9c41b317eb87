"""Runs in a SLURM job's batch step when its ranks have ended: asks for another start, or ends the job for good.

`python -m pdforge.launch.after STAGE_DIRECTORY EXIT_CODE`, with the exit code of srun. It is not a rank: a rank
that was killed cannot ask for anything, and several would ask several times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pdforge.errors import ExitCode
from pdforge.launch.budget import fruitless
from pdforge.launch.exclusion import avoided_by_job, describe, excluded
from pdforge.launch.hook import EndState, run_hook
from pdforge.launch.join import begin, current, this_job
from pdforge.launch.outcome import Outcome, judge
from pdforge.launch.records import read_ranks, write_attempt
from pdforge.launch.submission import latest_submission
from pdforge.layout import PRIVATE, AttemptDirectory, RunDirectory, StageDirectory
from pdforge.plan.measured import keep_measured
from pdforge.stages.entry import in_array

_WAIT_FOR_REQUEUE_S = 120


def main(stage: StageDirectory, code: int) -> int:
    """The exit code of the job; does not return when it is requeued."""
    os.umask(PRIVATE)
    attempt, record = current(stage) or begin(stage)  # no rank got as far as making it: a start without progress
    write_attempt(attempt, record.model_copy(update={"ended": time.time()}))
    if stage.done.exists() or (code == 0 and in_array() and _all_done(attempt)):
        if submission := latest_submission(stage):
            keep_measured(stage, stage.path.parent.parent, submission.profile)
        _tell(stage, "done")
        return ExitCode.OK
    outcome = judge(attempt)
    if attempt.stop.exists():
        _tell(stage, "stopped")
        return ExitCode.STOPPED
    if record.moves:
        return _requeue(stage, code)
    if record.refused or _never_again(attempt, outcome):
        return _give_up(stage, outcome.error)
    if why := fruitless(stage, record.job):
        write_attempt(attempt, record.model_copy(update={"ended": time.time(), "refused": why}))
        return _give_up(stage, why)
    print(f"pdforge: {outcome.state}; the job is requeued. {outcome.error}", flush=True)
    return _requeue(stage, code)


def _all_done(attempt: AttemptDirectory) -> bool:
    return all(rank.state == "done" for rank in read_ranks(attempt))


def _never_again(attempt: AttemptDirectory, outcome: Outcome) -> bool:
    """Bad input stays bad."""
    return any(
        rank.error is not None and rank.error.of_input for rank in read_ranks(attempt) if rank.rank == outcome.rank
    )


def _give_up(stage: StageDirectory, why: str) -> int:
    print(f"pdforge: not started again: {why}", flush=True)
    _tell(stage, "failed")
    return ExitCode.FINDINGS


def _requeue(stage: StageDirectory, code: int) -> int:
    """Ask for another start, on nodes that have not failed too often."""
    job = this_job()
    chosen, submission = avoided_by_job(stage), latest_submission(stage)
    # The requeue signals every process of this step, also the scontrol below: ignored, as children inherit it, the
    # signal ends none, and blocked it is kept to be waited for.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asked = subprocess.run(["scontrol", "requeue", job], check=False)
    if asked.returncode:
        print(f"pdforge: scontrol requeue {job} failed: submit again to go on", flush=True)
        return code or ExitCode.FINDINGS
    if chosen and submission:  # only now: it is refused while the job runs
        nodes = excluded(submission.profile, chosen)
        update = subprocess.run(["scontrol", "update", f"jobid={job}", f"excnodelist={nodes}"], check=False)
        told = "it avoids" if update.returncode == 0 else "scontrol update failed: it may come back to"
        why = "; ".join(f"{exclusion.node}: {describe(exclusion)}" for exclusion in chosen)
        print(f"pdforge: {told} {why}", flush=True)
    signal.sigtimedwait([signal.SIGTERM], _WAIT_FOR_REQUEUE_S)
    return code or ExitCode.FINDINGS


def _tell(stage: StageDirectory, state: EndState) -> None:
    """Call `on_end` for the run that the stage was submitted for."""
    if submission := latest_submission(stage):
        run_hook(submission.profile, RunDirectory(stage.root / submission.run), stage, state)


if __name__ == "__main__":
    sys.exit(main(StageDirectory(Path(sys.argv[1])), int(sys.argv[2])))

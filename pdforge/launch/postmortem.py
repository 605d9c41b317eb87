"""What went wrong in a run: of each failed attempt the rank that failed first, its stack and the probable cause."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdforge.launch.failures import FailedAttempt, failed_attempts
from pdforge.launch.progress import Progress
from pdforge.launch.status import StageStatus, stage_statuses
from pdforge.layout import StageDirectory
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
    failed = failed_attempts(directory, running=status.state == "running")
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

"""How the stages of runs stand, from files only: it never matters who started them, or where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pdforge.launch.driver import find_driver
from pdforge.launch.lock import is_locked
from pdforge.launch.outcome import judge
from pdforge.launch.process import ProcessId
from pdforge.launch.progress import Progress, read_progress
from pdforge.launch.records import read_ranks
from pdforge.layout import RunDirectory, StageDirectory
from pdforge.plan.model import Plan, Stage

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
        }


def stage_status(stage: Stage, root: Path) -> StageStatus:
    """How the stage stands."""
    directory = StageDirectory(root / stage.directory)
    attempts = directory.all_attempts()
    latest = attempts[-1] if attempts else None

    def status(state: State, error: str = "", log: Path | None = None) -> StageStatus:
        progress = read_progress(directory) if latest else None
        number = latest.number if latest else 0
        return StageStatus(stage.key, stage.title, directory.path, state, number, progress, error, log)

    if directory.done.exists():
        return status("done")
    if is_locked(directory):
        return status("running", log=latest.rank_log(0) if latest else None)
    if latest is None:
        return status("waiting")
    if any(rank.state == "running" and rank.process.is_alive is None for rank in read_ranks(latest)):
        return status("unknown")  # another host's: its lock need not be seen here, and its processes are not
    outcome = judge(latest)
    return status(outcome.state, outcome.error, outcome.log)


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
        return self.driver is not None or self.state == "running"

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


def run_status(plan: Plan, root: Path) -> RunStatus:
    """How the run of a plan stands."""
    run = RunDirectory(root / plan.directory)
    stages = [stage_status(stage, root) for stage in plan.stages]
    states = {stage.state for stage in stages}
    order: tuple[State, ...] = ("failed", "running", "unknown", "stopped", "waiting")
    decisive: State = next((state for state in order if state in states), "done")
    started = run.plan.stat().st_mtime if run.plan.exists() else None
    return RunStatus(plan.name, plan.variant, run.path, decisive, find_driver(run), stages, started)

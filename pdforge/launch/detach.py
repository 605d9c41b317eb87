"""Drives in the background: a `pdforge run` in a session of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pdforge.errors import ExitCode, StageFailed
from pdforge.launch.drive import write_runs
from pdforge.launch.driver import find_driver
from pdforge.launch.outcome import last_lines
from pdforge.layout import RunDirectory, StageDirectory
from pdforge.plan.model import Plan, merged_stages

_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Submitted:
    """A drive in the background."""

    state: Literal["submitted", "attached", "done"]
    """`attached`: one was there already; `done`: there is nothing to do, and none."""
    pid: int | None
    log: Path
    runs: list[Path]


def submit(plans: Sequence[Plan], root: Path, *, retry: bool = False) -> Submitted:
    """Start a drive of the plans that outlives this process and its terminal, unless all have one.

    Raises:
        StageFailed: it ended at once, without success; the message has the end of its log.
        EnvironmentFault: the storage root cannot be written.
    """
    runs = [RunDirectory(root / plan.directory) for plan in plans]
    folders, log = [run.path for run in runs], runs[0].driver_log
    drivers = [find_driver(run) for run in runs]
    if drivers[0] is not None and all(drivers):
        return Submitted("attached", drivers[0].pid, log, folders)
    if all(StageDirectory(root / stage.directory).done.exists() for stage in merged_stages(plans)):
        return Submitted("done", None, log, folders)
    write_runs(plans, root)
    command = [sys.executable, "-m", "pdforge", "run", "--root", str(root), *(["--retry"] if retry else [])]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--", *(str(folder) for folder in folders)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "COLUMNS": "120"},
            start_new_session=True,
        )
    _wait_until_it_drives(process, runs, log)
    return Submitted("submitted", process.pid, log, folders)


def _wait_until_it_drives(process: subprocess.Popen[bytes], runs: Sequence[RunDirectory], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if all(find_driver(run) for run in runs):
            return
        time.sleep(0.05)
    if process.returncode not in (None, ExitCode.OK):
        raise StageFailed(f"the run ended at once:\n{last_lines(log, 20)}", remedy=f"its output is in {log}")

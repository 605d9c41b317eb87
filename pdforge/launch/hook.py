"""Telling whoever wants to know that a run has ended: the profile's `on_end`."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Literal

from pdforge.layout import RunDirectory, StageDirectory, read_json
from pdforge.plan.profile import Profile

EndState = Literal["done", "stopped", "failed"]

_TIMEOUT_S = 60


def run_hook(profile: Profile, run: RunDirectory, stage: StageDirectory, state: EndState) -> None:
    """Call the profile's command. `stage`: the one with which the run ended.

    A run is done when all of its stages are, whoever ran them, and this is told once.
    """
    if profile.on_end is None or (state == "done" and not _is_done_now(run)):
        return
    environment = {
        **os.environ,
        "PDFORGE_RUN": str(run.path),
        "PDFORGE_STAGE": str(stage.path),
        "PDFORGE_STATE": state,
    }
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["/bin/sh", "-c", profile.on_end], env=environment, timeout=_TIMEOUT_S, check=False)


def _is_done_now(run: RunDirectory) -> bool:
    """Whether all of the run's stages are done, for the first of those who ask when the last one has ended."""
    root = run.path.parent
    plan = read_json(run.plan) or {"stages": []}
    ends = [root / stage["directory"] for stage in plan["stages"]]
    try:
        last = max((StageDirectory(Path(end)).done.stat().st_mtime_ns for end in ends), default=0)
    except FileNotFoundError:
        return False
    try:
        run.told(last).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

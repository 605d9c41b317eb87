"""Who drives a run: `driver.json` in the run directory, for `submit`, `cancel` and `status`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from pdforge.launch.process import ProcessId
from pdforge.layout import RunDirectory, write_json
from pdforge.plan.model import Plan


@contextlib.contextmanager
def registered(plans: Sequence[Plan], root: Path) -> Iterator[None]:
    """This process drives the runs of `plans` while the context lasts, unless another one does."""
    runs = [RunDirectory(root / plan.directory) for plan in plans]
    register([run for run in runs if find_driver(run) is None])
    try:
        yield
    finally:
        me = ProcessId.of(os.getpid())
        for run in runs:
            if _read(run) == me:
                run.driver.unlink(missing_ok=True)


def register(runs: Sequence[RunDirectory]) -> None:
    """This process drives the runs, whoever did before: of several, the one that started the latest attempt counts."""
    me = ProcessId.of(os.getpid()).model_dump(mode="json")
    for run in runs:
        write_json(run.driver, me)


def find_driver(run: RunDirectory) -> ProcessId | None:
    """The process that drives a run; None when there is none, or none that lives."""
    driver = _read(run)
    return None if driver is None or driver.is_alive is False else driver


def _read(run: RunDirectory) -> ProcessId | None:
    try:
        return ProcessId.model_validate(json.loads(run.driver.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None

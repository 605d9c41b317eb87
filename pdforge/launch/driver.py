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
    me = ProcessId.of(os.getpid())
    mine = [run for plan in plans if find_driver(run := RunDirectory(root / plan.directory)) is None]
    for run in mine:
        write_json(run.driver, me.model_dump(mode="json"))
    try:
        yield
    finally:
        for run in mine:
            if _read(run) == me:
                run.driver.unlink(missing_ok=True)


def find_driver(run: RunDirectory) -> ProcessId | None:
    """The process that drives a run; None when there is none, or none that lives."""
    driver = _read(run)
    return None if driver is None or driver.is_alive is False else driver


def _read(run: RunDirectory) -> ProcessId | None:
    try:
        return ProcessId.model_validate(json.loads(run.driver.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None

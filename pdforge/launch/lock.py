"""The lock of a stage directory: held from before an attempt is created until its last process is gone."""

from __future__ import annotations

import fcntl
from typing import IO

from pdforge.layout import StageDirectory

Lock = IO[bytes]
"""A file that holds a lock until it, and every copy that a process inherited, is closed."""


def try_lock(stage: StageDirectory) -> Lock | None:
    """Take the stage's lock; None while another has it."""
    stage.path.mkdir(parents=True, exist_ok=True)
    return _try(stage.lock.open("ab"), fcntl.LOCK_EX)


def is_locked(stage: StageDirectory) -> bool:
    """Whether an attempt of the stage runs, or is being started."""
    try:
        file = stage.lock.open("rb")
    except FileNotFoundError:
        return False
    lock = _try(file, fcntl.LOCK_SH)  # shared: two who look do not see each other
    if lock is None:
        return True
    lock.close()
    return False


def _try(file: Lock, mode: int) -> Lock | None:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file

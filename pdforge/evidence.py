"""What a stage can tell when it hangs, beside its stacks: the launcher says where it goes, the stage how it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Tell = Callable[[Path], str]
"""Writes what it knows into that folder; returns a line of text. Called in a thread that is not the main one."""

_folder: Path | None = None
_tell: Tell | None = None


def collect_in(folder: Path) -> None:
    """Have evidence go into a folder, which need not be there yet."""
    global _folder  # noqa: PLW0603 - one rank, one process
    _folder = folder


def folder() -> Path | None:
    """Where evidence goes; None: nobody collects any."""
    return _folder


def on_hang(tell: Tell) -> None:
    """Have `tell` called when the rank is about to end because its attempt hangs."""
    global _tell  # noqa: PLW0603 - as above
    _tell = tell


def gather() -> str:
    """What the stage has to tell; empty for nothing. It may block, and it may fail."""
    return _tell(_folder) if _tell and _folder else ""

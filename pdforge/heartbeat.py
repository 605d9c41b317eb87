"""The step that this rank works on: told by stages, read by the launcher, which names the rank that fell behind."""

from __future__ import annotations

_step = 0


def beat(step: int) -> None:
    """The rank has done `step`."""
    global _step  # noqa: PLW0603 - one rank, one process
    _step = step


def step() -> int:
    """The last step that the rank has done in this process; 0: none that it told."""
    return _step

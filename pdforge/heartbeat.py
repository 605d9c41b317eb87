"""What a stage tells of itself while it works, for the launcher to read: its step, and the phases of its start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal, get_args

Phase = Literal["imports", "build", "checkpoint load", "first step"]
"""Of the start of a stage, in order; a stage that has no such phase, or cannot tell it apart, leaves it out."""

PHASES: tuple[Phase, ...] = get_args(Phase)

_step = 0
_ends: dict[Phase, float] = {}
_observer: Callable[[Mapping[Phase, float]], None] | None = None


def beat(step: int) -> None:
    """The rank has done `step`."""
    global _step  # noqa: PLW0603 - one rank, one process
    _step = step
    finish("first step")


def step() -> int:
    """The last step that the rank has done in this process; 0: none that it told."""
    return _step


def finish(phase: Phase) -> None:
    """A phase of the start is over; only the first call of a process for each counts."""
    if phase not in _ends:
        _ends[phase] = time.time()
        if _observer:
            _observer(_ends)


def observe(observer: Callable[[Mapping[Phase, float]], None]) -> None:
    """Have `observer` called at the end of each phase with the ends of all so far, in unix seconds."""
    global _observer  # noqa: PLW0603 - as above
    _observer = observer

"""One stage until it is done, looked at now and then: started here, or waited for where another process started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pdforge.launch import local
from pdforge.launch.attempts import has_living_rank, request_stop, running_attempt
from pdforge.launch.lock import Lock, is_locked, try_lock
from pdforge.launch.outcome import judge, stage_failed
from pdforge.launch.records import read_attempt
from pdforge.layout import AttemptDirectory, StageDirectory
from pdforge.plan.model import Stage


class Running(Protocol):
    """An attempt while somebody waits for it."""

    def has_ended(self) -> bool:
        """Whether all of its ranks are gone."""


class StopRequested(Exception):
    """The stages were asked to stop and have saved; the same command goes on."""


class Detached(StopRequested):
    """Somebody else's attempt was being waited for; it goes on."""


@dataclass
class StopSwitch:
    """Set by a signal handler, read by a drive: 1 asks the running attempts to save and end, 2 kills them."""

    level: int = 0

    def press(self) -> None:
        """Once more."""
        self.level += 1


@dataclass
class Work:
    """A stage that is being carried out."""

    stage: Stage
    directory: StageDirectory
    stop: StopSwitch
    start: Callable[[Lock], tuple[AttemptDirectory, Running]]
    """Starts an attempt, with the stage's lock in hand."""
    _watched: tuple[AttemptDirectory, Running] | None = field(default=None, init=False)

    def advance(self) -> bool:
        """Look once, and do what is due; True when the stage is done.

        Raises:
            StageFailed: it failed.
            StopRequested: it was stopped on request.
        """
        if self._watched is not None and not self._is_over(*self._watched):
            return False
        if self.directory.done.exists():
            return True
        if self.stop.level:
            raise StopRequested(f"stopped before `{self.stage.title}`")
        lock = try_lock(self.directory)
        if lock is not None:
            with lock:
                if not self.directory.done.exists():  # else somebody was quicker
                    self._watched = self.start(lock)
        elif theirs := running_attempt(self.directory):
            self._watched = theirs, _Theirs(theirs)
        return False  # also where somebody is about to start it, or it is about to end

    def _is_over(self, attempt: AttemptDirectory, running: Running) -> bool:
        """Pass on what the user asks for; judge the attempt once it has ended."""
        if not running.has_ended():
            if self.stop.level and isinstance(running, _Theirs) and _driven_by_another(attempt):
                raise Detached(f"`{self.stage.title}` goes on: it was started by another process")
            if self.stop.level:
                request_stop(attempt)
            if self.stop.level > 1:
                local.kill(attempt)
            return False
        self._watched = None
        outcome = judge(attempt)
        if outcome.state == "failed":
            raise stage_failed(self.stage.title, attempt, outcome)
        if outcome.state == "stopped":
            raise StopRequested(f"`{self.stage.title}` stopped on request")
        return True


@dataclass(frozen=True)
class _Theirs:
    """An attempt that another process started."""

    attempt: AttemptDirectory

    def has_ended(self) -> bool:
        return not is_locked(self.attempt.stage) and not has_living_rank(self.attempt)


def _driven_by_another(attempt: AttemptDirectory) -> bool:
    record = read_attempt(attempt)
    return record is not None and record.driven_elsewhere

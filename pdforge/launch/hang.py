"""Notices that an attempt makes no progress any more, and says which rank is the likely reason.

Every rank leaves a sign of life every few seconds: its step, and where its main thread is. A rank that was suspended,
or that holds the interpreter's lock for ever, cannot be asked for its stack any more; the last sign shows where it was.
Nothing here compares the clocks of two hosts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from pdforge import heartbeat
from pdforge.launch.records import HANG, RankError, read_rank
from pdforge.launch.stacks import dump_stacks
from pdforge.layout import AttemptDirectory, write_json

BEAT_S = 2.0
"""Between two signs of life of a rank."""
_OBSERVE_S = 4 * BEAT_S
"""How long signs of life are watched before a rank is called unresponsive."""
_SUSPENDED_S = 10.0
"""A longer pause between two looks means that this process did not run: such time is nobody's standstill."""


class Sign(BaseModel):
    """One sign of life."""

    model_config = ConfigDict(frozen=True)

    number: int
    """How many before it."""
    step: int
    """The last step that the rank did; 0 where the stage does not tell."""
    stack: str
    """Of the main thread, as in a traceback."""
    time: float
    """Unix seconds, of the rank's own host."""


class HangDetector:
    """One rank's view; `look` is called often, by one thread."""

    def __init__(self, attempt: AttemptDirectory, rank: int, ranks: int, limit: float) -> None:
        """`limit`: seconds without a change of the stage's progress after which the attempt hangs."""
        self._attempt, self._rank, self._ranks, self._limit = attempt, rank, range(ranks), limit
        self._number = 0
        self._next_sign = self._looked = self._changed = time.monotonic()
        self._progress: tuple[int, int] | None = None
        self._observed: tuple[float, list[Sign | None]] | None = None

    def look(self) -> RankError | None:
        """Leave a sign of life when it is time; why the attempt has to end, when it hangs."""
        now = time.monotonic()
        if now - self._looked > _SUSPENDED_S:
            self._changed += now - self._looked
            self._observed = None
        self._looked = now
        if now >= self._next_sign:
            self._next_sign = now + BEAT_S
            self._leave_sign()
        progress = self._read_progress()
        if progress != self._progress:
            self._progress, self._changed, self._observed = progress, now, None
        if now - self._changed < self._limit:
            return None
        if self._observed is None:
            self._observed = now, self._signs()
        since, before = self._observed
        return self._describe(before, now - self._changed) if now - since >= _OBSERVE_S else None

    def kill_unresponsive(self, suspects: Sequence[int]) -> None:
        """End those of this host, after a look at their stacks: a suspended process does not see its peers go."""
        for rank in suspects:
            record = read_rank(self._attempt, rank)
            if rank != self._rank and record and record.state == "running" and record.process.is_alive:
                dump_stacks(self._attempt, rank, record.process.pid)
                os.kill(record.process.pid, signal.SIGKILL)

    def _leave_sign(self) -> None:
        main = threading.main_thread().ident
        frame = sys._current_frames().get(main) if main else None
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        sign = Sign(number=self._number, step=heartbeat.step(), stack=stack, time=time.time())
        self._number += 1
        write_json(self._attempt.sign(self._rank), sign.model_dump(mode="json"))

    def _read_progress(self) -> tuple[int, int] | None:
        try:
            found = self._attempt.stage.progress.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _signs(self) -> list[Sign | None]:
        return [read_sign(self._attempt, rank) for rank in self._ranks]

    def _describe(self, before: list[Sign | None], seconds: float) -> RankError:
        signs = self._signs()
        silent = [rank for rank in self._ranks if signs[rank] == before[rank]]
        steps = {rank: sign.step for rank, sign in enumerate(signs) if sign}
        behind = [rank for rank, step in steps.items() if step < max(steps.values())]
        suspect = next(iter(silent or behind), None)
        reason = f"no progress for {seconds:.0f} s"
        if suspect is None:
            reason += "; every rank answers, and all are at the same step"
            return RankError(type=HANG, message=reason, traceback=_stack(signs[self._rank]))
        ranks = ", ".join(str(rank) for rank in silent or behind)
        sign = signs[suspect]
        what = "gives no sign of life" if silent else "is behind its peers"
        reason += f": rank {ranks} {what}{f', last at step {sign.step}' if sign else ''}"
        return RankError(type=HANG, message=reason, traceback=_stack(sign), suspects=silent or behind)


def read_sign(attempt: AttemptDirectory, rank: int) -> Sign | None:
    """The last sign of life of a rank; None before it has left one."""
    try:
        return Sign.model_validate(json.loads(attempt.sign(rank).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


def _stack(sign: Sign | None) -> str:
    return sign.stack if sign and sign.stack else "the rank left no stack\n"

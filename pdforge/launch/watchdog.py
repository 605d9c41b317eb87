"""Ends a rank when a peer is gone or nothing goes on any more, and hears requests to stop.

Neither submitit's local executor nor SLURM does the first: the others would wait in a collective until its timeout,
half an hour later.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable

from pdforge.launch.hang import HangDetector
from pdforge.launch.records import RankError, read_rank
from pdforge.layout import AttemptDirectory

PERIOD_S = 0.5
START_TIMEOUT_S = 120.0
"""How long a peer may take to begin: imports from a busy network file system are slow, a hang is longer."""


class Watchdog(threading.Thread):
    """Looks at the attempt's files twice a second, in a thread of its own so that no collective can hold it up."""

    def __init__(
        self,
        attempt: AttemptDirectory,
        rank: int,
        ranks: int,
        *,
        stalls_after: float,
        on_stop: Callable[[], None],
        on_failure: Callable[[RankError], None],
    ) -> None:
        """`on_stop` is called at each look while a stop is wanted; `on_failure` at most once, and ends the process."""
        super().__init__(name="pdforge-watchdog", daemon=True)
        self._attempt = attempt
        self._peers = [peer for peer in range(ranks) if peer != rank]
        self._begun: set[int] = set()
        self._hang = HangDetector(attempt, rank, ranks, stalls_after)
        self._on_stop = on_stop
        self._on_failure = on_failure
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self._ended = threading.Event()
        self._faulty = False

    def run(self) -> None:
        """The thread."""
        while not self._ended.wait(PERIOD_S):
            try:
                error = self._look()
            except OSError as fault:  # a disk that is full for a moment, a file handle that is stale
                self._tell(fault)
                continue
            if error and not self._ended.is_set():
                with contextlib.suppress(OSError):  # this rank ends, whatever becomes of the others
                    self._hang.kill_unresponsive(error.suspects)
                self._on_failure(error)
                return

    def end(self) -> None:
        """The rank is over: look no more."""
        self._ended.set()

    def _look(self) -> RankError | None:
        """Look once; why this rank has to end, when it has to."""
        if self._attempt.stop.exists():
            self._on_stop()
        if reason := self._lost_peer():
            return RankError(type="PeerLost", message=reason, consequence=True)
        return self._hang.look()

    def _tell(self, fault: OSError) -> None:
        """Say once that a look failed: there are two a second."""
        if not self._faulty:
            self._faulty = True
            with contextlib.suppress(OSError):  # the log lies there as well
                print(f"pdforge: the watchdog goes on after {type(fault).__name__}: {fault}", file=sys.stderr)

    def _lost_peer(self) -> str:
        """Why this rank cannot go on; empty when it can."""
        for peer in list(self._peers):
            record = read_rank(self._attempt, peer)
            if record is None:  # or it cannot be read at the moment
                if peer not in self._begun and time.monotonic() > self._deadline:
                    return f"rank {peer} has not started within {START_TIMEOUT_S:.0f} s"
                continue
            self._begun.add(peer)
            if record.state == "failed":
                return f"rank {peer} failed"
            if record.vanished and _still_vanished(self._attempt, peer):
                return f"rank {peer} was killed"
            if record.state != "running":
                self._peers.remove(peer)
        return ""


def _still_vanished(attempt: AttemptDirectory, rank: int) -> bool:
    """Look again: between the reading of its record and the search for its process the rank may have ended well."""
    record = read_rank(attempt, rank)
    return record is not None and record.vanished

"""Ends rank 0 when it is suspended, or hangs where not even the thread of its watchdog can run, and nobody else does.

With peers that run, these notice first (`hang.py`). A rank that is alone, or is suspended together with all others, is
looked after by a small process of its own, a fork of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from pdforge.errors import ExitCode
from pdforge.launch.hang import Sign, read_sign
from pdforge.launch.process import die_with_parent
from pdforge.launch.records import HANG, RankError, read_rank, write_rank
from pdforge.launch.stacks import dump_stacks
from pdforge.layout import AttemptDirectory

PERIOD_S = 1.0
LATER_S = 12.0
"""What is given to peers, and to the watchdog's thread, which write every stack."""
_SUSPENDED_S = 10.0
"""A longer pause between two looks means that this process did not run either."""


def watch_over(attempt: AttemptDirectory, rank: int, limit: float) -> None:
    """Start the process; it ends with this one. To be called before the first thread is started.

    Args:
        attempt: of which this process is a rank.
        rank: its number.
        limit: seconds without a sign of life after which it is ended.
    """
    if sys.platform != "linux":  # elsewhere it would outlive its parent
        return
    parent = os.getpid()
    if os.fork():
        return
    try:
        _watch(attempt, rank, limit + LATER_S, parent)
    finally:
        os._exit(ExitCode.OK)


def _watch(attempt: AttemptDirectory, rank: int, limit: float, parent: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):  # SLURM may tell the children of a task as well
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    seen, looked = read_sign(attempt, rank), time.monotonic()
    changed = looked
    while os.getppid() == parent:
        time.sleep(PERIOD_S)
        now = time.monotonic()
        if now - looked > _SUSPENDED_S:
            changed += now - looked
        looked = now
        if (sign := read_sign(attempt, rank)) != seen:
            seen, changed = sign, now
        elif now - changed > limit:
            _record(attempt, rank, seen, now - changed)
            dump_stacks(attempt, rank, parent)
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent, signal.SIGKILL)
            return


def _record(attempt: AttemptDirectory, rank: int, sign: Sign | None, seconds: float) -> None:
    """Put on record what is the matter."""
    record = read_rank(attempt, rank)
    if record is None or record.state != "running":
        return
    where = f", last at step {sign.step}" if sign else ""
    error = RankError(
        type=HANG,
        message=f"rank {rank} gives no sign of life for {seconds:.0f} s{where}",
        traceback=sign.stack if sign else "",
        suspects=[rank],
    )
    ended = {"state": "failed", "exit_code": int(ExitCode.FINDINGS), "error": error, "ended": time.time()}
    write_rank(attempt, record.model_copy(update=ended))

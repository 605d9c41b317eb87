"""Stacks of a process that cannot show them itself: it was suspended, or holds the interpreter's lock for ever."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pdforge.layout import AttemptDirectory, write_atomically

_TIMEOUT_S = 20


def dump_stacks(attempt: AttemptDirectory, rank: int, pid: int) -> None:
    """Write the stacks of all threads of another rank of this host into its attempt, where py-spy is installed.

    py-spy reads the memory of the process without its help; it may need the right to (`kernel.yama.ptrace_scope`).
    Where it cannot, nothing is written: what is known then is the rank's last sign of life.
    """
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.is_file() else shutil.which("py-spy")
    if program is None or attempt.stacks(rank).exists():
        return
    command = [program, "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode == 0:
        write_atomically(attempt.stacks(rank), done.stdout)


def read_stacks(attempt: AttemptDirectory, rank: int) -> str:
    """What was written; empty for nothing."""
    try:
        return attempt.stacks(rank).read_text(encoding="utf-8")
    except OSError:
        return ""

"""Processes of this machine, named so that a recycled pid is never mistaken for the one that was meant."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_PR_SET_PDEATHSIG = 1


class ProcessId(BaseModel):
    """A process: its pid means something only together with host and start."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    started: int | None
    """Clock ticks since boot (field 22 of /proc/PID/stat); None where there is no /proc."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has that pid on this host now."""
        return cls(host=socket.gethostname(), pid=pid, started=_state_and_start(pid)[1])

    @property
    def is_here(self) -> bool:
        """Whether it is (or was) a process of this host."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool | None:
        """Whether it runs; None when that cannot be told, because it is another host's. A zombie does not run."""
        if not self.is_here:
            return None
        state, started = _state_and_start(self.pid)
        if started is not None or self.started is not None:
            return started == self.started and state not in "ZX"
        return _exists(self.pid)


def started_at() -> float:
    """When this process was created, unix seconds; now, where there is no /proc."""
    ticks = _state_and_start(os.getpid())[1]
    if ticks is None:
        return time.time()
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only ranks need it

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """SIGKILL the process group that `leader` leads or led; it may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _state_and_start(pid: int) -> tuple[str, int | None]:
    """State letter and start of a process; ("X", None) when it is gone or the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "X", None
    fields = text[text.rindex(")") + 2 :].split()  # the command's name, in parentheses, may hold anything
    return fields[0], int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

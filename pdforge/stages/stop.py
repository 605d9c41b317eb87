"""Has somebody asked this job to save and end? Set by the launcher (a signal, the attempt's `stop` file), read by
stages.
"""

from __future__ import annotations

import threading

_requested = threading.Event()


def request() -> None:
    """Ask every stage of this process to save at its next safe point and to end with `ExitCode.STOPPED`."""
    _requested.set()


def requested() -> bool:
    """Whether somebody asked. A rank may see it before its peers: agree on it before acting."""
    return _requested.is_set()

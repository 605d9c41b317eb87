"""What one start of a SLURM job wrote: every start of a job appends to the same files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

_BEGIN = re.compile(r"^submitit INFO \(([^,)]+),\d+\) - Starting with JobEnvironment", re.MULTILINE)
"""The first line of each rank, with local time."""


def output_of_start(files: Iterable[Path], started: float, starts: Sequence[float], *, lines: int) -> list[str]:
    """The last lines that a start left in each of its job's outputs.

    Args:
        files: outputs of the job.
        started: when the attempt of that start began, unix seconds.
        starts: the same of all starts of the job; a rank belongs to that which is nearest.
        lines: at most, of each file.
    """
    found: list[str] = []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        begins = list(_BEGIN.finditer(text))
        for begin, following in zip_longest(begins, begins[1:]):
            when = datetime.fromisoformat(begin[1]).timestamp()
            if abs(started - when) == min(abs(one - when) for one in starts):
                part = text[begin.start() : following.start() if following else None]
                found += part.splitlines()[-lines:]
    return found

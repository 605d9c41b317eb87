"""Whole processes beside each other, in CPU time: what the benchmarks of commands compare."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
IMPORTS = [sys.executable, "-c", "import pydantic, ruamel.yaml, typer, rich"]
"""The libraries that the commands are built on."""


def processes(commands: list[list[str]], repeat: int) -> list[list[float]]:
    """CPU seconds of each command, of several runs in turns."""
    took: list[list[float]] = [[] for _ in commands]
    with tempfile.TemporaryDirectory() as bytecode:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {**inherited, "PYTHONPYCACHEPREFIX": bytecode}
        for turn in range(repeat + 1):
            for command, runs in zip(commands, took, strict=True):
                seconds = _seconds(command, environment)
                if turn:  # the first one compiles
                    runs.append(seconds)
    return took


def ratio(of: list[float], baseline: list[float]) -> float:
    """The median of the turns' ratios."""
    return median(own / other for own, other in zip(of, baseline, strict=True))


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True)
    if done.returncode > 1:  # 1: findings, such as a corpus that is not here
        raise RuntimeError(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

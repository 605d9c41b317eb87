"""What this machine offers to a run: packages, devices, memory, disk, a scheduler."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Literal

from pdforge.environment import INSTALL, installed, training_packages
from pdforge.plan.profile import visible_gpus

State = Literal["ok", "missing", "absent"]
"""`missing` stops training jobs; `absent` is only worth knowing."""

_GB = 1e9
_GPU_INFORMATION = Path("/proc/driver/nvidia/gpus")
_MEMORY_INFORMATION = Path("/proc/meminfo")


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    state: State
    value: str
    remedy: str = ""
    """How to get it, where it is not there."""


def inspect_machine(root: Path) -> list[Check]:
    """All checks, for runs below the storage root `root`."""
    return [
        _python(),
        *_packages(),
        *_bytecode(),
        _matplotlib(),
        _devices(),
        _compiler(),
        _cores(),
        _memory(),
        _disk(root),
        _scheduler(),
    ]


def can_train(checks: list[Check]) -> bool:
    """Whether a training job could run here."""
    return all(check.state != "missing" for check in checks)


def _python() -> Check:
    fits = sys.version_info >= (3, 11)
    where = f"{platform.python_version()} ({sys.executable})"
    return Check("python", "ok" if fits else "missing", where, "" if fits else "install Python 3.11 or newer")


def _packages() -> list[Check]:
    return [
        Check(p.name, "ok" if p.ok else "missing", p.complaint or f"{p.found}", "" if p.ok else INSTALL)
        for p in training_packages()
    ]


def _bytecode() -> list[Check]:
    """Without bytecode that is kept, each process compiles the thousands of modules it imports: three times as long."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return []
    if Path(cache_from_source(torch.origin)).is_file():
        return [Check("bytecode", "ok", "kept")]
    if sys.dont_write_bytecode:
        value = "torch has none, and PYTHONDONTWRITEBYTECODE is set: each start compiles it anew"
        return [Check("bytecode", "absent", value, "unset it, or compile them once: python -m compileall")]
    return [Check("bytecode", "ok", "written at the first start")]


def _matplotlib() -> Check:
    found = installed("matplotlib")
    if found:
        return Check("matplotlib", "ok", found)
    return Check("matplotlib", "absent", "not installed: reports have no curves", "pip install matplotlib")


def _devices() -> Check:
    count = visible_gpus()
    if count == 0:
        return Check("devices", "ok", "no NVIDIA GPU visible: jobs run on the CPU")
    models = sorted({_gpu_model(file) for file in _GPU_INFORMATION.glob("*/information")})
    return Check("devices", "ok", f"{count} NVIDIA GPU{'s' if count > 1 else ''} {', '.join(models)}".rstrip())


def _compiler() -> Check:
    """triton builds its launchers with a C compiler and Python's headers: attention on a GPU needs them."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if compiler and headers.is_file():
        return Check("compiler", "ok", compiler)
    lacking = "no C compiler" if not compiler else f"{headers} is missing"
    remedy = "install gcc and Python's headers (Debian: apt-get install gcc python3-dev)"
    if visible_gpus():
        return Check("compiler", "missing", f"{lacking}: attention on a GPU is compiled", remedy)
    return Check("compiler", "absent", f"{lacking}: only GPUs need it")


def _gpu_model(file: Path) -> str:
    lines = [line.partition(":") for line in file.read_text(encoding="utf-8").splitlines()]
    return next((value.strip() for key, _, value in lines if key == "Model"), "unknown model")


def _cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", "ok", str(count))


def _memory() -> Check:
    try:
        lines = _MEMORY_INFORMATION.read_text(encoding="utf-8").splitlines()
    except OSError:
        return Check("memory", "absent", "unknown")
    kilobytes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest.strip()
    }
    total, available = (kilobytes.get(name, 0) * 1024 / _GB for name in ("MemTotal", "MemAvailable"))
    return Check("memory", "ok", f"{available:.1f} of {total:.1f} GB free")


def _disk(root: Path) -> Check:
    there = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(there).free / _GB
    if there.is_dir() and os.access(there, os.W_OK):
        return Check("disk", "ok", f"{free:.1f} GB free at {root}")
    return Check("disk", "missing", f"{root} cannot be written", "choose another place: --root DIR, or $PDFORGE_ROOT")


def _scheduler() -> Check:
    lacking = [name for name in ("sbatch", "squeue") if shutil.which(name) is None]
    if not lacking:
        return Check("scheduler", "ok", f"SLURM ({shutil.which('sbatch')})")
    return Check("scheduler", "absent", f"no SLURM here ({', '.join(lacking)} not found): jobs run on this machine")

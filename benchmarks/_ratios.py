"""Two ways to do a thing, compared in one process: what the benchmark scripts print."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Run = Callable[[], Any]


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios, its quartiles, and the median of the wall times' ratios."""

    value: float
    low: float
    high: float
    wall: float


def figure(
    name: str, value: float | Ratio, baseline: str, *, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    measured = vars(value) if isinstance(value, Ratio) else {"value": value}
    bar = at_most if at_most is not None else at_least
    ok = None if bar is None else measured["value"] <= bar if at_most is not None else measured["value"] >= bar
    return {"name": name, "unit": "ratio", "baseline": baseline, "bar": bar, "ok": ok, **measured}


def line(row: dict[str, Any]) -> str:
    bar = "" if row["bar"] is None else f"bar {row['bar']:<4} {'met' if row['ok'] else 'MISSED'}"
    spread = f"{row['low']:.3f} to {row['high']:.3f}, wall {row['wall']:.3f}" if "low" in row else ""
    return f"{row['name']:<48} {row['value']:6.3f} × {row['baseline']:<48} {bar:<16} {spread}".rstrip()


def compare(run: Run, baseline: Run, device: torch.device, pairs: int) -> Ratio:
    """Time of `run` over that of `baseline`."""
    run(), baseline()
    ratios, walls = [], []
    for number in range(pairs):
        # whichever comes second finds warmer caches
        if number % 2:
            (own, wall), (other, others_wall) = seconds(run, device), seconds(baseline, device)
        else:
            (other, others_wall), (own, wall) = seconds(baseline, device), seconds(run, device)
        ratios.append(own / other)
        walls.append(wall / others_wall)
    low, value, high = statistics.quantiles(ratios, n=4) if pairs > 1 else ratios * 3
    return Ratio(value, low, high, statistics.median(walls))


def seconds(run: Run, device: torch.device) -> tuple[float, float]:
    """Of the processor, of all threads, and of the wall; on a GPU both are the wall's."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    busy, wall = time.process_time(), time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return (time.perf_counter() - wall,) * 2
    return time.process_time() - busy, time.perf_counter() - wall


def keep_memory() -> None:
    """Let the C library keep what is freed, as the CUDA allocator does: or a fifth of a step on the CPU is the kernel's
    time for fresh pages, and varies more than the variants differ.
    """
    mmap_max, trim_threshold = -4, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def peak(run: Run, device: torch.device) -> float:
    """Bytes of tensors that live at one time, above what lives before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return float(torch.cuda.max_memory_allocated() - before)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()) if event.name() == "[memory]"]
    return float(np.cumsum(changes).max())

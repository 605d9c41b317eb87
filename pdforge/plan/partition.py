"""What the scheduler's default partition has to offer: the built-in profile `slurm` is made of it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass

from pdforge.errors import EnvironmentFault
from pdforge.plan.profile import Profile

_TIMEOUT_S = 30
_ASK = ("sinfo", "-h", "-e", "-o", "%P|%G|%c|%D|%l")
"""Partition, generic resources, cores a node, number of nodes, time limit: a line for each kind of node."""
_CORES_PER_GPU = 8
"""At most: the process of a GPU, its loader and its writers; the rest is left to other jobs."""


@dataclass(frozen=True)
class Partition:
    """The default partition."""

    gpus: int
    """Of the most common kind of node that has any; 0: none has."""
    cpus: int
    """Cores of such a node."""
    limit: int | None
    """Longest time of a job, in seconds; None: there is no limit."""


def as_scheduled(profile: Profile) -> Profile:
    """The profile on one node of the default partition: a process on each GPU where there are some.

    Raises:
        EnvironmentFault: there is no scheduler that answers, or it has no default partition.
    """
    partition = default_partition(_sinfo())
    walltime = min(profile.walltime, partition.limit or profile.walltime)
    # of a short time at least half is for work
    times = {"walltime": walltime, "signal_delay": min(profile.signal_delay, walltime // 2)}
    if not partition.gpus:
        return profile.model_copy(update=times)
    return profile.model_copy(
        update={
            **times,
            "device": "cuda",
            "processes_per_node": partition.gpus,
            "gpus_per_node": partition.gpus,
            "cpus_per_node": min(partition.cpus, _CORES_PER_GPU * partition.gpus),
        }
    )


def default_partition(said: str) -> Partition:
    """The default partition, from what sinfo says.

    Raises:
        EnvironmentFault: none is marked as the default.
    """
    rows = [line.split("|") for line in said.splitlines() if line.partition("|")[0].endswith("*")]
    if not rows:
        raise EnvironmentFault(
            "the scheduler has no default partition, which the built-in profile 'slurm' is for",
            remedy="write a profile with `partition:` in clusters.yaml",
        )
    kinds: Counter[tuple[int, int]] = Counter()
    for _, resources, cpus, nodes, _ in rows:
        kinds[gpus_in(resources), int(cpus.rstrip("+"))] += int(nodes)
    with_gpus = {kind: count for kind, count in kinds.items() if kind[0]} or kinds
    gpus, cpus_there = max(with_gpus, key=lambda kind: (with_gpus[kind], kind))
    return Partition(gpus, cpus_there, seconds_in(rows[0][4]))


def gpus_in(resources: str) -> int:
    """GPUs in SLURM's words: 6 in `gpu:h100:4(S:0-1),gpu:2,nvme:1`."""
    named = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", resources)
    return sum(map(int, named))


def seconds_in(limit: str) -> int | None:
    """`1-12:00:00`, `12:00:00` and `30:00` in seconds; None for `infinite` and what else is no time."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _sinfo() -> str:
    try:
        done = subprocess.run(
            _ASK, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        why = "sinfo is not installed here"
    except subprocess.TimeoutExpired:
        why = f"sinfo has not answered within {_TIMEOUT_S} s"
    else:
        if done.returncode == 0:
            return done.stdout
        why = next(iter(reversed(done.stderr.strip().splitlines())), f"sinfo ended with exit code {done.returncode}")
    raise EnvironmentFault(
        f"the built-in profile 'slurm' asks the scheduler for its default partition: {why}",
        remedy="log in to a machine of the cluster, or write a profile in clusters.yaml",
    )

"""Cluster profiles: where a plan runs. Never part of a run's identity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pdforge.errors import UsageError


class Profile(BaseModel):
    """Where and on what the stages run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    executor: Literal["local"] = "local"
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = Field(default=1, ge=1)
    """Processes of a training stage: one per GPU, or CPU processes talking gloo."""


def local_profile(processes: int | None = None) -> Profile:
    """This machine: one process per visible GPU, else two CPU processes (one on a single core)."""
    gpus = visible_gpus()
    return Profile(
        name="local", device="cuda" if gpus else "cpu", processes=processes or gpus or min(2, os.cpu_count() or 1)
    )


def find_profile(name: str, processes: int | None = None) -> Profile:
    """The profile of that name.

    Raises:
        UsageError: there is none.
    """
    if name != "local":
        raise UsageError(f"no cluster profile {name!r}", remedy="known profiles: local")
    return local_profile(processes)


def visible_gpus() -> int:
    """NVIDIA devices that a job would see, without importing torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if allowed is None:
        return present
    return min(present, len([d for d in allowed.split(",") if d.strip() not in ("", "-1")]))

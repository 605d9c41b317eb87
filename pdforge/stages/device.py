"""What a rank computes on."""

from __future__ import annotations

import os
from typing import Literal

import torch

from pdforge.errors import EnvironmentFault, NodeFault


def require_device(device: Literal["cpu", "cuda"]) -> None:
    """Refuse to begin where torch does not see what the job is to run on.

    Raises:
        NodeFault: no CUDA device of those that SLURM gave the job.
        EnvironmentFault: no CUDA device where the job wants one.
    """
    if device == "cuda" and not torch.cuda.is_available():
        if given := _given_by_slurm():
            raise NodeFault(
                f"SLURM gave the job the CUDA devices {given} of this node, and torch sees none",
                remedy="run `pdforge doctor` on the node",
            )
        raise EnvironmentFault(
            "the stage is compiled for CUDA, and torch sees no CUDA device", remedy="run `pdforge doctor`"
        )


def _given_by_slurm() -> str:
    """The GPUs that SLURM set aside for this rank and that its torch could use; empty where there are none."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return given if "SLURM_JOB_ID" in os.environ and torch.version.cuda and given != "NoDevFiles" else ""


def device_of_rank(device: Literal["cpu", "cuda"], rank: int) -> torch.device:
    """The device of this rank: of those that it sees, the one of its number on this host; of one, that one.

    Raises:
        EnvironmentFault: as `require_device`.
    """
    require_device(device)
    if device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())

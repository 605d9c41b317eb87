"""What a rank computes on; torch's view of the machine is made up."""

from __future__ import annotations

import pytest
import torch

from pdforge.errors import EnvironmentFault, NodeFault
from pdforge.stages.device import device_of_rank


def see(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)


def test_without_a_device_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 0)
    with pytest.raises(EnvironmentFault, match="torch sees no CUDA device"):
        device_of_rank("cuda", 0)
    assert device_of_rank("cpu", 3) == torch.device("cpu")


def test_devices_that_slurm_gave_are_the_nodes_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(NodeFault, match="the CUDA devices 0,1 of this node, and torch sees none"):
        device_of_rank("cuda", 0)
    for nothing in ("NoDevFiles", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        with pytest.raises(EnvironmentFault) as caught:
            device_of_rank("cuda", 0)
        assert type(caught.value) is EnvironmentFault, "the job has none: the profile asks for none"


def test_the_number_on_the_host_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_of_rank("cuda", 5) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "0")  # the first of the second host, where each has three
    assert device_of_rank("cuda", 3) == torch.device("cuda", 0)
    see(monkeypatch, 1)  # of its own
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device_of_rank("cuda", 2) == torch.device("cuda", 0)

"""What a rank computes on; torch's view of the machine is made up."""

from __future__ import annotations

import pytest
import torch

from pdforge.errors import EnvironmentFault
from pdforge.stages.device import device_of_rank


def see(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)


def test_without_a_device_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 0)
    with pytest.raises(EnvironmentFault, match="torch sees no CUDA device"):
        device_of_rank("cuda", 0)
    assert device_of_rank("cpu", 3) == torch.device("cpu")


def test_the_number_on_the_host_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_of_rank("cuda", 5) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "0")  # the first of the second host, where each has three
    assert device_of_rank("cuda", 3) == torch.device("cuda", 0)
    see(monkeypatch, 1)  # of its own
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device_of_rank("cuda", 2) == torch.device("cuda", 0)

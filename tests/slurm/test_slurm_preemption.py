"""A job of higher priority takes the nodes of a light stage: with USR2 ahead of time, and with TERM alone."""

from __future__ import annotations

import pytest

from tests.slurm import chain
from tests.slurm.harness import Cluster, User
from tests.slurm.inject import preempt


@pytest.mark.parametrize("mode", ["user", "term"])
@pytest.mark.parametrize(
    "cluster", [(), ("--proctrack", "cgroup")], ids=["linuxproc", "cgroup"], indirect=True
)  # a signal reaches all processes of a task, or its first one
def test_a_job_of_higher_priority(user: User, cluster: Cluster, mode: str) -> None:
    user.profile(partition="low")
    user.chain(steps=30, delay=0.3, every=1000, hold=user.hold(25))
    user.submit()
    user.wait_for_step(5)
    preempt(user, mode)
    assert not user.train.done.exists(), "the nodes were taken from it"
    user.go()
    user.wait_for_end()
    assert user.train.done.exists(), user.describe()
    assert len(user.train.all_attempts()) == 2
    assert chain.computed(user.train) == list(range(1, 31)), "it saved when it was told, and did no step twice"
    assert chain.read_rows(user.train) == chain.rows(30)

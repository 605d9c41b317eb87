"""A job of higher priority takes the nodes of a light stage: with USR2 ahead of time, and with TERM alone."""

from __future__ import annotations

import pytest

from tests.slurm.conftest import Cluster, User, wait_for


@pytest.mark.parametrize(
    "cluster", [("--preemption", "user"), ("--preemption", "term")], ids=["USR2", "TERM"], indirect=True
)
def test_a_job_of_higher_priority(user: User, cluster: Cluster) -> None:
    user.profile(partition="low")
    user.count(train={"steps": 40, "delay": 0.3, "every": 1000})
    user.submit()
    user.wait_for_step(5)
    high = cluster(
        "sbatch", "--parsable", "--partition=main", "--nodes=2", "--exclusive", "--output=/dev/null",
        f"--chdir={user.folder}", "--wrap=sleep 3",
    ).strip()  # fmt: skip
    assert wait_for(lambda: high not in user.queue(), 60), user.describe()
    assert not user.train.done.exists(), "the nodes were taken from it"
    user.wait_for_end()
    assert user.train.done.exists(), user.describe()
    assert len(user.train.all_attempts()) == 2
    _, second = (int(line) for line in (user.train.output / "starts").read_text().split())
    assert second >= 5, "it saved when it was told: it writes no other checkpoint"

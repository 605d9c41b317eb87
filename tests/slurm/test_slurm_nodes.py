"""A node that fails twice is avoided: by the job that it ended, by new jobs, until somebody says that it is well."""

from __future__ import annotations

import json
import shutil

import pytest

from pdforge.launch.records import read_attempt
from tests.slurm.harness import Cluster, User, can_account, wait_for


def node_of(user: User) -> str:
    """The node that `train` was last started on."""
    record = read_attempt(user.train.all_attempts()[-1])
    assert record is not None
    (node,) = record.nodes
    return node


def kill(user: User, cluster: Cluster, node: str) -> None:
    """Kill the node of the job of `train`, which is held then, and have the node back: the other is not to be had.

    Held: what SLURM has still to say to the node about the start that failed would end another start there as well.
    """
    cluster.script("kill-node", node)
    cluster("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")
    assert wait_for(lambda: "JobState=PENDING" in cluster("scontrol", "show", "job", user.job())), user.describe()
    cluster("scontrol", "hold", user.job())
    cluster.script("start-node", node)
    assert "no node of pdforge is avoided" in user.pdforge("clusters", "nodes", "two")


def resize(user: User, nodes: int) -> None:
    """Have the profile ask for so many nodes."""
    user.profile()
    file = user.folder / "clusters.yaml"
    file.write_text(file.read_text().replace("nodes: 2", f"nodes: {nodes}\n  processes_per_node: {3 - nodes}"))


def answer_slowly(user: User) -> None:
    """Have changes of a job take longer than SLURM waits before it signals the processes of a job that is requeued."""
    folder = user.folder / "bin"
    folder.mkdir()
    slow = folder / "scontrol"
    slow.write_text(f'#!/bin/sh\n[ "$1" != update ] || sleep 2\nexec {shutil.which("scontrol")} "$@"\n')
    slow.chmod(0o755)
    user.environment["PATH"] = f"{folder}:{user.environment['PATH']}"


@pytest.mark.skipif(not can_account(), reason="which node failed is asked of accounting, which is not installed here")
@pytest.mark.parametrize("cluster", [(), ("--proctrack", "cgroup")], ids=["linuxproc", "cgroup"], indirect=True)
def test_a_job_moves_from_a_node_that_failed_twice(user: User, cluster: Cluster) -> None:
    resize(user, 1)
    answer_slowly(user)
    user.count(train={"steps": 30, "delay": 0.2, "hold": user.hold(20)})
    user.submit()
    job = user.job()
    user.wait_for_step(5)
    first = node_of(user)
    other = {"n1": "n2", "n2": "n1"}[first]
    # so that SLURM, which knows nothing of the failures, comes back to it
    cluster("scontrol", "update", f"nodename={other}", "state=drain", "reason=test")
    kill(user, cluster, first)
    cluster("scontrol", "release", job)
    assert wait_for(lambda: len(user.train.all_attempts()) == 2), user.describe()
    user.wait_for_step(12)
    kill(user, cluster, first)
    cluster("scontrol", "update", f"jobid={job}", f"excnodelist={other}")
    cluster("scontrol", "update", f"nodename={other}", "state=resume")
    cluster("scontrol", "release", job)
    user.go()
    user.wait_for_end()
    assert user.train.done.exists(), user.describe()
    records = [read_attempt(attempt) for attempt in user.train.all_attempts()]
    moves = [bool(record and record.moves) for record in records]
    assert moves == [False, False, True, False], user.describe()
    nodes = [record.nodes for record in records if record]
    assert nodes == [[first], [first], [first], [other]], user.describe()
    assert {record.job for record in records if record} == {job}

    told = user.pdforge("clusters", "nodes", "two")
    assert f"{first}: avoided until" in told
    assert f"pdforge clusters lift two {first}" in told
    assert "avoided until" in user.pdforge("clusters", "check", "two")
    user.count(train={"steps": 3})
    dry = user.pdforge("submit", "--cluster", "two", user.recipe, "--set", "training.seed=5", "--dry-run")
    assert f"--exclude={first}" in dry
    said = user.pdforge("submit", "--cluster", "two", user.recipe, "--set", "training.seed=5")
    assert f"node {first} is avoided: 2 failures (node)" in said
    user.wait_for_end()
    newest = max(user.root.glob("*/train"), key=lambda path: path.stat().st_mtime)
    assert json.loads((newest / "attempts" / "0001" / "attempt.json").read_text())["nodes"] == [other]

    resize(user, 2)  # a job that cannot do without it
    assert "could not run without it" in user.pdforge("clusters", "check", "two")
    dry = user.pdforge("submit", "--cluster", "two", user.recipe, "--set", "training.seed=6", "--dry-run")
    assert "--exclude" not in dry.partition("# train")[2].splitlines()[0]

    assert f"used again: {first}" in user.pdforge("clusters", "lift", "two", first)
    assert "no node of pdforge is avoided" in user.pdforge("clusters", "nodes", "two")
    assert "nothing is held against n7" in user.pdforge("clusters", "lift", "two", "n7", code=2)

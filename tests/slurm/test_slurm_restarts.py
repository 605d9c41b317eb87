"""Interruptions of a light stage on two nodes: every run ends, and nothing is counted twice."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from typing import Any

import pytest

from pdforge.launch.outcome import judge_earlier
from pdforge.launch.records import read_attempt
from pdforge.layout import StageDirectory, read_json
from tests.slurm import chain
from tests.slurm.harness import Cluster, User, can_account, wait_for
from tests.slurm.inject import kill_a_task_twice

STEPS = 40


def assert_counted_once(user: User) -> None:
    """The run is done, and each start went on where the last one had saved."""
    assert user.train.done.exists(), user.describe()
    assert [read_json(user.train.output / f"count{rank}.json") for rank in (0, 1)] == [STEPS, STEPS]
    starts = [int(line) for line in (user.train.output / "starts").read_text().split()]
    assert starts == sorted(starts)
    assert len(set(starts[1:])) == len(starts[1:])


def postmortem(user: User) -> dict[str, Any]:
    """What it says of the one stage of which an attempt failed."""
    (stage,) = json.loads(user.postmortem("--json"))["stages"]
    assert isinstance(stage, dict)
    return stage


def test_a_graph_of_jobs_on_two_nodes_ends(user: User) -> None:
    user.count(train={"steps": 5})
    user.submit()
    user.wait_for_end()
    assert {stage["state"] for stage in user.stages().values()} == {"done"}
    (attempt,) = user.train.all_attempts()
    record = read_attempt(attempt)
    assert record is not None
    assert record.nodes == ["n1", "n2"]


def test_requests_to_save_at_ten_random_moments(user: User) -> None:
    user.chain(steps=60, delay=0.25, every=1000, hold=user.hold(57))
    user.submit()
    assert wait_for(user.train.progress.exists), user.describe()
    for moment in sorted(random.Random(7).sample(range(2, 56), 10)):
        user.wait_for_step(moment)
        before = len(user.train.all_attempts())
        user.cluster("scancel", "--signal=USR2", user.job())
        assert wait_for(lambda before=before: len(user.train.all_attempts()) > before), user.describe()
    user.go()
    user.wait_for_end()
    assert user.train.done.exists(), user.describe()
    assert len(user.train.all_attempts()) == 11
    assert chain.computed(user.train) == list(range(1, 61)), "no step twice: it writes no other checkpoint"
    assert chain.read_rows(user.train) == chain.rows(60)


def test_a_task_of_an_array_that_is_killed_again_and_again_starts_again_alone(user: User) -> None:
    user.profile("capture_tasks: 2")
    user.tiny()
    user.chain(steps=2, shards=24, delay=0.8)
    user.submit()
    kill_a_task_twice(user)
    user.wait_for_end()
    assert user.train.done.exists(), user.describe()
    stage = user.stage("capture")
    starts = Counter(record.job for attempt in stage.all_attempts() if (record := read_attempt(attempt)))
    assert sorted(starts.values()) == [1, 1, 3], "the other task, the job that publishes, and the one that was killed"
    assert set(chain.computed(stage)) == set(range(24))
    assert len(chain.computed(stage)) <= 24 + 2, "no shard twice beyond the one in flight"


@pytest.mark.parametrize("restarted", [False, True], ids=["node", "node-and-controller"])
def test_a_node_dies(user: User, cluster: Cluster, restarted: bool) -> None:
    user.count(train={"steps": STEPS, "delay": 0.1, "hold": user.hold(20)})
    user.submit()
    user.wait_for_step(5)
    cluster.script("kill-node", "n2")
    cluster("scontrol", "update", "nodename=n2", "state=down", "reason=killed")
    if restarted:
        cluster.script("restart-controller")
    cluster.script("start-node", "n2")
    user.go()
    user.wait_for_end()
    assert_counted_once(user)
    assert len(user.train.all_attempts()) == 2
    (first,) = postmortem(user)["failed"]
    assert first["cause"]["kind"] == "node", first
    assert first["nodes"] == ["n1", "n2"]
    if can_account():
        assert first["sacct"]["State"] == "NODE_FAIL"


@pytest.mark.parametrize("cluster", [(), ("--proctrack", "cgroup")], ids=["linuxproc", "cgroup"], indirect=True)
def test_no_process_of_a_cancelled_run_is_left(user: User) -> None:
    user.count(train={"steps": 10_000, "delay": 0.1, "helper": True})
    user.submit()
    user.wait_for_step(2)
    assert any("pdforge-test-helper" in process for process in user.processes())
    user.pdforge("cancel", user.recipe, "--cluster", "two", "--kill")
    user.wait_for_end()
    assert wait_for(lambda: not user.processes()), user.processes()
    assert user.stages()["train"]["state"] == "stopped"


def test_a_stage_that_fails_again_and_again_is_given_up(user: User) -> None:
    user.count(train={"steps": 10, "delay": 10, "fail_rank": 1, "fail_at": 1})
    user.submit()
    user.wait_for_end()
    stage = user.stages()["train"]
    assert stage["state"] == "failed"
    assert "the counter broke" in stage["error"]
    attempts = [read_attempt(attempt) for attempt in user.train.all_attempts()]
    assert 3 <= len(attempts) <= 4
    failed = postmortem(user)["failed"]
    assert {attempt["cause"]["kind"] for attempt in failed} == {"error in the program"}
    assert all("raise RuntimeError" in attempt["traceback"] for attempt in failed)


def test_a_start_of_which_no_rank_begins_is_followed_by_another(user: User) -> None:
    failed = user.folder / "failed"
    user.profile(f"setup: ['srun() {{ [ -e {failed} ] && command srun \"$@\" || {{ touch {failed}; false; }}; }}']")
    user.count(train={"steps": 3})
    user.submit()
    user.wait_for_end()
    assert {stage["state"] for stage in user.stages().values()} == {"done"}, user.describe()
    (tokens,) = map(StageDirectory, (user.root / "tokens").iterdir())
    assert [len(stage.all_attempts()) for stage in (tokens, user.train)] == [2, 1]
    (first,) = postmortem(user)["failed"]
    assert (first["number"], first["rank"], first["cause"]["kind"]) == (1, None, "unknown")


def test_a_suspended_rank_is_named_and_the_run_finishes(user: User) -> None:
    user.profile("watchdog: {train: 15s}")
    user.count(train={"steps": STEPS, "delay": 0.2, "together": True})
    user.submit()
    user.wait_for_step(5)
    (first,) = user.train.all_attempts()
    os.kill(read_json(first.rank_record(1))["process"]["pid"], signal.SIGSTOP)
    user.wait_for_end()
    assert_counted_once(user)
    outcome = judge_earlier(first)
    assert outcome.rank == 1
    assert "rank 1 gives no sign of life" in outcome.error
    (told,) = postmortem(user)["failed"]
    assert (told["cause"]["kind"], told["rank"]) == ("hang", 1)
    assert "counter.py" in told["traceback"]
    assert "counter.py" in outcome.error
    assert "counter.py" in first.rank_log(0).read_text()

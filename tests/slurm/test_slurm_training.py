"""Every class of fault with the real trainer, on two nodes.

One run of the tiny recipe suffers most of them, one after another, and ends with the numbers of a run on this machine
that nothing disturbed, bit for bit. Those that end a run, or need a time limit, have a student of their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdforge.heartbeat import PHASES
from pdforge.launch.records import read_attempt
from pdforge.layout import LOGITS, TEACHERS, TOKENS
from tests.slurm.evidence import assert_done, check_real, compare_checkpoints, counterpart
from tests.slurm.faults import VARIABLE
from tests.slurm.harness import TINY, Cluster, User, wait_for
from tests.slurm.inject import kill_a_task_twice, living_ranks, preempt
from tests.stages.conftest import ENVIRONMENT, rows

pytestmark = pytest.mark.slow

STEPS = "training.steps=39"
START_S = 600.0
"""A start of a real stage, on a busy machine."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The run on this machine, which goes on meanwhile, and its storage root."""
    root = tmp_path_factory.mktemp("here") / "runs"
    options = ["--variant", "pd", "--set", STEPS, "--processes", "2", "--root", str(root)]
    command = [sys.executable, "-m", "pdforge", "run", str(TINY), *options]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        yield run, root


@pytest.fixture(scope="module")
def undisturbed(here: tuple[subprocess.Popen[str], Path]) -> Path:
    """Storage root of the run on this machine, at its end."""
    run, root = here
    output = run.communicate()[0]
    assert run.returncode == 0, output
    return root


@pytest.fixture(scope="module")
def battered(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, here: object) -> User:
    """The run that suffers: a node and the controller in the teacher, a task of the capture's array twice, then USR2,
    pre-emption that only TERM tells of, and a suspended rank in the student.
    """
    user = User(tmp_path_factory.mktemp("battered"), cluster)
    user.profile("capture_tasks: 2\nwatchdog: {train: 120s}", partition="low")
    user.environment[VARIABLE] = json.dumps({"teachers": {"delay": 0.5}, "train": {"delay": 0.5}})
    user.real(STEPS)
    user.submit()

    user.wait_for_step(8, START_S, "pretrain-teacher")
    cluster.script("kill-node", "n2")
    cluster("scontrol", "update", "nodename=n2", "state=down", "reason=killed")
    cluster.script("restart-controller")
    cluster.script("start-node", "n2")

    kill_a_task_twice(user, START_S)

    user.wait_for_step(4, START_S)
    user.cluster("scancel", "--signal=USR2", user.job())
    assert wait_for(lambda: len(user.train.all_attempts()) == 2, START_S), user.describe()
    user.wait_for_step(10, START_S)
    preempt(user, "term")
    assert wait_for(lambda: len(user.train.all_attempts()) == 3, START_S), user.describe()
    user.wait_for_step(18, START_S)
    os.kill(next(rank.pid for rank in living_ranks(user, "train") if rank.number == 1), signal.SIGSTOP)
    user.wait_for_end(START_S)
    return user


def first_step(user: User, attempt: int) -> int:
    """Of an attempt of the student, as torchtitan tells."""
    found = re.search(r"Training starts at step (\d+)", user.train.attempt(attempt).rank_log(0).read_text())
    assert found
    return int(found[1])


def reports(user: User) -> dict[str, dict[str, Any]]:
    """What the post-mortem says, by kind of stage."""
    return {stage["key"].partition(":")[0]: stage for stage in json.loads(user.postmortem("--json"))["stages"]}


def test_every_result_checkpoint_and_shard_is_that_of_an_undisturbed_run(battered: User, undisturbed: Path) -> None:
    found = check_real(battered, undisturbed)
    assert found == {"real trainings": 2, "real checkpoints": 6, "real shards": 20}


def test_a_node_dies_while_the_controller_restarts(battered: User) -> None:
    assert len(battered.stage("pretrain-teacher").all_attempts()) == 2
    (failed,) = reports(battered)["pretrain-teacher"]["failed"]
    assert failed["cause"]["kind"] == "node", failed


def test_a_task_of_an_array_is_killed_again_and_again(battered: User) -> None:
    records = [read_attempt(attempt) for attempt in battered.stage("capture").all_attempts()]
    starts = Counter(record.job for record in records if record)
    assert sorted(starts.values()) == [1, 1, 3], "the other task, the job that publishes, and the one that was killed"


def test_a_request_to_save_and_pre_emption_cost_no_step(battered: User) -> None:
    for attempt, meant in ((1, 4), (2, 10)):
        computed = re.findall(r"step: +(\d+)", battered.train.attempt(attempt).rank_log(0).read_text())
        assert int(computed[-1]) >= meant
        assert first_step(battered, attempt + 1) == int(computed[-1]) + 1


def test_a_suspended_rank_is_named_with_its_stack(battered: User) -> None:
    (failed,) = reports(battered)["train"]["failed"]
    assert (failed["number"], failed["cause"]["kind"], failed["rank"]) == (3, "hang", 1)
    assert "rank 1 gives no sign of life" in failed["cause"]["evidence"]
    assert "trainer.py" in failed["traceback"]
    with tarfile.open(battered.train.path.parent / "postmortem.tar.gz") as bundle:
        assert any(name.endswith("train/attempts/0003/sign1.json") for name in bundle.getnames())
    assert len(battered.train.all_attempts()) == 4
    assert first_step(battered, 4) % 5 == 1, "it goes on from a checkpoint"


def test_each_start_is_timed(battered: User) -> None:
    options = (battered.recipe, *battered.chosen, "--cluster", "two", "--timings", "--json")
    page = json.loads(battered.pdforge("status", *options))
    timings = next(stage for stage in page["runs"][0]["stages"] if stage["key"].startswith("train"))["timings"]
    assert list(timings[1]["seconds"]) == ["scheduler", *PHASES]
    assert timings[1]["requested"] > timings[0]["requested"]


@pytest.fixture
def student(user: User, undisturbed: Path) -> User:
    """Somebody whose teacher and stores are there already."""
    for shared in (TOKENS, TEACHERS, LOGITS):
        shutil.copytree(undisturbed / shared, user.root / shared)
    user.real(STEPS)
    return user


def test_a_time_limit(student: User, undisturbed: Path) -> None:
    student.profile("walltime: 2m\nsignal_delay: 40s\nrestarts_without_progress: 6")
    student.environment[VARIABLE] = json.dumps({"train": {"delay": 2.0}})
    student.submit()
    student.wait_for_end(2 * START_S)
    assert_done(student)
    assert len(student.train.all_attempts()) > 1, "it takes longer than its limit"
    assert rows(student.train) == rows(counterpart(student, "train", undisturbed))
    compare_checkpoints(student.train, counterpart(student, "train", undisturbed))


def test_a_rank_that_raises_at_the_same_step_again_and_again(student: User) -> None:
    student.environment[VARIABLE] = json.dumps({"train": {"rank": 1, "step": 7, "how": "raise", "delay": 0.2}})
    student.submit()
    student.wait_for_end(2 * START_S)
    stage = student.stages()["train"]
    assert stage["state"] == "failed"
    assert "RuntimeError: the test broke it at step 7" in stage["error"]
    output = next(student.train.scheduler.glob("*_0_log.out")).read_text()
    assert "not started again: its last 3 starts ended without gaining a step" in output
    assert 3 <= len(student.train.all_attempts()) < 3 + 7, "each start before the last three got further"
    failed = reports(student)["train"]["failed"]
    assert {(one["rank"], one["cause"]["kind"]) for one in failed} == {(1, "error in the program")}
    assert all("faults.py" in one["traceback"] for one in failed)


@pytest.mark.parametrize("cluster", [("--proctrack", "cgroup")], indirect=True)
def test_a_rank_that_runs_out_of_memory_again_and_again(student: User) -> None:
    student.environment[VARIABLE] = json.dumps({"train": {"rank": 1, "step": 1, "how": "memory"}})
    student.submit()
    student.wait_for_end(3 * START_S)
    stage = student.stages()["train"]
    assert stage["state"] == "failed"
    assert 3 <= len(student.train.all_attempts()) <= 3 + 3, "one of three starts may have told of the first step"
    output = next(student.train.scheduler.glob("*_0_log.out")).read_text()
    assert "not started again: its last 3 starts ended without gaining a step" in output
    failed = reports(student)["train"]["failed"]
    assert {one["cause"]["kind"] for one in failed} == {"out of memory"}, failed

"""Whom `cancel` asks, and whom it kills, where runs are driven on several hosts."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from conftest import make_plan, make_stage

from pdforge.errors import UsageError
from pdforge.launch.cancel import cancel
from pdforge.launch.process import ProcessId
from pdforge.launch.records import AttemptRecord, RankRecord, write_attempt, write_rank
from pdforge.launch.submission import Submission, claim
from pdforge.layout import RunDirectory, StageDirectory, write_json
from pdforge.plan.profile import Profile

A, B = (make_plan(name, [make_stage(f"train {name}", f"count-{name}/train")]) for name in "ab")
ELSEWHERE = ProcessId(host="elsewhere", pid=7, started=1)


def drive(root, plan, driver, controller=None):
    """Put on record that `driver` drives a run, and has an attempt of its stage under `controller`."""
    write_json(RunDirectory(root / plan.directory).driver, driver.model_dump(mode="json"))
    attempt = StageDirectory(root / plan.stages[0].directory).attempt(1)
    attempt.path.mkdir(parents=True)
    write_attempt(
        attempt,
        AttemptRecord(
            executor="local", processes=1, master_address="", master_port=1, high_water=0, started=time.time(),
            driver=driver, controller=controller,
        ),
    )  # fmt: skip
    return attempt


def test_a_shared_stage_that_another_run_submitted_goes_on(tmp_path):
    shared = make_stage("teacher", "teachers/0")
    plan = make_plan("a", [shared])
    stage = StageDirectory(tmp_path / shared.directory)
    attempt, now = stage.attempt(1), time.time()
    attempt.path.mkdir(parents=True)
    how = {"master_address": "n1", "master_port": 1, "high_water": 0, "started": now, "job": "7"}
    write_attempt(attempt, AttemptRecord(executor="slurm", processes=1, **how))
    write_rank(attempt, RankRecord(rank=0, process=ELSEWHERE, state="running", started=now))
    job = {"number": 1, "job": "7", "profile": Profile(name="s", executor="slurm"), "submitted": now, "by": "me@here"}
    claim(stage, Submission(run="count-b", **job))
    assert cancel([plan], tmp_path).stages == []
    assert not attempt.stop.exists()
    claim(stage, Submission(run=plan.directory, **{**job, "number": 2}))
    assert cancel([plan], tmp_path).stages == ["teacher"], "its own hears it by the file, also where SLURM is silent"
    assert attempt.stop.exists()


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_what_runs_on_another_host_is_not_told_as_killed(tmp_path):
    attempt = drive(tmp_path, A, ELSEWHERE, ELSEWHERE)
    with pytest.raises(UsageError, match="`train a` runs on elsewhere: it was asked to save and end"):
        cancel([A, B], tmp_path, kill=True)  # B has no driver
    assert attempt.stop.exists()


def test_what_runs_here_is_killed_whoever_drives_the_others(tmp_path, sleeper):
    here = ProcessId.of(sleeper.pid)
    drive(tmp_path, A, here.model_copy(update={"started": 1}), here)  # its driver is gone
    write_json(RunDirectory(tmp_path / B.directory).driver, ELSEWHERE.model_dump(mode="json"))
    assert cancel([A, B], tmp_path, kill=True).stages == ["train a"]
    assert sleeper.wait(60) < 0


def test_drivers_of_two_hosts_may_have_the_same_number(tmp_path, sleeper):
    here = ProcessId.of(sleeper.pid)
    drive(tmp_path, A, here)
    drive(tmp_path, B, here.model_copy(update={"host": "elsewhere"}), ELSEWHERE)
    assert cancel([A, B], tmp_path).drivers == [sleeper.pid]
    assert sleeper.wait(60) < 0

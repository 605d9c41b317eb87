"""Several stages, several drivers, and processes that are killed when it suits nobody."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from conftest import HERE, drive, processes_of, starts, wait_for
from drive_counter import plan_of

from pdforge.errors import EnvironmentFault, StageFailed
from pdforge.launch.attempts import running_attempt
from pdforge.launch.lock import is_locked
from pdforge.launch.records import read_attempt, read_ranks
from pdforge.launch.status import run_statuses
from pdforge.launch.work import Detached, StopSwitch
from pdforge.layout import StageDirectory, read_json
from pdforge.plan.model import merged_stages


def stage_of(root, part):
    stages = merged_stages([plan_of("a"), plan_of("b")])
    return next(StageDirectory(root / stage.directory) for stage in stages if part in stage.directory)


def status_of(variant, root):
    [status] = run_statuses([plan_of(variant)], root)
    return status


def start_driver(root, *variants):
    return subprocess.Popen(
        [sys.executable, str(HERE / "drive_counter.py"), str(root), *variants],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_stages_run_in_order_and_shared_ones_once(root):
    order = []
    drive(root, plan_of("a"), plan_of("b"), on_event=lambda status: order.append((status.title, status.state))).run()
    assert list(dict.fromkeys(title for title, _ in order)) == ["tokenize", "train a", "train b"]
    assert len(stage_of(root, "tokens").all_attempts()) == 1
    assert status_of("b", root).state == "done"
    assert (root / "count-a" / "plan.json").exists()


def test_after_a_failure_nothing_else_starts_and_what_was_not_run_is_named(root, counter):
    counter(tokens={"fail_rank": 0, "fail_at": 1})
    with pytest.raises(StageFailed, match="not run: train a, train b"):
        drive(root, plan_of("a"), plan_of("b")).run()
    assert not stage_of(root, "count-a").all_attempts()
    assert status_of("a", root).state == "failed"
    assert [stage.state for stage in status_of("a", root).stages] == ["failed", "waiting"]


def test_two_drivers_run_a_shared_stage_once(root, counter):
    counter(tokens={"hold": (1, str(root / "go"))})
    drivers = [start_driver(root, variant) for variant in "ab"]
    for driver in drivers:  # the second waits for the first one's attempt
        assert any("tokenize running 1" in line for line in driver.stdout)
    (root / "go").touch()
    outputs = [driver.communicate()[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    assert len(stage_of(root, "tokens").all_attempts()) == 1
    assert len(starts(stage_of(root, "tokens"))) == 1
    assert stage_of(root, "count-a").done.exists()
    assert stage_of(root, "count-b").done.exists()


def test_an_attempt_survives_its_driver_and_the_next_one_attaches(root, counter):
    counter(tokens={"hold": (1, str(root / "go"))})
    tokens = stage_of(root, "tokens")
    driver = start_driver(root, "a")
    assert wait_for(tokens.progress.exists)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert running_attempt(tokens)
    assert is_locked(tokens)
    drive(root, plan_of("a"), on_event=lambda _: (root / "go").touch()).run()
    assert len(starts(tokens)) == 1
    assert status_of("a", root).state == "done"


def test_who_waits_for_another_drivers_attempt_only_detaches(root, counter):
    counter(tokens={"hold": (1, str(root / "go"))})
    driver = start_driver(root, "a")
    assert wait_for(stage_of(root, "tokens").progress.exists)
    waiting = StopSwitch()
    with pytest.raises(Detached, match="goes on"):
        drive(root, plan_of("b"), stop=waiting, on_event=lambda _: waiting.press()).run()
    (root / "go").touch()
    output = driver.communicate()[0]
    assert driver.returncode == 0, output
    assert not stage_of(root, "count-b").all_attempts()


def test_killed_at_random_moments_it_still_ends_with_every_step_counted_once(root, counter):
    counter(**{"tokens": {"steps": 40}, "count-a": {"steps": 40}})
    moments = random.Random(0)
    for _ in range(4):
        driver = start_driver(root, "a")
        try:
            driver.communicate(timeout=moments.uniform(0.3, 2.5))
        except subprocess.TimeoutExpired:
            kill_everything(root, driver)
    drive(root, plan_of("a"), retry=True).run()
    for part in ("tokens", "count-a"):
        stage = stage_of(root, part)
        assert read_json(stage.output / "count0.json") == 40
        assert starts(stage) == sorted(starts(stage)), "every start goes on where the one before was"


def kill_everything(root, driver):
    """SIGKILL in an order that nobody planned: what a power cut or an out-of-memory killer leaves."""
    pids = [driver.pid]
    for stage in merged_stages([plan_of("a")]):
        for attempt in StageDirectory(root / stage.directory).all_attempts():
            record = read_attempt(attempt)
            pids += [record.controller.pid] if record and record.controller and record.controller.is_alive else []
            pids += [rank.process.pid for rank in read_ranks(attempt) if rank.process.is_alive]
    random.Random(1).shuffle(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    driver.communicate()
    assert wait_for(lambda: not processes_of(root)), "what no record named yet goes on to the end of its stage"


def test_a_damaged_record_is_no_obstacle(root):
    drive(root, plan_of("a")).run()
    train = stage_of(root, "count-a")
    train.done.unlink()
    train.attempt(1).record.write_text("{")
    train.attempt(1).rank_record(0).write_text(json.dumps({"rank": "?"}))
    train.progress.write_text("")
    assert status_of("a", root).stages[-1].state == "failed"
    drive(root, plan_of("a")).run()
    assert train.done.exists()


def test_a_root_that_cannot_be_written_is_a_fault_of_the_environment(root):
    (root / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot write below"):
        drive(root / "file", plan_of("a")).run()

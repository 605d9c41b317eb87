"""One stage, real processes: how attempts end."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from conftest import drive, make_plan, make_stage, starts, wait_for

from pdforge.errors import StageFailed
from pdforge.launch.lock import is_locked
from pdforge.launch.records import read_attempt, read_rank, read_ranks
from pdforge.launch.status import stage_status
from pdforge.launch.work import StopRequested, StopSwitch
from pdforge.layout import StageDirectory, read_json

TRAIN = make_stage("train a", "count-a/train")
PLAN = make_plan("a", [TRAIN])


@pytest.fixture
def train(root):
    return StageDirectory(root / TRAIN.directory)


def test_two_ranks_succeed(root, train, counter):
    counter(train={"steps": 3})
    seen = []
    drive(root, PLAN, on_event=lambda status: seen.append(status.state)).run()

    assert read_json(train.done) == {"results": {"heldout_loss": 2.5}}
    (attempt,) = train.all_attempts()
    ranks = read_ranks(attempt)
    assert [(rank.rank, rank.state, rank.exit_code) for rank in ranks] == [(0, "done", 0), (1, "done", 0)]
    assert "rank 1 counts from 0" in attempt.rank_log(1).read_text()
    assert "running" in seen
    assert seen[-1] == "done"
    assert not is_locked(train)
    run = root / PLAN.directory
    assert (run / "recipe.yaml").exists()
    assert (run / "plan.json").exists()
    assert not (run / "driver.json").exists()


def test_a_done_stage_never_runs_again(root, train):
    drive(root, PLAN).run()
    drive(root, PLAN).run()
    assert len(train.all_attempts()) == 1


@pytest.mark.parametrize(
    ("how", "message", "remedy"),
    [
        ("raise", "rank 1: RuntimeError: the counter broke", ""),
        ("fault", "rank 1: no such device", "buy one"),
        ("exit", "rank 1: the stage ended with exit code 3", ""),
        ("kill", "rank 1: killed from outside; its last lines:\nrank 1 counts from 0", "dmesg"),
    ],
)
def test_one_rank_fails_and_the_other_ends(root, train, counter, how, message, remedy):
    counter(train={"steps": 10_000, "delay": 0.02, "fail_rank": 1, "fail_at": 3, "how": how, "helper": True})
    with pytest.raises(StageFailed) as caught:
        drive(root, PLAN).run()
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert str(train.attempt(1).rank_log(1)) in caught.value.message
    other = read_rank(train.attempt(1), 0)
    assert other.state == "failed"
    assert other.error.consequence
    assert "rank 1" in other.error.message
    assert "counter.py" in train.attempt(1).rank_log(0).read_text(), "where it was"


def test_the_place_of_an_exception_is_shown_and_its_traceback_logged(root, train, counter):
    counter(train={"fail_rank": 0, "fail_at": 1})
    with pytest.raises(StageFailed, match=r"counter.py.*line \d+, in fail"):
        drive(root, PLAN).run()
    assert "Traceback (most recent call last)" in train.attempt(1).rank_log(0).read_text()


def test_ranks_that_end_well_without_a_result_are_a_failure(root, counter):
    counter(train={"how": "no result"})
    with pytest.raises(StageFailed, match="left no result"):
        drive(root, PLAN).run()


def test_a_rank_that_cannot_leave_is_made_to(root, train, counter):
    counter(train={"linger": True})
    drive(root, make_plan("a", [TRAIN.model_copy(update={"processes": 1})])).run()
    assert read_rank(train.attempt(1), 0).state == "done"


def test_a_rank_that_cannot_write_its_end_ends(root, train, counter):
    counter(train={"hold": (1, str(root / "go")), "fail_rank": 1, "fail_at": 2, "together": True})

    def make_unwritable():
        assert wait_for(train.progress.exists)
        record = train.attempt(1).rank_record(0)
        record.unlink()
        (record / "in the way").mkdir(parents=True)
        (root / "go").touch()

    thread = threading.Thread(target=make_unwritable)
    thread.start()
    with pytest.raises(StageFailed, match="RuntimeError: the counter broke"):
        drive(root, PLAN).run()
    thread.join()


def test_a_crash_in_native_code_leaves_its_stack(root, counter):
    counter(train={"steps": 10_000, "fail_rank": 1, "fail_at": 3, "how": "crash"})
    with pytest.raises(StageFailed, match="rank 1: crashed: Segmentation fault"):
        drive(root, PLAN).run()


def test_an_entry_that_does_not_exist_is_reported(root, monkeypatch):
    monkeypatch.setattr("pdforge.launch.task.ENTRY", "no_such_module:main")
    with pytest.raises(StageFailed, match="No module named 'no_such_module'"):
        drive(root, PLAN).run()


def test_a_rank_that_cannot_begin_is_reported(root, monkeypatch, tmp_path):
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "cloudpickle.py").write_text("raise ImportError('cloudpickle is broken')")
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{os.environ['PYTHONPATH']}")
    with pytest.raises(StageFailed, match="no rank began"):
        drive(root, PLAN).run()


def test_three_failures_without_a_step_are_enough(root, train, counter):
    plan = make_plan("a", [TRAIN.model_copy(update={"processes": 1})])
    counter(train={"steps": 50, "fail_rank": 0, "fail_at": 2})
    for _ in range(4):  # the first gains a step
        with pytest.raises(StageFailed, match="the counter broke"):
            drive(root, plan).run()
    with pytest.raises(StageFailed, match=r"not started again: its last 3 starts ended .* \(step 1\)") as caught:
        drive(root, plan).run()
    assert "--retry" in caught.value.remedy
    assert len(train.all_attempts()) == 4
    counter(train={"steps": 5})
    drive(root, plan, retry=True).run()
    assert train.done.exists()


def _press_when(switch: StopSwitch, condition, presses: int = 1) -> threading.Thread:
    def press():
        assert wait_for(condition)
        for _ in range(presses):
            switch.press()

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_a_stop_is_clean_and_the_next_start_goes_on(root, train, counter):
    counter(train={"hold": (1, str(root / "never")), "every": 1000})
    switch = StopSwitch()
    thread = _press_when(switch, train.progress.exists)
    with pytest.raises(StopRequested, match="train a"):
        drive(root, PLAN, stop=switch).run()
    thread.join()
    assert [rank.state for rank in read_ranks(train.attempt(1))] == ["stopped", "stopped"]
    assert [rank.exit_code for rank in read_ranks(train.attempt(1))] == [75, 75]
    assert stage_status(TRAIN, root).state == "stopped"

    counter()
    drive(root, PLAN).run()
    first, second = starts(train)  # every=1000: only the stop can have saved
    assert first == 0
    assert second > 0


def test_the_second_press_kills_what_does_not_stop(root, train, counter):
    counter(train={"steps": 2, "fail_rank": 0, "fail_at": 2, "how": "hang", "helper": True})
    switch = StopSwitch()
    thread = _press_when(switch, train.progress.exists, presses=2)
    with pytest.raises(StopRequested):
        drive(root, PLAN, stop=switch).run()
    thread.join()
    assert stage_status(TRAIN, root).state == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_to_every_rank_stops_it(root, train, counter, number):
    counter(train={"steps": 10_000})

    def send():
        assert wait_for(lambda: train.progress.exists() and len(read_ranks(train.attempt(1))) == 2)
        for rank in read_ranks(train.attempt(1)):
            os.kill(rank.process.pid, number)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(StopRequested):
        drive(root, PLAN).run()
    thread.join()


def test_ranks_die_with_their_controller(root, train, counter):
    counter(train={"steps": 10_000})
    killed = []

    def kill_controller():
        assert wait_for(lambda: train.progress.exists() and read_attempt(train.attempt(1)).controller)
        os.kill(read_attempt(train.attempt(1)).controller.pid, signal.SIGKILL)
        killed.append(time.monotonic())

    thread = threading.Thread(target=kill_controller)
    thread.start()
    with pytest.raises(StageFailed, match="killed from outside, with all of its processes"):
        drive(root, PLAN).run()
    thread.join()
    assert killed


def test_a_path_that_submitit_would_rewrite_is_refused(root):
    with pytest.raises(Exception, match="%j"):
        drive(root / "a%jb", PLAN).run()

"""Sweeps: several runs at once, and what is left of one when its driver and half its jobs are killed."""

from __future__ import annotations

import json
import os
import signal

import pytest
from conftest import COMMAND_RECIPE, drive, pdforge, start, starts, wait_for
from drive_counter import plan_of

from pdforge.errors import StageFailed, UsageError
from pdforge.launch.process import kill_group
from pdforge.launch.records import read_attempt
from pdforge.layout import StageDirectory, read_json
from pdforge.plan.profile import Profile

SWEEP = COMMAND_RECIPE.split("variants:", maxsplit=1)[0] + "sweep: {seeds: 6}\n"


def train_of(root, variant):
    return StageDirectory(root / f"count-{variant}" / "train")


def sweep(root, *variants, at_once, **options):
    plans = [plan_of(variant).with_runs_at_once(at_once) for variant in variants]
    return drive(root, *plans, **options)


@pytest.mark.parametrize("at_once", [1, 2])
def test_so_many_runs_go_on_at_one_time(root, counter, at_once):
    counter(train={"steps": 20}, tokens={"steps": 1})
    going, most = set(), []

    def watch(status):
        (going.add if status.state == "running" else going.discard)(status.title)
        most.append(len(going))

    sweep(root, "a", "b", "c", at_once=at_once, on_event=watch).run()
    assert max(most) == at_once
    assert all(len(starts(train_of(root, variant))) == 1 for variant in "abc")


def test_a_run_that_fails_stops_no_other(root, counter):
    counter(**{"count-a": {"fail_rank": 0, "fail_at": 1}})
    with pytest.raises(StageFailed, match="train a") as raised:
        sweep(root, "a", "b", "c", at_once=2).run()
    assert "train b" not in raised.value.message
    assert [train_of(root, variant).done.exists() for variant in "abc"] == [False, True, True]


def test_the_driver_and_half_its_jobs_are_killed_and_only_what_is_missing_runs_again(folder, counter):
    held = {"hold": (1, str(folder / "go"))}
    counter(**{"count-seed-0": {}, "count-seed-1": {}, "train": held})
    (folder / "sweep.yaml").write_text(SWEEP.replace("CORPUS", str(folder / "corpus.txt")))
    pdforge(folder, "submit", "sweep.yaml", "--at-once", "2", "--processes", "1")
    trains = [StageDirectory(run / "train") for run in sorted((folder / "runs").glob("count-seed-*"))]
    assert len(trains) == 6
    assert wait_for(lambda: running(trains) == trains[2:4])
    finished = [train for train in trains if train.done.exists()]
    os.kill(read_json(trains[0].path.parent / "driver.json")["pid"], signal.SIGKILL)
    first, *others = running(trains)
    kill_group(read_attempt(first.all_attempts()[-1]).controller.pid)

    output = pdforge(folder, "status", "sweep.yaml", "--processes", "1")
    assert "tokenize (6 runs)" in output
    assert "6 runs: " in output
    again = start(folder, "run", "sweep.yaml", "--at-once", "2", "--processes", "1")
    assert wait_for(lambda: len(first.all_attempts()) == 2)
    (folder / "go").touch()
    output = again.communicate()[0]
    assert again.returncode == 0, output
    assert all(train.done.exists() for train in trains)
    assert all(read_json(train.output / "count0.json") == 4 for train in trains)
    assert all(len(train.all_attempts()) == 1 for train in (*finished, *others)), "done, or still alive: attached"
    assert len(first.all_attempts()) == 2
    assert starts(first)[1] > 0, "it went on where it was killed"
    runs = json.loads(pdforge(folder, "status", "sweep.yaml", "--processes", "1", "--json"))["runs"]
    assert [run["state"] for run in runs] == ["done"] * 6


def running(trains):
    return [train for train in trains if train.progress.exists() and not train.done.exists()]


def test_on_slurm_a_training_takes_the_place_of_an_earlier_one(folder):
    (folder / "sweep.yaml").write_text(SWEEP.replace("CORPUS", str(folder / "corpus.txt")))
    (folder / "clusters.yaml").write_text("far: {executor: slurm}\n")
    output = pdforge(folder, "submit", "sweep.yaml", "--cluster", "far", "--dry-run", "--at-once", "2")
    commands = [line for line in output.splitlines() if line.startswith("# ") and ": sbatch" in line]
    waits = [line.rpartition("--dependency=")[2].strip("'") for line in commands[1:]]
    assert waits[:2] == ["afterok:<tokenize>"] * 2
    assert waits[2:] == [f"afterok:<tokenize>,afterany:<train seed-{seed}>" for seed in range(4)]
    unlimited = pdforge(folder, "submit", "sweep.yaml", "--cluster", "far", "--dry-run")
    assert "afterany" not in unlimited


def test_runs_at_once_share_out_the_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    profile = Profile(name="x", device="cuda", processes_per_node=2, gpus=(0, 1, 4, 5, 6), runs_at_once=2)
    devices = [profile.devices_of(slot) for slot in range(2)]
    assert devices == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "4,5"}]
    with pytest.raises(UsageError, match="more than the 5 GPUs"):
        profile.devices_of(2)
    assert profile.model_copy(update={"runs_at_once": None}).devices_of(0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert Profile(name="x", device="cuda", runs_at_once=2).devices_of(1) == {"CUDA_VISIBLE_DEVICES": "7"}

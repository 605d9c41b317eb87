"""Submitting, attaching, cancelling and asking, on two nodes with light stages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from pdforge.launch.submission import latest_submission
from pdforge.layout import StageDirectory
from tests.slurm import chain
from tests.slurm.harness import Cluster, User, wait_for


def test_the_dry_run_is_what_is_submitted_and_submitting_again_attaches(user: User, cluster: Cluster) -> None:
    user.count(train={"steps": 20_000, "delay": 0.1})
    shown = user.pdforge("submit", "--cluster", "two", user.recipe, "--dry-run")
    assert not user.root.exists()
    user.submit()
    job = user.job()
    again = user.pdforge("submit", "--cluster", "two", user.recipe)
    assert "attached" in again
    assert f"job {job}" in again
    assert len(user.queue()) <= 2
    submitted = (user.train.scheduler / f"{job}_submission.sh").read_text()
    assert submitted in shown
    user.wait_for_step(2)
    user.pdforge("cancel", user.recipe, "--cluster", "two")
    user.wait_for_end()
    assert user.stages()["train"]["state"] == "stopped"
    assert wait_for(lambda: not user.processes()), "nothing is left on any node"
    assert "JobState=FAILED" in cluster("scontrol", "show", "job", job), "what waits for it is cancelled"

    user.count(train={"steps": 3})
    (run,) = [path.parent.name for path in user.root.glob("*/plan.json")]
    assert f"job {job}" not in user.pdforge("resume", run)
    user.wait_for_end()
    assert {stage["state"] for stage in user.stages().values()} == {"done"}


def test_what_has_a_job_is_not_started_without_slurm(user: User) -> None:
    user.count(train={"steps": 3, "hold": user.hold(1)})
    user.submit()
    user.wait_for_step(1)
    assert f"job {user.job()} of SLURM" in user.pdforge("run", user.recipe, code=1)
    user.go()
    user.wait_for_end()
    user.pdforge("run", user.recipe)  # everything is done
    assert len(user.train.all_attempts()) == 1


def test_two_racing_submits_capture_a_shared_store_once(user: User) -> None:
    user.tiny()
    user.chain(steps=3, shards=6, delay=0.1)
    commands = [["--set", f"training.seed={seed}"] for seed in (1, 2)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "pdforge", "submit", "--cluster", "two", user.recipe, *user.chosen, *extra],
            cwd=user.folder, env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for extra in commands
    ]  # fmt: skip
    said = [racer.communicate()[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    user.wait_for_end()
    for kind in ("tokens", "teachers", "logits"):
        (shared,) = (user.root / kind).iterdir()
        stage = StageDirectory(shared)
        submission = latest_submission(stage)
        assert submission is not None
        assert submission.number == 1
        assert len(stage.all_attempts()) == 1
        assert all(f"job {submission.job}\n" in text for text in said), said
    assert sorted(chain.computed(stage)) == list(range(6)), "every shard once"
    assert len(list(user.root.glob("*/train/done.json"))) == 2, user.describe()


def test_what_waits_for_a_failed_stage_is_cancelled_and_the_hook_told(user: User, tmp_path: Path) -> None:
    told = tmp_path / "told"
    user.profile(f'on_end: echo "$PDFORGE_STATE" >> {told}')
    user.count(tokens={"fail_rank": 0, "fail_at": 1, "how": "fault"})
    user.submit()
    user.wait_for_end()
    stages = user.stages()
    assert stages["tokenize"]["state"] == "failed"
    assert "no such device" in stages["tokenize"]["error"]
    assert stages["tokenize"]["attempt"] == 1, "bad input is never tried again"
    assert stages["train"]["state"] == "stopped"
    assert told.read_text() == "failed\n"


def test_status_without_accounting_says_what_it_does_not_know(user: User, cluster: Cluster, tmp_path: Path) -> None:
    user.count(train={"steps": 20_000, "delay": 0.1})
    user.submit()
    user.wait_for_step(2)
    cluster("scancel", user.job())
    user.wait_for_end()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("squeue", "sbatch", "scancel", "scontrol"):
        (tools / name).symlink_to(str(shutil.which(name)))
    user.environment["PATH"] = str(tools)
    # the controller remembers an ended job for a while, so the queue may know it; afterwards nobody does
    stage = user.stages()["train"]
    assert stage["state"] in ("unknown", "stopped")
    assert stage["state"] != "failed"
    assert "sacct is not installed here" in stage["error"] or "CANCELLED" in stage["jobs"]
    tools.joinpath("squeue").unlink()
    stage = user.stages()["train"]
    assert stage["state"] == "unknown"
    assert "squeue is not installed here" in stage["error"]


def test_run_directories_are_private_and_hold_no_secret(user: User) -> None:
    secret = "planted-3f9c"
    user.profile("secrets: [PDFORGE_PLANTED]")
    user.count(train={"steps": 2})
    refused = user.pdforge("submit", "--cluster", "two", user.recipe, code=2)
    assert "PDFORGE_PLANTED" in refused
    user.environment["PDFORGE_PLANTED"] = secret
    user.submit()
    user.wait_for_end()
    assert user.train.done.exists(), user.describe()
    files = [path for path in user.root.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    open_to_others = [path for path in user.root.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []
    assert json.loads(user.train.done.read_text())
    assert wait_for(lambda: not user.processes())

"""Who owns a stage: racing processes; the budget of restarts; snapshots of the code."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from conftest import drive, make_plan, make_stage

import pdforge
from pdforge.errors import EnvironmentFault, StageFailed, UsageError
from pdforge.launch.attempts import high_water
from pdforge.launch.budget import fruitless
from pdforge.launch.environment import require_secrets
from pdforge.launch.graph import submit_graph
from pdforge.launch.lock import is_locked, try_lock
from pdforge.launch.process import ProcessId
from pdforge.launch.progress import read_progress
from pdforge.launch.records import AttemptRecord, RankRecord, write_attempt, write_rank
from pdforge.launch.scheduler import JobState, job_states
from pdforge.launch.snapshot import take_snapshot
from pdforge.launch.submission import Submission, claim, latest_submission
from pdforge.layout import RunDirectory, StageDirectory, write_json
from pdforge.plan.find import read_plan
from pdforge.plan.profile import Profile
from pdforge.stages.tokenize import _Progress

SLURM = Profile(name="s", executor="slurm", restarts_without_progress=2)


def submission(number: int = 1, job: str = "1") -> Submission:
    return Submission(number=number, job=job, profile=SLURM, run="count-a", submitted=time.time(), by="me@here")


def _claim(path: Path, job: str, start: float, won: multiprocessing.Queue) -> None:
    while time.time() < start:
        pass
    if claim(StageDirectory(path), submission(job=job)):
        won.put(job)


def test_of_racing_processes_one_owns_the_stage(tmp_path):
    context = multiprocessing.get_context("spawn")
    for turn in range(3):
        path, won = tmp_path / str(turn), context.Queue()
        start = time.time() + 1.5
        racers = [context.Process(target=_claim, args=(path, str(job), start, won)) for job in range(6)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(180)
            assert racer.exitcode == 0
        winner = won.get(timeout=60)
        assert won.empty()
        assert latest_submission(StageDirectory(path)) is not None
        assert latest_submission(StageDirectory(path)).job == winner
        assert [file.name for file in StageDirectory(path).submissions.iterdir()] == ["0001.json"], "no leftovers"


def test_the_last_submission_counts_and_a_damaged_one_does_not(tmp_path):
    stage = StageDirectory(tmp_path)
    assert latest_submission(stage) is None
    assert claim(stage, submission(1, "7"))
    assert not claim(stage, submission(1, "8"))
    assert claim(stage, submission(2, "9"))
    assert latest_submission(stage).job == "9"
    (stage.submissions / "0003.json").write_text("{")
    assert latest_submission(stage).job == "9"


def start(
    stage: StageDirectory, number: int, *, job: str, high_water: int, phase: int = 0, stopped: bool = False
) -> None:
    attempt = stage.attempt(number)
    attempt.path.mkdir(parents=True)
    write_attempt(
        attempt,
        AttemptRecord(
            executor="slurm", processes=1, master_address="n1", master_port=1, high_water=high_water,
            phase=phase, started=time.time(), job=job, restart=number, nodes=["n1"], ended=time.time(),
        ),
    )  # fmt: skip
    write_rank(
        attempt,
        RankRecord(rank=0, process=ProcessId(host="n1", pid=1, started=1), state="running", started=time.time()),
    )
    if stopped:
        attempt.stop.touch()


def test_starts_of_a_job_without_progress_are_counted(tmp_path):
    stage = StageDirectory(tmp_path)
    claim(stage, submission(job="5"))
    write_json(stage.progress, {"step": 4})
    assert read_progress(stage).step == 4
    start(stage, 1, job="5", high_water=0)  # brought four steps
    start(stage, 2, job="5", high_water=4)
    assert not fruitless(stage, "5")
    start(stage, 3, job="5", high_water=4)
    assert "its last 2 starts ended without gaining a step (step 4)" in fruitless(stage, "5")
    assert not fruitless(stage, "6"), "a new job is a person's wish to try again"
    write_json(stage.progress, {"step": 5})
    assert not fruitless(stage, "5"), "a step was gained"


def test_a_later_phase_is_further_than_any_step_of_one_before(tmp_path):
    stage = StageDirectory(tmp_path)
    claim(stage, submission(job="5"))
    tell = _Progress(stage, "tokenize")
    encoded = {"phase": "encode", "done": 6_000_000, "total": 6_000_000, "unit": "tokens"}
    packed = [{"phase": "pack train", "done": done, "total": 4000, "unit": "sequences"} for done in (100, 200)]
    for number, row in enumerate([encoded, *packed], 1):
        reached = high_water(stage)
        start(stage, number, job="5", high_water=reached.step, phase=reached.phase)
        tell(row)
    assert not fruitless(stage, "5"), "sequences are no tokens"
    reached = high_water(stage)
    for number in (4, 5):
        start(stage, number, job="5", high_water=reached.step, phase=reached.phase)
        tell(encoded)
    assert "its last 2 starts ended without gaining a step (step 200)" in fruitless(stage, "5")


def test_a_start_that_a_person_stopped_does_not_count(tmp_path):
    stage = StageDirectory(tmp_path)
    claim(stage, submission(job="5"))
    start(stage, 1, job="5", high_water=0)
    start(stage, 2, job="5", high_water=0, stopped=True)
    assert not fruitless(stage, "5")


def test_without_slurm_a_job_is_unknown_never_failed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_states(["1", "2"]) == {
        job: JobState("unknown", reason="squeue is not installed here") for job in ("1", "2")
    }
    assert job_states([]) == {}


def test_a_secret_that_is_not_set_is_refused_before_anything_is_submitted(monkeypatch):
    plan = make_plan("a", [make_stage("t", "count-a/train")]).model_copy(
        update={"profile": SLURM.model_copy(update={"secrets": ("PDFORGE_TEST_SECRET",)})}
    )
    monkeypatch.delenv("PDFORGE_TEST_SECRET", raising=False)
    with pytest.raises(EnvironmentFault, match="PDFORGE_TEST_SECRET"):
        require_secrets([plan])
    monkeypatch.setenv("PDFORGE_TEST_SECRET", "x")
    require_secrets([plan])


def test_a_snapshot_is_the_package_and_is_taken_once(tmp_path):
    run = RunDirectory(tmp_path / "run")
    folder = take_snapshot(run)
    assert take_snapshot(run) == folder
    assert [path.name for path in run.code.iterdir()] == [folder.name]
    source = Path(pdforge.__file__).parent
    assert (folder / "pdforge" / "launch" / "task.py").read_bytes() == (source / "launch" / "task.py").read_bytes()
    assert (folder / "pdforge" / "_data" / "templates" / "train.py.j2").is_file()
    assert (folder / "provenance.json").is_file()


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """SLURM's commands: job 5 stands in a file `queue`, while there is one."""
    folder = tmp_path / "tools"
    folder.mkdir()
    scripts = {
        "squeue": f'cat {tmp_path}/queue 2>/dev/null || {{ echo "Invalid job id specified" >&2; exit 1; }}',
        "sbatch": "echo Submitted batch job 5",
        **dict.fromkeys(("sacct", "scontrol"), "true"),
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
    }
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_what_slurm_works_on_is_not_started_here(root, tools, monkeypatch):
    shared = make_stage("teacher", "teachers/0")
    plan = make_plan("b", [shared, make_stage("train b", "count-b/train", needs=(shared.key,))])
    stage = StageDirectory(root / shared.directory)
    claim(stage, submission(job="5"))
    (root / "queue").write_text("5|RUNNING|None|n1\n")
    with pytest.raises(
        StageFailed, match=r"not started here: job 5 of SLURM, which me@here .*RUNNING.*\nnot run: train"
    ):
        drive(root, plan).run()
    assert not is_locked(stage)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PATH", str(root))
        with pytest.raises(StageFailed, match="may carry it out: squeue is not installed here") as caught:
            drive(root, plan).run()
        assert str(stage.submissions) in caught.value.remedy
    assert not stage.all_attempts()
    (root / "queue").unlink()
    drive(root, plan).run()
    assert len(stage.all_attempts()) == 1


def test_the_plan_of_a_run_that_slurm_carries_out_stays(root, tools):
    plan = make_plan("a", [make_stage("t", "count-a/train")])
    given = plan.model_copy(update={"profile": SLURM})
    submit_graph([given], root, write_stage=lambda stage, root: None, snapshot=lambda run: run.code)
    (root / "queue").write_text("5|RUNNING|None|n1\n")
    with pytest.raises(StageFailed, match="not started here"):
        drive(root, plan).run()
    assert read_plan(root / plan.directory).profile.executor == "slurm"


def test_what_is_started_here_while_it_is_submitted_is_withdrawn(tmp_path, tools):
    """One that took the lock before there was a submission to see."""
    plan = make_plan("a", [make_stage("t", "count-a/train")]).model_copy(update={"profile": SLURM})
    locks = []

    def start_here(stage, root):
        locks.append(try_lock(StageDirectory(root / stage.directory)))

    with pytest.raises(UsageError, match="`t` runs without SLURM on this machine"):
        submit_graph([plan], tmp_path, write_stage=start_here, snapshot=lambda run: run.code)
    assert locks
    assert locks[0] is not None
    assert (tmp_path / "cancelled").read_text() == "5\n"


def test_a_run_planned_for_slurm_does_not_run_here(tmp_path):
    plan = make_plan("a", [make_stage("t", "count-a/train")]).model_copy(update={"profile": SLURM})
    with pytest.raises(UsageError, match="SLURM"):
        drive(tmp_path, plan).run()
    assert not list(tmp_path.iterdir())

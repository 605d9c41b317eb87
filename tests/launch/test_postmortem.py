"""`pdforge postmortem`: what it says of runs of real processes that failed, and what its bundle holds."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import tarfile
import time
from datetime import datetime
from pathlib import Path

import pytest
from conftest import pdforge, start, wait_for

from pdforge.launch import stacks
from pdforge.launch.cause import find_cause, find_notices
from pdforge.launch.failures import failed_attempts
from pdforge.launch.hang import read_sign
from pdforge.launch.outcome import Outcome
from pdforge.launch.output import output_of_start
from pdforge.launch.process import ProcessId
from pdforge.launch.records import AttemptRecord, RankError, RankRecord, write_attempt, write_rank
from pdforge.layout import StageDirectory, read_json

LONG = {"steps": 10_000, "delay": 0.1, "fail_rank": 1, "fail_at": 12, "seen": True}
"""Fails when both ranks have left a sign of life at a step."""


def failed_run(folder: Path, *options: str) -> Path:
    """The run of a counter that fails in `train a`."""
    pdforge(folder, "run", "count.yaml", "-v", "a", *options, code=1)
    (run,) = (folder / "runs").glob("count-a-*")
    return run


def examine(folder: Path, run: Path) -> dict:
    """The one stage that failed."""
    (stage,) = json.loads(pdforge(folder, "postmortem", run.name, "--json"))["stages"]
    return stage


def bundle(run: Path) -> dict[str, bytes]:
    with tarfile.open(run / "postmortem.tar.gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def test_an_exception_then_the_command_it_gives_goes_on(folder, counter):
    counter(train=LONG)
    run = failed_run(folder, "--processes", "2")
    stage = examine(folder, run)
    (attempt,) = stage["failed"]
    assert attempt["cause"] == {"kind": "error in the program", "evidence": "rank 1: RuntimeError: the counter broke"}
    assert (attempt["rank"], attempt["number"], attempt["sacct"]) == (1, 1, None)
    assert 1 <= attempt["step"] <= 12
    assert "in fail\n    raise RuntimeError" in attempt["traceback"]
    assert set(attempt["stacks"]) == {"0", "1"}
    assert stage["last_step"] >= 1
    summary = pdforge(folder, "postmortem", str(run))
    for text in ("train a: failed; 1 start", "rank 1, last seen at step", "raise RuntimeError", "pdforge resume"):
        assert text in summary

    counter(train={"steps": 5})
    for command in stage["commands"]:
        assert pdforge(folder, *shlex.split(command)[1:])
    assert wait_for((run / "train" / "done.json").exists)
    assert wait_for(lambda: not (run / "driver.json").exists())
    again = examine(folder, run)
    assert (again["state"], [one["number"] for one in again["failed"]]) == ("done", [1])
    assert again["commands"] == [f"pdforge status {run}"]


def test_a_stage_that_never_started_is_no_obstacle(folder, counter):
    counter(tokens={"fail_rank": 0, "fail_at": 1})
    run = failed_run(folder)
    stage = examine(folder, run)
    assert (stage["title"], len(stage["failed"])) == ("tokenize", 1)


def test_what_only_a_person_can_remove(folder, counter):
    counter(train=LONG | {"how": "fault"})
    stage = examine(folder, failed_run(folder, "--processes", "2"))
    assert stage["failed"][0]["cause"]["kind"] == "bad input"
    assert "no such device" in stage["failed"][0]["cause"]["evidence"]
    assert stage["advice"] == "buy one"


def test_a_killed_rank_is_named_and_no_cause_is_made_up(folder, counter):
    counter(train=LONG | {"how": "kill"})
    stage = examine(folder, failed_run(folder, "--processes", "2"))
    assert stage["failed"][0]["cause"] == {
        "kind": "unknown",
        "evidence": "rank 1: killed from outside; its last lines:",
    }
    assert "counter.py" in stage["failed"][0]["traceback"], "where it was last"
    assert "dmesg" in stage["advice"]


def test_a_suspended_rank_is_a_hang_with_its_stack(folder, counter):
    (folder / "clusters.yaml").write_text("here: {processes_per_node: 2, watchdog: {train: 3s}}\n")
    counter(train={"steps": 10_000, "delay": 0.1, "together": True})
    process = start(folder, "run", "count.yaml", "-v", "a", "--cluster", "here")
    assert wait_for(lambda: list((folder / "runs").glob("count-a-*/train/progress.json")))
    (run,) = (folder / "runs").glob("count-a-*")
    first = StageDirectory(run / "train").attempt(1)
    assert wait_for(lambda: (sign := read_sign(first, 1)) and sign.step)
    os.kill(read_json(first.rank_record(1))["process"]["pid"], signal.SIGSTOP)
    process.communicate()
    assert process.returncode == 1
    (attempt,) = examine(folder, run)["failed"]
    assert (attempt["cause"]["kind"], attempt["rank"]) == ("hang", 1)
    assert "rank 1 gives no sign of life" in attempt["cause"]["evidence"]
    assert "counter.py" in attempt["traceback"]
    if shutil.which("py-spy"):
        assert "MainThread" in attempt["traceback"]
        assert "pdforge-watchdog" in attempt["stacks"]["1"]
    log = first.rank_log(0).read_text()
    assert "pdforge: the counter is at step" in log, "what the stage itself can tell"
    files = bundle(run)
    place = f"postmortem/{run.name}/train/attempts/0001"
    assert files[f"{place}/collectives/rank_0"] == b"0" * (1 << 21), "whole"


def test_a_rank_that_is_alone_and_suspended_is_ended(folder, counter):
    (folder / "clusters.yaml").write_text("here: {processes_per_node: 1, watchdog: {train: 3s}}\n")
    counter(train={"steps": 10_000, "delay": 0.1})
    process = start(folder, "run", "count.yaml", "-v", "a", "--cluster", "here")
    assert wait_for(lambda: list((folder / "runs").glob("count-a-*/train/progress.json")))
    (run,) = (folder / "runs").glob("count-a-*")
    first = StageDirectory(run / "train").attempt(1)
    assert wait_for(lambda: (sign := read_sign(first, 0)) and sign.step)
    os.kill(read_json(first.rank_record(0))["process"]["pid"], signal.SIGSTOP)
    process.communicate()
    assert process.returncode == 1
    (attempt,) = examine(folder, run)["failed"]
    assert (attempt["cause"]["kind"], attempt["rank"]) == ("hang", 0)
    assert "rank 0 gives no sign of life" in attempt["cause"]["evidence"]
    assert "counter.py" in attempt["traceback"]


def test_stacks_of_a_suspended_rank_are_taken_where_py_spy_is(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(stacks.sys, "executable", str(tools / "python"))
    attempt = StageDirectory(tmp_path / "run" / "train").attempt(1)
    attempt.path.mkdir(parents=True)
    stacks.dump_stacks(attempt, 1, 7)
    assert not stacks.read_stacks(attempt, 1), "it is not installed"
    (tools / "py-spy").write_text('#!/bin/sh\necho "$*"\n[ "$4" != 8 ]\n')
    (tools / "py-spy").chmod(0o700)
    stacks.dump_stacks(attempt, 2, 8)
    assert not stacks.read_stacks(attempt, 2), "it may not look"
    stacks.dump_stacks(attempt, 1, 7)
    stacks.dump_stacks(attempt, 1, 9)
    assert stacks.read_stacks(attempt, 1) == "dump --nonblocking --pid 7\n", "the first look counts"


def test_the_bundle_holds_what_pdforge_wrote_and_no_secret(folder, counter, monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "planted-8731")
    (folder / "clusters.yaml").write_text("here: {processes_per_node: 2, secrets: [HUB_TOKEN]}\n")
    counter(train=LONG)
    run = failed_run(folder, "--cluster", "here")
    with (run / "train/attempts/0001/rank0.log").open("a") as log:
        log.write("logged in with planted-8731\n")
    (run / "train/output/model.bin").write_bytes(b"weights")
    pdforge(folder, "postmortem", run.name)
    files = bundle(run)
    for name in ("recipe.yaml", "plan.json", "train/job/job.json", "train/attempts/0001/rank1.log"):
        assert f"postmortem/{run.name}/{name}" in files
    assert b"[secret]" in files[f"postmortem/{run.name}/train/attempts/0001/rank0.log"]
    assert not any(b"planted-8731" in content for content in files.values())
    assert not any(name.endswith((".pkl", ".bin")) for name in files)
    assert b"the counter broke" in files["postmortem/summary.txt"]
    assert (run / "postmortem.tar.gz").stat().st_mode & 0o077 == 0


def test_a_run_in_which_nothing_failed(folder):
    pdforge(folder, "run", "count.yaml", "-v", "a")
    (run,) = (folder / "runs").glob("count-a-*")
    assert "nothing failed" in pdforge(folder, "postmortem", run.name)
    assert not (run / "postmortem.tar.gz").exists()
    assert "no-such-run" in pdforge(folder, "postmortem", "no-such-run", code=2)


def rank(error: RankError | None) -> RankRecord:
    process = ProcessId.of(os.getpid())
    return RankRecord(rank=0, process=process, state="failed" if error else "running", error=error, started=0)


RAISED = RankError(type="RuntimeError", message="connection closed by peer", traceback="…")


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("NODE_FAIL", "node"),
        ("PREEMPTED", "pre-emption"),
        ("TIMEOUT", "time limit"),
        ("OUT_OF_MEMORY", "out of memory"),
        ("FAILED", "error in the program"),
        ("CANCELLED by 0", "error in the program"),
    ],
)
def test_accounting_says_why_ranks_lost_each_other(word, kind):
    row = {"State": word, "NodeList": "n[1-2]"}
    cause = find_cause(Outcome("failed", "…", rank=0), [rank(RAISED)], row=row)
    assert cause.kind == kind
    assert kind == "error in the program" or cause.evidence == f"sacct: {word} on n[1-2]"


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "node"),
        ("PREEMPTION", "pre-emption"),
        ("TIME LIMIT", "time limit"),
    ],
)
def test_so_does_the_output_of_the_job(tmp_path, why, kind):
    log = tmp_path / "7_0_log.out"
    log.write_text(f"hello\nslurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-03-01T10:00:00 DUE TO {why} ***\n")
    (notice,) = find_notices([log])
    assert find_cause(Outcome("failed", "…"), [rank(None)], notices=[notice]).kind == kind


@pytest.mark.parametrize(
    ("error", "tail"),
    [
        (RankError(type="OutOfMemoryError", message="CUDA out of memory", traceback="…"), ""),
        (RankError(type="RuntimeError", message="DefaultCPUAllocator: can't allocate memory", traceback="…"), ""),
        (None, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0"),
    ],
)
def test_memory_that_was_short(error, tail):
    assert find_cause(Outcome("failed", "killed", rank=0), [rank(error)], log_tail=tail).kind == "out of memory"


def test_a_start_of_a_job_is_told_from_the_others_in_its_output(tmp_path):
    first, second = (datetime(2026, 11, 24, 14, minute, 7, 250_000) for minute in (30, 31))
    file = tmp_path / "7_0_log.out"
    file.write_text(
        "".join(
            f"submitit INFO ({when:%Y-%m-%d %H:%M:%S},250) - Starting with JobEnvironment(job_id=7)\n{word}\n"
            for when, word in ((first, "oom_kill"), (second, "fine"))
        )
    )
    starts = [when.timestamp() + 1.5 for when in (first, second)]
    assert output_of_start([file], starts[0], starts, lines=1) == ["oom_kill"]
    assert output_of_start([file], starts[1], starts, lines=9)[1:] == ["fine"]
    file.write_text("srun: error: no rank began\n")
    assert output_of_start([file], starts[0], starts, lines=9) == []


def test_accounting_may_lose_a_start_and_know_of_one_that_nothing_ran_in(tmp_path, monkeypatch):
    """What SLURM 22.05 kept of a job whose node failed twice within eight seconds, and that then ended well."""
    stage = StageDirectory(tmp_path / "run" / "train")
    for number, second in enumerate((54.6, 61.9, 69.2), 1):
        attempt = stage.attempt(number)
        attempt.path.mkdir(parents=True)
        started = datetime(2026, 11, 29, 13, 12).timestamp() + second
        record = AttemptRecord(
            executor="slurm", processes=1, master_address="n1", master_port=1, high_water=0, started=started,
            job="7", restart=number - 1, nodes=["n1", "n2"],
        )  # fmt: skip
        write_attempt(attempt, record)
    answers = {
        "sacct": [
            "7|7|NODE_FAIL|0:0|n[1-2]|2026-11-29T13:13:01|2026-11-29T13:13:03",
            "7|7|COMPLETED|0:0|n[1-2]|2026-11-29T13:13:09|2026-11-29T13:13:14",
            "7|7|PENDING|0:0|None assigned|Unknown|Unknown",
        ],
        "sacctmgr": ["n1|2026-11-29T13:12:55|DOWN", "n2|2026-11-29T13:12:55|DRAIN", "n2|2026-11-29T13:13:03|DOWN"],
    }
    for name, lines in answers.items():
        command = tmp_path / name
        command.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stage.done.touch()
    first, second = failed_attempts(stage, running=False)
    assert (first.cause.kind, first.cause.evidence) == ("node", "sacctmgr: n1 down")
    assert (first.failed_nodes, first.sacct) == (["n1"], "accounting does not know this start")
    assert (second.cause.kind, second.cause.evidence) == ("node", "sacct: NODE_FAIL on n[1-2]")
    assert second.failed_nodes == ["n2"]


def test_of_ranks_that_were_all_killed_srun_knows_the_first(tmp_path):
    stage = StageDirectory(tmp_path / "run" / "train")
    attempt, now = stage.attempt(1), time.time()
    stage.scheduler.mkdir(parents=True)
    attempt.path.mkdir(parents=True)
    how = AttemptRecord(
        executor="slurm", processes=2, master_address="n1", master_port=1, high_water=0, started=now, job="7"
    )
    write_attempt(attempt, how)
    for number in (0, 1):
        process = ProcessId.of(os.getpid())
        write_rank(attempt, RankRecord(rank=number, process=process, state="running", started=now, lost=True))
    (stage.scheduler / "7_0_log.out").write_text(
        f"submitit INFO ({datetime.fromtimestamp(now):%Y-%m-%d %H:%M:%S},000) - Starting with JobEnvironment()\n"
        "srun: error: n2: task 1: Killed\nsrun: error: n1: task 0: Killed\n"
    )
    (failed,) = failed_attempts(stage, running=False)
    assert (failed.cause.kind, failed.rank, failed.log) == ("unknown", 1, attempt.rank_log(1))
    assert failed.cause.evidence.endswith("; srun: error: n2: task 1: Killed")

"""Nodes that failed: what counts as evidence, what is kept on record, and for how long jobs avoid a node."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from pdforge.launch import exclusion
from pdforge.launch.exclusion import NodeFailure, avoided, excluded, exclusions, learn, lift, read_failures
from pdforge.launch.failures import failed_attempts
from pdforge.launch.process import ProcessId
from pdforge.launch.records import HANG, AttemptRecord, RankError, RankRecord, write_attempt, write_rank
from pdforge.launch.submission import Submission, claim
from pdforge.layout import StageDirectory, node_failures
from pdforge.plan.profile import Profile

HOUR = 3600.0
PROFILE = Profile(name="p", executor="slurm", exclude=("n9",), exclude_after=2, exclude_for=24 * 3600)


def failure(
    node: str, ended: float, *, attempt: int = 1, stage: str = "/r/a/train", seconds: float = 60
) -> NodeFailure:
    return NodeFailure(
        node=node, cause="node", evidence="sacct: NODE_FAIL", stage=stage, attempt=attempt,
        started=ended - seconds, time=ended,
    )  # fmt: skip


PEER = RankError(type="PeerLost", message="rank 9 failed", consequence=True)


def attempt_of(
    stage: StageDirectory, number: int, nodes: list[str], errors: dict[int, RankError], *, ended: float | None = None
) -> None:
    """An attempt with two ranks a node. Those without an error end because of the others; without any, unseen."""
    attempt = stage.attempt(number)
    attempt.path.mkdir(parents=True)
    end = ended or time.time()
    write_attempt(
        attempt,
        AttemptRecord(
            executor="slurm", processes=2 * len(nodes), master_address="n1", master_port=1, high_water=0,
            started=end - 60, nodes=nodes, ended=end,
        ),
    )  # fmt: skip
    for rank in range(2 * len(nodes)):
        error = errors.get(rank, PEER if errors else None)
        write_rank(
            attempt,
            RankRecord(
                rank=rank, process=ProcessId(host="h", pid=1, started=1), node=nodes[rank // 2],
                state="failed" if error else "running", error=error, started=end - 60, ended=end if error else None,
            ),
        )  # fmt: skip


def hang(*suspects: int) -> RankError:
    return RankError(type=HANG, message=f"no progress for 9 s: rank {suspects}", suspects=list(suspects))


ECC = "CUDA error: uncorrectable ECC error encountered"


@pytest.mark.parametrize(
    ("errors", "nodes"),
    [
        ({0: hang(2)}, ["n2"]),
        ({0: hang(2, 3)}, ["n2"]),
        ({0: hang(1, 2)}, []),
        ({0: hang()}, []),
        ({3: RankError(type="AcceleratorError", message=ECC, traceback="…")}, ["n2"]),
        ({3: RankError(type="AcceleratorError", message=ECC, traceback="…", consequence=True)}, []),
        ({3: RankError(type="NodeFault", message="torch sees none of the CUDA devices")}, ["n2"]),
        ({3: RankError(type="StoreError", message="/r: cannot be written: Stale file handle")}, ["n2"]),
        ({3: RankError(type="EnvironmentFault", message="torch sees no CUDA device")}, []),
        ({3: RankError(type="ValueError", message="no", traceback="…")}, []),
    ],
    ids=[
        "hang",
        "all of a node",
        "ranks of two nodes",
        "nobody is named",
        "hardware",
        "told by a peer",
        "lost GPU",
        "file system",
        "bad input",
        "program",
    ],
)
def test_the_node_of_an_attempt_that_failed(tmp_path, errors, nodes):
    stage = StageDirectory(tmp_path / "run" / "train")
    attempt_of(stage, 1, ["n1", "n2"], errors)
    (found,) = failed_attempts(stage, running=False)
    assert found.failed_nodes == nodes


def test_srun_names_the_node_where_accounting_is_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    stage = StageDirectory(tmp_path / "run" / "train")
    when = time.time()
    attempt_of(stage, 1, ["n1", "n2"], {}, ended=when)
    stage.scheduler.mkdir()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when))
    (stage.scheduler / "7_0_log.out").write_text(
        f"srun: error: Node failure on n2\nslurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT {stamp} "
        "DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n"
    )
    (found,) = failed_attempts(stage, running=False)
    assert (found.cause.kind, found.failed_nodes) == ("node", ["n2"])


TWICE = [failure("n1", 10 * HOUR), failure("n1", 11 * HOUR, attempt=2)]


def test_a_node_is_avoided_after_two_failures_and_for_a_day():
    two = [failure("n1", 10 * HOUR), failure("n2", 10 * HOUR), failure("n1", 20 * HOUR, attempt=2)]
    (found,) = exclusions(two, PROFILE, 21 * HOUR)
    assert (found.node, found.until) == ("n1", 44 * HOUR)
    assert exclusions(two, PROFILE, 43.9 * HOUR)
    assert not exclusions(two, PROFILE, 44 * HOUR)
    assert excluded(PROFILE, [found]) == "n9,n1"


@pytest.mark.parametrize(
    ("failures", "profile"),
    [
        ([failure("n1", 10 * HOUR)], PROFILE),
        ([failure("n1", 10 * HOUR), failure("n1", 35 * HOUR, attempt=2)], PROFILE),
        ([failure("n1", 10 * HOUR), failure("n1", 10 * HOUR + 30, stage="b")], PROFILE),
        (TWICE, PROFILE.model_copy(update={"exclude_after": 0})),
        (TWICE, PROFILE.model_copy(update={"exclude_after": 3})),
    ],
    ids=["once", "long ago", "one event under two stages", "never", "three are wanted"],
)  # fmt: skip
def test_a_node_is_not_avoided_for_less(failures, profile):
    assert not exclusions(failures, profile, failures[-1].time + 1)


def test_evidence_is_recorded_once_and_can_be_lifted(tmp_path):
    stage = StageDirectory(tmp_path / "run" / "train")
    now = time.time()
    attempt_of(stage, 1, ["n1", "n2"], {0: hang(2)}, ended=now - 600)
    attempt_of(stage, 2, ["n1", "n2"], {0: hang(2)}, ended=now - 300)
    for _ in range(2):
        learn(stage, "c")
    failures = read_failures(tmp_path, "c")
    assert [(one.node, one.cause, one.attempt) for one in failures] == [("n2", "hang", 1), ("n2", "hang", 2)]
    assert failures[0].stage == str(stage.path)
    assert [one.node for one in exclusions(failures, PROFILE, now)] == ["n2"]

    assert lift(tmp_path, "c", ["n1", "n2"]) == ["n2"]
    learn(stage, "c")  # the attempts are still there
    assert not exclusions(read_failures(tmp_path, "c"), PROFILE, now)
    assert all("@" in one.lifted for one in read_failures(tmp_path, "c"))
    attempt_of(stage, 3, ["n1", "n2"], {0: hang(2)}, ended=now)
    learn(stage, "c")
    assert not exclusions(read_failures(tmp_path, "c"), PROFILE, now), "what was lifted does not count"


def _learn(path: Path) -> None:
    learn(StageDirectory(path), "c")


def test_jobs_that_learn_at_once_lose_nothing(tmp_path):
    stages = [StageDirectory(tmp_path / f"run-{number}" / "train") for number in range(6)]
    for stage in stages:
        attempt_of(stage, 1, ["n1", "n2"], {0: hang(2)})
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_learn, args=(stage.path,)) for stage in stages]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    assert {one.stage for one in read_failures(tmp_path, "c")} == {str(stage.path) for stage in stages}


def test_a_damaged_record_is_as_none(tmp_path):
    file = node_failures(tmp_path, "c")
    file.parent.mkdir()
    file.write_text('{"failures": [')
    assert read_failures(tmp_path, "c") == []


def test_no_more_nodes_are_avoided_than_the_job_can_do_without(tmp_path, monkeypatch):
    """sbatch takes the job as long as n2 may be used. The node whose time is over first is used again first."""
    now = time.time()
    failures = [
        failure(node, now - minutes * 60, attempt=minutes, seconds=1)
        for node, last in (("n1", 10), ("n2", 40), ("n3", 20))
        for minutes in (last + 5, last)
    ]
    file = node_failures(tmp_path, "c")
    file.parent.mkdir()
    file.write_text(exclusion.NodeFailures(failures=failures).model_dump_json())
    tools = tmp_path / "tools"
    tools.mkdir()
    asked = tmp_path / "asked"
    (tools / "sbatch").write_text(f'#!/bin/sh\necho "$*" >> {asked}\ncase "$2" in *n2*) exit 1;; esac\n')
    (tools / "sbatch").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    assert [one.node for one in avoided(tmp_path, PROFILE, "#!/bin/sh\n", now)] == ["n3", "n1"]
    assert asked.read_text().splitlines() == ["--test-only --exclude=n9,n2,n3,n1", "--test-only --exclude=n9,n3,n1"]
    (tools / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(tools))
    assert avoided(tmp_path, PROFILE, "", now) == [], "what sbatch does not confirm is not done"


def test_where_nothing_failed_nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(exclusion, "cluster_name", lambda: pytest.fail("SLURM was asked"))
    assert avoided(tmp_path, PROFILE, "", time.time()) == []


def test_what_cannot_be_understood_keeps_no_job_from_starting(tmp_path, monkeypatch, capsys):
    stage = StageDirectory(tmp_path / "run" / "train")
    how = Submission(number=1, job="7", profile=PROFILE, run="run", submitted=time.time(), by="me@here")
    claim(stage, how)
    attempt_of(stage, 1, ["n1"], {})
    stage.scheduler.mkdir()
    (stage.scheduler / "7_0_log.out").write_text("*** JOB 7 ON n1 CANCELLED AT yesterday DUE TO NODE FAILURE ***")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "test")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert exclusion.avoided_by_job(stage) == []
    assert "no node is avoided: ValueError" in capsys.readouterr().err

"""What a start cost, from records as SLURM's attempts leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.heartbeat import PHASES, Phase
from pdforge.launch.records import AttemptRecord, read_attempt, write_attempt
from pdforge.launch.submission import Submission, claim
from pdforge.launch.timings import Timeline, stage_timings, write_timeline
from pdforge.layout import StageDirectory
from pdforge.plan.profile import Profile


def attempt(stage: StageDirectory, number: int, started: float, ended: float | None, ends: dict[Phase, float]) -> None:
    directory = stage.attempt(number)
    directory.path.mkdir(parents=True)
    record = AttemptRecord(
        executor="slurm", processes=2, master_address="n1", master_port=1, high_water=0, started=started,
        job="7", restart=number - 1, ended=ended,
    )  # fmt: skip
    write_attempt(directory, record)
    write_timeline(directory, Timeline(process=started - 1, ends=ends))


def test_from_the_requeue_to_the_first_new_step(tmp_path: Path) -> None:
    stage = StageDirectory(tmp_path)
    attempt(stage, 1, 100.0, 200.0, dict(zip(PHASES, (110.0, 115.0, 116.0, 118.5), strict=True)))
    attempt(stage, 2, 221.0, None, dict(zip(PHASES, (229.0, 233.0, 236.0, 238.5), strict=True)))
    attempt(stage, 3, 301.0, 400.0, {"imports": 309.0})
    attempt(stage, 4, 411.0, None, {"imports": 419.0, "first step": 425.0})
    first, second, killed, last = stage_timings(stage)
    assert first.requested is None, "nobody knows when it was submitted"
    assert first.seconds == dict(zip(PHASES, (11.0, 5.0, 1.0, 2.5), strict=True))
    assert first.total is None
    assert second.requested == 200.0
    assert second.seconds == {"scheduler": 20.0, **dict(zip(PHASES, (9.0, 4.0, 3.0, 2.5), strict=True))}
    assert second.total == pytest.approx(38.5)
    assert (killed.requested, killed.seconds) == (None, {"imports": 9.0}), "the node died: nobody saw when"
    assert (last.seconds["first step"], last.total) == (6.0, 25.0)


def test_each_start_counts_from_its_own_submission(tmp_path: Path) -> None:
    stage = StageDirectory(tmp_path)
    profile = Profile(name="s", executor="slurm")
    for number, when in ((1, 90.0), (2, 300.0)):
        claim(stage, Submission(number=number, job=str(number), profile=profile, run="r", submitted=when, by="me@here"))
    for number, started in ((1, 100.0), (2, 310.0)):
        attempt(stage, number, started, started + 50, {"first step": started + 5})
        record = read_attempt(stage.attempt(number))
        assert record is not None
        write_attempt(stage.attempt(number), record.model_copy(update={"restart": 0, "job": str(number)}))
    assert [timing.requested for timing in stage_timings(stage)] == [90.0, 300.0]


def test_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    stage = StageDirectory(tmp_path)
    attempt(stage, 1, 100.0, 200.0, {})
    attempt(stage, 2, 210.0, None, {})
    stage.attempt(1).timeline.write_text("{")
    assert [timing.attempt for timing in stage_timings(stage)] == [2]

"""What plan and submit say beside the recipe's own findings: time limits and finished runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.layout import RunDirectory, StageDirectory, write_atomically, write_json
from pdforge.plan.advice import advice
from pdforge.plan.extension import find_extension
from pdforge.plan.model import Plan
from pdforge.recipe.rules import TOPICS
from tests.plan.conftest import CPU, MakePlans
from tests.plan.test_commands import pdforge

BATCH = 8 * 64
"""Tokens of a step."""


def finish(plan: Plan, root: Path) -> None:
    """Leave what a finished run leaves."""
    write_atomically(RunDirectory(root / plan.directory).plan, plan.model_dump_json(by_alias=True))
    stage = plan.stage("train")
    assert stage is not None
    write_json(StageDirectory(root / stage.directory).done, {"results": {}})


def steps(number: int, *more: str) -> tuple[str, ...]:
    return ("training.tokens=null", f"training.steps={number}", *more)


CONSTANT = ("training.learning_rate_schedule={schedule: constant}", "objective.alpha=0.9")


@pytest.mark.parametrize(
    ("fields", "go_on_from", "obstacle"),
    [
        (CONSTANT, 20, ""),
        ((), 16, "the learning rate follows wsd"),
        (("training.learning_rate_schedule={schedule: cosine}",), 0, "the learning rate follows cosine"),
        ((CONSTANT[0], "objective.alpha={schedule: linear_inc}"), 0, "α follows linear_inc"),
        ((CONSTANT[0], "objective.alpha={schedule: wsd_beta, decay: 30%}"), 14, "α follows wsd_beta"),
        ((CONSTANT[0], "objective.alpha={schedule: period}"), 0, "α follows period"),
        (
            (*CONSTANT, "objective.temperature={kind: scheduled, high: 2, along: {schedule: linear_dec}}"),
            0,
            "τ follows linear_dec",
        ),
        (
            ("training.learning_rate_schedule={schedule: wsd, warmup: 50%, decay: 50%}",),
            10,
            "the learning rate follows",
        ),
    ],
)
def test_a_schedule_says_from_where_a_finished_run_may_go_on(
    plans: MakePlans, tmp_path: Path, fields: tuple[str, ...], go_on_from: int, obstacle: str
) -> None:
    (short,), (long,) = plans(*steps(20, *fields)), plans(*steps(30, *fields))
    assert short.hash != long.hash
    assert find_extension(long, tmp_path / "runs") is None
    finish(short, tmp_path / "runs")
    found = find_extension(long, tmp_path / "runs")
    assert found is not None
    assert (found.finished.hash, found.steps, found.wanted, found.go_on_from) == (short.hash, 20, 30, go_on_from)
    assert found.obstacle.startswith(obstacle)
    assert bool(found.obstacle) == bool(obstacle)


def test_only_length_may_differ(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (short,) = plans(*steps(20))
    finish(short, root)
    for change in ("training.seed=1", "objective.temperature=2", "student.architecture.layers=3", "data.seed=5"):
        (other,) = plans(*steps(30, change))
        assert find_extension(other, root) is None, change
    (elsewhere,) = plans(*steps(30, "training.checkpoint.every=5", "training.batch.micro=4"))
    assert find_extension(elsewhere, root) is not None
    (shorter,) = plans(*steps(10))
    assert find_extension(shorter, root) is None


def test_another_store_is_another_order(plans: MakePlans, tmp_path: Path) -> None:
    (short,) = plans("training.tokens=null", "data.train_tokens=10k", *CONSTANT)
    finish(short, tmp_path / "runs")
    (long,) = plans("training.tokens=null", "data.train_tokens=20k", *CONSTANT)
    found = find_extension(long, tmp_path / "runs")
    assert found is not None
    assert found.go_on_from == 0
    assert "another order" in found.obstacle


def test_the_longest_finished_run_counts_and_damaged_ones_do_not(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for number in (10, 20, 15):
        finish(plans(*steps(number))[0], root)
    write_atomically(root / "small-pd-damaged" / "plan.json", "{")
    found = find_extension(plans(*steps(30))[0], root)
    assert found is not None
    assert found.steps == 20


def test_without_a_teacher_the_objective_does_not_matter(plans: MakePlans, tmp_path: Path) -> None:
    lm = ("objective.alpha=0", CONSTANT[0])
    finish(plans(*steps(20, *lm))[0], tmp_path / "runs")
    (long,) = plans(*steps(30, *lm, "objective.temperature=2", "teacher.truncation.top_k=5"))
    found = find_extension(long, tmp_path / "runs")
    assert found is not None
    assert found.go_on_from == 20


def test_plan_and_submit_say_it_with_its_code(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    finish(plans(*steps(20))[0], root)
    chosen = ("--root", str(root), "-v", "pd", *(each for field in steps(30) for each in ("--set", field)))
    planned = pdforge("plan", str(recipe), *chosen)
    assert planned.returncode == 0, planned.stderr
    assert "warning[PD171]" in planned.stdout
    assert "has trained 20 of these 30 steps" in planned.stdout
    assert "going on from step 16: the learning rate follows wsd" in planned.stdout
    assert "PD171" in pdforge("plan", str(recipe), *chosen, "--json").stdout
    assert TOPICS["PD171"].title in pdforge("explain", "PD171").stdout
    answered = recipe.with_name("answered.yaml")
    answered.write_text(
        "extends: small.yaml\ntraining: {steps: 30, tokens: null}  # pdforge: ignore[PD171] because so\n"
    )
    silent = pdforge("plan", str(answered), "--root", str(root), "-v", "pd")
    assert silent.returncode == 0, silent.stderr
    assert "30 steps" in silent.stdout
    assert "PD171" not in silent.stdout
    assert "PD011" not in silent.stdout


def test_a_finished_plan_says_nothing(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for number in (20, 30):
        finish(plans(*steps(number))[0], root)
    assert advice(plans(*steps(30))[0], root) == []


TEN_MINUTES = CPU.model_copy(update={"name": "cluster", "executor": "slurm", "walltime": 600})


def messages(plan: Plan, root: Path) -> list[tuple[str, str, str]]:
    return [(each.code, each.field, each.message) for each in advice(plan, root)]


def test_checkpoints_by_time_are_due_before_a_job_ends(plans: MakePlans, tmp_path: Path) -> None:
    (late,) = plans("training.checkpoint.interval=30m", profile=TEN_MINUTES)
    ((code, field, message),) = messages(late, tmp_path / "runs")
    assert (code, field) == ("PD170", "training.checkpoint.interval")
    assert "30 min 00 s" in message
    assert "10 min 00 s" in message
    assert messages(plans("training.checkpoint.interval=5m", profile=TEN_MINUTES)[0], tmp_path / "runs") == []
    assert messages(plans("training.checkpoint.interval=30m")[0], tmp_path / "runs") == []  # nothing ends a local job


@pytest.mark.parametrize(("seconds", "found"), [(50.0, False), (70.0, True)])
def test_checkpoints_by_steps_are_judged_once_a_step_has_been_timed(
    plans: MakePlans, tmp_path: Path, seconds: float, *, found: bool
) -> None:
    root = tmp_path / "runs"
    (plan,) = plans(profile=TEN_MINUTES)
    assert messages(plan, root) == []
    teacher = plan.stage("pretrain-teacher")
    assert teacher is not None
    write_json(StageDirectory(root / teacher.directory).progress, {"tokens_per_second": BATCH / seconds})
    expected = [("PD170", "teacher.model.training.checkpoint.every")] if found else []
    assert [each[:2] for each in messages(plan, root)] == expected  # every 10 steps, in 600 s
    write_json(StageDirectory(root / teacher.directory).done, {"results": {}})
    assert messages(plan, root) == []


@pytest.mark.parametrize("progress", ["", "[]", "{}", '{"tokens_per_second": null}', '{"tokens_per_second": "x"}'])
def test_progress_that_says_nothing_is_no_measurement(plans: MakePlans, tmp_path: Path, progress: str) -> None:
    (plan,) = plans(profile=TEN_MINUTES)
    stage = plan.stage("train")
    assert stage is not None
    write_atomically(StageDirectory(tmp_path / "runs" / stage.directory).progress, progress)
    assert messages(plan, tmp_path / "runs") == []


def test_submit_says_it_before_it_submits(
    plans: MakePlans, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    finish(plans(*steps(20))[0], root)
    teacher = plans(*steps(30))[0].stage("pretrain-teacher")
    assert teacher is not None
    write_json(StageDirectory(root / teacher.directory).progress, {"tokens_per_second": BATCH / 70})
    write_atomically(tmp_path / "pdforge" / "clusters.yaml", "brief: {executor: slurm, walltime: 10m}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    chosen = ("--root", str(root), "-v", "pd", *(each for field in steps(30) for each in ("--set", field)))
    submitted = pdforge("submit", str(recipe), *chosen, "--cluster", "brief", "--dry-run")
    assert submitted.returncode == 0, submitted.stderr
    assert "#SBATCH" in submitted.stdout
    assert [line.split(":")[0] for line in submitted.stderr.splitlines() if line.startswith("warning")] == [
        "warning[PD170]",
        "warning[PD171]",
    ]
    assert "a job of profile brief ends after 10 min 00 s" in submitted.stderr

"""What plan and submit say beside the recipe's own findings: time limits and finished runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.layout import StageDirectory, write_atomically, write_json
from pdforge.plan.advice import Advice, advice
from pdforge.plan.jobs import CaptureJob, EvaluateJob
from pdforge.plan.memory import capture_memory
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.rules import TOPICS
from tests.plan.conftest import CPU, MakePlans
from tests.plan.test_commands import pdforge
from tests.plan.test_extension import HALF_THE_WARMUP, finish, steps

BATCH = 8 * 64
"""Tokens of a step."""


def test_plan_and_submit_say_it_with_its_code(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    finish(plans(*steps(20))[0], root)
    longer = steps(40, *HALF_THE_WARMUP)
    chosen = ("--root", str(root), "-v", "pd", *(each for field in longer for each in ("--set", field)))
    planned = pdforge("plan", str(recipe), *chosen)
    assert planned.returncode == 0, planned.stderr
    assert "warning[PD171]" in planned.stdout
    said = " ".join(planned.stdout.split())
    assert "has trained 20 of these 40 steps, and the learning rate (wsd) differs from step 18 on" in said
    assert "`student: {extend: true}` goes on from step 17" in said
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


def test_a_step_to_be_evaluated_whose_checkpoint_is_gone(plans: MakePlans, tmp_path: Path) -> None:
    """It keeps nothing that is measured already from being planned."""
    root, at = tmp_path / "runs", "evaluate={at: [5, 17]}"
    (plan,) = plans(*steps(20), at)
    assert advice(plan, root) == []
    finish(plan, root, checkpoints=(17, 20))
    [gone] = advice(plan, root)
    assert (gone.code, gone.field, gone.help) == ("PD175", "evaluate.at.0", "it has 17, 20")
    assert "the checkpoint of step 5 is gone" in gone.message
    measured = next(s for s in plan.stages if isinstance(s.job, EvaluateJob) and s.job.at == 5)
    write_json(StageDirectory(root / measured.directory).done, {})
    assert advice(plan, root) == []


def test_a_step_to_be_evaluated_that_a_shorter_run_trained(plans: MakePlans, tmp_path: Path) -> None:
    root, constant = tmp_path / "runs", "training.learning_rate_schedule={schedule: constant, warmup: 0}"
    alone = (constant, "objective.alpha=0.9")
    finish(plans(*steps(20, *alone))[0], root)
    (plan,) = plans(*steps(40, *alone), "student.extend=true", "evaluate={at: [20, 21]}")
    [gone] = [each for each in advice(plan, root) if each.code == "PD175"]
    assert gone.field == "evaluate.at.0"
    assert "goes on from step 20 of small-pd-" in gone.message


def test_a_capture_that_no_gpu_holds_is_found_with_its_remedy(plans: MakePlans, tmp_path: Path) -> None:
    """A wide teacher of a thin student: of the two it is the capture that is too large."""
    wide = "teacher.model.architecture={hidden: 1024, ffn: 200000, layers: 2, heads: 4}"
    batches = ("training.batch={global: 8, micro: 8}", "teacher.model.training.batch={global: 8, micro: 8}")

    def found(megabytes: int, *more: str) -> list[Advice]:
        gpu = Profile(name="gpu", device="cuda", gpu_memory=f"{megabytes}MB", peak_flops=1e14)
        [plan] = plans(wide, *batches, *more, variants=("pd",), profile=gpu)
        return [each for each in advice(plan, tmp_path) if "capture" in each.message]

    job = next(stage.job for stage in plans(wide, *batches, variants=("pd",))[0].stages if stage.kind == "capture")
    assert isinstance(job, CaptureJob)
    memory = capture_memory(job)
    assert memory is not None
    needs = memory.total // 10**6
    assert found(2 * needs) == []
    [tight] = found(needs + 1)
    assert (tight.code, tight.field) == ("PD172", "teacher.model.training.batch.micro")
    assert "8 sequences at once" in tight.message
    assert tight.help.startswith("fits with teacher.model.training.batch.micro=")
    smaller = tight.help.removeprefix("fits with ")
    assert found(needs + 1, smaller) == []
    assert found(needs // 3)[0].code == "PD173"

"""Several teachers, for real: a second one without weight changes no bit, a kill in the middle does not either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import TrainJob
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from tests.stages.conftest import TINY, TinyRun, pdforge, rows, steps

pytestmark = pytest.mark.slow


def test_a_teacher_of_weight_zero_changes_no_bit_and_training_resumes(tiny: TinyRun, tmp_path: Path) -> None:
    teacher = tiny.plans["pd"].recipe.teacher
    assert teacher is not None
    first = teacher.model_dump(mode="json", by_alias=True)
    # less of the same store: nothing is captured again
    keep = {**first["truncation"]}
    second = {
        **first,
        "weight": 0.0,
        "truncation": {**first["truncation"], "top_k": 20},
        "logits": {**first["logits"], "keep": keep},
    }
    recipe, root = tmp_path / "several.yaml", tmp_path / "runs"
    listed = [{**first, "weight": 1.0}, second]
    head = f"recipe: several\nextends: {TINY}\nvariants: null\nteacher: null\n"
    recipe.write_text(f"{head}teachers: {json.dumps(listed)}\n")
    for name in ("tokens", "teachers", "logits"):
        shutil.copytree(tiny.root / name, root / name)
    [plan] = make_plans(load_recipes(str(recipe)), local_profile(2), root)
    job, alone = plan.training.job, tiny.stage("pd", "train")
    assert isinstance(job, TrainJob)
    assert job.also[0].logits == job.logits
    pdforge("run", recipe, "--root", root, "--processes", "2")
    stage = StageDirectory(root / plan.training.directory)
    straight = rows(stage)
    assert all(row.pop("kd_loss_1") == row["kd_loss"] and row.pop("kd_loss_2") > 0 for row in steps(straight))
    assert straight == rows(alone)

    before = rows(stage)
    stage.done.unlink()
    shutil.rmtree(stage.checkpoint(job.steps))
    pdforge("run", recipe, "--root", root, "--processes", "2")
    assert len(stage.all_attempts()) == 2
    assert rows(stage) == before

"""A chain of teachers, for real: the teacher of the tiny run teaches an assistant, and that the student."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from tests.stages.conftest import TINY, TinyRun, pdforge, results, rows, steps

pytestmark = pytest.mark.slow

CHAIN = f"""\
recipe: chain
extends: {TINY}
variants: null
training: {{steps: 6}}
teacher:
  model:
    kind: distilled
    architecture: {{family: llama3, hidden: 32, ffn: 64, layers: 1, heads: 4}}
    objective: {{temperature: 2.0, alpha: 0.5}}
    training:
      steps: 19
      batch: {{global: 16, micro: 4}}
      optimizer: {{learning_rate: 1.0e-2}}
      precision: float32
      log_every: 1
      loss_chunks: 4
      checkpoint: {{every: 5}}
    teacher:
      model: MODEL
      logits: {{shard_sequences: 32}}
      truncation: {{top_p: 0.95, top_k: 50}}
"""


def test_each_of_a_chain_learns_of_the_one_above(tiny: TinyRun, tmp_path: Path) -> None:
    top = tiny.plans["pd"].recipe.teacher
    assert top is not None
    recipe, root = tmp_path / "chain.yaml", tmp_path / "runs"
    recipe.write_text(CHAIN.replace("MODEL", top.model.model_dump_json(by_alias=True)))
    for name in ("tokens", "teachers", "logits"):
        shutil.copytree(tiny.root / name, root / name)
    output = pdforge("run", recipe, "--root", root, "--processes", "2").stdout
    [plan] = make_plans(load_recipes(str(recipe)), local_profile(2), root)
    # what the tiny run left serves here: same identities
    assert [stage.identity for stage in plan.stages[:3]] == [s.identity for s in tiny.plans["pd"].stages[:3]]
    _, _, _, assistant, capture, train = (StageDirectory(root / stage.directory) for stage in plan.stages)
    taught = steps(rows(assistant))
    assert [row["alpha"] for row in taught] == [0.5] * 19
    assert taught[-1]["kd_loss"] < taught[0]["kd_loss"]
    assert results(assistant)["heldout_loss"] < math.log(512)
    # the student's distributions are those of the assistant's last weights
    assert results(capture)["teacher_heldout_loss"] == pytest.approx(results(assistant)["heldout_loss"], rel=1e-4)
    assert len(steps(rows(train))) == 6
    assert "assistant" in output

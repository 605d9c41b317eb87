"""`evaluate` on a real, tiny student: what it measures, and that it goes on at the first missing measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.evaluation import harness
from pdforge.layout import HUGGINGFACE, StageDirectory
from pdforge.plan.jobs import EvaluateJob
from pdforge.stages import evaluate, stop
from pdforge.stages.entry import read_job
from tests.stages.conftest import TINY_FULL, TinyRun, pdforge, results

pytestmark = pytest.mark.slow

TASK = "pdforge_python_names"


def test_results(full: TinyRun) -> None:
    found = results(full.stage("pd", "evaluate"))
    finetuned = results(full.stage("pd", "finetune"))
    # measured by other code on other batches
    assert found["heldout_loss"] == pytest.approx(finetuned["heldout_loss"], rel=1e-5)
    assert 0 < found["ece"] < 1
    assert 0 < found["answer_loss"] < 7
    assert found["tasks"][TASK]["samples"] == 20
    assert 0 <= found["tasks"][TASK]["value"] <= 1
    assert found["tasks"][TASK]["stderr"] > 0


def test_report_and_card_show_them(full: TinyRun) -> None:
    found = results(full.stage("pd", "evaluate"))
    card = (full.stage("pd", "export").output / HUGGINGFACE / "README.md").read_text()
    assert f"| {TASK} | {found['tasks'][TASK]['value']:.4f} ± " in card
    shown = pdforge("report", TINY_FULL, "--variant", "pd", "--root", full.root, "--json").stdout
    [run] = json.loads(shown)["runs"]
    assert run["metrics"][TASK]["value"] == pytest.approx(100 * found["tasks"][TASK]["value"])
    assert run["metrics"]["ece"]["value"] == found["ece"]


def test_it_goes_on_behind_what_is_measured(full: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = read_job(full.stage("pd", "evaluate"))
    assert isinstance(job, EvaluateJob)
    job = job.model_copy(update={"output": str(tmp_path / "output")})
    monkeypatch.setattr(stop, "requested", lambda: len(list(tmp_path.glob("output/*.json"))) == 2)
    assert evaluate.run(job, StageDirectory(tmp_path), 0, 1) == "stopped"
    monkeypatch.undo()
    monkeypatch.setattr(evaluate, "heldout", None)  # measured: must not be called again
    opened = []
    monkeypatch.setattr(harness, "open_model", lambda *_, **__: opened.append(1))
    monkeypatch.setattr(
        harness.Harness, "score", lambda *_, **__: harness.Score("acc,none", 0.5, 0.1, True, 20, {"acc,none": 0.5})
    )
    found = evaluate.run(job, StageDirectory(tmp_path), 0, 1)
    assert isinstance(found, dict)
    straight = results(full.stage("pd", "evaluate"))
    assert (found["heldout_loss"], found["answer_ece"]) == (straight["heldout_loss"], straight["answer_ece"])
    assert found["tasks"][TASK]["value"] == 0.5
    assert opened == [1]

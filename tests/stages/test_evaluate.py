"""`evaluate` on a real, tiny student: what it measures, and that it goes on at the first missing measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.layout import HUGGINGFACE, StageDirectory
from pdforge.plan.jobs import EvaluateJob
from pdforge.stages import evaluate, stop
from pdforge.stages.entry import read_job
from tests.stages.conftest import TINY_FULL, TinyRun, pdforge, results

pytestmark = pytest.mark.slow

ZERO, ONE = "pdforge_python_names", "names, shown one"


def test_results(full: TinyRun) -> None:
    found = results(full.stage("pd", "evaluate"))
    finetuned = results(full.stage("pd", "finetune"))
    # measured by other code on other batches
    assert found["heldout_loss"] == pytest.approx(finetuned["heldout_loss"], rel=1e-5)
    assert 0 < found["ece"] < 1
    for name, shots in ((ZERO, 0), (ONE, 1)):
        row = found["tasks"][name]
        assert (row["task"], row["shots"], row["samples"]) == (ZERO, shots, 20)
        assert 0 <= row["value"] <= 1
        assert row["stderr"] == pytest.approx((row["value"] * (1 - row["value"]) / 19) ** 0.5)


def test_report_and_card_show_them(full: TinyRun) -> None:
    found = results(full.stage("pd", "evaluate"))
    card = (full.stage("pd", "export").output / HUGGINGFACE / "README.md").read_text()
    assert f"| {ONE} | {found['tasks'][ONE]['value']:.4f} ± {found['tasks'][ONE]['stderr']:.4f} (acc, 20 " in card
    percent = f"{100 * found['tasks'][ONE]['value']:.1f} ± {100 * found['tasks'][ONE]['stderr']:.1f}"
    assert percent in full.output
    shown = pdforge("report", TINY_FULL, "--variant", "pd", "--root", full.root, "--json").stdout
    [run] = json.loads(shown)["runs"]
    assert run["metrics"][ONE]["value"] == pytest.approx(100 * found["tasks"][ONE]["value"])
    assert run["metrics"]["ece"]["value"] == found["ece"]
    # what the recipe expects of a task stands beside it
    [row] = json.loads(shown)["comparison"]["expected"]
    assert (row["metric"], row["ours"]) == (ONE, pytest.approx(100 * found["tasks"][ONE]["value"]))


def test_a_step_before_the_end_is_measured_too(full: TinyRun) -> None:
    """Named when the run is finished, of a checkpoint that it still has: the student is not trained again."""
    at = ("--set", "evaluate.at=[15]")
    expect = ("--set", f"expect=[{{source: guessing, step: 15, values: {{{ZERO}: 25}}}}]")
    chosen = (TINY_FULL, "--variant", "pd", "--root", full.root, "--processes", "2", *at, *expect)
    trained = full.stage("pd", "train").done.stat().st_mtime_ns
    assert "Tasks before the end" in pdforge("run", *chosen).stdout
    assert full.stage("pd", "train").done.stat().st_mtime_ns == trained
    shown = json.loads(pdforge("report", *chosen, "--json").stdout)
    [run], [row] = shown["runs"], shown["comparison"]["expected"]
    finished = results(full.stage("pd", "evaluate"))["tasks"][ZERO]["value"]
    assert run["metrics"][ZERO]["value"] == pytest.approx(100 * finished)
    assert (row["step"], row["ours"]) == (15, run["at_steps"]["15"][ZERO]["value"])
    [earlier] = full.root.glob("*/export-*-at-15")
    card = (StageDirectory(earlier).output / HUGGINGFACE / "README.md").read_text()
    assert ZERO in card


def test_it_goes_on_behind_what_is_measured(full: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped behind its first task, it measures the second alone, and ends with the same bits."""
    job = read_job(full.stage("pd", "evaluate"))
    assert isinstance(job, EvaluateJob)
    job = job.model_copy(update={"output": str(tmp_path / "output")})
    monkeypatch.setattr(stop, "requested", lambda: len(list(tmp_path.glob("output/*.json"))) == 3)
    assert evaluate.run(job, StageDirectory(tmp_path), 0, 1) == "stopped"
    monkeypatch.undo()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("output/*.json")}
    assert [json.loads(file.read_text())["name"] for file in sorted(before)][2] == ZERO
    found = evaluate.run(job, StageDirectory(tmp_path), 0, 1)
    assert isinstance(found, dict)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert {**found, "seconds": 0} == {**results(full.stage("pd", "evaluate")), "seconds": 0}

"""Reports of run directories made by hand."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pdforge.errors import UsageError
from pdforge.layout import StageDirectory, write_json
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.recipe.load import load_recipes
from pdforge.report.curves import draw_curves
from pdforge.report.results import metric_rows, stage_results
from pdforge.report.summary import captures, print_summary, summarise
from tests.plan.conftest import CPU, RECIPE

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("text\n")
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE.replace("CORPUS", str(tmp_path / "corpus.txt")))
    return file


@pytest.fixture
def plans(recipe: Path, root: Path) -> Iterator[list[Plan]]:
    """Plans of `lm` and `pd`; the test says which stages are done."""
    return make_plans(load_recipes(str(recipe)), CPU, root)


def finish(root: Path, plan: Plan, kind: str, **results: float) -> None:
    stage = next(stage for stage in plan.stages if stage.kind == kind)
    write_json(StageDirectory(root / stage.directory).done, {"results": results})


def finish_all(root: Path, plans: list[Plan]) -> None:
    lm, pd = plans
    finish(root, pd, "pretrain-teacher", heldout_loss=2.0, steps=19, tokens=9728, seconds=61.4)
    finish(root, pd, "capture", teacher_heldout_loss=2.0, kept_mass=0.951, kept_count=12.34)
    finish(root, lm, "train", heldout_loss=2.5, steps=23, tokens=11776, seconds=30)
    finish(root, pd, "train", heldout_loss=2.375, steps=23, tokens=11776, seconds=42)


def log(root: Path, plan: Plan, text: str) -> Path:
    file = StageDirectory(root / plan.stages[-1].directory).metrics
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def rows(*steps: int, loss: float = 3.0) -> str:
    return "".join(
        json.dumps({"step": s, "tokens": s * 512, "loss": loss, "lm_loss": loss - s / 100, "kd_loss": None}) + "\n"
        for s in steps
    )


def printed(plans: list[Plan], root: Path) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_summary(plans, root, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary(plans: list[Plan], root: Path) -> None:
    finish_all(root, plans)
    teacher, lm, pd = summarise(plans, root)
    assert (teacher.role, teacher.heldout_loss, teacher.delta) == ("teacher", 2.0, None)
    assert (lm.model, lm.heldout_loss, lm.delta) == ("lm", 2.5, None)
    assert (pd.model, pd.heldout_loss, pd.delta) == ("pd", 2.375, -0.125)
    assert teacher.parameters == plans[1].figures.teacher.parameters  # type: ignore[union-attr]
    [capture] = captures(plans, root)
    assert (capture.kept_count, capture.kept_mass) == (12.34, 0.951)
    text = printed(plans, root)
    assert "-0.1250" in text
    assert "1 min 01 s" in text
    assert "12.3 entries a position, 95.1 %" in text


def test_unfinished_runs_have_no_result(plans: list[Plan], root: Path) -> None:
    finish(root, plans[1], "train", heldout_loss=2.375, steps=23, tokens=11776, seconds=42)
    teacher, lm, pd = summarise(plans, root)
    assert (teacher.heldout_loss, lm.heldout_loss, pd.heldout_loss) == (None, None, 2.375)
    assert pd.delta is None  # nothing to compare with yet
    assert printed(plans, root).count("not yet") == 2


def test_a_teacher_from_elsewhere_has_its_loss_from_the_capture(plans: list[Plan], root: Path) -> None:
    finish(root, plans[1], "capture", teacher_heldout_loss=1.9, kept_mass=0.9, kept_count=9.0)
    assert summarise(plans, root)[0].heldout_loss == 1.9


def test_damaged_results_are_named(plans: list[Plan], root: Path) -> None:
    finish_all(root, plans)
    directory = root / plans[0].stages[-1].directory
    for text in ('{"results": {"heldout', "[]", '{"results": 3}'):
        StageDirectory(directory).done.write_text(text)
        with pytest.raises(UsageError, match=r"done\.json is damaged"):
            stage_results(directory)


def test_metrics_after_a_restart_and_a_torn_line(plans: list[Plan], root: Path) -> None:
    file = log(root, plans[0], rows(1, 2, 3) + rows(2, 3, 4, loss=9.0) + '{"step": 5, "lo')
    directory = file.parent
    assert [row["step"] for row in metric_rows(directory)] == [1, 2, 3, 4]
    assert [row["loss"] for row in metric_rows(directory)] == [3.0, 9.0, 9.0, 9.0]
    log(root, plans[0], rows(1) + "garbage\n" + rows(2))
    with pytest.raises(UsageError, match="line 2"):
        metric_rows(directory)


def test_curves(plans: list[Plan], root: Path, tmp_path: Path) -> None:
    assert draw_curves(plans, root, tmp_path / "report") == []
    assert not (tmp_path / "report").exists()
    finish_all(root, plans)
    log(root, plans[0], rows(1, 2, 3))
    log(
        root, plans[1], rows(1, 2) + json.dumps({"step": 3, "tokens": 1536, "lm_loss": 2.0, "heldout_loss": 2.4}) + "\n"
    )
    png, svg = draw_curves(plans, root, tmp_path / "report")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert text.count("<!-- lm -->") == 1
    assert text.count("<!-- pd -->") == 1
    assert "teacher, held out" in text


def report(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pdforge", "report", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=120, check=False
    )


def test_command(plans: list[Plan], recipe: Path, root: Path) -> None:
    finish_all(root, plans)
    log(root, plans[0], rows(1, 2, 3))
    shown = report(str(recipe), "--root", str(root), "-n", "1", "--json")
    assert shown.returncode == 0, shown.stderr
    page = json.loads(shown.stdout)
    assert [row["model"] for row in page["models"]] == ["teacher", "lm", "pd"]
    assert page["models"][2]["delta"] == -0.125
    assert [Path(file).relative_to(root).as_posix() for file in page["curves"]] == [
        "small-report/loss.png",
        "small-report/loss.svg",
    ]


def test_command_without_matplotlib(plans: list[Plan], recipe: Path, root: Path, tmp_path: Path) -> None:
    finish_all(root, plans)
    log(root, plans[0], rows(1, 2, 3))
    broken = tmp_path / "path" / "matplotlib"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('not here')\n")
    shown = report(str(recipe), "--root", str(root), "-n", "1", PYTHONPATH=str(broken.parent))
    assert shown.returncode == 0, shown.stderr
    assert "pip install matplotlib" in shown.stdout
    assert "-0.1250" in shown.stdout

"""Reports of run directories made by hand."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pdforge.errors import ExitCode, UsageError
from pdforge.layout import StageDirectory, write_json
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.recipe.load import load_recipes
from pdforge.report.compare import Comparison, Difference, Group
from pdforge.report.curves import draw_curves
from pdforge.report.forms.data import to_json
from pdforge.report.forms.terminal import print_tables
from pdforge.report.gather import gather
from pdforge.report.model import HELDOUT, Curve, Metric
from pdforge.report.results import metric_rows, stage_results
from pdforge.report.tables import describe_state, tables
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
    finish(root, pd, "capture", teacher_heldout_loss=2.0, kept_mass=0.951, kept_count=12.34, bytes=20_000_000)
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


def printed(plans: list[Plan], root: Path, baseline: str | None = None) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_tables(tables(Comparison(gather(plans, root), baseline)), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_results(plans: list[Plan], root: Path) -> None:
    finish_all(root, plans)
    results = gather(plans, root)
    [teacher], [store] = results.teachers, results.stores
    assert (teacher.name, teacher.heldout_loss) == ("teacher", 2.0)
    assert teacher.parameters == plans[1].figures.teacher.parameters  # type: ignore[union-attr]
    assert (store.kept_count, store.kept_mass, store.bytes) == (12.34, 0.951, 20_000_000)
    assert [(run.name, run.state, run.metrics[HELDOUT].value) for run in results.runs] == [
        ("lm", "done", 2.5),
        ("pd", "done", 2.375),
    ]
    comparison = Comparison(results)
    lm, pd = comparison.groups
    assert comparison.difference(lm, HELDOUT) is None
    assert comparison.difference(pd, HELDOUT) == Difference(-0.125, None, "")
    text = printed(plans, root)
    assert "-0.1250" in text
    assert "95.1 %" in text
    assert "20 MB" in text
    assert "no run was repeated" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_only_what_differs_in_its_seed_is_a_repetition(recipe: Path, root: Path) -> None:
    def planned(*overrides: str) -> Plan:
        [plan] = make_plans(load_recipes(str(recipe), variants=["pd"], overrides=overrides), CPU, root)
        return plan

    again = planned("training.seed=1", "training.batch.micro=1", "training.log_every=2")
    hotter = planned("objective.temperature=3")
    runs = gather([planned(), hotter, again], root).runs
    assert runs[0].group == runs[2].group != runs[1].group
    assert len({run.name for run in runs}) == 3
    assert runs[1].name == hotter.directory


def test_unfinished_runs_are_rows_without_a_result(plans: list[Plan], root: Path) -> None:
    assert printed(plans, root).count("not yet") == 3  # nothing has begun
    finish(root, plans[1], "train", heldout_loss=2.375, steps=23, tokens=11776, seconds=42)
    log(root, plans[0], rows(1, 2, 3))
    results = gather(plans, root)
    assert [run.metrics for run in results.runs] == [{}, {HELDOUT: Metric(value=2.375)}]
    assert Comparison(results).difference(Comparison(results).groups[1], HELDOUT) is None  # nothing to compare with
    assert printed(plans, root).count("not yet") == 2


def test_a_run_under_way_says_how_far_it_is(plans: list[Plan], root: Path) -> None:
    run = gather(plans, root).runs[0]
    half = Curve(tokens=[run.tokens // 2], values=[3.0])  # type: ignore[operator]
    running = Group("lm", (run, run.model_copy(update={"state": "running", "loss": half})))
    assert describe_state(running) == "running 50 %"
    assert describe_state(Group("lm", (run.model_copy(update={"state": "failed"}),))) == "failed"


def test_a_teacher_from_elsewhere_has_its_loss_from_the_capture(plans: list[Plan], root: Path) -> None:
    finish(root, plans[1], "capture", teacher_heldout_loss=1.9, kept_mass=0.9, kept_count=9.0)
    assert gather(plans, root).teachers[0].heldout_loss == 1.9


def test_hours_are_those_of_all_attempts(plans: list[Plan], root: Path) -> None:
    stage = StageDirectory(root / plans[0].training.directory)
    for number, (started, ended) in enumerate([(1000.0, 1600.0), (2000.0, 3200.0)], start=1):
        record = {"executor": "local", "processes": 2, "master_address": "", "master_port": 1, "high_water": 0}
        write_json(stage.attempt(number).record, {**record, "started": started})
        process = {"host": "elsewhere", "pid": 1, "started": 1}
        rank = {"rank": 0, "process": process, "state": "done", "started": started, "ended": ended}
        write_json(stage.attempt(number).rank_record(0), rank)
    assert gather(plans, root).runs[0].device_hours == pytest.approx(2 * (600 + 1200) / 3600)


def test_what_is_not_finite_is_not_known(plans: list[Plan], root: Path) -> None:
    finish(root, plans[0], "train", heldout_loss=float("nan"), ece=float("inf"), steps=2, tokens=1024, seconds=3)
    log(root, plans[0], rows(1) + rows(2, loss=float("nan")))
    results = gather(plans, root)
    assert results.runs[0].metrics == {}
    assert results.runs[0].loss == Curve(tokens=[512], values=[2.99])
    assert "no result" in printed(plans, root)
    assert "NaN" not in to_json(Comparison(results))


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
    assert draw_curves(gather(plans, root), tmp_path / "report") == []
    assert not (tmp_path / "report").exists()
    finish_all(root, plans)
    log(root, plans[0], rows(1, 2, 3))
    log(
        root, plans[1], rows(1, 2) + json.dumps({"step": 3, "tokens": 1536, "lm_loss": 2.0, "heldout_loss": 2.4}) + "\n"
    )
    png, svg, _, schedules = draw_curves(gather(plans, root), tmp_path / "report")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert text.count("<!-- lm -->") == 1
    assert text.count("<!-- pd -->") == 1
    assert "teacher, held out" in text
    assert all(f"<!-- {word} -->" in schedules.read_text() for word in ("α", "τ", "learning rate", "lm, pd"))


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
    assert [run["name"] for run in page["runs"]] == ["lm", "pd"]
    assert page["comparison"]["groups"][1]["metrics"]["heldout_loss"]["delta"] == -0.125


def test_every_form_can_be_made_again_from_the_json(plans: list[Plan], recipe: Path, root: Path) -> None:
    finish_all(root, plans)
    log(root, plans[0], rows(1, 2, 3))
    out = root.parent / "out"
    shown = report(str(recipe), "--root", str(root), "-n", "1", "--out", str(out))
    assert shown.returncode == 0, shown.stderr
    suffixes = {"md", "csv", "json", "html"}
    assert {file.name for file in out.iterdir()} == {f"report.{suffix}" for suffix in suffixes} | {
        f"{name}.{suffix}" for name in ("loss", "schedules") for suffix in ("png", "svg")
    }
    for suffix, form in (("csv", "csv"), ("json", "json"), ("html", "html")):
        again = report(str(out / "report.json"), "--format", form)
        assert again.returncode == 0, again.stderr
        assert again.stdout == (out / f"report.{suffix}").read_text()
    again = report(str(out / "report.json"), "--out", str(out / "again"))
    assert "-0.1250" in again.stdout
    for name in ("report.md", "report.html", "loss.svg", "schedules.svg"):
        assert (out / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_a_file_of_results_beside_runs_that_are_here(plans: list[Plan], recipe: Path, root: Path) -> None:
    """Each run once, with its result wherever that is."""
    finish_all(root, plans)
    there = root.parent / "there.json"
    there.write_text(report(str(recipe), "--root", str(root), "-n", "1", "-f", "json").stdout)
    elsewhere = root.parent / "elsewhere"
    both = report(str(there), str(recipe), "--root", str(elsewhere), "-n", "1", "-f", "json")
    assert both.returncode == 0, both.stderr
    runs = json.loads(both.stdout)["runs"]
    assert [(one["name"], one["state"]) for one in runs] == [("lm", "done"), ("pd", "done")]


def test_another_baseline_and_a_name_that_is_none(plans: list[Plan], recipe: Path, root: Path) -> None:
    finish_all(root, plans)
    shown = report(str(recipe), "--root", str(root), "-n", "1", "--baseline", "pd", "-f", "csv")
    deltas = {row["name"]: row["heldout_loss_delta"] for row in csv.DictReader(io.StringIO(shown.stdout))}
    assert deltas == {"lm": "0.125", "pd": ""}
    wrong = report(str(recipe), "--root", str(root), "-n", "1", "--baseline", "dp")
    assert wrong.returncode == ExitCode.COULD_NOT_RUN
    assert "there are lm, pd" in wrong.stderr


def test_what_holds_no_results(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    for name, message in (("a.json", "holds no results of a report"), ("b.json", "cannot read")):
        shown = report(str(tmp_path / name))
        assert shown.returncode == ExitCode.COULD_NOT_RUN
        assert message in shown.stderr
        assert "Traceback" not in shown.stderr


def test_options_that_a_file_of_results_cannot_follow() -> None:
    file = "docs/report/quickstart.json"
    for options in (["--variant", "pd"], ["--set", "training.seed=1"]):
        shown = report(file, *options)
        assert shown.returncode == ExitCode.COULD_NOT_RUN
        assert f"{file} holds results" in shown.stderr.replace("\n", " ")
    shown = report(file, "--plan-vs-actual")
    assert shown.returncode == ExitCode.COULD_NOT_RUN
    assert f"--plan-vs-actual wants runs, and {file} is a file of results" in shown.stderr.replace("\n", " ")


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

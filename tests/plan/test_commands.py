"""The commands as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdforge.layout import StageDirectory, write_json
from pdforge.plan.find import find_plans, read_plan
from pdforge.plan.model import Plan
from tests.plan.conftest import CPU, MakePlans

REPOSITORY = Path(__file__).parents[2]


def pdforge(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}
    command = [sys.executable, *python, "-m", "pdforge", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=120, check=False
    )


def test_a_corpus_that_is_elsewhere_does_not_keep_a_recipe_from_being_planned(tmp_path: Path) -> None:
    shown = pdforge("plan", "pd_star", "--root", str(tmp_path), "-v", "1.9b")
    assert shown.returncode == 1, shown.stderr
    assert "11,921" in shown.stdout
    assert "1.87B" in shown.stdout
    assert "identities are provisional" in shown.stdout
    assert "corpus/*.jsonl.gz" in shown.stdout
    page = json.loads(pdforge("plan", "pd_star", "--root", str(tmp_path), "--json").stdout)
    assert len(page["unread"]) == 1
    refused = pdforge("run", "pd_star", "--root", str(tmp_path), "-v", "1.9b")
    assert refused.returncode == 2


def test_plan_page(recipe: Path, plans: MakePlans, tmp_path: Path) -> None:
    both = plans(variants=())
    root = tmp_path / "runs"
    write_json(StageDirectory(root / both[0].stages[0].directory).done, {"results": {}})
    shown = pdforge("plan", str(recipe), "--root", str(root), "-n", "1")
    assert shown.returncode == 0, shown.stderr
    assert "1 of 5 stages are done" in shown.stdout
    assert f"{both[1].directory}/train" in shown.stdout
    assert "1 data-parallel × micro batch 2 × 4 accumulated" in shown.stdout
    assert "0 at every step" in shown.stdout
    assert "0.9 at step 2," in shown.stdout
    assert "warning" not in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 100


def test_warnings_are_part_of_the_page(recipe: Path) -> None:
    shown = pdforge("plan", str(recipe), "-n", "1", "--set", "objective.temperature=7")
    assert shown.returncode == 0, shown.stderr
    assert "warning[PD151]" in shown.stdout


def test_the_size_of_a_published_logit_store() -> None:
    shown = pdforge("plan", "pd_star", "-n", "8", "--set", "data.corpus={kind: python-stdlib}")
    assert shown.returncode == 0, shown.stderr
    assert "3.35 TB" in shown.stdout  # 100B tokens × 22.3 entries × 12 bits


def test_plan_json_holds_the_plans(recipe: Path, plans: MakePlans, tmp_path: Path) -> None:
    shown = pdforge("plan", str(recipe), "--root", str(tmp_path / "runs"), "-n", "1", "--variant", "pd", "--json")
    page = json.loads(shown.stdout)
    [plan] = plans()
    assert [Plan.model_validate(one).stages for one in page["plans"]] == [plan.stages]
    assert page["done"] == []


def test_a_batch_that_does_not_fit_ends_with_the_way_out(recipe: Path) -> None:
    shown = pdforge("plan", str(recipe), "-n", "3")
    assert shown.returncode == 2
    assert "accepted: global 6 or 12" in shown.stderr.replace("\n", " ").replace("  ", " ")
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(("command", "code"), [("plan", 1), ("compile", 2)])
def test_a_missing_corpus_is_named(recipe: Path, tmp_path: Path, command: str, code: int) -> None:
    shown = pdforge(command, str(recipe), "--set", "data.corpus.path=nowhere/*.txt", "--root", str(tmp_path))
    assert shown.returncode == code
    assert "nowhere" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr


def test_compile_writes_every_open_stage(recipe: Path, plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    [plan] = plans()
    done = StageDirectory(root / plan.stages[0].directory)
    write_json(done.done, {"results": {}})
    shown = pdforge("compile", str(recipe), "--variant", "pd", "-n", "1", "--out", str(root))
    assert shown.returncode == 0, shown.stderr
    assert not done.job.exists()
    for stage in plan.stages[1:]:
        assert json.loads(StageDirectory(root / stage.directory).job_json.read_text())["identity"] == stage.identity


def test_plan_of_the_quickstart_imports_no_torch() -> None:
    shown = pdforge("plan", "recipes/quickstart.yaml", python=("-X", "importtime"))
    assert shown.returncode == 0, shown.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.stderr.splitlines() if "|" in line}
    assert "pydantic" in imported
    assert not imported & {"torch", "torchtitan", "tokenizers", "submitit", "matplotlib"}


def test_doctor(tmp_path: Path) -> None:
    shown = pdforge("doctor", "--json", "--root", str(tmp_path), python=("-X", "importtime"))
    report = json.loads(shown.stdout)
    assert shown.returncode == (0 if report["can_train"] else 2)
    assert {"python", "torch", "devices", "disk"} <= {check["name"] for check in report["checks"]}
    assert not any(line.rpartition("|")[2].strip() == "torch" for line in shown.stderr.splitlines())


def test_doctor_ends_with_2_where_nothing_can_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shown = pdforge("doctor", "--root", str(tmp_path / "file"))
    assert shown.returncode == 2
    assert "cannot be written" in " ".join(shown.stdout.split())


def test_a_run_is_found_by_name_and_by_path(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    [plan] = plans()
    root = tmp_path / "runs"
    folder = root / plan.directory
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.model_dump_json())
    assert read_plan(folder) == plan
    assert find_plans(plan.directory, root=root, profile=lambda: CPU) == [plan]
    assert find_plans(str(folder), root=root, profile=lambda: CPU) == [plan]
    assert find_plans(str(recipe), root=root, profile=lambda: CPU, variants=["pd"]) == [plan]


def test_a_damaged_plan_is_named(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans()
    folder = tmp_path / "runs" / plan.directory
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.model_dump_json()[:-20])
    shown = pdforge("report", plan.directory, "--root", str(tmp_path / "runs"))
    assert shown.returncode == 2
    assert "plan.json is damaged" in shown.stderr.replace("\n", " ")

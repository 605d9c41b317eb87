"""What is reviewed is what runs: `plan --out`, then `submit` of the folder, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "tiny.yaml"
PLAN_FILE = "saved-plan.json"


def pdforge(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    environment.pop("PDFORGE_ROOT", None)
    return subprocess.run(
        [sys.executable, "-m", "pdforge", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(TINY.read_text())
    (tmp_path / "clusters.yaml").write_text("two: {executor: slurm, nodes: 2}\none: {executor: slurm}\n")
    done = pdforge("plan", "recipe.yaml", "--cluster", "two", "--out", "reviewed", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pdforge submit reviewed" in done.stdout
    return tmp_path


def test_a_saved_plan_is_submitted_as_it_is(folder):
    done = pdforge("submit", "reviewed", "--dry-run", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("#!/bin/bash") == 5
    assert "#SBATCH --nodes=2" in done.stdout
    assert done.stdout == pdforge("submit", "recipe.yaml", "--cluster", "two", "--dry-run", folder=folder).stdout


def test_a_dry_run_for_programs_is_json(folder):
    done = pdforge("submit", "reviewed", "--dry-run", "--json", folder=folder)
    jobs = json.loads(done.stdout)
    assert len(jobs) == 5
    assert all(job["command"][0] == "sbatch" and job["script"].startswith("#!/bin/bash") for job in jobs)


def test_a_saved_plan_is_submitted_by_itself(folder):
    done = pdforge("submit", "recipe.yaml", "reviewed", "--dry-run", folder=folder)
    assert done.returncode == 2
    assert "a saved plan is submitted by itself" in done.stderr


def test_a_saved_plan_below_another_root_is_planned_for_it(folder):
    done = pdforge("submit", "reviewed", "--root", "elsewhere", "--dry-run", folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"root: {folder}/runs → {folder}/elsewhere" in done.stderr
    assert f"{folder}/runs" not in done.stdout
    assert done.stdout.count("#!/bin/bash") == 5


@pytest.mark.parametrize("option", [("--set", "training.steps=20"), ("--variant", "pd")])
def test_a_saved_plan_takes_no_other_science(folder, option):
    done = pdforge("submit", "reviewed", *option, "--dry-run", folder=folder)
    assert done.returncode == 2
    assert "reviewed is a saved plan" in done.stderr


def test_drift_of_recipe_profile_and_code_is_refused_with_the_difference(folder):
    recipe, profiles, saved = folder / "recipe.yaml", folder / "clusters.yaml", folder / "reviewed" / PLAN_FILE
    for file, old, new, shown in (
        (recipe, "steps: 19", "steps: 20", "recipe.training.steps: 19 → 20"),
        (profiles, "nodes: 2", "nodes: 2, walltime: 1h", "profile.walltime: 86400 → 3600"),
        (saved, '"code": "', '"code": "0', "pdforge's code: 0"),
    ):
        text = file.read_text()
        file.write_text(text.replace(old, new))
        done = pdforge("submit", "reviewed", "--dry-run", folder=folder)
        file.write_text(text)
        assert done.returncode == 2
        assert "what was planned has changed since" in done.stderr
        first = done.stderr.splitlines()[1]
        assert shown in first, "what follows from it stands below"
        assert "Traceback" not in done.stderr
    assert json.loads(saved.read_text())["cluster"] == "two"


def test_without_a_recipe_the_last_saved_plan_is_shown_and_confirmed(folder):
    refused = pdforge("submit", folder=folder)
    assert refused.returncode == 2
    assert "the plan that was saved last is" in refused.stderr
    assert "add --yes" in refused.stderr
    assert not list((folder / "runs").glob("tiny-*"))
    done = pdforge("submit", "--cluster", "one", "--dry-run", folder=folder)  # asks nothing: it does nothing
    assert done.returncode == 0, done.stderr
    assert "profile.nodes: 2 → 1" in done.stderr
    assert "#SBATCH --nodes=1" in done.stdout
    (folder / "clusters.yaml").write_text(f"one: {{executor: slurm, root: {folder}/disk}}\n")
    assert "has changed" not in pdforge("plan", "recipe.yaml", "--out", "again", folder=folder).stderr
    done = pdforge("submit", "--cluster", "one", "--dry-run", folder=folder)
    assert "Planned for local; for one it differs" in done.stderr
    assert f"root: {folder}/runs → {folder}/disk" in done.stderr, "where that profile keeps its runs"
    assert f"#SBATCH --chdir={folder}/disk/" in done.stdout


def test_a_dry_run_for_this_machine_starts_nothing(folder):
    done = pdforge("submit", "recipe.yaml", "--dry-run", folder=folder)
    assert done.returncode == 2
    assert "SLURM would get nothing" in done.stderr
    assert not list((folder / "runs").glob("tiny-*"))


def test_without_a_recipe_and_a_plan_there_is_nothing_to_submit(tmp_path):
    done = pdforge("submit", "--cluster", "slurm", folder=tmp_path)
    assert done.returncode == 2
    assert "pdforge plan RECIPE --out DIR" in done.stderr


def test_what_cannot_work_is_neither_saved_nor_submitted(tmp_path):
    """A micro batch that no GPU holds: the plan says so, and nothing of it gets any further."""
    (tmp_path / "recipe.yaml").write_text(TINY.read_text())
    gpus = "gpus: {executor: slurm, device: cuda, processes_per_node: 1, gpus_per_node: 1, gpu: H100}\n"
    (tmp_path / "clusters.yaml").write_text(gpus)
    large = ("--set", "training.batch={global: 8192, micro: 8192}", "--set", "student.architecture.layers=400")
    asked = ("recipe.yaml", "--variant", "lm", "--cluster", "gpus", "--set", "training.steps=1", *large)
    more = ("--set", "data.train_tokens=1M")
    planned = pdforge("plan", *asked, *more, "--out", "reviewed", folder=tmp_path)
    assert planned.returncode == 1, planned.stderr
    assert "error[PD173]" in planned.stdout
    assert "fits with training." in planned.stdout
    assert "not saved" in planned.stderr
    assert not (tmp_path / "reviewed").exists()
    submitted = pdforge("submit", *asked, *more, "--dry-run", folder=tmp_path)
    assert submitted.returncode == 1
    assert "PD173" in submitted.stderr
    assert "#!/bin/bash" not in submitted.stdout

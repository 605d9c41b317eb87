"""`pdforge diff`, as a process: what is judged, by which identities, and how it is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pdforge.layout import RunDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from tests.cli.pdforge_process import ROOT, pdforge
from tests.recipe.sound import SOUND, spoil

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "old.yaml").write_text(SOUND)
    (tmp_path / "new.yaml").write_text(
        spoil("peak: 0.9", "peak: 0.5", spoil("micro: 8}\n      c", "micro: 4}\n      c"))
    )
    return tmp_path


def _diff(*arguments: str, cwd: Path = ROOT) -> tuple[int, dict[str, Any]]:
    done = pdforge("diff", *arguments, "--format", "json", cwd=cwd)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def _fates(run: dict[str, Any]) -> dict[str, str]:
    return {stage["kind"]: stage["fate"] for stage in run["stages"]}


def test_another_temperature_reuses_the_logit_store(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    text = (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    copy.write_text(text.replace("temperature: 1.0", "temperature: 2.0"), encoding="utf-8")
    code, printed = _diff("quickstart", str(copy))
    assert (code, printed["changes_science"]) == (1, True)
    lm, pd = printed["runs"]
    assert _fates(pd) == {"tokenize": "reused", "pretrain-teacher": "reused", "capture": "reused", "train": "again"}
    assert [(f["field"], f["effect"], f["stages"]) for f in pd["fields"]] == [
        ("objective.temperature", "science", ["train"])
    ]
    assert pd["new_flops"] == pd["stages"][-1]["new"]["flops"]
    assert (lm["effect"], lm["new_flops"]) == ("resumable", 0)  # α is 0: no temperature is used
    shown = pdforge("diff", "quickstart", str(copy), "--variant", "pd").stdout
    assert re.search(r"^  logit store +reused ", shown, re.MULTILINE)


def test_another_sequence_length_does_not() -> None:
    code, printed = _diff("quickstart", "quickstart", "--set", "data.sequence_length=128", "--variant", "pd")
    assert code == 1
    assert set(_fates(printed["runs"][0]).values()) == {"again"}
    shown = pdforge("diff", "quickstart", "quickstart", "-s", "data.sequence_length=128", "-v", "pd").stdout
    assert re.search(r"^  logit store +captured again ", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("override", "effect", "stages"),
    [
        ("training.batch.micro=4", "resumable", []),
        ("training.checkpoint.every=10", "resumable", []),
        ("training.parallelism.tensor=2", "resumable", []),
        ("description=another", "resumable", []),
        ("recipe=another", "run", []),
        ("training.seed=7", "science", ["train"]),
        ("teacher.truncation.top_k=20", "science", ["capture", "train"]),
        ("objective.alpha=0", "science", ["pretrain-teacher", "capture", "train"]),
        ("student.architecture.hidden=64", "science", ["train"]),
        ("data.seed=1", "science", ["tokenize", "pretrain-teacher", "capture", "train"]),
    ],
)
def test_the_effect_of_a_field(override: str, effect: str, stages: list[str], here: Path) -> None:
    code, printed = _diff("old.yaml", "old.yaml", "--set", override, cwd=here)
    (run,) = printed["runs"]
    (change,) = run["fields"]
    assert (change["effect"], change["stages"]) == (effect, stages)
    assert run["effect"] == effect
    assert code == (1 if effect == "science" else 0)


def test_fields_that_only_make_sense_together_are_judged_together(here: Path) -> None:
    _, printed = _diff(
        "old.yaml", "old.yaml", "-s", "training.batch.global=6", "-s", "training.batch.micro=3", cwd=here
    )
    effects = {f["field"]: f["effect"] for f in printed["runs"][0]["fields"]}
    assert effects["training.batch.global"] == "science"


def test_no_difference(here: Path) -> None:
    done = pdforge("diff", "old.yaml", "old.yaml", cwd=here)
    assert (done.returncode, done.stdout) == (0, "small: no difference\n")


def test_variants_of_one_side_are_named() -> None:
    code, printed = _diff("pd_star", "pd_star", "--variant", "1.9b")
    assert (code, printed["removed"], printed["added"]) == (0, [], [])
    code, printed = _diff("quickstart", "pd_star")
    assert code == 1
    assert printed["removed"] == ["quickstart-lm", "quickstart-pd"]
    assert printed["added"] == ["pd_star-1.9b", "pd_star-3.8b", "pd_star-6.8b"]


@pytest.mark.parametrize("output", ["text", "markdown", "json"])
def test_snapshot(output: str, here: Path) -> None:
    done = pdforge("diff", "old.yaml", "new.yaml", "--format", output, cwd=here)
    assert done.returncode == 1
    printed = re.sub(r"\b[0-9a-f]{12}\b", "IDENTITY", done.stdout)
    snapshot = SNAPSHOTS / f"diff.{output}"
    if os.environ.get("PDFORGE_UPDATE_SNAPSHOTS"):
        snapshot.write_text(printed, encoding="utf-8")
    assert printed == snapshot.read_text(encoding="utf-8")


@pytest.fixture
def repository(here: Path) -> Path:
    """A git repository whose recipe extends another file, both changed since the commit."""
    (here / "recipes").mkdir()
    (here / "base.yaml").write_text(SOUND)
    (here / "recipes" / "mine.yaml").write_text("extends: ../base.yaml\nrecipe: mine\n")
    for command in (
        "init -q -b main",
        "add .",
        "-c user.name=a -c user.email=a@b -c commit.gpgsign=false commit -q -m one",
    ):
        subprocess.run(["git", *command.split()], cwd=here, check=True)
    (here / "base.yaml").write_text(spoil("temperature: 1.0", "temperature: 2.0"))
    return here


def test_a_git_revision_has_its_own_extended_files(repository: Path) -> None:
    before = subprocess.run(["git", "status", "--porcelain"], cwd=repository, capture_output=True, check=True).stdout
    code, printed = _diff("main:recipes/mine.yaml", "recipes/mine.yaml", cwd=repository)
    assert code == 1
    (change,) = printed["runs"][0]["fields"]
    assert (change["field"], change["old"], change["new"]) == ("objective.temperature", 1.0, 2.0)
    assert _diff("HEAD:./mine.yaml", "mine.yaml", cwd=repository / "recipes")[0] == 1
    after = subprocess.run(["git", "status", "--porcelain"], cwd=repository, capture_output=True, check=True).stdout
    assert before == after == b" M base.yaml\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere:recipes/mine.yaml", "no such revision"),
        ("main:recipes/yours.yaml", "main has no recipe 'recipes/yours.yaml'"),
        ("--output=x:recipes/mine.yaml", "no such revision"),
        ("yours.yaml", "no recipe 'yours.yaml'"),
    ],
)
def test_sides_that_are_not_there(source: str, said: str, repository: Path) -> None:
    done = pdforge("diff", "--", source, "recipes/mine.yaml", cwd=repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_mistake_in_a_revision_names_the_revision(repository: Path) -> None:
    (repository / "base.yaml").write_text(spoil("layers: 4", "layers: 0"))
    subprocess.run(["git", "stash", "-q"], cwd=repository, check=True, env={**os.environ, **AUTHOR})
    done = pdforge("diff", "stash@{0}:recipes/mine.yaml", "recipes/mine.yaml", cwd=repository)
    assert done.returncode == 2
    assert "--> stash@{0}:base.yaml:18:49" in done.stderr


AUTHOR = {
    f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "a"), ("EMAIL", "a@b"))
}


def test_a_run_is_compared_with_its_own_variant(tmp_path: Path) -> None:
    (loaded,) = load_recipes("quickstart", variants=["pd"], overrides=["objective.temperature=3"])
    (plan,) = make_plans([loaded], Profile(name="local"), tmp_path)
    run = RunDirectory(tmp_path / plan.directory)
    run.path.mkdir()
    run.plan.write_text(plan.model_dump_json(by_alias=True), encoding="utf-8")
    for source in (str(run.path), plan.directory):
        code, printed = _diff(source, "quickstart", "--root", str(tmp_path))
        assert code == 1
        assert [f["field"] for f in printed["runs"][0]["fields"]] == ["objective.temperature"]
        assert (printed["removed"], printed["added"]) == ([], [])
    done = pdforge("diff", "quickstart", str(run.path), "--set", "data.seed=1")
    assert done.returncode == 2
    assert "is a run" in done.stderr

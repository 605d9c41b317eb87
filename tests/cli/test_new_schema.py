"""`pdforge new` and `pdforge schema`, as processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.recipe.json_schema import schema_text
from pdforge.recipe.load import load_recipes
from tests.cli.pdforge_process import pdforge
from tests.recipe.sound import SOUND


@pytest.mark.parametrize("name", ["quickstart", "pd_star", "paper/schedules"])
def test_a_new_recipe_is_the_old_one_with_its_texts(tmp_path: Path, name: str) -> None:
    done = pdforge("new", "mine", "--from", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mine, theirs = load_recipes(str(tmp_path / "mine.yaml")), load_recipes(name)
    assert [each.variant for each in mine] == [each.variant for each in theirs]
    for own, other in zip(mine, theirs, strict=True):
        assert own.recipe == other.recipe.model_copy(update={"recipe": "mine"})
    text = (tmp_path / "mine.yaml").read_text()
    assert "# Tokens of one packed sequence." in text
    assert "  # Peak learning rate.\n" in text
    assert pdforge("validate", "mine.yaml", cwd=tmp_path).returncode == 0


def test_a_new_recipe_of_a_file_that_extends_and_sweeps(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SOUND)
    (tmp_path / "old.yaml").write_text("extends: base.yaml\nobjective: {temperature: 3}\nsweep: {seeds: 2}\n")
    assert pdforge("new", "mine", "--from", "old.yaml", cwd=tmp_path).returncode == 0
    mine = load_recipes(str(tmp_path / "mine.yaml"))
    assert [each.variant for each in mine] == ["seed-0", "seed-1"]
    assert mine[0].recipe.objective.temperature == 3


def test_new_overwrites_nothing_and_names_only_recipes(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("precious")
    done = pdforge("new", "mine", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "mine.yaml").read_text()) == (2, "precious")
    assert "mine.yaml exists" in done.stderr
    for arguments in (("../mine",), ("Mine",), ("other", "--out", "nowhere"), ("other", "--from", "nothing")):
        done = pdforge("new", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]


def test_a_broken_recipe_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(SOUND.replace("layers: 4", "layers: 0"))
    done = pdforge("new", "mine", "--from", "broken.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken.yaml:18:49" in done.stderr
    assert not (tmp_path / "mine.yaml").exists()


def test_schema(tmp_path: Path) -> None:
    done = pdforge("schema")
    assert done.stdout == schema_text()
    assert pdforge("schema", "--out", "s.json", cwd=tmp_path).stdout == ""
    assert json.loads((tmp_path / "s.json").read_text())["title"] == "pdforge recipe"
    assert pdforge("schema", "--reference").stdout.startswith("# Recipe reference\n")
    done = pdforge("schema", "--out", "nowhere/s.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot write nowhere/s.json" in done.stderr

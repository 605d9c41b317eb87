"""`pdforge show`, `explain` and `recipes`, as processes."""

from __future__ import annotations

import json
from pathlib import Path

from pdforge.recipe.load import gallery_names, load_recipes
from pdforge.recipe.rules import TOPICS
from tests.cli.pdforge_process import pdforge
from tests.recipe.sound import SOUND, load


def test_what_show_prints_is_the_same_recipe() -> None:
    done = pdforge("show", "pd_star", "--variant", "3.8b", "--set", "objective.temperature=1")
    (expected,) = load_recipes("pd_star", variants=["3.8b"], overrides=["objective.temperature=1"])
    assert load(done.stdout)[0].recipe == expected.recipe
    assert "weight_decay: 0.1" in done.stdout


def test_several_variants_are_several_documents() -> None:
    done = pdforge("show", "pd_star")
    first, *rest = done.stdout.split("\n---\n")
    assert [document.splitlines()[0] for document in (first, *rest)] == [
        "# pd_star-1.9b",
        "# pd_star-3.8b",
        "# pd_star-6.8b",
    ]
    loaded = load_recipes("pd_star")
    assert [load(document)[0].recipe for document in (first, *rest)] == [each.recipe for each in loaded]


def test_json(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(SOUND)
    printed = json.loads(pdforge("show", "r.yaml", "--json", cwd=tmp_path).stdout)
    assert printed["small"]["training"]["batch"] == {"global": 16, "micro": 8}
    printed = json.loads(pdforge("show", "r.yaml", "--json", "--origin", cwd=tmp_path).stdout)
    assert printed["small"]["training.batch.global"] == {"value": 16, "origin": "r.yaml:24:19"}
    assert printed["small"]["training.seed"] == {"value": 0, "origin": None}


def test_origins_name_file_option_and_default(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SOUND)
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nobjective: {alpha: 0.5}\n")
    done = pdforge("show", "mine.yaml", "--origin", "--set", "data.seed=3", cwd=tmp_path)
    origins = {line.split(": ")[0]: line.split("  # ")[1] for line in done.stdout.splitlines()}
    assert origins["student.architecture.hidden"] == "base.yaml:18:26"
    assert origins["objective.alpha.value"] == "mine.yaml:2:20"
    assert origins["data.seed"] == "--set data.seed"
    assert origins["training.log_every"] == origins["objective.loss.kind"] == "default"


def test_show_refuses_what_validate_refuses(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(SOUND.replace("layers: 4", "layers: 0"))
    done = pdforge("show", "r.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "layers is 0; it must be more than 0" in done.stderr
    assert "^" in done.stderr
    assert pdforge("show", "nowhere").returncode == 2


def test_explain() -> None:
    done = pdforge("explain", "pd153")
    assert done.returncode == 0
    assert done.stdout.startswith("PD153  warning  student far smaller than its teacher\n\n")
    assert "Table 11" in done.stdout
    assert [line.split()[0] for line in pdforge("explain").stdout.splitlines()] == list(TOPICS)
    assert json.loads(pdforge("explain", "PD001", "--json").stdout)["severity"] == "error"
    done = pdforge("explain", "PD15x")
    assert done.returncode == 2
    assert "did you mean PD1" in done.stderr


def test_recipes_lists_the_gallery_with_one_line_each() -> None:
    lines = pdforge("recipes", COLUMNS="60").stdout.splitlines()
    assert [line.split()[0] for line in lines] == gallery_names()
    assert "pd_star " in next(line for line in lines if "Best configuration of the design-space study" in line)
    printed = json.loads(pdforge("recipes", "--json").stdout)
    assert [row["name"] for row in printed["recipes"]] == gallery_names()
    assert next(row for row in printed["recipes"] if row["name"] == "quickstart")["variants"] == ["lm", "pd"]

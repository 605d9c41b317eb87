"""What `show` prints is the recipe: it loads to the same plan, with the same hash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.diagnostics import Place
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.dump import dump_recipe
from pdforge.recipe.load import LoadedRecipe, gallery_names, load_recipes
from pdforge.recipe.models import Recipe
from pdforge.recipe.suppress import Suppressions
from pdforge.recipe.tree import Mapping
from tests.recipe.generated import recipe
from tests.recipe.sound import load

PROFILE = Profile(name="local")
GENERATED = 1000
AT_ONCE = 50
QUICK = 100
"""The others are marked slow."""


def plan(loaded: LoadedRecipe) -> Plan:
    """Its plan; a corpus is named by what the recipe says of it, so that none has to be there."""
    [made] = make_plans([loaded], PROFILE, Path("/runs"), fingerprint_of=lambda corpora: str(list(corpora)))
    return made


def check(loaded: LoadedRecipe) -> None:
    (again,) = load(dump_recipe(loaded.recipe))
    assert again.recipe == loaded.recipe
    assert plan(again).hash == plan(loaded).hash


@pytest.mark.parametrize("name", gallery_names())
def test_the_gallery(name: str) -> None:
    for loaded in load_recipes(name):
        check(loaded)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's checkpoint that generated recipes name, in both formats. Its shape is none of theirs."""
    step = tmp_path / "checkpoint" / "step-1"
    step.mkdir(parents=True)
    (step / ".metadata").write_bytes(b"weights")
    (step.parent / "config.json").write_text("{}", encoding="utf-8")
    (step.parent / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("pdforge.plan.initialise._require_shape", lambda *_: None)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    "first", [pytest.param(n, marks=[pytest.mark.slow] if n >= QUICK else []) for n in range(0, GENERATED, AT_ONCE)]
)
def test_generated_recipes(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        made = Recipe.model_validate(recipe(seed))
        check(LoadedRecipe(made, None, "made", [], Mapping({}, Place("made")), Suppressions()))


def test_generated_recipes_are_what_a_file_may_hold() -> None:
    for seed in range(40):
        (loaded,) = load(json.dumps(recipe(seed), ensure_ascii=False))
        assert loaded.recipe == Recipe.model_validate(recipe(seed))


def test_generated_recipes_have_every_form() -> None:
    """The generator draws every kind, schedule and mode: a form that it forgets would be no part of the property."""
    tags: set[str] = set()
    for seed in range(GENERATED):
        tags |= set(_tags(Recipe.model_validate(recipe(seed)).model_dump(mode="json")))
    schema = Recipe.model_json_schema()["$defs"]
    known = {
        field["const"]
        for part in schema.values()
        for name, field in part["properties"].items()
        if name in ("kind", "schedule", "mode")
    }
    assert known - tags == set()


def _tags(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value[key] for key in ("kind", "schedule", "mode") if key in value]
        return own + [tag for each in value.values() for tag in _tags(each)]
    return [tag for each in value for tag in _tags(each)] if isinstance(value, list) else []

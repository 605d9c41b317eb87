"""A resolved recipe as a file loads to the same recipe."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdforge.recipe.dump import dump_recipe, recipe_values
from pdforge.recipe.load import gallery_names, load_recipes
from pdforge.recipe.models import Recipe
from tests.recipe.sound import SOUND, load


@pytest.mark.parametrize("name", gallery_names())
def test_gallery_recipes_survive_a_dump(name: str) -> None:
    for loaded in load_recipes(name):
        assert load(dump_recipe(loaded.recipe))[0].recipe == loaded.recipe
        assert Recipe.model_validate(recipe_values(loaded.recipe)) == loaded.recipe


RECIPE = load(SOUND)[0].recipe


@pytest.mark.parametrize(
    "character", ["\x00", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\U0001f600"]
)
def test_every_kind_of_character_survives_a_dump(character: str) -> None:
    for text in (character, f"a{character}b", f"{character}: # '\"", f"\n{character}\n"):
        recipe = RECIPE.model_copy(update={"description": text})
        assert load(dump_recipe(recipe))[0].recipe == recipe


@settings(max_examples=60, deadline=None)
@given(
    description=st.text(),
    rate=st.floats(min_value=1e-300, max_value=0.5),
    temperature=st.floats(min_value=1e-3, max_value=100),
    tokens=st.integers(min_value=1, max_value=2**63 - 1),
)
def test_any_text_and_any_number_survive_a_dump(description: str, rate: float, temperature: float, tokens: int) -> None:
    values = recipe_values(RECIPE)
    values["description"] = description
    values["training"]["optimizer"]["learning_rate"] = rate
    values["objective"]["temperature"] = temperature
    values["data"]["train_tokens"] = max(tokens, 2_000_000)
    recipe = Recipe.model_validate(values)
    assert load(dump_recipe(recipe))[0].recipe == recipe

"""Whatever is written: a recipe or typed findings, never another exception."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdforge.diagnostics import LONGEST, Diagnostic
from pdforge.errors import RecipeError
from pdforge.recipe.dump import recipe_values
from pdforge.recipe.rules import TOPICS
from tests.recipe import fuzz
from tests.recipe.sound import SOUND, findings, load

RECIPE = load(SOUND)[0].recipe
WORDS = [
    "kind",
    "schedule",
    "wsd",
    "constant",
    "text",
    "huggingface",
    "qwen3",
    "auto",
    "global",
    "1e-4",
    "10%",
    "100B",
    "yes",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-2, max_value=300),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(WORDS),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
)
SIGNS = [*": {}[]#&*!|>%@`\"',-?\n\t\0\ufeff\u2028τ", "<<: ", "---\n", "&a ", "*a", "!!int ", "0755", "~", "\\ud800"]


def outcome(text: str) -> None:
    """Load; anything but a recipe or findings with places fails the test."""
    found: list[Diagnostic] = []
    try:
        load(text, Path("/nonexistent"))
    except RecipeError as error:
        found = error.diagnostics or pytest.fail("an error without findings")
    for diagnostic in found:
        assert diagnostic.code in TOPICS
        assert diagnostic.message.strip()
        assert diagnostic.place.file == "recipe.yaml"
        assert 0 <= diagnostic.place.line <= len(text.splitlines()) + 1  # YAML breaks lines at \r and U+2028 too


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_recipes_with_any_value_anywhere(data: st.DataObject) -> None:
    values = recipe_values(RECIPE)
    for _ in range(data.draw(st.integers(1, 3))):
        node = values
        while True:
            key = data.draw(st.sampled_from(sorted(node)))
            if not isinstance(node[key], dict) or not node[key] or data.draw(st.integers(0, 3)) == 0:
                break
            node = node[key]
        match data.draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                node[key] = data.draw(VALUES)
            case "remove":
                del node[key]
            case "add":
                node[data.draw(st.sampled_from(WORDS) | st.text(max_size=5))] = data.draw(VALUES)
        if not values:
            break
    outcome(json.dumps(values, ensure_ascii=False))  # JSON is YAML, and quicker to write


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), edits=st.integers(1, 6))
def test_recipes_with_any_damage_to_their_text(seed: int, edits: int) -> None:
    chance, text = random.Random(seed), SOUND
    for _ in range(edits):
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice([*SIGNS, ""]) + text[at + chance.choice([0, 0, 1, 5]) :]
    outcome(text)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    outcome(text)


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_mutated_recipes_are_plans_or_findings(start: int, tmp_path: Path) -> None:
    """A few of what `python -m tests.recipe.fuzz 20000` tries; that also measures time and memory."""
    for seed in range(start, start + 50):
        fuzz.outcome(fuzz.mutated(seed), tmp_path)


@pytest.mark.parametrize(
    "text",
    ["%YAML 1.1\n---\na: no", "# c\n%TAG ! x\n---\na: 1", f"%YAML 1.{'1' * 9000}\n---\na: 1"],
)
def test_directives_are_refused_since_they_change_what_values_mean(text: str) -> None:
    (found,) = findings(text)
    assert (found.code, found.message) == ("PD001", "recipes have no directives")


def test_more_values_than_people_write_are_refused() -> None:
    (found,) = findings("a: [" + "1," * 20_000 + "]")
    assert (found.code, found.message) == ("PD001", "more than 10,000 keys and values")
    (found,) = findings(SOUND + "variants: {" + ", ".join(f"v{i}: {{}}" for i in range(2000)) + "}")
    assert "2000 runs" in found.message


def test_what_a_finding_quotes_is_cut() -> None:
    for text in (f"a: &{'x' * 5000} 1", f"{SOUND}{'k' * 900}: 1\n", f"{SOUND}extends: {'y' * 5000}\n"):
        (found,) = findings(text)
        assert 20 < len(found.message) <= LONGEST

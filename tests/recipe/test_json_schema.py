"""The JSON Schema takes what recipes are written like, and marks what no recipe can be; the written pages are fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pdforge.recipe.dump import recipe_values
from pdforge.recipe.gallery import gallery_directory, gallery_names
from pdforge.recipe.json_schema import recipe_schema, schema_text
from pdforge.recipe.load import load_recipes
from pdforge.recipe.reader import read_text
from pdforge.recipe.reference import reference
from pdforge.recipe.rules import TOPICS
from pdforge.recipe.tree import plain
from tests.recipe.sound import SOUND, spoil

DOCS = Path(__file__).parents[2] / "docs"
VALIDATOR = jsonschema.Draft202012Validator(recipe_schema())


def faults(text: str) -> list[str]:
    values: Any = plain(read_text(text, "recipe.yaml").root)
    return [error.json_path for error in VALIDATOR.iter_errors(values)]


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(recipe_schema())


@pytest.mark.parametrize("name", gallery_names())
def test_the_gallery_fits_as_written_and_resolved(name: str) -> None:
    assert faults((gallery_directory() / f"{name}.yaml").read_text(encoding="utf-8")) == []
    for loaded in load_recipes(name):
        assert list(VALIDATOR.iter_errors(recipe_values(loaded.recipe))) == []


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        "extends: [a.yaml, b.yaml]\nobjective: {temperature: {kind: wttm, gamma: 0.2}}\n",
        "extends: a.yaml\nvariants: {a: {training: {batch: {micro: 4}}}, b: }\n",
        "extends: a.yaml\nsweep: {grid: {data.seed: [1, 2]}, paired: [{name: x, data.seed: 1}], seeds: 3}\n",
        "extends: a.yaml\ntraining: {checkpoint: {interval: 1h30m}, tokens: 12.5M}\ndata: {corpus: {bytes: 2GiB}}\n",
        "extends: a.yaml\nobjective: {alpha: 90%, token_filter: {skip_lowest_entropy: 15%}}\n",
        "extends: a.yaml\nteacher: null\n",
    ],
)
def test_ways_to_write_a_recipe_fit(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (spoil("top_p: 0.95", "top_p: 1.5"), "$.teacher"),
        (spoil("top_p: 0.95", "topp: 0.95"), "$.teacher"),
        (spoil("layers: 4", "layers: 0"), "$.student.architecture.layers"),
        (spoil("layers: 4", "layers: four"), "$.student.architecture.layers"),
        (spoil("layers: 4", "layer: 4"), "$.student.architecture"),
        (spoil("kind: pretrain\n", "kind: pretrian\n"), "$.teacher"),
        (spoil("tokens: 600k", "tokens: 600 thousand"), "$.training.tokens"),
        (spoil("temperature: 1.0", "temperature: {kind: warm}"), "$.objective.temperature"),
        (SOUND + "finetun: {}\n", "$"),
        (SOUND + "variants: {A B: {}}\n", "$.variants"),
        (SOUND + "variants: {a: {objective: {temprature: 1}}}\n", "$.variants.a"),
        (SOUND + "sweep: {grid: {data.seed: 1}}\n", "$.sweep.grid['data.seed']"),
    ],
)
def test_mistakes_are_marked(text: str, path: str) -> None:
    assert faults(text) == [path]


def test_every_field_has_a_text() -> None:
    for name, part in recipe_schema()["$defs"].items():
        for field, schema in part.get("properties", {}).items():
            told = schema.get("description") or "const" in schema or "$ref" in schema
            assert told, f"{name}.{field}"


def test_the_published_schema_and_reference_are_fresh() -> None:
    again = (
        "run `pdforge schema --out docs/recipe.schema.json` and `pdforge schema --reference --out docs/reference.md`"
    )
    assert (DOCS / "recipe.schema.json").read_text(encoding="utf-8") == schema_text(), again
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference(), again


def test_the_reference_explains_every_code_and_links_to_what_is_there() -> None:
    page = reference()
    assert all(f"**{code}**" in page for code in TOPICS)
    for link in page.split("](#")[1:]:
        assert f'<a id="{link.partition(")")[0]}"></a>' in page

"""The resolved recipe as YAML: every default written out."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from pdforge.recipe.models import Recipe


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, under the names that a file uses; validates to an equal recipe."""
    return recipe.model_dump(mode="json", by_alias=True)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as a YAML file that loads to an equal recipe."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(recipe_values(recipe), stream)
    return stream.getvalue()

"""The resolved recipe as YAML: every default written out."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from pdforge.recipe.models import Recipe


class _Representer(SafeRepresenter):
    """ruamel writes some line breaks (U+0085) bare and reads them back as spaces: such text is quoted and escaped."""

    def text(self, value: str) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Representer.add_representer(str, _Representer.text)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, under the names that a file uses; validates to an equal recipe."""
    return recipe.model_dump(mode="json", by_alias=True)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as a YAML file that loads to an equal recipe."""
    return dump_values(recipe_values(recipe))


def dump_values(values: Any) -> str:
    """JSON values as YAML, mappings in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()

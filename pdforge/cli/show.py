"""`pdforge show`: a recipe with every default written out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pdforge.cli.options import JsonOption, RecipeArgument, SetOption, VariantOption
from pdforge.cli.render.as_json import to_json
from pdforge.recipe.dump import dump_recipe, recipe_values
from pdforge.recipe.load import LoadedRecipe, load_recipes
from pdforge.recipe.messages import quote
from pdforge.recipe.tree import FieldPath, Mapping, dotted, locate


def show_command(
    recipe: RecipeArgument,
    variant: VariantOption = None,
    overrides: SetOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value was written.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the resolved recipe, one YAML document a variant: what a run would be made of.

    ```
    pdforge show quickstart --variant pd
    pdforge show pd_star --variant 1.9b --set objective.temperature=1 --origin
    pdforge show quickstart --json
    ```
    """
    loaded = load_recipes(recipe, variants=variant or (), overrides=overrides or ())
    if as_json:
        sys.stdout.write(to_json({each.name: _values(each, origin) for each in loaded}) + "\n")
        return
    for number, each in enumerate(loaded):
        if len(loaded) > 1:
            sys.stdout.write(f"{'---' if number else ''}\n# {each.name}\n".lstrip("\n"))
        sys.stdout.write("".join(_origin_lines(each)) if origin else dump_recipe(each.recipe))


def _values(loaded: LoadedRecipe, origin: bool) -> dict[str, Any]:
    if not origin:
        return recipe_values(loaded.recipe)
    return {
        dotted(path): {"value": value, "origin": _origin(loaded, path)}
        for path, value in _leaves(recipe_values(loaded.recipe))
    }


def _origin_lines(loaded: LoadedRecipe) -> Iterator[str]:
    rows = [
        (f"{dotted(path)}: {_inline(value)}", _origin(loaded, path) or "default")
        for path, value in _leaves(recipe_values(loaded.recipe))
    ]
    width = min(60, max(len(left) for left, _ in rows))
    for left, right in rows:
        yield f"{left:<{width}}  # {right}\n"


def _origin(loaded: LoadedRecipe, path: FieldPath) -> str | None:
    """Where the value was written; None for a default. `alpha: 0.9` is the origin of what it is short for."""
    written, place, node = locate(loaded.tree, path)
    return None if written != path and isinstance(node, Mapping) else str(place)


def _leaves(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _inline(value: Any) -> str:
    return f"[{', '.join(map(quote, value))}]" if isinstance(value, list) else quote(value)

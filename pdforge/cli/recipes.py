"""`pdforge recipes`: the gallery."""

from __future__ import annotations

import sys

from pdforge.cli.options import JsonOption
from pdforge.cli.render.as_json import to_json
from pdforge.cli.render.plain import plural
from pdforge.recipe.gallery import gallery_directory, gallery_names
from pdforge.recipe.load import load_recipes


def recipes_command(as_json: JsonOption = False) -> None:
    """List the recipes that come with pdforge; every command takes their names.

    With how many runs each stands for; `--json` names their variants.

    ```
    pdforge recipes
    pdforge show quickstart
    ```
    """
    rows = []
    for name in gallery_names():
        loaded = load_recipes(name)
        variants = [each.variant for each in loaded if each.variant]
        rows.append({"name": name, "variants": variants, "description": loaded[0].recipe.description})
    if as_json:
        sys.stdout.write(to_json({"directory": str(gallery_directory()), "recipes": rows}) + "\n")
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        runs = plural(len(row["variants"]) or 1, "run")
        sys.stdout.write(f"{row['name']:<{width}}  {runs:>7}  {row['description']}\n")

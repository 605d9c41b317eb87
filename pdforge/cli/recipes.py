"""`pdforge recipes`: the gallery."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdforge.cli.options import JsonOption
from pdforge.cli.render.as_json import to_json
from pdforge.recipe.gallery import gallery_directory, gallery_names
from pdforge.recipe.load import load_recipes


def recipes_command(as_json: JsonOption = False) -> None:
    """List the recipes that come with pdforge; every command takes their names.

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
    table = Table("name", "variants", "description", box=None, pad_edge=False)
    for row in rows:
        table.add_row(Text(str(row["name"])), Text(", ".join(row["variants"])), Text(str(row["description"])))
    Console(highlight=False).print(table)

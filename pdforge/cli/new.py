"""`pdforge new`: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdforge.errors import UsageError
from pdforge.recipe.commented import commented_recipe
from pdforge.recipe.load import compose_recipe, load_recipes
from pdforge.recipe.units import check_name


def new_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the recipe; it is written to NAME.yaml.")],
    source: Annotated[
        str, typer.Option("--from", metavar="RECIPE", help="The recipe that it starts from, a file or of the gallery.")
    ] = "quickstart",
    directory: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder that it is written to.")
    ] = Path(),
) -> None:
    """Write a recipe with every field of another one and the text that says what it is.

    ```
    pdforge new mine                  # NAME.yaml here, from quickstart
    pdforge new mine --from pd_star
    ```
    """
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(f"the name is {name!r}; it must be {error}") from error
    load_recipes(source)  # whatever is wrong with it is told with its place
    text = commented_recipe(name, source, compose_recipe(source))
    file = directory / f"{name}.yaml"
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"{file} exists", remedy="choose another name, or delete it first") from error
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", remedy="name a writable folder") from error
    typer.echo(f"{file}: check it with `pdforge validate {file}`")

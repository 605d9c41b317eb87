"""`pdforge schema`: the recipe language for editors, and for readers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pdforge.errors import UsageError
from pdforge.recipe.json_schema import schema_text
from pdforge.recipe.reference import reference


def schema_command(
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there.")] = None,
    as_reference: Annotated[
        bool, typer.Option("--reference", help="The reference page in Markdown instead of the JSON Schema.")
    ] = False,
) -> None:
    """Print the JSON Schema of recipes: editors complete and explain fields with it.

    Example: `pdforge schema --out recipe.schema.json`, and as the first line of a recipe
    `# yaml-language-server: $schema=recipe.schema.json`
    """
    text = reference() if as_reference else schema_text()
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}", remedy="name a file in a writable folder") from error

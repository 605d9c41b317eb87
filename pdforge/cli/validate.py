"""`pdforge validate`: is a recipe sound?"""

from __future__ import annotations

from typing import Annotated

import typer

from pdforge.cli.check import Format, check_sources
from pdforge.cli.options import SetOption, VariantOption


def validate_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Files, directories, globs, gallery names, or `-` for stdin."),
    ],
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    output: Annotated[Format, typer.Option("--format", "-f", help="How findings are printed.")] = Format.TEXT,
    select: Annotated[
        list[str] | None, typer.Option("--select", metavar="CODE", help="Only these codes, or beginnings of codes.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="CODE", help="Not these codes, or beginnings of codes.")
    ] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 even if there are errors.")] = False,
) -> None:
    """Check recipes: syntax, fields, values, and what the literature advises against.

    Exits with 0 when there are no errors (warnings do not count), 1 when there are, 2 when a source cannot be read.
    In directories, files whose name starts with `_` are parts for `extends` and are left out.

    ```
    pdforge validate recipes/
    pdforge validate pd_star --set objective.temperature=5
    pdforge show quickstart --variant pd | pdforge validate - --format json
    pdforge validate recipes/ --format sarif > pdforge.sarif
    ```
    """
    code = check_sources(
        sources,
        variants=variant or (),
        overrides=overrides or (),
        output=output,
        select=select or (),
        ignore=ignore or (),
        exit_zero=exit_zero,
    )
    raise typer.Exit(code)

"""How a `PdforgeError` that ends a command looks: on stderr, never as a traceback."""

from __future__ import annotations

import sys

from pdforge.errors import PdforgeError, RecipeError


def print_error(error: PdforgeError) -> None:
    """Print the error to stderr: the findings of a `RecipeError` with their places, else the message and its remedy."""
    if isinstance(error, RecipeError):
        from pdforge.cli.render.text import print_diagnostics  # noqa: PLC0415

        print_diagnostics(sys.stderr, error.diagnostics)
        return
    from rich.console import Console  # noqa: PLC0415 - findings need no rich
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("error", "bold red"), f": {error.message}"))
    if error.remedy:
        console.print(Text.assemble("  ", ("help", "bold cyan"), f": {error.remedy}"))

"""How a `PdforgeError` that ends a command looks: on stderr, never as a traceback."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from pdforge.errors import PdforgeError, RecipeError


def print_error(error: PdforgeError) -> None:
    """Print the error to stderr: the findings of a `RecipeError` with their places, else the message and its remedy."""
    console = Console(stderr=True, soft_wrap=True)
    if isinstance(error, RecipeError):
        from pdforge.cli.render.text import print_diagnostics  # noqa: PLC0415

        print_diagnostics(console, error.diagnostics)
        return
    console.print(Text.assemble(("error", "bold red"), f": {error.message}"))
    if error.remedy:
        console.print(Text.assemble("  ", ("help", "bold cyan"), f": {error.remedy}"))

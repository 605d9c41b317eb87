"""A report in the terminal: a hundred columns, readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdforge.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console


WIDTH = 100
"""Columns of a report that no terminal's own are known for."""


def report_console() -> Console:
    """Where a report is printed: as wide as the terminal; in a pipe or a file as wide as the tables want."""
    from rich.console import Console  # noqa: PLC0415 - heavy, and only here

    console = Console()
    return console if console.is_terminal else Console(width=max(WIDTH, console.width))


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print the tables, each with its notes."""
    from rich.table import Table as Grid  # noqa: PLC0415 - heavy, and only here
    from rich.text import Text  # noqa: PLC0415

    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for position, column in enumerate(table.columns):
            grid.add_column(Text(column), justify="right" if position else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(*map(Text, row))
        console.print(grid)
        for note in table.notes:
            console.print(Text(note, style="dim"))

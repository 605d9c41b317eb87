"""The page of a plan on a terminal of a hundred columns, readable without colour."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.table import Table as RichTable
from rich.text import Text

from pdforge.cli.render.sections import Drawn, Section, Table
from pdforge.plan.curves import Curve

if TYPE_CHECKING:
    from rich.console import Console

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 72, 3
_LABEL = 8


def print_sections(title: str, heading: Sequence[str], sections: Sequence[Section], console: Console) -> None:
    """Print a page."""
    name, _, rest = title.partition("  ")
    console.print(Text.assemble((name, "bold"), f"  {rest}" if rest else ""))
    for line in heading:
        console.print(Text(line, "dim" if line is not heading[-1] else ""))
    for section in sections:
        console.print()
        _print(section, console)


def _print(section: Section, console: Console) -> None:
    if section.table is None:
        console.print(Text(section.title, "bold"))
    for line in section.lines:
        console.print(Text(f"  {line}"))
    if section.table is not None:
        console.print(_table(section.table))
    for drawn in section.drawn:
        _print_curve(drawn, console)
    for note in section.notes:
        console.print(Text(note, "green" if note.startswith("✓") else ""))
    for warning in section.warnings:
        console.print(Text(warning, "yellow"))


def _table(table: Table) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in table.columns:
        shown.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not column.wide,
            overflow="fold" if column.wide else "ellipsis",
        )
    for row in table.rows:
        style = "dim" if row.dim else "bold" if row.strong else ""
        shown.add_row(*map(Text, row.cells), style=style)
    return shown


def _print_curve(drawn: Drawn, console: Console) -> None:
    label = {"learning rate": "lr"}.get(drawn.label, drawn.label)
    indent = " " * (2 + _LABEL)
    for number, line in enumerate(wrap(drawn.words, console.width - len(indent)) or [""]):
        console.print(Text(f"  {label:{_LABEL}}{line}" if number == 0 else f"{indent}{line}"))
    if len(set(drawn.curve.values)) > 1:
        for line in plot(drawn.curve):
            console.print(Text(f"{indent}{line}", "cyan"))


def plot(curve: Curve, width: int = _WIDTH, height: int = _HEIGHT) -> list[str]:
    """A curve from 0 to its largest value in block characters, one column for each of `width` steps."""
    top = max(curve.values)
    values = [_at(curve, 1 + place * (curve.steps[-1] - 1) / (width - 1)) for place in range(width)]
    eighths = [round(value / top * 8 * height) for value in values]
    return [
        "".join(_BLOCKS[min(8, max(0, each - 8 * level))] for each in eighths).rstrip()
        for level in reversed(range(height))
    ]


def _at(curve: Curve, step: float) -> float:
    """The curve's value at the last of its points that is not after the step."""
    return curve.values[bisect_right(curve.steps, step) - 1]
